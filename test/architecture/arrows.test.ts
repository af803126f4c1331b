import { readFileSync } from 'node:fs';
import { sourceFiles } from './source-files.ts';
import t from 'tap';
import { brokenArrows } from './arrows.ts';

const packages = new Set(['mqtt', 'valibot', '@noble/hashes']);

await t.test(
  'every import of the product follows the arrows, and core has no cycles',
  async (t) => {
    const { dependencies } = JSON.parse(readFileSync('package.json', 'utf8')) as {
      dependencies: Record<string, string>;
    };
    const sources = ['core', 'plugins', 'openwrt']
      .flatMap((folder) => sourceFiles(folder, '.ts'))
      .map((path) => ({ path, text: readFileSync(path, 'utf8') }));
    t.ok(sources.length > 20, `${sources.length} files were read`);
    t.same(brokenArrows(sources, new Set(Object.keys(dependencies))), []);
  },
);

await t.test('imports that follow the arrows pass', async (t) => {
  const good = [
    file('core/net/a.ts', `import { b } from '../sansio/b.ts';`),
    file('core/config/schema.ts', `import * as v from 'valibot';`),
    file('plugins/uci/index.ts', `import './parse.ts'; import { a } from '../../core/net/a.ts';`),
    file('plugins/uci/parse.ts', `import { readFileSync } from 'node:fs';`),
    file('plugins/crypto/index.ts', `import { sha256 } from '@noble/hashes/sha2.js';`),
    file('openwrt/router.ts', `import { uci } from '../plugins/uci/index.ts';`),
    file('openwrt/fast-path.ts', `import simd from '../dist/fastpath-simd.wasm';`),
  ];
  t.same(brokenArrows(good, packages), []);
});

await t.test('each import against the arrows is found', async (t) => {
  const violations: [path: string, text: string, why: RegExp][] = [
    ['core/net/a.ts', `import { uci } from '../../plugins/uci/index.ts';`, /nothing but core/],
    ['core/net/a.ts', `import type { Uci } from '../../plugins/uci/index.ts';`, /nothing but core/],
    ['core/net/a.ts', `export * from '../../openwrt/router.ts';`, /nothing but core/],
    ['core/net/a.ts', `const x = await import('../../test/x.ts');`, /nothing but core/],
    ['core/net/a.ts', `import { readFileSync } from 'node:fs';`, /no Node/],
    ['core/net/a.ts', `import fs from 'fs';`, /no Node/],
    ['core/net/a.ts', `import mqtt from 'mqtt';`, /impure package/],
    ['plugins/uci/a.ts', `import { x } from '../ubus/index.ts';`, /itself and core/],
    ['plugins/uci/a.ts', `import { x } from '../uci-other/index.ts';`, /itself and core/],
    ['plugins/uci/a.ts', `import { x } from '../../openwrt/router.ts';`, /itself and core/],
    ['plugins/uci/a.ts', `import { x } from '../../test/x.ts';`, /itself and core/],
    ['plugins/uci/a.ts', `import aedes from 'aedes';`, /not among the dependencies/],
    ['plugins/uci/a.ts', `import fs from 'fs';`, /not among the dependencies/],
    ['plugins/uci/a.ts', `import { x } from '../../../elsewhere/x.ts';`, /outside/],
    ['openwrt/router.ts', `import { x } from '../test/lab/namespaces.ts';`, /no tests/],
  ];
  for (const [path, text, why] of violations) {
    const [broken, ...more] = brokenArrows([file(path, text)], packages);
    t.match(broken, why, `${path}: ${text}`);
    t.same(more, []);
  }
});

await t.test('a cycle inside core is found, however long', async (t) => {
  const cycle = [
    file('core/a/a.ts', `import { b } from '../b/b.ts';`),
    file('core/b/b.ts', `import './c.ts';`),
    file('core/b/c.ts', `export { a } from '../a/a.ts';`),
  ];
  t.same(brokenArrows(cycle, packages), [
    'cycle: core/a/a.ts → core/b/b.ts → core/b/c.ts → core/a/a.ts',
  ]);
  const onlyTypes = file('core/b/c.ts', `import type {\n  A,\n} from '../a/a.ts';`);
  t.same(brokenArrows([...cycle.slice(0, 2), onlyTypes], packages), []);
});

function file(path: string, text: string): { path: string; text: string } {
  return { path, text };
}
