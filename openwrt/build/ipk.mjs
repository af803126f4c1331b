import { constants, gzipSync } from 'node:zlib';
import { tar, tree } from './tar.mjs';

/**
 * Returns the bytes of an opkg package, as OpenWrt's `scripts/ipkg-build` makes them: a gzipped tar
 * of debian-binary, data.tar.gz and control.tar.gz. Equal arguments give equal bytes.
 *
 * `control` are the fields of the control file in order; `conffiles` the absolute paths of which opkg
 * keeps what the user changed; `scripts` maps `postinst`, `prerm` and the like to shell text; `files`
 * are entries for tar.mjs, without folders.
 */
export function ipk({ control, conffiles, scripts, files, mtime }) {
  const administration = [
    { path: 'control', mode: 0o644, contents: formatFields(control) },
    { path: 'conffiles', mode: 0o644, contents: conffiles.map((path) => `${path}\n`).join('') },
    ...Object.entries(scripts).map(([path, contents]) => ({ path, mode: 0o755, contents })),
  ];
  const members = [
    { path: 'debian-binary', mode: 0o644, contents: '2.0\n' },
    { path: 'data.tar.gz', mode: 0o644, contents: gzip(tar(tree(files), mtime)) },
    { path: 'control.tar.gz', mode: 0o644, contents: gzip(tar(tree(administration), mtime)) },
  ];
  return gzip(tar(members, mtime));
}

function formatFields(fields) {
  return Object.entries(fields)
    .map(([name, value]) => `${name}: ${value}\n`)
    .join('');
}

/** RFC 1952 without a name or time, and with "unknown" where zlib writes the system it runs on. */
function gzip(bytes) {
  const compressed = gzipSync(bytes, { level: constants.Z_BEST_COMPRESSION });
  compressed[9] = 255;
  return compressed;
}
