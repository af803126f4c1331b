/**
 * The cryptography that the core needs, injected so that each engine brings its fastest.
 *
 * All byte arguments are borrowed for the call, all results are fresh and owned by the caller.
 * Lengths are the caller's duty: a wrong one is a bug and throws. What a remote can cause (a
 * low-order point, a forged tag or signature) is an `undefined` or `false` result.
 */
export interface Crypto {
  /** Short name of the provider, for `culvert doctor` and logs. */
  readonly name: string;
  readonly x25519: X25519;
  readonly blake2s: Blake2s;
  readonly chacha20poly1305: Aead;
  readonly xchacha20poly1305: Aead;
  readonly ed25519: Ed25519;
  /** SHA-256 (FIPS 180-4) of the concatenated parts: 32 bytes. */
  sha256(...parts: readonly Uint8Array[]): Uint8Array;
  /** HMAC-SHA-256 (RFC 2104) of the concatenated parts: 32 bytes. */
  hmacSha256(key: Uint8Array, ...parts: readonly Uint8Array[]): Uint8Array;
  /** HMAC-SHA1 of the concatenated parts: 20 bytes. STUN and TURN know nothing better everywhere. */
  hmacSha1(key: Uint8Array, ...parts: readonly Uint8Array[]): Uint8Array;
  /** MD5 of the concatenated parts: 16 bytes. Only for the long-term credentials of RFC 8489 §9.2.2. */
  md5(...parts: readonly Uint8Array[]): Uint8Array;
}

/** RFC 7748. Keys are 32 bytes, little-endian u-coordinates; private keys are clamped inside. */
export interface X25519 {
  publicKey(privateKey: Uint8Array): Uint8Array;
  /** Returns the shared secret, or `undefined` when it is all zero (RFC 7748 §6.1). */
  sharedSecret(privateKey: Uint8Array, publicKey: Uint8Array): Uint8Array | undefined;
}

/** RFC 7693. */
export interface Blake2s {
  /** BLAKE2s-256 of the concatenated parts: 32 bytes. */
  hash(...parts: readonly Uint8Array[]): Uint8Array;
  /** Keyed BLAKE2s-128 (key up to 32 bytes) of the concatenated parts: 16 bytes. */
  mac(key: Uint8Array, ...parts: readonly Uint8Array[]): Uint8Array;
  /** HMAC (RFC 2104) over BLAKE2s-256 of the concatenated parts: 32 bytes. */
  hmac(key: Uint8Array, ...parts: readonly Uint8Array[]): Uint8Array;
}

/** RFC 8439 with a 12-byte nonce, or draft-irtf-cfrg-xchacha-03 with a 24-byte one. Key: 32 bytes, tag: 16. */
export interface Aead {
  /** Returns ciphertext ‖ tag. */
  seal(
    key: Uint8Array,
    nonce: Uint8Array,
    plaintext: Uint8Array,
    additionalData: Uint8Array,
  ): Uint8Array;
  /** Returns the plaintext, or `undefined` when the tag does not verify. */
  open(
    key: Uint8Array,
    nonce: Uint8Array,
    ciphertext: Uint8Array,
    additionalData: Uint8Array,
  ): Uint8Array | undefined;
}

/** RFC 8032. Private keys are the 32-byte seed. */
export interface Ed25519 {
  publicKey(privateKey: Uint8Array): Uint8Array;
  sign(privateKey: Uint8Array, message: Uint8Array): Uint8Array;
  verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean;
}

/** Compares in time that depends on the lengths alone. */
export function equalInConstantTime(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let i = 0; i < a.length; i++) difference |= (a[i] ?? 0) ^ (b[i] ?? 0);
  return difference === 0;
}
