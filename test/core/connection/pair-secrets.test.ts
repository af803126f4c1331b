import { hkdfSync } from 'node:crypto';
import t from 'tap';
import { derivePairSecrets, type PairSecrets } from '../../../core/connection/pair-secrets.ts';
import { encodeBase64 } from '../../../core/sansio/base64.ts';
import { encodeHex } from '../../../core/sansio/hex.ts';
import { createNobleCrypto } from '../../../plugins/crypto-noble/index.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';

const crypto = createNobleCrypto();
const a = keyPair(1);
const b = keyPair(2);

await t.test('both ends derive the same, each seen from its side', (t) => {
  for (let seed = 0; seed < 20; seed++) {
    const [one, other] = [keyPair(100 + seed), keyPair(200 + seed)];
    const here = derived(one, other.publicKey);
    const there = derived(other, one.publicKey);
    t.same(here.localIce, there.remoteIce);
    t.same(here.remoteIce, there.localIce);
    t.same(here.sendKey, there.receiveKey);
    t.same(here.receiveKey, there.sendKey);
    const isLower = encodeHex(one.publicKey) < encodeHex(other.publicKey);
    t.equal(here.role, isLower ? 'controlling' : 'controlled');
    t.equal(there.role, isLower ? 'controlled' : 'controlling');
  }
  t.end();
});

await t.test('each direction, pair of keys and fleet has secrets of its own', (t) => {
  const rows = [
    derived(a, b.publicKey),
    derived(a, b.publicKey, 'other'),
    derived(a, b.publicKey, ''),
    derived(a, keyPair(3).publicKey),
    derived(keyPair(4), b.publicKey),
  ];
  const secrets = rows.flatMap(({ localIce, remoteIce, sendKey, receiveKey }) => [
    ...[localIce, remoteIce].flatMap((ice) => [ice.usernameFragment, ice.password]),
    ...[sendKey, receiveKey].map(encodeHex),
  ]);
  t.equal(new Set(secrets).size, rows.length * 6);
  t.end();
});

await t.test('credentials are ice-chars, of the lengths that RFC 8839 §5.4 asks for', (t) => {
  for (let seed = 0; seed < 50; seed++) {
    const { localIce, remoteIce } = derived(keyPair(300 + seed), b.publicKey);
    for (const { usernameFragment, password } of [localIce, remoteIce]) {
      t.match(usernameFragment, /^[A-Za-z0-9+/]{8}$/);
      t.match(password, /^[A-Za-z0-9+/]{24}$/);
    }
  }
  t.end();
});

await t.test(
  'the derivation is HKDF over purpose, zero, fleet, lower and higher public key',
  (t) => {
    const [lower, higher] = encodeHex(a.publicKey) < encodeHex(b.publicKey) ? [a, b] : [b, a];
    const shared = crypto.x25519.sharedSecret(lower.privateKey, higher.publicKey)!;
    const expand = (purpose: string, length: number) => {
      const text = Buffer.from(`${purpose}\0acme`);
      const info = Buffer.concat([text, lower.publicKey, higher.publicKey]);
      return new Uint8Array(hkdfSync('sha256', shared, '', info, length));
    };
    const { localIce, remoteIce, sendKey, receiveKey } = derived(lower, higher.publicKey);
    t.same(sendKey, expand('culvert signal from lower', 32));
    t.same(receiveKey, expand('culvert signal from higher', 32));
    const local = encodeBase64(expand('culvert ice of lower', 24));
    t.equal(localIce.usernameFragment + localIce.password, local);
    const remote = encodeBase64(expand('culvert ice of higher', 24));
    t.equal(remoteIce.usernameFragment + remoteIce.password, remote);
    t.end();
  },
);

await t.test('no secret is shared with a low-order point, or with a peer that has our key', (t) => {
  const lowOrder = [
    '0000000000000000000000000000000000000000000000000000000000000000',
    '0100000000000000000000000000000000000000000000000000000000000000',
    'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
    '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
    'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  ].map((text) => Uint8Array.from(Buffer.from(text, 'hex')));
  for (const publicKey of [...lowOrder, a.publicKey]) {
    t.equal(derivePairSecrets(a, publicKey, 'acme', crypto), undefined);
  }
  t.end();
});

function derived(own: KeyPair, remote: Uint8Array, fleet = 'acme'): PairSecrets {
  const secrets = derivePairSecrets(own, remote, fleet, crypto);
  if (secrets === undefined) throw new Error('no secrets');
  return secrets;
}

interface KeyPair {
  readonly privateKey: Uint8Array;
  readonly publicKey: Uint8Array;
}

function keyPair(seed: number): KeyPair {
  const privateKey = new Uint8Array(32);
  new SeededRandom(seed).fill(privateKey);
  return { privateKey, publicKey: crypto.x25519.publicKey(privateKey) };
}
