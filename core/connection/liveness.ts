import { after, elapsed, type Instant, type Millis } from '../sansio/instant.ts';

/** How often a pair in use is looked at. */
export const LIVENESS_INTERVAL: Millis = 250;

/** A pair that owes us an answer for this long is in doubt: it is checked at short intervals. */
export const DOUBT_AFTER: Millis = 500;

/**
 * Deviation from DESIGN §5 (500 ms): at 20 % loss each way three unanswered checks are chance, one time
 * in twenty; the twenty that fit into the time that is left are none.
 */
export const DOUBT_INTERVAL: Millis = 50;

/** A pair that owes an answer for this long is left for another one that answers. */
export const SILENT_AFTER: Millis = 1_500;

/** Where there is no other pair the silent one is asked on. */
const SILENCE_INTERVAL: Millis = 500;

/** What is sent keeps a pair under watch for this long. */
const WATCH_FOR: Millis = 2_000;

/**
 * Whether the pair in use works in both directions. Silence counts from the first thing sent that nothing
 * authentic came after, so a pair on which nothing happens is not silent.
 */
export class Liveness {
  #heardAt: Instant | undefined;
  #lastSentAt: Instant | undefined;
  /** When the first thing was sent since we last heard. */
  #owedSince: Instant | undefined;

  handleSent(now: Instant): void {
    this.#lastSentAt = now;
    this.#owedSince ??= now;
  }

  handleHeard(now: Instant): void {
    this.#heardAt = now;
    this.#owedSince = undefined;
  }

  /** Another pair is in use: its silence begins anew. */
  reset(): void {
    this.#heardAt = undefined;
    this.#owedSince = undefined;
  }

  get heardAt(): Instant | undefined {
    return this.#heardAt;
  }

  /** How long an answer is owed. */
  silence(now: Instant): Millis {
    return this.#owedSince === undefined ? 0 : elapsed(this.#owedSince, now);
  }

  /** When to look next; `undefined` once nothing was sent for a while and nothing is owed. */
  nextLook(now: Instant): Instant | undefined {
    const silence = this.silence(now);
    if (silence >= SILENT_AFTER) return after(now, SILENCE_INTERVAL);
    if (silence >= DOUBT_AFTER) return after(now, DOUBT_INTERVAL);
    const isWatched = this.#lastSentAt !== undefined && elapsed(this.#lastSentAt, now) < WATCH_FOR;
    return isWatched || this.#owedSince !== undefined ? after(now, LIVENESS_INTERVAL) : undefined;
  }
}
