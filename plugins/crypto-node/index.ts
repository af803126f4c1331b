import { createCipheriv, createDecipheriv, createHash, createHmac } from 'node:crypto';
import type { Aead, Blake2s, Crypto } from '../../core/sansio/crypto.ts';
import { BugError } from '../../core/sansio/outcome.ts';
import { ed25519, x25519 } from './curve25519.ts';
import { passes } from './known-answer.ts';

/**
 * Returns cryptography by node:crypto. What the OpenSSL of this Node.js lacks comes from `portable`:
 * keyed BLAKE2s and XChaCha20 always, others where a build left them out or gets a known answer wrong.
 */
export function createNodeCrypto(portable: Crypto): Crypto {
  return {
    name: 'node',
    x25519: passes.x25519(x25519) ? x25519 : portable.x25519,
    blake2s: {
      ...(passes.blake2s(blake2s) ? blake2s : portable.blake2s),
      mac: (key, ...parts) => portable.blake2s.mac(key, ...parts),
    },
    chacha20poly1305: passes.chacha20poly1305(chacha20poly1305)
      ? chacha20poly1305
      : portable.chacha20poly1305,
    xchacha20poly1305: portable.xchacha20poly1305,
    ed25519: passes.ed25519(ed25519) ? ed25519 : portable.ed25519,
    sha256: passes.sha256(sha256) ? sha256 : (...parts) => portable.sha256(...parts),
    hmacSha256: passes.hmacSha256(hmacSha256)
      ? hmacSha256
      : (key, ...parts) => portable.hmacSha256(key, ...parts),
    hmacSha1: passes.hmacSha1(hmacSha1)
      ? hmacSha1
      : (key, ...parts) => portable.hmacSha1(key, ...parts),
    // A FIPS build has none.
    md5: passes.md5(md5) ? md5 : (...parts) => portable.md5(...parts),
  };
}

const blake2s: Omit<Blake2s, 'mac'> = {
  hash: (...parts) => digest(createHash('blake2s256'), parts),
  hmac: (key, ...parts) => digest(createHmac('blake2s256', key), parts),
};

function sha256(...parts: readonly Uint8Array[]): Uint8Array {
  return digest(createHash('sha256'), parts);
}

function hmacSha256(key: Uint8Array, ...parts: readonly Uint8Array[]): Uint8Array {
  return digest(createHmac('sha256', key), parts);
}

function hmacSha1(key: Uint8Array, ...parts: readonly Uint8Array[]): Uint8Array {
  return digest(createHmac('sha1', key), parts);
}

function md5(...parts: readonly Uint8Array[]): Uint8Array {
  return digest(createHash('md5'), parts);
}

const ALGORITHM = 'chacha20-poly1305';
const TAG_LENGTH = 16;

const chacha20poly1305: Aead = {
  seal(key, nonce, plaintext, additionalData) {
    requireNonce(nonce);
    const cipher = createCipheriv(ALGORITHM, key, nonce, { authTagLength: TAG_LENGTH });
    cipher.setAAD(additionalData, { plaintextLength: plaintext.length });
    const sealed = new Uint8Array(plaintext.length + TAG_LENGTH);
    sealed.set(cipher.update(plaintext));
    cipher.final();
    sealed.set(cipher.getAuthTag(), plaintext.length);
    return sealed;
  },

  open(key, nonce, ciphertext, additionalData) {
    requireNonce(nonce);
    const decipher = createDecipheriv(ALGORITHM, key, nonce, { authTagLength: TAG_LENGTH });
    const length = ciphertext.length - TAG_LENGTH;
    if (length < 0) return undefined;
    decipher.setAAD(additionalData, { plaintextLength: length });
    decipher.setAuthTag(ciphertext.subarray(length));
    const plaintext = decipher.update(ciphertext.subarray(0, length));
    try {
      decipher.final();
    } catch {
      return undefined; // the tag does not verify
    }
    return bytesOf(plaintext);
  },
};

interface Digest {
  update(bytes: Uint8Array): unknown;
  digest(): Buffer;
}

function digest(hash: Digest, parts: readonly Uint8Array[]): Uint8Array {
  for (const part of parts) hash.update(part);
  return bytesOf(hash.digest());
}

/** A Buffer must not get out: its `slice` does not copy. */
function bytesOf(buffer: Buffer): Uint8Array {
  return new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.length);
}

/** OpenSSL 1.1 pads a short nonce, so that a wrong length would go unnoticed. */
function requireNonce(nonce: Uint8Array): void {
  if (nonce.length !== 12) throw new BugError(`${nonce.length} bytes of nonce where 12 belong`);
}
