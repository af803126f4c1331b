import type { Deadline } from '../sansio/agent.ts';
import { after, elapsed, type Instant, type Millis } from '../sansio/instant.ts';
import type { CommandResult } from './input.ts';

/**
 * From a change of the network to our look at it: changes come in bursts, a look costs some dumps, and
 * an interface that was removed is being made again meanwhile.
 */
const SHORTEST_DELAY: Millis = 50;
/** Two programs that undo each other's work for ever do it no faster than this. */
const LONGEST_DELAY: Millis = 5_000;
/** So many repairs may follow each other at the shortest delay: a restart of the network takes some. */
const QUICK_REPAIRS = 8;
/** Nothing to repair for this long ends the contest. */
const CALM: Millis = 30_000;

/**
 * Decides when to look whether the kernel still has our link, addresses and routes, which other programs
 * may change. The first looks come soon after a change; where each has to repair something they become
 * rarer, as the other program may answer each repair for ever.
 */
export class Assertion {
  #due: Instant | undefined;
  /** Whether the next result is that of a look. */
  #isLooking = false;
  #lookedAt: Instant | undefined;
  #repairedAt: Instant | undefined;
  #repairs = 0;
  #isTold = false;

  handleLinksChanged(now: Instant): void {
    const soonest = after(now, SHORTEST_DELAY);
    const next = this.#lookedAt === undefined ? soonest : after(this.#lookedAt, this.#delay(now));
    this.#due ??= next > soonest ? next : soonest;
  }

  /** Takes what a look found; returns whether another program is found to work against us. */
  handleApplied(
    { changes, failures }: Extract<CommandResult, { type: 'link-applied' }>,
    now: Instant,
  ): boolean {
    if (!this.#isLooking) return false;
    this.#isLooking = false;
    // How much was repaired beside a failure is not known.
    if (changes === 0 && failures.length === 0) return false;
    if (this.#isCalm(now)) {
      this.#repairs = 0;
      this.#isTold = false;
    }
    this.#repairs++;
    this.#repairedAt = now;
    if (changes === 0 || this.#repairs <= QUICK_REPAIRS || this.#isTold) return false;
    this.#isTold = true;
    return true;
  }

  /** Returns whether to look. */
  handleTimeout(now: Instant): boolean {
    if (this.#due === undefined || this.#due > now) return false;
    this.#due = undefined;
    this.#isLooking = true;
    this.#lookedAt = now;
    return true;
  }

  pollTimeout(): Deadline | undefined {
    return this.#due === undefined ? undefined : { at: this.#due, reason: 'assert' };
  }

  #delay(now: Instant): Millis {
    if (this.#repairs <= QUICK_REPAIRS || this.#isCalm(now)) return SHORTEST_DELAY;
    return Math.min(LONGEST_DELAY, SHORTEST_DELAY * 2 ** (this.#repairs - QUICK_REPAIRS));
  }

  #isCalm(now: Instant): boolean {
    return this.#repairedAt === undefined || elapsed(this.#repairedAt, now) > CALM;
  }
}
