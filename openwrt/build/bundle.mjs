/**
 * The two bundles: one CommonJS file each, because CommonJS dependencies that require a built-in
 * module break in an ESM bundle. Equal sources give equal bytes.
 */
import { chmod, mkdir } from 'node:fs/promises';
import { build } from 'esbuild';
import { dist, root } from './paths.mjs';
import { commit, sourceDate, version } from './version.mjs';

/** What a bundle is made of, and which parts of its dependencies it leaves out. */
export const bundles = {
  router: {
    entry: 'openwrt/router.ts',
    file: 'culvert.cjs',
    // A router speaks MQTT over TCP and TLS only; its timers are Node's.
    without: ['debug', 'websocket', 'browser', 'socks'],
  },
  fleet: {
    entry: 'openwrt/fleet.ts',
    file: 'culvert-fleet.cjs',
    without: ['debug', 'browser', 'socks'],
  },
};

/**
 * Writes one of `bundles` to `directory`. Returns the path of the bundle and esbuild's metafile.
 * `entry` replaces the entry point.
 */
export async function bundle(name, { entry, directory = dist } = {}) {
  const { file, without, ...defaults } = bundles[name];
  const path = `${directory}/${file}`;
  await mkdir(directory, { recursive: true });
  const { metafile } = await build({
    entryPoints: [entry ?? `${root}/${defaults.entry}`],
    outfile: path,
    absWorkingDir: root,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node18',
    minify: true,
    legalComments: 'none',
    logLevel: 'warning',
    metafile: true,
    banner: { js: '#!/usr/bin/env node' },
    define: {
      __VERSION__: JSON.stringify(version),
      __COMMIT__: JSON.stringify(commit),
      __SOURCE_DATE__: String(sourceDate),
      // Without its optional native helpers, which ws would require in vain.
      'process.env.WS_NO_BUFFER_UTIL': '"1"',
      'process.env.WS_NO_UTF_8_VALIDATE': '"1"',
    },
    loader: { '.wasm': 'binary' },
    // Node's own streams are what readable-stream copies (−90 KB).
    alias: { 'readable-stream': 'node:stream' },
    plugins: [leaveOut(without)],
  });
  await chmod(path, 0o755);
  return { path, metafile };
}

/** Parts of dependencies that a bundle can do without: which modules, and what stands in for them. */
const parts = {
  debug: {
    filter: /^debug$/,
    contents: `
      const off = () => {};
      off.enabled = false;
      off.extend = () => off;
      module.exports = () => off;`,
  },
  websocket: {
    filter: /^\.\/ws$/,
    importer: /\/mqtt\/build\/lib\/connect\/index\.js$/,
    contents: `
      exports.streamBuilder = () => {
        throw new Error('this build has no MQTT over WebSocket');
      };`,
  },
  browser: {
    filter: /^(\.\/(wx|ali)|worker-timers)$/,
    importer: /\/mqtt\/build\/lib\/(connect\/index|get-timer)\.js$/,
    contents: '',
  },
  socks: {
    filter: /^\.\/socks$/,
    importer: /\/mqtt\/build\/lib\/connect\/\w+\.js$/,
    contents: `
      exports.default = () => {
        throw new Error('this build has no SOCKS');
      };`,
  },
};

function leaveOut(names) {
  return {
    name: 'leave-out',
    setup(build) {
      for (const name of names) {
        const { filter, importer = /./, contents } = parts[name];
        build.onResolve({ filter }, ({ importer: from }) =>
          importer.test(from) ? { path: name, namespace: 'left-out' } : undefined,
        );
        build.onLoad({ filter: new RegExp(`^${name}$`), namespace: 'left-out' }, () => ({
          contents,
          loader: 'js',
        }));
      }
    },
  };
}
