/**
 * The two bundles: one CommonJS file each, because CommonJS dependencies that require a built-in
 * module break in an ESM bundle. Equal sources give equal bytes.
 */
import { chmod, mkdir } from 'node:fs/promises';
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
    loader: { '.wasm': 'binary' },
    // readable-stream is a copy of Node's own streams: 90 KB.
    alias: { 'readable-stream': 'node:stream' },
    plugins: [standIns],
  });
  await chmod(path, 0o755);
  return { path, metafile };
}

/** What stands in for packages that mqtt requires and that a daemon on Node.js can do without. */
const replacements = {
  // Our log is injected.
  debug: `
    const off = () => {};
    off.enabled = false;
    off.extend = () => off;
    module.exports = () => off;`,
  // Timers for browsers that throttle their own.
  'worker-timers': '',
};

const standIns = {
  name: 'stand-ins',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^(debug|worker-timers)$/ }, ({ path }) => ({
      path,
      namespace: 'stand-in',
    }));
    onLoad({ filter: /./, namespace: 'stand-in' }, ({ path }) => ({
      contents: replacements[path],
    }));
  },
};
