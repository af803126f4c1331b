import t from 'tap';
import { ARENA_SIZE, MESSAGE_AUTHENTIC, OUT, TAG_SIZE } from '../../core/fastpath/layout.ts';
import type { Native } from '../../core/plugin/native.ts';
import { buildNative } from '../../openwrt/build/native.mjs';
import { createNobleCrypto } from '../../plugins/crypto-noble/index.ts';
import { createOpensslCipher } from '../../plugins/crypto-openssl/index.ts';
import { loadNative } from '../../plugins/platform-node/index.ts';
import { transportCipherContract } from '../contract/transport-cipher.ts';

const loaded = loadNative(await buildNative());
if ('skip' in loaded) throw new Error(loaded.skip);
const native = loaded;

await t.test('OpenSSL by the batch', async (t) => {
  const arena = new ArrayBuffer(ARENA_SIZE);
  const cipher = createOpensslCipher(native, arena);
  if ('skip' in cipher) {
    t.pass('skipped', { skip: cipher.skip });
    return;
  }
  t.equal(cipher.name, 'openssl');
  await transportCipherContract(t, cipher, arena, createNobleCrypto().chacha20poly1305);
});

await t.test('is skipped where OpenSSL is missing or computes wrongly', async (t) => {
  const arena = new ArrayBuffer(ARENA_SIZE);
  const bytes = new Uint8Array(arena);
  const skipOf = (changed: Partial<Native>): unknown =>
    createOpensslCipher({ ...native, ...changed }, arena);

  t.match(skipOf({ aeadSeal: () => -38 }), {
    skip: 'this Node.js has no OpenSSL with ChaCha20-Poly1305',
  });
  t.match(skipOf({ aeadSeal: (_arena, _first, count) => count }), {
    skip: /OpenSSL of this Node.js seals a known message wrongly/,
  });
  t.match(skipOf({ aeadOpen: (_arena, _first, count) => count }), {
    skip: /does not open a known message/,
  });
  const lenient: Native['aeadOpen'] = (_arena, first, count) => {
    native.aeadOpen(arena, first, count);
    bytes[first + MESSAGE_AUTHENTIC] = 1;
    return count;
  };
  t.match(skipOf({ aeadOpen: lenient }), { skip: /opens a forged message/ });
  t.match(skipOf({ aeadSeal: (_arena, _first, count) => (count === 0 ? 0 : -5) }), {
    skip: /fails: BugError/,
  });
});

await t.test('a message that stays unsealed ends the daemon', async (t) => {
  const arena = new ArrayBuffer(ARENA_SIZE);
  const cipher = createOpensslCipher(native, arena);
  if ('skip' in cipher) {
    t.pass('skipped', { skip: cipher.skip });
    return;
  }
  const records = new DataView(arena);
  records.setUint32(OUT, ARENA_SIZE - TAG_SIZE, true);
  t.throws(() => cipher.seal(OUT, 1), { name: 'BugError', message: /sealed 0 of 1/ });
  t.throws(() => cipher.open(ARENA_SIZE, 1), { name: 'BugError' });
});
