import { build } from 'esbuild';
import t from 'tap';
import { sourceFiles } from './source-files.ts';

await t.test('all of core bundles for an engine that has nothing but the language', async (t) => {
  const { imports, inputs } = await bundleNeutral(
    sourceFiles('core', '.ts')
      .filter((path) => !path.endsWith('.d.ts'))
      .map((path, i) => `export * as module${i} from './${path}';`)
      .join('\n'),
  );
  t.same(imports, []);
  t.same(
    inputs.filter((path) => !/^(core|node_modules\/valibot)\//.test(path)),
    [],
  );
});

await t.test('an import of Node is found by that bundle', async (t) => {
  await t.rejects(bundleNeutral(`import 'fs';`), /Could not resolve "fs"/);
  const { imports } = await bundleNeutral(`import { hash } from 'node:crypto'; hash();`);
  t.same(imports, ['node:crypto']);
});

async function bundleNeutral(
  contents: string,
): Promise<{ imports: readonly string[]; inputs: readonly string[] }> {
  const { metafile } = await build({
    stdin: { contents, resolveDir: process.cwd() },
    bundle: true,
    write: false,
    metafile: true,
    platform: 'neutral',
    mainFields: ['module', 'main'],
    target: 'es2022',
    loader: { '.wasm': 'binary' },
    // Without this, esbuild refuses node: imports before it can name them all.
    external: ['node:*'],
    logLevel: 'silent',
  });
  return {
    imports: Object.values(metafile.outputs).flatMap((output) =>
      output.imports.map(({ path }) => path),
    ),
    inputs: Object.keys(metafile.inputs).filter((path) => path !== '<stdin>'),
  };
}
