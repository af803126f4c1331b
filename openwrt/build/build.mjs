#!/usr/bin/env node
/** `npm run build`: everything that is built for this machine, and what the bundles weigh. */
import { stat } from 'node:fs/promises';
import { relative } from 'node:path';
import { buildAssembly } from './assembly.mjs';
import { bundle, bundles } from './bundle.mjs';
import { command } from './command.mjs';
import { buildNative } from './native.mjs';
import { root } from './paths.mjs';
import { weigh } from './weight.mjs';

await command(async () => {
  await buildAssembly();
  const native = await buildNative();
  console.log(`${relative(root, native)}  ${(await stat(native)).size} bytes\n`);
  for (const name of Object.keys(bundles)) {
    const { path, metafile } = await bundle(name);
    const { table, unexplained } = await weigh(path, metafile);
    console.log(table);
    if (unexplained.length > 0) {
      throw new Error(
        `no reason in openwrt/build/dependencies.json for: ${unexplained.join(', ')}`,
      );
    }
  }
});
