import { readFileSync } from 'node:fs';
import type { Test } from 'tap';
import type { Aead, Crypto } from '../../core/sansio/crypto.ts';
import { decodeHex, encodeHex } from '../../core/sansio/hex.ts';

/** What every provider of cryptography does; `oracle` is another one that it must agree with. */
export async function cryptoContract(t: Test, crypto: Crypto, oracle: Crypto): Promise<void> {
  await t.test('X25519 gives the secrets of RFC 7748', async (t) => {
    for (const { source, privateKey, publicKey, shared } of vectors.x25519) {
      t.equal(text(crypto.x25519.sharedSecret(hex(privateKey), hex(publicKey))), shared, source);
    }
  });

  await t.test('X25519 makes public keys that others agree with', async (t) => {
    for (let seed = 1; seed <= 8; seed++) {
      const ours = bytes(32, seed);
      const theirs = bytes(32, seed + 100);
      const publicKey = crypto.x25519.publicKey(ours);
      t.same(publicKey, oracle.x25519.publicKey(ours));
      t.same(
        crypto.x25519.sharedSecret(ours, oracle.x25519.publicKey(theirs)),
        oracle.x25519.sharedSecret(theirs, publicKey),
      );
    }
  });

  await t.test('X25519 has no secret for a point of low order (RFC 7748 §6.1)', async (t) => {
    for (const point of LOW_ORDER_POINTS) {
      t.equal(crypto.x25519.sharedSecret(bytes(32, 5), hex(point)), undefined, point);
    }
  });

  await t.test('X25519 ignores the highest bit of a public key (RFC 7748 §5)', async (t) => {
    const publicKey = crypto.x25519.publicKey(bytes(32, 7));
    const masked = crypto.x25519.sharedSecret(bytes(32, 6), publicKey.slice());
    publicKey[31]! |= 0x80;
    t.same(crypto.x25519.sharedSecret(bytes(32, 6), publicKey), masked);
  });

  await t.test('X25519 looks at a key again whose array was overwritten', async (t) => {
    const key = bytes(32, 8);
    const peer = crypto.x25519.publicKey(bytes(32, 9));
    const before = crypto.x25519.sharedSecret(key, peer);
    key.set(bytes(32, 10));
    peer.set(crypto.x25519.publicKey(bytes(32, 11)));
    t.not(text(crypto.x25519.sharedSecret(key, peer)), text(before));
    t.same(crypto.x25519.sharedSecret(key, peer), oracle.x25519.sharedSecret(key, peer));
  });

  await t.test('Ed25519 signs and verifies the messages of RFC 8032', async (t) => {
    for (const { source, privateKey, publicKey, message, signature } of vectors.ed25519) {
      t.equal(text(crypto.ed25519.publicKey(hex(privateKey))), publicKey, source);
      t.equal(text(crypto.ed25519.sign(hex(privateKey), hex(message))), signature, source);
      t.ok(crypto.ed25519.verify(hex(publicKey), hex(message), hex(signature)), source);
    }
  });

  await t.test('Ed25519 refuses every other signature, message and key', async (t) => {
    const { ed25519 } = crypto;
    const key = bytes(32, 12);
    const publicKey = ed25519.publicKey(key);
    const message = bytes(100, 13);
    const signature = ed25519.sign(key, message);
    t.ok(ed25519.verify(publicKey, message, signature));
    for (const at of [0, 31, 32, 63]) {
      t.notOk(ed25519.verify(publicKey, message, flipped(signature, at)), `signature byte ${at}`);
    }
    t.notOk(ed25519.verify(publicKey, flipped(message, 99), signature));
    t.notOk(ed25519.verify(publicKey, message.subarray(1), signature));
    for (const at of [0, 31]) {
      t.notOk(ed25519.verify(flipped(publicKey, at), message, signature), `key byte ${at}`);
    }
    for (const length of [0, 63, 65]) {
      t.notOk(ed25519.verify(publicKey, message, bytes(length, 14)), `${length} bytes`);
    }
    t.notOk(ed25519.verify(new Uint8Array(32).fill(0xff), message, signature), 'not on the curve');
    t.notOk(ed25519.verify(publicKey, message, withOrderAdded(signature)), 'S is not reduced');
  });

  await t.test('SHA-256 and BLAKE2s give the digests of others', async (t) => {
    const { blake2s, sha256 } = vectors;
    for (const { source, message, digest } of sha256) {
      t.equal(text(crypto.sha256(hex(message))), digest, source);
    }
    for (const { message, digest } of blake2s.hash) {
      t.equal(text(crypto.blake2s.hash(hex(message))), digest, `hash of ${message}`);
    }
    for (const { key, message, digest } of blake2s.mac) {
      t.equal(text(crypto.blake2s.mac(hex(key), hex(message))), digest, `MAC of ${message}`);
    }
    for (const { key, message, digest } of blake2s.hmac) {
      t.equal(text(crypto.blake2s.hmac(hex(key), hex(message))), digest, `HMAC of ${message}`);
    }
  });

  await t.test('a digest of parts is that of the parts joined', async (t) => {
    const whole = bytes(200, 15);
    const parts = [0, 1, 63, 64, 130].map((from, i, all) => whole.subarray(from, all[i + 1]));
    const { blake2s } = crypto;
    t.same(crypto.sha256(...parts), crypto.sha256(whole));
    t.same(crypto.md5(...parts), crypto.md5(whole));
    for (const key of [bytes(3, 1), bytes(64, 2), bytes(200, 3)]) {
      t.same(crypto.hmacSha1(key, ...parts), oracle.hmacSha1(key, whole));
      t.same(crypto.hmacSha256(key, ...parts), oracle.hmacSha256(key, whole));
    }
    t.same(crypto.md5(whole), oracle.md5(whole));
    t.same(blake2s.hash(...parts), blake2s.hash(whole));
    t.same(blake2s.mac(whole.subarray(0, 32), ...parts), blake2s.mac(whole.subarray(0, 32), whole));
    t.same(blake2s.hmac(whole, ...parts), blake2s.hmac(whole, whole));
    t.same(blake2s.hash(), blake2s.hash(new Uint8Array(0)));
  });

  for (const name of ['chacha20poly1305', 'xchacha20poly1305'] as const) {
    const nonceLength = name === 'chacha20poly1305' ? 12 : 24;
    await t.test(`${name} gives the ciphertexts of its specification`, async (t) => {
      for (const { source, key, nonce, additionalData, plaintext, sealed } of vectors[name]) {
        const input = [hex(key), hex(nonce)] as const;
        const additional = hex(additionalData);
        t.equal(text(crypto[name].seal(...input, hex(plaintext), additional)), sealed, source);
        t.equal(text(crypto[name].open(...input, hex(sealed), additional)), plaintext, source);
      }
    });
    await aeadContract(t, name, crypto[name], oracle[name], nonceLength);
  }

  await t.test('throws when a length is wrong that no remote decides on', async (t) => {
    const { x25519, chacha20poly1305, xchacha20poly1305 } = crypto;
    const key = bytes(32, 16);
    const none = new Uint8Array(0);
    t.throws(() => x25519.publicKey(key.subarray(1)));
    t.throws(() => x25519.sharedSecret(key, key.subarray(1)));
    t.throws(() => chacha20poly1305.seal(key, key.subarray(0, 8), none, none));
    t.throws(() => chacha20poly1305.open(key, key.subarray(0, 8), key, none));
    t.throws(() => chacha20poly1305.open(key.subarray(1), key.subarray(0, 12), key, none));
    t.throws(() => xchacha20poly1305.seal(key, key.subarray(0, 12), none, none));
  });

  await t.test('results are plain arrays that belong to the caller', async (t) => {
    const key = bytes(32, 17);
    const none = new Uint8Array(0);
    const sealed = crypto.chacha20poly1305.seal(key, key.subarray(0, 12), key, none);
    const results = [
      crypto.x25519.publicKey(key),
      crypto.x25519.sharedSecret(key, crypto.x25519.publicKey(key)),
      crypto.blake2s.hash(key),
      crypto.blake2s.mac(key, key),
      crypto.blake2s.hmac(key, key),
      crypto.sha256(key),
      crypto.ed25519.publicKey(key),
      crypto.ed25519.sign(key, key),
      sealed,
      crypto.chacha20poly1305.open(key, key.subarray(0, 12), sealed, none),
    ];
    for (const [i, result] of results.entries()) {
      t.equal(Object.getPrototypeOf(result), Uint8Array.prototype, `result ${i}`);
    }
  });
}

