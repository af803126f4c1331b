import { after, elapsed, instantAt, type Instant, type Millis } from '../sansio/instant.ts';

/** A pair that owes us an answer for this long is asked for one. */
export const ASK_AFTER: Millis = 250;

/** A pair that owes an answer for this long is in doubt: it is asked at short intervals, and spares too. */
export const DOUBT_AFTER: Millis = 500;

/** A pair that owes an answer for this long is left for another one that answers. */
export const SILENT_AFTER: Millis = 1_500;

/**
 * Deviation from DESIGN §5 (500 ms): at 20 % loss each way three unanswered checks are chance, one time
 * in twenty; the twenty that fit into the time that is left are none.
 */
const DOUBT_INTERVAL: Millis = 50;

/** Where there is no other pair the silent one is asked on. */
const SILENCE_INTERVAL: Millis = 500;

/**
 * Whether the pair in use works in both directions. Silence counts from the first thing sent that nothing
 * authentic came after, so a pair on which nothing happens is not silent. A peer that checks the pair, or
 * leaves it, may not hear us although we hear it: from then on only an answer to a check ends the silence.
 */
export class Liveness {
  /** When the first thing was sent since we last heard. */
  #owedSince: Instant | undefined;
  #answeredAt: Instant | undefined;
  #mustAnswer = false;
  #mustConfirm = false;

  handleSent(now: Instant): void {
    this.#owedSince ??= now;
  }

  /** Something authentic came on the pair. */
  handleHeard(): void {
    if (!this.#mustAnswer) this.#owedSince = undefined;
  }

  /** A check of ours was answered; `isConfirmed`: one that nominates the pair. */
  handleAnswered(isConfirmed: boolean, now: Instant): void {
    this.#answeredAt = now;
    if (isConfirmed) this.#mustConfirm = false;
    if (this.#mustConfirm) return;
    this.#mustAnswer = false;
    this.#owedSince = undefined;
  }

  /** The peer has to learn of our nomination: it is repeated until it is answered. */
  handleNominated(now: Instant): void {
    this.handleSent(now);
    this.#mustAnswer = true;
    this.#mustConfirm = true;
  }

  /**
   * Gives the pair `patience` until it counts as silent, unless it is answered. Returns whether that is
   * worth asking: not if it was answered a moment ago, or is asked anyway.
   */
  demandAnswer(patience: Millis, now: Instant): boolean {
    if (this.#answeredAt !== undefined && elapsed(this.#answeredAt, now) < DOUBT_AFTER) {
      return false;
    }
    const since = after(now, patience - SILENT_AFTER);
    const isNews = !this.#mustAnswer || since < (this.#owedSince ?? now);
    this.#mustAnswer = true;
    if (this.#owedSince === undefined || since < this.#owedSince) this.#owedSince = since;
    return isNews;
  }

  /** We were asleep, in which time nobody could be heard: silence begins anew. */
  handleSlept(now: Instant): void {
    if (this.#owedSince !== undefined) this.#owedSince = now;
  }

  /** Another pair is in use. */
  reset(): void {
    this.#owedSince = undefined;
    this.#answeredAt = undefined;
    this.#mustAnswer = false;
    this.#mustConfirm = false;
  }

  /** Whether an answer is owed for this long. Instants are compared, as differences of them are rounded. */
  isSilentFor(duration: Millis, now: Instant): boolean {
    return this.#owedSince !== undefined && after(this.#owedSince, duration) <= now;
  }

  /** Whether the pair is to be asked in this look. */
  mustAsk(now: Instant): boolean {
    return this.#mustConfirm || this.isSilentFor(ASK_AFTER, now);
  }

  /** When to look next, if anything is owed; `limit` is the silence after which all is lost. */
  nextLook(limit: Millis, now: Instant): Instant | undefined {
    const owedSince = this.#owedSince;
    if (owedSince === undefined) return undefined;
    const phase = [ASK_AFTER, DOUBT_AFTER, SILENT_AFTER, limit].find(
      (end) => !this.isSilentFor(end, now),
    );
    const phaseEnd = phase === undefined ? Infinity : owedSince + phase;
    return instantAt(Math.min(phaseEnd, now + this.#askInterval(now)));
  }

  #askInterval(now: Instant): Millis {
    if (this.isSilentFor(SILENT_AFTER, now)) return SILENCE_INTERVAL;
    return this.#mustConfirm || this.isSilentFor(DOUBT_AFTER, now) ? DOUBT_INTERVAL : Infinity;
  }
}
