import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { countLines, type LogOutput, type LostLine } from './output.ts';

export interface RotatingFileOptions {
  readonly path: string;
  /** A file is rotated before it would become larger, unless one line alone is. */
  readonly maxBytes: number;
  /** How many rotated files stay: `path`.1 is the youngest. */
  readonly keep: number;
  /** The first line that each start and each rotation writes. */
  firstLine(): string;
  readonly lostLine: LostLine;
  /** Called with the error code when writing begins to fail. */
  onFailure(code: string): void;
}

/** A log file of mode 0600 that stays within its size: `path`, `path`.1, `path`.2, … */
export class RotatingFile implements LogOutput {
  readonly #options: RotatingFileOptions;
  #fd: number | undefined;
  #size = 0;
  #lost = 0;
  #isFailing = false;

  constructor(options: RotatingFileOptions) {
    this.#options = options;
    this.#append('');
  }

  write(lines: string): void {
    const fits = this.#size + Buffer.byteLength(lines) <= this.#options.maxBytes;
    for (const unit of fits ? [lines] : eachLine(lines)) {
      const notice = this.#lost > 0 ? this.#options.lostLine(this.#lost) : '';
      if (this.#append(notice + unit)) this.#lost = 0;
      else this.#lost += countLines(unit);
    }
  }

  finish(): void {
    this.#close();
  }

  /** Writes the lines in one piece or not at all; returns whether it did. */
  #append(lines: string): boolean {
    const bytes = Buffer.from(lines);
    try {
      this.#fd ??= this.#open();
      if (this.#size + bytes.length > this.#options.maxBytes) {
        this.#rotate(this.#fd);
        this.#fd = this.#open();
      }
      this.#writeAll(this.#fd, bytes);
      this.#isFailing = false;
      return true;
    } catch (error) {
      // A full or read-only disk, a directory that is gone: the next write tries anew.
      const { code = 'unknown' } = error as NodeJS.ErrnoException;
      if (code !== 'ENOSPC' && code !== 'EDQUOT') this.#close();
      if (!this.#isFailing) this.#options.onFailure(code);
      this.#isFailing = true;
      return false;
    }
  }

  #open(): number {
    // Not through a link: the directory may be one that others can write to.
    const { O_APPEND, O_CREAT, O_NOFOLLOW, O_RDWR } = constants;
    const fd = openSync(this.#options.path, O_APPEND | O_CREAT | O_NOFOLLOW | O_RDWR, 0o600);
    try {
      fchmodSync(fd, 0o600);
      this.#size = removeIncompleteLine(fd);
      this.#writeAll(fd, Buffer.from(this.#options.firstLine()));
      return fd;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  #rotate(fd: number): void {
    const { path, keep } = this.#options;
    try {
      for (let n = keep; n > 1; n--) renameIfThere(`${path}.${n - 1}`, `${path}.${n}`);
      if (keep > 0) renameIfThere(path, `${path}.1`);
      else rmSync(path, { force: true });
    } catch {
      // The size is kept even where files cannot be renamed.
      ftruncateSync(fd);
    }
    this.#close();
  }

  #writeAll(fd: number, bytes: Uint8Array): void {
    let written = 0;
    try {
      while (written < bytes.length) written += writeSync(fd, bytes, written);
      this.#size += written;
    } catch (error) {
      if (written > 0) ftruncateSync(fd, this.#size);
      throw error;
    }
  }

  #close(): void {
    const fd = this.#fd;
    this.#fd = undefined;
    try {
      if (fd !== undefined) closeSync(fd);
    } catch {
      // The descriptor is gone all the same.
    }
  }
}

/** No line is longer than this, far from it. */
const TAIL_SIZE = 64 * 1024;

/** Cuts off what a power cut left of a last line; returns the size of the file. */
function removeIncompleteLine(fd: number): number {
  const { size } = fstatSync(fd);
  const tail = Buffer.alloc(Math.min(size, TAIL_SIZE));
  const read = readSync(fd, tail, 0, tail.length, size - tail.length);
  const complete = size - tail.length + tail.subarray(0, read).lastIndexOf('\n') + 1;
  if (complete < size) ftruncateSync(fd, complete);
  return complete;
}

function eachLine(lines: string): readonly string[] {
  return lines.match(/.*\n/g) ?? [];
}

function renameIfThere(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}
