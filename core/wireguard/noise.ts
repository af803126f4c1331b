import type { Crypto } from '../sansio/crypto.ts';
import { KEY_LENGTH } from './constants.ts';

/**
 * The symmetric state of a Noise handshake (Noise §5.2) over ChaCha20-Poly1305 and BLAKE2s: a chaining
 * key that collects all secrets, and a hash that collects everything sent so far.
 *
 * Each key seals one field only, as IKpsk2 mixes a secret in before every field, so the nonce is
 * always zero.
 */
export class SymmetricState {
  readonly #crypto: Crypto;
  #chainingKey: Uint8Array;
  #hash: Uint8Array;
  #key: Uint8Array = new Uint8Array(KEY_LENGTH);

  private constructor(crypto: Crypto, chainingKey: Uint8Array, hash: Uint8Array) {
    this.#crypto = crypto;
    this.#chainingKey = chainingKey;
    this.#hash = hash;
  }

  /** Starts a handshake. The name is longer than a hash, so that its hash stands for it. */
  static start(crypto: Crypto, name: Uint8Array, prologue: Uint8Array): SymmetricState {
    const chainingKey = crypto.blake2s.hash(name);
    return new SymmetricState(crypto, chainingKey, crypto.blake2s.hash(chainingKey, prologue));
  }

  clone(): SymmetricState {
    const copy = new SymmetricState(this.#crypto, this.#chainingKey.slice(), this.#hash.slice());
    copy.#key = this.#key.slice();
    return copy;
  }

  mixHash(data: Uint8Array): void {
    this.#hash = this.#crypto.blake2s.hash(this.#hash, data);
  }

  mixKey(secret: Uint8Array): void {
    const [chainingKey, key] = this.#derive(secret, 2);
    this.#replace(chainingKey, key);
  }

  /** Mixes in a preshared key (Noise §9.2). */
  mixKeyAndHash(secret: Uint8Array): void {
    const [chainingKey, hash, key] = this.#derive(secret, 3);
    this.mixHash(hash);
    hash.fill(0);
    this.#replace(chainingKey, key);
  }

  sealAndHash(plaintext: Uint8Array): Uint8Array {
    const sealed = this.#crypto.chacha20poly1305.seal(this.#key, NONCE, plaintext, this.#hash);
    this.mixHash(sealed);
    return sealed;
  }

  /** Returns the plaintext, or `undefined` when it is not authentic; the state is of no use then. */
  openAndHash(sealed: Uint8Array): Uint8Array | undefined {
    const plaintext = this.#crypto.chacha20poly1305.open(this.#key, NONCE, sealed, this.#hash);
    this.mixHash(sealed);
    return plaintext;
  }

  /** Ends the handshake: returns the keys of the initiator's and of the responder's messages. */
  split(): { readonly initiatorKey: Uint8Array; readonly responderKey: Uint8Array } {
    const [initiatorKey, responderKey] = this.#derive(EMPTY, 2);
    this.wipe();
    return { initiatorKey, responderKey };
  }

  wipe(): void {
    this.#chainingKey.fill(0);
    this.#key.fill(0);
  }

  #replace(chainingKey: Uint8Array, key: Uint8Array): void {
    this.wipe();
    this.#chainingKey = chainingKey;
    this.#key = key;
  }

  /** HKDF (Noise §4.3); the third output is made only where it is asked for. */
  #derive(secret: Uint8Array, outputs: 2 | 3): [Uint8Array, Uint8Array, Uint8Array] {
    const { blake2s } = this.#crypto;
    const extracted = blake2s.hmac(this.#chainingKey, secret);
    const first = blake2s.hmac(extracted, ONE);
    const second = blake2s.hmac(extracted, first, TWO);
    const third = outputs === 3 ? blake2s.hmac(extracted, second, THREE) : EMPTY;
    extracted.fill(0);
    return [first, second, third];
  }
}

const NONCE = new Uint8Array(12);
const EMPTY = new Uint8Array(0);
const ONE = Uint8Array.of(1);
const TWO = Uint8Array.of(2);
const THREE = Uint8Array.of(3);
