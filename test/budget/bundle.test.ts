import { execFileSync } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import t from 'tap';
import { buildAssembly } from '../../openwrt/build/assembly.mjs';
import { bundle } from '../../openwrt/build/bundle.mjs';
import { weigh } from '../../openwrt/build/weight.mjs';

/** What a router with 128 MB of flash can spare, next to 25 MB of Node.js. */
const ROUTER_BYTES = 700_000;

/** Packages that have no business on a router, and what they would cost or break. */
const FORBIDDEN = {
  socks: 'no proxies for MQTT: 35 KB with ip-address',
  'ip-address': 'core/net parses addresses',
  'readable-stream': 'a copy of node:stream: 90 KB',
  debug: 'the log is injected',
  '@noble/curves': 'node:crypto has the curves: 32 KB with what it needs',
  'lru-cache': 'a map will do for what mqtt never does: 16 KB',
  'worker-timers': 'timers for browsers',
  aedes: 'a broker, for the demo and tests',
  yaml: 'fleet.yaml is read by the operator',
  'node-netlink': 'an independent reader, for tests',
  'fast-check': 'tests',
};

await buildAssembly();
const router = await bundle('router', { directory: t.testdir() });
const { output, packages } = contents(router.metafile);

await t.test(`the router's bundle stays within ${ROUTER_BYTES} bytes`, async (t) => {
  const { size } = statSync(router.path);
  t.comment(`${size} bytes`);
  t.ok(size <= ROUTER_BYTES, `${size} bytes`);
});

await t.test('it requires nothing but what Node.js brings', async (t) => {
  t.ok(output.imports.length > 0);
  t.same(
    output.imports.map(({ path }) => path).filter((path) => !isBuiltin(path)),
    [],
  );
});

await t.test('it holds the packages that do the work, and none that is forbidden', async (t) => {
  for (const name of ['mqtt', 'valibot', '@noble/hashes']) {
    t.ok(packages.has(name), name);
  }
  for (const [name, why] of Object.entries(FORBIDDEN)) t.notOk(packages.has(name), why);
});

await t.test('every package in it has a reason', async (t) => {
  const { unexplained, table } = await weigh(router.path, router.metafile);
  t.same(unexplained, [], table);
  const foreign = { ...router.metafile, outputs: { x: inputs('node_modules/left-pad/index.js') } };
  t.same((await weigh(router.path, foreign)).unexplained, ['left-pad'], 'one without is found');
});

await t.test('equal sources give equal bytes, wherever they are written', async (t) => {
  const again = await bundle('router', { directory: t.testdir() });
  t.ok(readFileSync(again.path).equals(readFileSync(router.path)));
});

await t.test('it runs by itself and knows its version', async (t) => {
  const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };
  t.match(execFileSync(router.path, ['version'], { encoding: 'utf8' }), version);
});

await t.test('the operator’s bundle runs by itself too', async (t) => {
  const fleet = await bundle('fleet', { directory: t.testdir() });
  const required = contents(fleet.metafile).output.imports.map(({ path }) => path);
  t.same(
    required.filter((path) => !isBuiltin(path)),
    [],
  );
  t.ok(statSync(fleet.path).mode & 0o100, 'it is executable');
});

function contents({ outputs }: typeof router.metafile) {
  const [output = inputs('none')] = Object.values(outputs);
  const packages = new Set(
    Object.entries(output.inputs)
      .filter(([, { bytesInOutput }]) => bytesInOutput > 0)
      .map(([path]) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1]),
  );
  return { output, packages };
}

function inputs(path: string) {
  return { bytes: 1, inputs: { [path]: { bytesInOutput: 1 } }, imports: [], exports: [] };
}
