import type { Files } from '../core/plugin/files.ts';
import { CommandError } from './exit-code.ts';

/** Reads a file of the state directory, `undefined` where there is none. */
export function readStateFile(files: Files, name: string): Uint8Array | undefined {
  try {
    return files.read(name);
  } catch (error) {
    const { code = String(error) } = error as NodeJS.ErrnoException;
    const isForbidden = code === 'EACCES' || code === 'EPERM';
    throw new CommandError(
      isForbidden ? 'not-permitted' : 'failure',
      `cannot read ${name} in the state directory (${code})${
        isForbidden ? ': run culvert as root, or name another directory with --state-dir' : ''
      }`,
      { cause: error },
    );
  }
}
