import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';

/**
 * Returns the path of the native file: beside the bundle as a package installs it, or in the folder
 * where the build puts one per processor.
 */
export function nativeFile(): string {
  const directory = dirname(process.argv[1] ?? '.');
  const installed = join(directory, 'culvert.node');
  return existsSync(installed)
    ? installed
    : join(directory, 'native', `culvert-${process.arch}.node`);
}
