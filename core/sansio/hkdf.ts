import type { Crypto } from './crypto.ts';
import { BugError } from './outcome.ts';

/** HKDF-Extract of RFC 5869 §2.2 with SHA-256: makes one uniform key of 32 bytes from a secret. */
export function hkdfExtract(
  salt: Uint8Array,
  secret: Uint8Array,
  crypto: Pick<Crypto, 'hmacSha256'>,
): Uint8Array {
  return crypto.hmacSha256(salt, secret);
}

/** HKDF-Expand of RFC 5869 §2.3 with SHA-256: `length` bytes, at most 255 times 32, that `info` names. */
export function hkdfExpand(
  extracted: Uint8Array,
  info: Uint8Array,
  length: number,
  crypto: Pick<Crypto, 'hmacSha256'>,
): Uint8Array {
  if (length > 255 * HASH_LENGTH) throw new BugError(`${length} bytes of HKDF`);
  const out = new Uint8Array(length);
  let block: Uint8Array = new Uint8Array(0);
  for (let counter = 1, written = 0; written < length; counter++) {
    block = crypto.hmacSha256(extracted, block, info, Uint8Array.of(counter));
    out.set(block.subarray(0, length - written), written);
    written += HASH_LENGTH;
  }
  return out;
}

const HASH_LENGTH = 32;
