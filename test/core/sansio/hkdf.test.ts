import { readFileSync } from 'node:fs';
import t from 'tap';
import { decodeHex, encodeHex } from '../../../core/sansio/hex.ts';
import { hkdfExpand, hkdfExtract } from '../../../core/sansio/hkdf.ts';
import { BugError } from '../../../core/sansio/outcome.ts';
import { createNobleCrypto } from '../../../plugins/crypto-noble/index.ts';
import { createNodeCrypto } from '../../../plugins/crypto-node/index.ts';

type Vector = Readonly<
  Record<'section' | 'secret' | 'salt' | 'info' | 'extracted' | 'expanded', string>
>;
const vectors = JSON.parse(readFileSync('test/vectors/hkdf.json', 'utf8')) as readonly Vector[];

const noble = createNobleCrypto();

await t.test('HKDF of any provider gives what RFC 5869 appendix A prints', (t) => {
  for (const crypto of [noble, createNodeCrypto(noble)]) {
    for (const { section, secret, salt, info, extracted, expanded } of vectors) {
      const key = hkdfExtract(fromHex(salt), fromHex(secret), crypto);
      t.equal(encodeHex(key), extracted, `${crypto.name} ${section}`);
      const out = hkdfExpand(key, fromHex(info), expanded.length / 2, crypto);
      t.equal(encodeHex(out), expanded, `${crypto.name} ${section}`);
    }
  }
  t.end();
});

await t.test('any length up to 255 blocks is a prefix of the longest', (t) => {
  const expand = (length: number) =>
    encodeHex(hkdfExpand(new Uint8Array(32), Uint8Array.of(1), length, noble));
  const longest = expand(255 * 32);
  for (const length of [0, 1, 31, 32, 33, 64, 65, 8159]) {
    t.equal(expand(length), longest.slice(0, length * 2), `${length}`);
  }
  t.throws(() => expand(255 * 32 + 1), BugError);
  t.end();
});

function fromHex(text: string): Uint8Array {
  return decodeHex(text) ?? new Uint8Array(0);
}
