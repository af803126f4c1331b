import type { Crypto } from '../sansio/crypto.ts';
import type { Instant } from '../sansio/instant.ts';
import { encodeUtf8 } from '../sansio/utf8.ts';
import type { StunAttributes } from '../stun/message.ts';
import { LoginSource, type LoginOptions } from './credentials.ts';

/** What proves one message: its attributes, and the key of its MESSAGE-INTEGRITY. */
export interface Proof {
  readonly attributes: Pick<StunAttributes, 'username' | 'realm' | 'nonce'>;
  readonly key: Uint8Array;
}

export interface AuthenticationOptions extends LoginOptions {
  readonly crypto: Pick<Crypto, 'hmacSha1' | 'md5'>;
}

/**
 * Our side of the long-term credential mechanism (RFC 8489 §9.2): takes realm and nonce from the server's
 * challenges (401 and 438), which cannot be authenticated, and judges whether another attempt is of use.
 *
 * Deviations: names and passwords are used as they are, without OpaqueString (RFC 8265); for
 * ASCII it is the same. Keys are MD5 and MESSAGE-INTEGRITY is SHA1: the password algorithms and
 * USERHASH of RFC 8489 are not offered, which every server allows (§9.2.4).
 */
export class Authentication {
  readonly #login: LoginSource;
  readonly #crypto: AuthenticationOptions['crypto'];
  #challenge: { readonly realm: string; readonly nonce: string } | undefined;
  #proof: Proof | undefined;

  constructor(options: AuthenticationOptions, now: Instant) {
    this.#login = new LoginSource(options, now);
    this.#crypto = options.crypto;
  }

  /** `undefined` before the first challenge. */
  get proof(): Proof | undefined {
    return this.#proof;
  }

  /** To be called before an allocation is made. */
  renew(now: Instant): void {
    this.#login.renew(now);
    this.#prove();
  }

  /** Takes a 401 to a message that went out with `used`. */
  handleUnauthorized(
    attributes: StunAttributes,
    used: Proof | undefined,
    now: Instant,
  ): 'retry' | 'wrong-credentials' | 'malformed' {
    const { realm, nonce } = attributes;
    if (!isText(realm) || !isText(nonce)) return 'malformed';
    const isOurs = used !== undefined && used.attributes.realm === realm;
    // Another request may have replaced what was refused already.
    const isReplaced = used?.attributes.username !== this.#proof?.attributes.username;
    if (isOurs && !isReplaced && !this.#login.replace(now)) return 'wrong-credentials';
    this.#challenge = { realm, nonce };
    this.#prove();
    return 'retry';
  }

  /** Takes a 438. */
  handleStaleNonce(attributes: StunAttributes): 'retry' | 'malformed' {
    const { realm = this.#challenge?.realm, nonce } = attributes;
    if (!isText(realm) || !isText(nonce)) return 'malformed';
    this.#challenge = { realm, nonce };
    this.#prove();
    return 'retry';
  }

  #prove(): void {
    if (this.#challenge === undefined) return;
    const { username, password } = this.#login.current;
    const { realm, nonce } = this.#challenge;
    const before = this.#proof?.attributes;
    const isSameKey = before?.username === username && before.realm === realm;
    const key =
      isSameKey && this.#proof !== undefined
        ? this.#proof.key
        : this.#crypto.md5(encodeUtf8(`${username}:${realm}:${password}`));
    this.#proof = { attributes: { username, realm, nonce }, key };
  }
}

/** RFC 8489 §14.9, §14.10: fewer than 128 characters, in at most 763 bytes. */
const LONGEST_TEXT = 763;

function isText(text: string | undefined): text is string {
  return text !== undefined && text.length <= LONGEST_TEXT;
}