async function aeadContract(
  t: Test,
  name: string,
  aead: Aead,
  oracle: Aead,
  nonceLength: number,
): Promise<void> {
  const key = bytes(32, 20);
  const nonce = bytes(nonceLength, 21);
  const none = new Uint8Array(0);

  await t.test(`${name} agrees with another provider at all sizes`, async (t) => {
    for (const length of [...Array(131).keys(), 255, 256, 257, 1420, 4096, 65_535]) {
      const plaintext = bytes(length, length);
      const additionalData = bytes(length % 37, length + 1);
      const sealed = aead.seal(key, nonce, plaintext, additionalData);
      if (text(sealed) !== text(oracle.seal(key, nonce, plaintext, additionalData))) {
        t.fail(`sealed differently at ${length} bytes`);
      }
      if (text(aead.open(key, nonce, sealed, additionalData)) !== text(plaintext)) {
        t.fail(`not opened at ${length} bytes`);
      }
    }
  });

  await t.test(`${name} takes views at any offset and leaves them as they are`, async (t) => {
    const plaintext = bytes(100, 22);
    const expected = aead.seal(key, nonce, plaintext, none);
    for (let offset = 0; offset < 16; offset++) {
      const views = [key, nonce, plaintext, expected].map((value) => at(offset, value));
      const [aKey, aNonce, aPlaintext, aSealed] = views as [
        Uint8Array,
        Uint8Array,
        Uint8Array,
        Uint8Array,
      ];
      t.same(aead.seal(aKey, aNonce, aPlaintext, none), expected);
      t.same(aead.open(aKey, aNonce, aSealed, none), plaintext);
      t.same(views, [key, nonce, plaintext, expected]);
    }
  });

  await t.test(`${name} opens nothing that was changed anywhere`, async (t) => {
    const plaintext = bytes(40, 23);
    const additionalData = bytes(10, 24);
    const sealed = aead.seal(key, nonce, plaintext, additionalData);
    for (let i = 0; i < sealed.length; i++) {
      t.equal(aead.open(key, nonce, flipped(sealed, i), additionalData), undefined, `byte ${i}`);
    }
    t.equal(aead.open(key, nonce, sealed, flipped(additionalData, 9)), undefined);
    t.equal(aead.open(key, nonce, sealed, none), undefined);
    t.equal(aead.open(key, flipped(nonce, nonceLength - 1), sealed, additionalData), undefined);
    t.equal(aead.open(flipped(key, 31), nonce, sealed, additionalData), undefined);
    for (const length of [0, 1, 15, 16, 39, 55]) {
      const cut = sealed.subarray(0, length);
      t.equal(aead.open(key, nonce, cut, additionalData), undefined, `cut to ${length} bytes`);
    }
  });
}

