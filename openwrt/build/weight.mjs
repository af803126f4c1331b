import { readFile } from 'node:fs/promises';
import { relative } from 'node:path';
import { gzipSync } from 'node:zlib';
import { root } from './paths.mjs';

/**
 * Splits the bytes of a bundle by npm package. Returns a table for people, and the names of the
 * packages for which dependencies.json has no reason.
 */
export async function weigh(path, metafile) {
  const reasons = JSON.parse(await readFile(new URL('dependencies.json', import.meta.url), 'utf8'));
  const bytes = await readFile(path);
  const packages = packageBytes(metafile);
  const own = packages.get(undefined) ?? 0;
  packages.delete(undefined);
  const sorted = [...packages].sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1));
  const rows = [
    [relative(root, path), bytes.length, `${gzipSync(bytes, { level: 9 }).length} gzipped`],
    ['  own code', own, ''],
    ...sorted.map(([name, size]) => [`  ${name}`, size, reasons[name] ?? 'NO REASON GIVEN']),
  ];
  return {
    table: rows.map(formatRow).join('\n') + '\n',
    unexplained: sorted.map(([name]) => name).filter((name) => reasons[name] === undefined),
  };
}

/** Bytes in the output per npm package; our own under `undefined`. */
function packageBytes(metafile) {
  const packages = new Map();
  for (const output of Object.values(metafile.outputs)) {
    for (const [input, { bytesInOutput }] of Object.entries(output.inputs)) {
      const name = packageName(input);
      if (bytesInOutput > 0) packages.set(name, (packages.get(name) ?? 0) + bytesInOutput);
    }
  }
  return packages;
}

function packageName(input) {
  return /^.*node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input)?.[1];
}

function formatRow([name, size, remark]) {
  return `${name.padEnd(28)}${String(size).padStart(8)}  ${remark}`.trimEnd();
}
