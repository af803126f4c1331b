import { after, elapsed, type Instant, type Millis } from './instant.ts';

export interface BackoffOptions {
  /** From the start to the first trigger. */
  readonly firstInterval: Millis;
  /** Each interval is this many times the one before it. */
  readonly multiplier: number;
  /** From the start to the expiry. */
  readonly maximumElapsed: Millis;
}

/**
 * Spaces retransmissions exponentially until a total time has passed.
 *
 * Triggers are computed from each other and not from the time of the call, so a late driver does not
 * make them drift: trigger n+1 = trigger n + interval n+1.
 */
export class Backoff {
  readonly #start: Instant;
  readonly #multiplier: number;
  readonly #maximumElapsed: Millis;
  #interval: Millis;
  #nextTrigger: Instant;

  constructor(now: Instant, options: BackoffOptions) {
    this.#start = now;
    this.#multiplier = options.multiplier;
    this.#maximumElapsed = options.maximumElapsed;
    this.#interval = options.firstInterval;
    this.#nextTrigger = after(now, options.firstInterval);
  }

  /** Steps to the next interval when the trigger is due, once a call however late `now` is. */
  handleTimeout(now: Instant): void {
    if (now < this.#nextTrigger) return;
    this.#interval *= this.#multiplier;
    this.#nextTrigger = after(this.#nextTrigger, this.#interval);
  }

  isExpired(now: Instant): boolean {
    return elapsed(this.#start, now) >= this.#maximumElapsed;
  }

  nextTrigger(): Instant {
    return this.#nextTrigger;
  }

  /** Returns the length of the interval that ends with the next trigger. */
  interval(): Millis {
    return this.#interval;
  }
}
