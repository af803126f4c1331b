import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import t from 'tap';
import { architectures, buildNative } from '../../openwrt/build/native.mjs';

/** e_machine of the ELF header. */
const MACHINES: Record<string, number> = { x64: 62, arm64: 183, arm: 40 };

for (const arch of architectures) {
  await t.test(`the native file for ${arch} needs no library and is reproducible`, async (t) => {
    const path = await buildNative(arch, t.testdir());
    const bytes = readFileSync(path);
    t.equal(bytes.readUInt16LE(18), MACHINES[arch], 'it is for this CPU');
    const dynamic = execFileSync('readelf', ['-dW', path], { encoding: 'utf8' });
    t.match(dynamic, 'SYMTAB');
    t.notMatch(dynamic, /\((NEEDED|RUNPATH|TEXTREL)\)/);
    const again = readFileSync(await buildNative(arch, t.testdir({ again: {} }) + '/again'));
    t.ok(again.equals(bytes), 'built twice, it has the same bytes');
    t.notOk(bytes.includes(process.cwd()), 'it does not say where it was built');
  });
}

await t.test('the native file of this machine loads', async (t) => {
  const path = await buildNative(process.arch, t.testdir());
  const native = createRequire(import.meta.url)(path) as Record<string, unknown>;
  t.type(native['sendBatch'], 'function');
});
