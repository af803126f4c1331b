import { readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { build, type Plugin } from 'esbuild';

/** What a test file needs in the guest, under the paths that it has here. */
export async function guestFiles(
  scripts: readonly string[],
): Promise<ReadonlyMap<string, Uint8Array | string>> {
  const files = new Map<string, Uint8Array | string>([
    [LOADER, readFileSync(new URL('guest/bundled-typescript.mjs', import.meta.url))],
    ['dist/culvert.cjs', readFileSync('dist/culvert.cjs')],
    [NATIVE, readFileSync(NATIVE)],
  ]);
  for (const script of scripts) {
    files.set(script, await bundle(script));
    // tap has each Node.js of a test load this file of its own, of which the tests here need nothing.
    files.set(join(dirname(script), '../esm/import.mjs'), '');
  }
  return files;
}

/** Runs a script of `guestFiles`, in a network namespace of its own. */
export function guestCommand(script: string, ...args: readonly string[]): string {
  const node = `node --import=/culvert/${LOADER} /culvert/${script} ${args.join(' ')}`;
  // Without the first, tests of netlink start themselves once more to get one; the limit of time is that of the run.
  return `CULVERT_TEST_NAMESPACE=1 TAP=1 TAP_TIMEOUT=600 unshare --net sh -c 'ip link set lo up && exec ${node}'`;
}

/** The native file, which `npm run build` makes. */
export const NATIVE = `dist/native/culvert-${process.arch}.node`;

const LOADER = 'bundled-typescript.mjs';

async function bundle(script: string): Promise<Uint8Array> {
  const { outputFiles } = await build({
    entryPoints: [script],
    bundle: true,
    write: false,
    outfile: basename(script),
    platform: 'node',
    format: 'esm',
    target: 'node20',
    keepNames: true,
    banner: {
      js: "import { createRequire as makeRequire } from 'node:module'; const require = makeRequire(import.meta.url);",
    },
    plugins: [replaced],
    logLevel: 'warning',
  });
  const [file] = outputFiles;
  if (file === undefined) throw new Error(`no bundle of ${script}`);
  return file.contents;
}

/** There is no compiler in the guest, and nothing of React in the tests. */
const replaced: Plugin = {
  name: 'replaced',
  setup(esbuild) {
    const replacements = [
      {
        filter: /openwrt\/build\/native\.mjs$/,
        contents: `export const buildNative = async () => '/culvert/${NATIVE}';`,
      },
      { filter: /react-element-to-jsx-string\.js$/, contents: 'export default undefined;' },
    ];
    replacements.forEach(({ filter, contents }, i) => {
      const namespace = `replaced-${i}`;
      esbuild.onResolve({ filter }, ({ path }) => ({ path, namespace }));
      esbuild.onLoad({ filter: /./, namespace }, () => ({ contents }));
    });
  },
};
