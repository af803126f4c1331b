import type { IceAgent, PairId, ValidPair } from '../ice/agent.ts';
import type { PathKind } from '../peering/message.ts';
import { elapsed, type Instant, type Millis } from '../sansio/instant.ts';
import { DOUBT_AFTER, SILENT_AFTER } from './liveness.ts';
import { bestOf, isSamePair, pathKindOf, tierOf, type IsStream } from './path-choice.ts';

/** A spare of a connection in use that answers no more is none. */
const SPARE_LIFETIME: Millis = 20_000;
/** While in doubt spares are asked this often whether they would do. */
const DOUBT_INTERVAL: Millis = 250;
/** Whether a spare answers now: since it was asked in this doubt. */
const ANSWERS_WITHIN: Millis = SILENT_AFTER - DOUBT_AFTER;

/**
 * The pairs that work beside the one in use. A path that is taken in a moment must be open by then, a
 * relayed one beside a direct one, so the best of each kind is checked too: what breaks one kind may leave
 * another. `used` is the pair in use.
 */
export class Spares {
  readonly #agent: IceAgent;
  readonly #isStream: IsStream;
  #askedAt: Instant | undefined;
  #heldOff: { readonly pair: PairId; readonly until: Instant } | undefined;

  constructor(agent: IceAgent, isStream: IsStream) {
    this.#agent = agent;
    this.#isStream = isStream;
  }

  /** Returns the other pairs that work, as far as is known, the best first. */
  besides(used: PairId | undefined): readonly ValidPair[] {
    const isStream = this.#isStream;
    return this.#agent
      .validPairs()
      .filter((pair) => !isSamePair(pair, used))
      .sort((a, b) => tierOf(a, isStream) - tierOf(b, isStream) || a.rtt - b.rtt);
  }

  /** Returns the best that has answered in this doubt. */
  bestAnswering(used: PairId, now: Instant): ValidPair | undefined {
    const answering = this.besides(used).filter(
      (pair) => elapsed(pair.answeredAt, now) < ANSWERS_WITHIN,
    );
    return bestOf(answering, this.#isStream);
  }

  /** The pair in use is in doubt: asks whether the others would do, unless that was just asked. */
  doubt(used: PairId, now: Instant): void {
    if (this.#askedAt !== undefined && elapsed(this.#askedAt, now) < DOUBT_INTERVAL) return;
    this.#askedAt = now;
    for (const spare of this.#bestOfEachKind(used)) this.#agent.probe(spare, now);
  }

  /** Checks them, and counts one that fell silent no more. While idle too few checks go to say so. */
  keepAlive(used: PairId, isIdle: boolean, now: Instant): void {
    for (const spare of this.#bestOfEachKind(used)) {
      const isGone = !isIdle && elapsed(spare.answeredAt, now) > SPARE_LIFETIME;
      if (isGone) this.#agent.invalidate(spare, now);
      else this.#agent.probe(spare, now);
    }
  }

  /** The pair was left for its silence: being better is no reason to return to it until then. */
  holdOff(pair: PairId, until: Instant): void {
    this.#heldOff = { pair, until };
  }

  isHeldOff(pair: PairId, now: Instant): boolean {
    const heldOff = this.#heldOff;
    return heldOff !== undefined && heldOff.until > now && isSamePair(pair, heldOff.pair);
  }

  /** No pair is in use any more. */
  reset(): void {
    this.#heldOff = undefined;
  }

  #bestOfEachKind(used: PairId): readonly ValidPair[] {
    const kinds = new Map<PathKind, ValidPair>();
    for (const pair of this.besides(used)) {
      const kind = pathKindOf(pair, this.#isStream);
      if (!kinds.has(kind)) kinds.set(kind, pair);
    }
    return [...kinds.values()];
  }
}
