import type { Deadline } from '../sansio/agent.ts';
import { after, type Instant, type Millis } from '../sansio/instant.ts';
import type { CommandResult } from './input.ts';

/**
 * From a change of the network to our look at it: changes come in bursts, a look costs some dumps, and
 * an interface that was removed is being made again meanwhile.
 */
const LOOK_DELAY: Millis = 50;
/** Two programs that undo each other's work for ever do it no faster than this. */
const REPAIR_INTERVAL: Millis = 5_000;
/** So many repairs may come sooner: a restart of the network takes some. */
const QUICK_REPAIRS = 20;

/**
 * Decides when to look whether the kernel still has our link, addresses and routes, which other programs
 * may change. A look comes soon after a change, but where looks find something to repair again and again
 * they become rare, as the other program may answer each repair for ever.
 */
export class Assertion {
  #due: Instant | undefined;
  /** Whether the next result is that of a look. */
  #isLooking = false;
  /** When the repairs so far would be done at one in `REPAIR_INTERVAL`. */
  #evenUntil: Instant;
  #isTold = false;

  constructor(now: Instant) {
    this.#evenUntil = now;
  }

  handleLinksChanged(now: Instant): void {
    const soonest = after(now, LOOK_DELAY);
    const allowed = this.#nextRepair();
    this.#due ??= allowed > soonest ? allowed : soonest;
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
    if (this.#evenUntil <= now) {
      this.#evenUntil = now;
      this.#isTold = false;
    }
    this.#evenUntil = after(this.#evenUntil, REPAIR_INTERVAL);
    const isContested = changes > 0 && this.#nextRepair() > now;
    if (!isContested || this.#isTold) return false;
    this.#isTold = true;
    return true;
  }

  /** Returns whether to look. */
  handleTimeout(now: Instant): boolean {
    if (this.#due === undefined || this.#due > now) return false;
    this.#due = undefined;
    this.#isLooking = true;
    return true;
  }

  pollTimeout(): Deadline | undefined {
    return this.#due === undefined ? undefined : { at: this.#due, reason: 'assert' };
  }

  #nextRepair(): Instant {
    return after(this.#evenUntil, -QUICK_REPAIRS * REPAIR_INTERVAL);
  }
}
