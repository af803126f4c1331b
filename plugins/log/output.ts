import { constants, fstatSync, openSync, writeSync } from 'node:fs';

/** Where lines go. Nothing here throws: a log that cannot be written must not end the daemon. */
export interface LogOutput {
  /** Takes whole lines. */
  write(lines: string): void;
  /** Writes what waits, before the process ends. */
  finish(): void;
}

/** Returns the line that tells how many were lost before it. */
export type LostLine = (count: number) => string;

/** Lines wait for a slow reader up to this many bytes; above it, new ones are lost. */
const LARGEST_BACKLOG = 256 * 1024;
const RETRY_INTERVAL_MS = 50;
/** What a slow reader may hold up the end of the process for. */
const LAST_TRIES = 20;
const LAST_TRY_INTERVAL_MS = 5;

/**
 * Writes to a descriptor that was opened for us, standard output. A pipe that is full, as procd's may be,
 * holds up nothing; a socket that is full, as systemd's may be, blocks until it is read.
 */
export class DescriptorOutput implements LogOutput {
  readonly #fd: number;
  readonly #lostLine: LostLine;
  #backlog: Uint8Array = Buffer.alloc(0);
  #lost = 0;
  #isClosed = false;
  #retry: NodeJS.Timeout | undefined;

  constructor(fd: number, lostLine: LostLine) {
    this.#fd = withoutBlocking(fd);
    this.#lostLine = lostLine;
  }

  write(lines: string): void {
    if (this.#isClosed) return;
    if (this.#backlog.length > LARGEST_BACKLOG) {
      this.#lost += countLines(lines);
      return;
    }
    const notice = this.#lost > 0 ? this.#lostLine(this.#lost) : '';
    this.#lost = 0;
    this.#backlog = Buffer.concat([this.#backlog, Buffer.from(notice + lines)]);
    this.#drain();
  }

  finish(): void {
    for (let tries = 0; this.#backlog.length > 0 && tries < LAST_TRIES; tries++) {
      if (tries > 0) sleep(LAST_TRY_INTERVAL_MS);
      this.#drain();
    }
    clearTimeout(this.#retry);
  }

  #drain(): void {
    try {
      while (this.#backlog.length > 0) {
        this.#backlog = this.#backlog.subarray(writeSync(this.#fd, this.#backlog));
      }
    } catch (error) {
      if (isTemporary(error)) this.#retryLater();
      else {
        // EPIPE and its like: nobody will read here any more.
        this.#isClosed = true;
        this.#backlog = Buffer.alloc(0);
      }
    }
  }

  #retryLater(): void {
    if (this.#retry !== undefined) return;
    this.#retry = setTimeout(() => {
      this.#retry = undefined;
      this.#drain();
    }, RETRY_INTERVAL_MS);
    this.#retry.unref();
  }
}

/** Opens a pipe anew, because the flag would be shared with all who hold the descriptor. */
function withoutBlocking(fd: number): number {
  try {
    if (!fstatSync(fd).isFIFO()) return fd;
    return openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK);
  } catch {
    // No such descriptor, or no /proc: writing shows whether it works.
    return fd;
  }
}

export function countLines(lines: string): number {
  let count = 0;
  for (let at = lines.indexOf('\n'); at >= 0; at = lines.indexOf('\n', at + 1)) count++;
  return count;
}

/** A full pipe, an interrupted call, a full disk behind a redirection: the next write may succeed. */
function isTemporary(error: unknown): boolean {
  const { code = '' } = error as NodeJS.ErrnoException;
  return ['EAGAIN', 'EINTR', 'ENOSPC', 'EDQUOT'].includes(code);
}

function sleep(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}
