import { Backoff, type BackoffOptions } from '../sansio/backoff.ts';
import { encodeHex } from '../sansio/hex.ts';
import { elapsed, type Instant, type Millis } from '../sansio/instant.ts';
import { randomBytes, type Random } from '../sansio/random.ts';

/** Over UDP a request goes out at 0, 1, 2.5 and 4.75 s and is given up at 8.125 s. */
export const UDP_PATIENCE: BackoffOptions = {
  firstInterval: 1_000,
  multiplier: 1.5,
  maximumElapsed: 8_000,
};

/** Over a stream, which repeats by itself, once (RFC 8489 §6.2.2), with the same patience. */
export const STREAM_PATIENCE: BackoffOptions = {
  firstInterval: 8_000,
  multiplier: 1,
  maximumElapsed: 8_000,
};

/** To ask whether anybody is there: once, and no answer within 1 s is one. */
export const BRIEF_PATIENCE: BackoffOptions = {
  firstInterval: 1_000,
  multiplier: 1,
  maximumElapsed: 1_000,
};

/**
 * The life of one request, however often it is sent. An answer to any of its messages is the answer.
 *
 * Deviation: RFC 8489 §6.2.1 repeats a request with its transaction id, and spaces the repetitions by its
 * own rule. Here each has a fresh id, so that a server that remembers transactions answers each anew, and
 * not with what it thought of a nonce that was stale. Where a server would take the repetition for
 * another request (`same`) it keeps its id.
 */
export class Transaction {
  readonly #backoff: Backoff;
  readonly #ids: string[] = [];
  readonly #repeats: 'fresh' | 'same';
  readonly #startedAt: Instant;
  #lastId: Uint8Array | undefined;
  #messages = 0;

  /** `repeats` tells whether a repetition has a fresh id or the same. */
  constructor(patience: BackoffOptions, now: Instant, repeats: 'fresh' | 'same' = 'fresh') {
    this.#backoff = new Backoff(now, patience);
    this.#startedAt = now;
    this.#repeats = repeats;
  }

  /** Makes the id of the next message, 12 bytes. */
  nextId(random: Random): Uint8Array {
    this.#messages++;
    if (this.#lastId !== undefined && this.#repeats === 'same') return this.#lastId;
    this.#lastId = randomBytes(random, 12);
    this.#ids.push(transactionKey(this.#lastId));
    return this.#lastId;
  }

  /** The ids that were made, as `transactionKey` writes them. */
  get ids(): readonly string[] {
    return this.#ids;
  }

  /** Time from request to answer where it is certain which request was answered when: it was sent once. */
  roundTrip(now: Instant): Millis | undefined {
    return this.#messages === 1 ? elapsed(this.#startedAt, now) : undefined;
  }

  /** Tells what is due: to send once more however late the call is, to give up, or nothing. */
  handleTimeout(now: Instant): 'repeat' | 'give-up' | 'wait' {
    if (now < this.#backoff.nextTrigger()) return 'wait';
    if (this.#backoff.isExpired(now)) return 'give-up';
    while (now >= this.#backoff.nextTrigger()) this.#backoff.handleTimeout(now);
    return 'repeat';
  }

  nextTrigger(): Instant {
    return this.#backoff.nextTrigger();
  }
}

/** A transaction id as the key of a map. */
export function transactionKey(id: Uint8Array): string {
  return encodeHex(id);
}