/** Coordinates of the points whose order divides the cofactor, on curve and twist, not all reduced. */
const LOW_ORDER_POINTS = [
  '0000000000000000000000000000000000000000000000000000000000000000',
  '0100000000000000000000000000000000000000000000000000000000000000',
  'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
  '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
];

interface DigestVector {
  readonly source: string;
  readonly key: string;
  readonly message: string;
  readonly digest: string;
}

interface AeadVector {
  readonly source: string;
  readonly key: string;
  readonly nonce: string;
  readonly additionalData: string;
  readonly plaintext: string;
  readonly sealed: string;
}

interface Vectors {
  readonly x25519: readonly Readonly<
    Record<'source' | 'privateKey' | 'publicKey' | 'shared', string>
  >[];
  readonly ed25519: readonly Readonly<
    Record<'source' | 'privateKey' | 'publicKey' | 'message' | 'signature', string>
  >[];
  readonly chacha20poly1305: readonly AeadVector[];
  readonly xchacha20poly1305: readonly AeadVector[];
  readonly blake2s: Readonly<Record<'hash' | 'mac' | 'hmac', readonly DigestVector[]>>;
  readonly sha256: readonly DigestVector[];
}

const vectors: Vectors = JSON.parse(
  readFileSync(new URL('../vectors/crypto.json', import.meta.url), 'utf8'),
);

function hex(digits: string): Uint8Array {
  return decodeHex(digits)!;
}

function text(result: Uint8Array | undefined): string | undefined {
  return result && encodeHex(result);
}

/** Bytes without a pattern, the same for the same seed (xorshift32). */
function bytes(length: number, seed: number): Uint8Array {
  let state = seed * 2_654_435_761 || 1;
  return Uint8Array.from({ length }, () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state;
  });
}

function flipped(original: Uint8Array, at: number): Uint8Array {
  const copy = original.slice();
  copy[at]! ^= 1;
  return copy;
}

function at(offset: number, value: Uint8Array): Uint8Array {
  const room = new Uint8Array(offset + value.length + 16).fill(0xaa);
  room.set(value, offset);
  return room.subarray(offset, offset + value.length);
}

/** The same signature with S + L in place of S, which RFC 8032 §5.1.7 says to refuse. */
function withOrderAdded(signature: Uint8Array): Uint8Array {
  const order = hex('edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010');
  const changed = signature.slice();
  let carry = 0;
  for (let i = 0; i < 32; i++) {
    carry += changed[32 + i]! + order[i]!;
    changed[32 + i] = carry;
    carry >>= 8;
  }
  return changed;
}
