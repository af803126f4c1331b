import type { Instant, Millis } from '../../core/sansio/instant.ts';

/** This many lines of one message may come at once … */
export const BURST = 20;
/** … and one more for each of these. */
const REFILL_INTERVAL: Millis = 1000;
/** More different messages than this and the one limited longest ago starts afresh. */
const MOST_MESSAGES = 500;

/** Limits how often each message is written: one token bucket a message. */
export class MessageLimiter {
  readonly #buckets = new Map<string, Bucket>();

  /**
   * Returns how many lines of this message were suppressed since the last one that was not, or
   * `undefined` when this one is to be suppressed too.
   */
  admit(message: string, now: Instant): number | undefined {
    let bucket = this.#buckets.get(message);
    if (bucket === undefined) {
      bucket = { tokens: BURST, refilledAt: now, suppressed: 0 };
      const [oldest] = this.#buckets.keys();
      if (oldest !== undefined && this.#buckets.size >= MOST_MESSAGES) this.#buckets.delete(oldest);
      this.#buckets.set(message, bucket);
    }
    bucket.tokens = Math.min(BURST, bucket.tokens + (now - bucket.refilledAt) / REFILL_INTERVAL);
    bucket.refilledAt = now;
    if (bucket.tokens < 1) {
      bucket.suppressed++;
      return undefined;
    }
    bucket.tokens--;
    const { suppressed } = bucket;
    bucket.suppressed = 0;
    return suppressed;
  }

  /** Returns the messages with lines suppressed and not yet told, and forgets these counts. */
  takeSuppressed(): readonly (readonly [message: string, count: number])[] {
    const untold: (readonly [string, number])[] = [];
    for (const [message, bucket] of this.#buckets) {
      if (bucket.suppressed > 0) untold.push([message, bucket.suppressed]);
      bucket.suppressed = 0;
    }
    return untold;
  }
}

interface Bucket {
  tokens: number;
  refilledAt: Instant;
  suppressed: number;
}
