#!/usr/bin/env node
/** `npm run build`: everything that is built for this machine, and what the bundles weigh. */
import { stat } from 'node:fs/promises';
import { relative } from 'node:path';
import { buildAssembly } from './assembly.mjs';
import { bundle, bundles } from './bundle.mjs';
import { buildNative } from './native.mjs';
import { root } from './paths.mjs';
import { weigh } from './weight.mjs';

await buildAssembly();
const native = await buildNative();
console.log(`${relative(root, native)}  ${(await stat(native)).size} bytes\n`);

let unexplained = false;
for (const name of Object.keys(bundles)) {
  const { path, metafile } = await bundle(name);
  const weight = await weigh(path, metafile);
  console.log(weight.table);
  if (weight.unexplained.length > 0) {
    unexplained = true;
    console.error(
      `no reason in openwrt/build/dependencies.json for: ${weight.unexplained.join(', ')}`,
    );
  }
}
if (unexplained) process.exitCode = 1;
