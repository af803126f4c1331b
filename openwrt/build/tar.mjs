/**
 * Packs entries into a tar archive (POSIX.1-1988 ustar) in their order. It depends on nothing but its
 * arguments: all belongs to root and bears one time.
 *
 * Entries are `{ path, mode, contents }`, with paths such as `etc/config/culvert`, and a final slash
 * and no contents for a folder; `mtime` is in seconds since 1970.
 */
export function tar(entries, mtime) {
  return Buffer.concat([
    ...entries.flatMap(({ path, mode, contents = '' }) => {
      const bytes = Buffer.from(contents);
      return [header(`./${path}`, mode, bytes.length, mtime), bytes, padding(bytes.length)];
    }),
    Buffer.alloc(2 * BLOCK),
  ]);
}

/** Adds the folders above the files, and sorts by path. */
export function tree(files) {
  const folders = new Set(files.flatMap(({ path }) => foldersAbove(path)));
  const entries = [...files, ...[...folders].map((path) => ({ path, mode: 0o755 }))];
  return entries.sort((a, b) => (a.path < b.path ? -1 : 1));
}

const BLOCK = 512;

function foldersAbove(path) {
  const parts = path.split('/');
  return parts.map((_, depth) =>
    parts
      .slice(0, depth)
      .map((part) => `${part}/`)
      .join(''),
  );
}

function header(path, mode, size, mtime) {
  if (Buffer.byteLength(path) > 100) throw new Error(`too long for a tar header: ${path}`);
  const block = Buffer.alloc(BLOCK);
  block.write(path, 0);
  block.write(octal(mode, 7), 100);
  block.write(octal(0, 7), 108); // user
  block.write(octal(0, 7), 116); // group
  block.write(octal(size, 11), 124);
  block.write(octal(mtime, 11), 136);
  block.write(' '.repeat(8), 148); // the checksum counts itself as blanks
  block.write(path.endsWith('/') ? '5' : '0', 156);
  block.write('ustar\0', 257);
  block.write('00', 263);
  block.write('root', 265);
  block.write('root', 297);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${octal(sum, 6)}\0 `, 148);
  return block;
}

function padding(size) {
  return Buffer.alloc((BLOCK - (size % BLOCK)) % BLOCK);
}

function octal(value, digits) {
  return value.toString(8).padStart(digits, '0');
}
