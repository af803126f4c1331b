import { readFileSync } from 'node:fs';
import type { Test } from 'tap';
import type { Crypto } from '../../core/sansio/crypto.ts';
import { decodeHex, encodeHex } from '../../core/sansio/hex.ts';

/** Runs a provider through the cases of Project Wycheproof: see `test/vectors/SOURCES.md`. */
export async function wycheproof(t: Test, crypto: Crypto): Promise<void> {
  await t.test('X25519 passes Wycheproof', async (t) => {
    for (const [number, comment, privateKey, publicKey, shared] of cases.x25519) {
      const secret = crypto.x25519.sharedSecret(hex(privateKey), hex(publicKey));
      // Zero is the secret of a point of low order: acceptable to compute, refused by us.
      const expected = /^0+$/.test(shared) ? undefined : shared;
      t.equal(secret && encodeHex(secret), expected, `${number} ${comment}`);
    }
  });

  await t.test('Ed25519 passes Wycheproof', async (t) => {
    for (const [number, comment, publicKey, message, signature, result] of cases.ed25519) {
      const isValid = crypto.ed25519.verify(hex(publicKey), hex(message), hex(signature));
      t.equal(isValid, result === 'valid', `${number} ${comment}`);
    }
  });
}

type X25519Case = readonly [
  number: number,
  comment: string,
  privateKey: string,
  publicKey: string,
  shared: string,
  result: string,
];
type Ed25519Case = readonly [
  number: number,
  comment: string,
  publicKey: string,
  message: string,
  signature: string,
  result: string,
];

const cases = JSON.parse(
  readFileSync(new URL('../vectors/wycheproof.json', import.meta.url), 'utf8'),
) as { readonly x25519: readonly X25519Case[]; readonly ed25519: readonly Ed25519Case[] };

function hex(text: string): Uint8Array {
  const bytes = decodeHex(text);
  if (bytes === undefined) throw new Error(`not hexadecimal: ${text}`);
  return bytes;
}
