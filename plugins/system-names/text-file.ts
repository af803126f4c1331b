import { closeSync, constants, fstatSync, openSync, readdirSync, readSync } from 'node:fs';
import { join } from 'node:path';

/** Of a directory; the rest is left out. */
export const MOST_FILES = 64;

/**
 * Returns the text of a file up to `most` bytes, and then of whole lines alone: half a name is another
 * name. A file that is missing is empty; so is what is none, which could block (a FIFO). Throws where it
 * is there and cannot be read.
 */
export function readText(path: string, most: number): string {
  const fd = unlessMissing(() =>
    openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY),
  );
  if (fd === undefined) return '';
  try {
    if (!fstatSync(fd).isFile()) return '';
    const bytes = Buffer.alloc(Math.min(fstatSync(fd).size, most) + 1);
    const length = fill(fd, bytes);
    if (length < bytes.length) return bytes.toString('utf8', 0, length);
    return bytes.toString('utf8', 0, bytes.lastIndexOf(NEWLINE) + 1);
  } finally {
    closeSync(fd);
  }
}

/** Returns the files of a directory by name, without those that an editor or a daemon is writing. */
export function filesIn(directory: string): readonly string[] {
  const names = unlessMissing(() => readdirSync(directory)) ?? [];
  return names
    .filter((name) => !/^[.#]|~$/.test(name))
    .sort()
    .slice(0, MOST_FILES)
    .map((name) => join(directory, name));
}

/** Calls for what may not be there. */
export function unlessMissing<T>(call: () => T): T | undefined {
  try {
    return call();
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw error;
  }
}

const NEWLINE = 0x0a;

/** A read may return less than there is. */
function fill(fd: number, bytes: Buffer): number {
  let length = 0;
  while (length < bytes.length) {
    const count = readSync(fd, bytes, length, bytes.length - length, null);
    if (count === 0) break;
    length += count;
  }
  return length;
}
