/**
 * Compiles the fast path from AssemblyScript to two WebAssembly modules, with SIMD and without.
 * Equal sources give equal bytes. Where the sources are those of the last build, nothing is done.
 */
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { argv } from 'node:process';
import { fileURLToPath } from 'node:url';
import { transform } from 'esbuild';
import { dist, root } from './paths.mjs';

const fastpath = `${root}/core/fastpath`;
const modules = { simd: `${dist}/fastpath-simd.wasm`, plain: `${dist}/fastpath-plain.wasm` };

/** Returns the paths of both modules, which are up to date then. */
export async function buildAssembly() {
  const inputs = await hashOfInputs();
  const stamp = `${dist}/fastpath.inputs`;
  const built = await readFile(stamp, 'utf8').catch(() => undefined);
  if (built === inputs && (await exist(Object.values(modules)))) return modules;

  await mkdir(dist, { recursive: true });
  const pages = await arenaPages();
  await compile(modules.simd, pages, '--enable simd');
  await compile(modules.plain, pages, '');
  await replace(stamp, inputs);
  return modules;
}

// The constants of the module lie in [1024, ARENA_START), behind a hole for null pointers.
const flags =
  '-O3 --converge --noAssert --runtime stub --use abort= --importMemory --memoryBase 1024';

async function compile(path, pages, features) {
  // It takes 100 ms to load, and most calls find nothing to do.
  const { default: asc } = await import('assemblyscript/asc');
  const memory = `--initialMemory ${pages} --maximumMemory ${pages}`;
  const command = `assembly/index.ts --outFile out.wasm ${flags} ${memory} ${features}`;
  const files = new Map();
  let messages = '';
  const { error } = await asc.main(command.trim().split(' '), {
    readFile: (name) => readFile(`${fastpath}/${name}`, 'utf8').catch(() => null),
    writeFile: (name, contents) => void files.set(name, contents),
    listFiles: () => [],
    stderr: { write: (text) => (messages += text) },
  });
  if (error) throw new Error(`AssemblyScript: ${messages || error.message}`);
  await replace(path, files.get('out.wasm'));
}

/** The layout is TypeScript and AssemblyScript at once: its constants are evaluated as the former. */
async function arenaPages() {
  const { code } = await transform(await readFile(`${fastpath}/layout.ts`), { loader: 'ts' });
  const { ARENA_PAGES } = await import(`data:text/javascript,${encodeURIComponent(code)}`);
  return ARENA_PAGES;
}

async function hashOfInputs() {
  const { version } = createRequire(import.meta.url)('assemblyscript/package.json');
  const hash = createHash('sha256').update(version);
  const sources = (await readdir(`${fastpath}/assembly`)).filter((name) => name.endsWith('.ts'));
  const paths = sources.sort().map((name) => `${fastpath}/assembly/${name}`);
  for (const path of [...paths, `${fastpath}/layout.ts`, fileURLToPath(import.meta.url)]) {
    hash.update(`\0${path.slice(root.length)}\0`).update(await readFile(path));
  }
  return hash.digest('hex');
}

async function exist(paths) {
  const reads = await Promise.allSettled(paths.map((path) => readFile(path)));
  return reads.every(({ status }) => status === 'fulfilled');
}

/** Several tests may build at the same time: each writes its own file and puts it in place at once. */
async function replace(path, contents) {
  const unfinished = `${path}.${process.pid}`;
  await writeFile(unfinished, contents);
  await rename(unfinished, path);
}

if (argv[1] === fileURLToPath(import.meta.url)) {
  const { simd, plain } = await buildAssembly();
  console.log(`${simd}\n${plain}`);
}
