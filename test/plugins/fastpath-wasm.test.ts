import { readFileSync } from 'node:fs';
import t from 'tap';
import { ARENA_SIZE } from '../../core/fastpath/layout.ts';
import { createPortableCipher } from '../../core/fastpath/portable-cipher.ts';
import { buildAssembly } from '../../openwrt/build/assembly.mjs';
import { createNobleCrypto } from '../../plugins/crypto-noble/index.ts';
import { createNodeCrypto } from '../../plugins/crypto-node/index.ts';
import { createWasmFastPath, type WasmFastPath } from '../../plugins/fastpath-wasm/index.ts';
import { transportCipherContract } from '../contract/transport-cipher.ts';

const paths = await buildAssembly();
const simd = readFileSync(paths.simd);
const plain = readFileSync(paths.plain);
const notWasm = new Uint8Array(8);

const noble = createNobleCrypto();
const oracle = noble.chacha20poly1305;

await t.test('WebAssembly with SIMD', async (t) => {
  const { cipher, kernel } = fastPath({ simd, plain });
  t.equal(cipher.name, 'wasm-simd');
  await transportCipherContract(t, cipher, kernel.memory, oracle);
});

await t.test('WebAssembly on an engine without SIMD', async (t) => {
  const { cipher, kernel } = fastPath({ simd: notWasm, plain });
  t.equal(cipher.name, 'wasm');
  await transportCipherContract(t, cipher, kernel.memory, oracle);
});

for (const crypto of [noble, createNodeCrypto(noble)]) {
  await t.test(`one call of ${crypto.name} a message`, async (t) => {
    const arena = new ArrayBuffer(ARENA_SIZE);
    const cipher = createPortableCipher(crypto.name, crypto.chacha20poly1305, arena);
    await transportCipherContract(t, cipher, arena, oracle);
  });
}

await t.test('the arena has its fixed size', async (t) => {
  t.equal(fastPath({ simd, plain }).kernel.memory.byteLength, ARENA_SIZE);
});

await t.test('is skipped where WebAssembly is missing or refuses the module', async (t) => {
  t.match(createWasmFastPath({ simd: notWasm, plain: notWasm }), { skip: /cannot be set up/ });

  const present = Reflect.get(globalThis, 'WebAssembly');
  t.teardown(() => Reflect.set(globalThis, 'WebAssembly', present));
  Reflect.deleteProperty(globalThis, 'WebAssembly');
  t.match(createWasmFastPath({ simd, plain }), { skip: 'this engine has no WebAssembly' });
});

function fastPath(modules: Parameters<typeof createWasmFastPath>[0]): WasmFastPath {
  const created = createWasmFastPath(modules);
  if ('skip' in created) throw new Error(created.skip);
  return created;
}
