/**
 * The two bundles: one CommonJS file each, because CommonJS dependencies that require a built-in
 * module break in an ESM bundle. Equal sources give equal bytes.
 */
import { chmod, mkdir, readFile } from 'node:fs/promises';
import { deflateRawSync } from 'node:zlib';
import { build } from 'esbuild';
import { dist, root } from './paths.mjs';
import { commit, sourceDate, version } from './version.mjs';

/** The daemon and command of the router, and the command of the operator. */
export const bundles = {
  router: { entry: 'openwrt/router.ts', file: 'culvert.cjs' },
  fleet: { entry: 'openwrt/fleet.ts', file: 'culvert-fleet.cjs' },
};

/** Writes one of `bundles` to `directory`. Returns its path and esbuild's metafile. */
export async function bundle(name, { directory = dist } = {}) {
  const { entry, file } = bundles[name];
  const path = `${directory}/${file}`;
  await mkdir(directory, { recursive: true });
  const { metafile } = await build({
    entryPoints: [entry],
    outfile: path,
    absWorkingDir: root,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node18',
    minify: true,
    legalComments: 'none',
    logLevel: 'silent', // errors are thrown
    metafile: true,
    banner: { js: '#!/usr/bin/env node' },
    define: {
      __VERSION__: JSON.stringify(version),
      __COMMIT__: JSON.stringify(commit),
      __SOURCE_DATE__: String(sourceDate),
      // ws would look for native helpers on the router, which nobody brings there.
      'process.env.WS_NO_BUFFER_UTIL': '"1"',
      'process.env.WS_NO_UTF_8_VALIDATE': '"1"',
    },
    // readable-stream is a copy of Node's own streams: 90 KB.
    alias: { 'readable-stream': 'node:stream' },
    plugins: [standIns, withoutProse, deflatedWasm],
  });
  await chmod(path, 0o755);
  return { path, metafile };
}

const DEFLATE = `
  module.exports = class { static get extensionName() { return 'permessage-deflate'; } };`;

/** What stands in for packages that others require, and that a daemon on Node.js can do without. */
const replacements = {
  // Our log is injected.
  debug: `
    const off = () => {};
    off.enabled = false;
    off.extend = () => off;
    module.exports = () => off;`,
  // Timers for browsers that throttle their own.
  'worker-timers': '',
  // Of mqtt, for aliases of topics that we never ask it for. A map keeps the order that it needs.
  'lru-cache': 'exports.LRUCache = class extends Map { constructor() { super(); } };',
  // Of ws: sealed packets do not get smaller. Only its name is asked for.
  './permessage-deflate': DEFLATE,
  './lib/permessage-deflate.js': DEFLATE,
  // Every Node.js since 12 has both curves; without them, there is a word about it at the start.
  '@noble/curves/ed25519.js': `
    const missing = () => { throw new Error('the OpenSSL of this Node.js has no X25519 or Ed25519'); };
    exports.x25519 = { getPublicKey: missing, getSharedSecret: missing };
    exports.ed25519 = { getPublicKey: missing, sign: missing, verify: missing };`,
};

const standIns = {
  name: 'stand-ins',
  setup({ onResolve, onLoad }) {
    const names = Object.keys(replacements).map((name) => name.replace(/[./]/g, '\\$&'));
    onResolve({ filter: new RegExp(`^(${names.join('|')})$`) }, ({ path }) => ({
      path,
      namespace: 'stand-in',
    }));
    onLoad({ filter: /./, namespace: 'stand-in' }, ({ path }) => ({
      contents: replacements[path],
    }));
  },
};

/** What is only read by people who work on a package, or on the published schema. */
const withoutProse = {
  name: 'without prose',
  setup({ onLoad }) {
    onLoad({ filter: /\/mqtt\/package\.json$/ }, async ({ path }) => {
      const { version } = JSON.parse(await readFile(path, 'utf8'));
      return { contents: JSON.stringify({ version }), loader: 'json' };
    });
    onLoad({ filter: /\/core\/config\/[\w-]+\.ts$/ }, async ({ path }) => {
      const source = await readFile(path, 'utf8');
      return { contents: source.replace(DESCRIPTION, ''), loader: 'ts' };
    });
  },
};

/** A call with string literals alone, which may be joined, and the comma before it. */
const DESCRIPTION = /,\s*v\.description\((?:\s|\+|'(?:[^'\\\n]|\\.)*'|,)*\)/g;

/** WebAssembly as text that is half as long as the bytes themselves would be. */
const deflatedWasm = {
  name: 'deflated WebAssembly',
  setup({ onLoad }) {
    onLoad({ filter: /\.wasm$/ }, async ({ path }) => {
      const text = deflateRawSync(await readFile(path), { level: 9 }).toString('base64');
      return {
        contents: `
          import { inflateRawSync } from 'node:zlib';
          export default new Uint8Array(inflateRawSync(Buffer.from('${text}', 'base64')));`,
      };
    });
  },
};
