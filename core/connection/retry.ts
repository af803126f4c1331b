import { after, type Instant, type Millis } from '../sansio/instant.ts';
import { randomFraction, type Random } from '../sansio/random.ts';

/** Between attempts, drawn from [0, x]: x doubles from the first to the last. */
const FIRST_RETRY: Millis = 1_000;
const LAST_RETRY: Millis = 60_000;
const MOST_DOUBLINGS = Math.ceil(Math.log2(LAST_RETRY / FIRST_RETRY));

/** Packets that wait, and a peer that calls, start an attempt, this long after the last one failed. */
const WANTED_RETRY: Millis = 1_000;

/** When an attempt follows one that failed: for ever, ever more rarely. */
export class Retry {
  readonly #random: Random;
  #doublings = 0;
  #failedAt: Instant | undefined;
  /** Then nobody is expected there. */
  #hasLeft = false;

  constructor(random: Random) {
    this.#random = random;
  }

  /** Returns when the next attempt is due; to a peer that has left there is at most one a minute. */
  handleFailed(now: Instant): Instant {
    if (this.#hasLeft) {
      this.#failedAt = now;
      return after(now, LAST_RETRY);
    }
    const due = this.#draw(now);
    this.#doublings = Math.min(this.#doublings + 1, MOST_DOUBLINGS);
    return due;
  }

  /** The same where the peer has said when to expect it: `soon`, or who knows when. */
  handleGone(soon: boolean, now: Instant): Instant {
    this.#doublings = soon ? 0 : MOST_DOUBLINGS;
    this.#hasLeft = !soon;
    return this.#draw(now);
  }

  /** Something is different from when it failed. */
  reset(): void {
    this.#hasLeft = false;
    this.#doublings = 0;
  }

  /** When an attempt that is wanted may start: at once, if none has failed just before. */
  earliest(now: Instant): Instant {
    return this.#failedAt === undefined ? now : after(this.#failedAt, WANTED_RETRY);
  }

  /** Full jitter: the routers of a fleet do not all come at once. */
  #draw(now: Instant): Instant {
    this.#failedAt = now;
    const longest = Math.min(LAST_RETRY, FIRST_RETRY * 2 ** this.#doublings);
    return after(now, longest * randomFraction(this.#random));
  }
}
