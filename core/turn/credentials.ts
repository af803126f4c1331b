import { encodeBase64 } from '../sansio/base64.ts';
import type { Crypto } from '../sansio/crypto.ts';
import type { Instant, Millis } from '../sansio/instant.ts';
import { encodeUtf8 } from '../sansio/utf8.ts';

/** How to prove to a relay that we may use it. */
export type TurnCredentials =
  /** RFC 8489 §9.2. */
  | { readonly type: 'long-term'; readonly username: string; readonly password: string }
  /** draft-uberti-behave-turn-rest: we mint `expiry:id` and HMAC-SHA1 from a secret shared with the relay. */
  | { readonly type: 'shared-secret'; readonly secret: string; readonly id: string };

export interface Login {
  readonly username: string;
  readonly password: string;
}

export interface LoginOptions {
  readonly credentials: TurnCredentials;
  /** The calendar, for minted credentials. */
  unixMs(now: Instant): number;
  readonly crypto: Pick<Crypto, 'hmacSha1'>;
}

/**
 * The user name and password of the day. Minted ones are valid for 12 to 24 h and replaced between
 * allocations only: RFC 8656 §5 has a server refuse (441) whoever comes with another name to a living one.
 * That is also who starts anew after a crash, on the same port, so all that is minted within 12 h has the
 * same name: the server then says 437, and the old allocation can be given back.
 *
 * A device that knows the shared secret could mint a name for anybody; who wants a relay to tell devices
 * apart gives each a name and password of its own.
 */
export class LoginSource {
  readonly #options: LoginOptions;
  #current: Login;

  constructor(options: LoginOptions, now: Instant) {
    this.#options = options;
    this.#current = this.#make(now);
  }

  get current(): Login {
    return this.#current;
  }

  /** To be called before an allocation is made. */
  renew(now: Instant): void {
    this.#current = this.#make(now);
  }

  /** Mints anew what the server refused; the calendar may have been set since. Returns whether it differs. */
  replace(now: Instant): boolean {
    const refused = this.#current.username;
    this.#current = this.#make(now);
    return this.#current.username !== refused;
  }

  #make(now: Instant): Login {
    const { credentials, crypto } = this.#options;
    if (credentials.type === 'long-term') return credentials;
    const expiry = ((Math.floor(this.#options.unixMs(now) / PERIOD) + 2) * PERIOD) / 1000;
    const username = `${expiry}:${credentials.id}`;
    const mac = crypto.hmacSha1(encodeUtf8(credentials.secret), encodeUtf8(username));
    return { username, password: encodeBase64(mac) };
  }
}

const PERIOD: Millis = 12 * 3_600_000;
