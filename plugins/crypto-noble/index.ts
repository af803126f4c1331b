import { chacha20poly1305, xchacha20poly1305 } from '@noble/ciphers/chacha.js';
import { ed25519, x25519 } from '@noble/curves/ed25519.js';
import { blake2s } from '@noble/hashes/blake2.js';
import { hmac } from '@noble/hashes/hmac.js';
import { md5, sha1 } from '@noble/hashes/legacy.js';
import { sha256 } from '@noble/hashes/sha2.js';
import type { Aead, Crypto } from '../../core/sansio/crypto.ts';
import { BugError } from '../../core/sansio/outcome.ts';

/** Returns cryptography in plain JavaScript: it runs on every engine and is the oracle of the others. */
export function createNobleCrypto(): Crypto {
  return {
    name: 'noble',
    x25519: {
      publicKey: (privateKey) => x25519.getPublicKey(privateKey),
      sharedSecret(privateKey, publicKey) {
        requireLength(privateKey, 32);
        requireLength(publicKey, 32);
        return orUndefined(() => x25519.getSharedSecret(privateKey, publicKey));
      },
    },
    blake2s: {
      hash: (...parts) => digest(blake2s.create(), parts),
      mac: (key, ...parts) => digest(blake2s.create({ dkLen: 16, key }), parts),
      hmac: (key, ...parts) => digest(hmac.create(blake2s, key), parts),
    },
    chacha20poly1305: aead(chacha20poly1305, 12),
    xchacha20poly1305: aead(xchacha20poly1305, 24),
    ed25519: {
      publicKey: (privateKey) => ed25519.getPublicKey(privateKey),
      sign: (privateKey, message) => ed25519.sign(message, privateKey),
      // Strict RFC 8032 §5.1.7, as OpenSSL verifies: noble's default of ZIP 215 accepts more.
      verify: (publicKey, message, signature) =>
        signature.length === 64 && ed25519.verify(signature, message, publicKey, { zip215: false }),
    },
    sha256: (...parts) => digest(sha256.create(), parts),
    hmacSha256: (key, ...parts) => digest(hmac.create(sha256, key), parts),
    hmacSha1: (key, ...parts) => digest(hmac.create(sha1, key), parts),
    md5: (...parts) => digest(md5.create(), parts),
  };
}

function aead(cipher: typeof chacha20poly1305, nonceLength: number): Aead {
  return {
    seal(key, nonce, plaintext, additionalData) {
      requireLength(nonce, nonceLength);
      return cipher(key, nonce, additionalData).encrypt(plaintext);
    },
    open(key, nonce, ciphertext, additionalData) {
      requireLength(key, 32);
      requireLength(nonce, nonceLength);
      return orUndefined(() => cipher(key, nonce, additionalData).decrypt(ciphertext));
    },
  };
}

interface Digest {
  update(bytes: Uint8Array): unknown;
  digest(): Uint8Array;
}

function digest(hash: Digest, parts: readonly Uint8Array[]): Uint8Array {
  for (const part of parts) hash.update(part);
  return hash.digest();
}

/** Noble throws on what a remote can cause; the lengths, which are ours, are checked before. */
function orUndefined(compute: () => Uint8Array): Uint8Array | undefined {
  try {
    return compute();
  } catch {
    return undefined;
  }
}

function requireLength(bytes: Uint8Array, length: number): void {
  if (bytes.length !== length) throw new BugError(`${bytes.length} bytes where ${length} belong`);
}
