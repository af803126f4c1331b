import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { files, type Files } from '../../core/plugin/files.ts';
import type { PluginDefinition } from '../../core/plugin/plugin.ts';
import type { Log } from '../../core/sansio/log.ts';
import { BugError, failed, ok, type Outcome } from '../../core/sansio/outcome.ts';

/** Returns a plugin that keeps the daemon's documents in `directory`, and removes what a crash left there. */
export function createFiles(options: { readonly directory: string }): PluginDefinition<Files> {
  return {
    name: 'platform-files',
    provides: files,
    needs: [],
    create(host) {
      removeUnfinished(options.directory, host.log);
      return { api: openFiles(options.directory, host.log), stop: () => undefined };
    },
  };
}

/**
 * Opens the state directory, which the first write makes in a parent that exists. Reading throws where a
 * file is there but cannot be read: a key that is taken for absent would be replaced by a new one.
 */
export function openFiles(directory: string, log: Log): Files {
  return new StateDirectory(directory, log);
}

/** For the daemon alone: a command beside it would remove what the daemon is writing. */
function removeUnfinished(directory: string, log: Log): void {
  for (const name of unfinishedFiles(directory)) {
    try {
      unlinkSync(join(directory, name));
    } catch (error) {
      log.warn('leftover file could not be removed', { code: codeOf(error) });
    }
  }
}

class StateDirectory implements Files {
  readonly #directory: string;
  readonly #log: Log;

  constructor(directory: string, log: Log) {
    this.#directory = directory;
    this.#log = log;
  }

  read(name: string): Uint8Array | undefined {
    try {
      return new Uint8Array(readFileSync(this.#path(name)));
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return undefined;
      throw error;
    }
  }

  write(name: string, bytes: Uint8Array): Outcome<void, 'not-writable'> {
    const path = this.#path(name);
    const unfinished = join(this.#directory, `.${name}${UNFINISHED}`);
    try {
      if (holds(path, bytes)) return ok(undefined);
      makeDirectory(this.#directory);
      writeDurably(unfinished, bytes);
      renameSync(unfinished, path);
      syncDirectory(this.#directory);
      return ok(undefined);
    } catch (error) {
      this.#log.warn('file could not be written', { file: name, code: codeOf(error) });
      removeIfThere(unfinished);
      return failed('not-writable');
    }
  }

  remove(name: string): void {
    if (removeIfThere(this.#path(name))) syncDirectory(this.#directory);
  }

  #path(name: string): string {
    if (!/^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name)) throw new BugError('not a plain file name');
    return join(this.#directory, name);
  }
}

const UNFINISHED = '.unfinished';

function unfinishedFiles(directory: string): readonly string[] {
  try {
    return readdirSync(directory).filter(
      (name) => name.startsWith('.') && name.endsWith(UNFINISHED),
    );
  } catch {
    return [];
  }
}

/** Whether the file has these bytes; its mode is put right on the way. */
function holds(path: string, bytes: Uint8Array): boolean {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  } catch {
    return false;
  }
  try {
    const { mode, size } = fstatSync(fd);
    if (size !== bytes.length || !readFileSync(fd).equals(bytes)) return false;
    if ((mode & 0o777) !== 0o600) fchmodSync(fd, 0o600);
    return true;
  } finally {
    closeSync(fd);
  }
}

/** Not recursive: Node.js never returns from that where the kernel answers ENOENT, as in /proc. */
function makeDirectory(path: string): void {
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error;
  }
}

function writeDurably(path: string, bytes: Uint8Array): void {
  removeIfThere(path);
  const fd = openSync(path, 'wx', 0o600);
  try {
    writeFileSync(fd, bytes);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Makes a rename or an unlink survive a power cut. */
function syncDirectory(directory: string): void {
  const fd = openSync(directory, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function removeIfThere(path: string): boolean {
  try {
    unlinkSync(path);
    return true;
  } catch {
    return false;
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : String(error);
}
