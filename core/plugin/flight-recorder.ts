import type { Instant } from '../sansio/instant.ts';

/** One thing that went into an agent, and when. */
export interface Recorded<Input> {
  readonly now: Instant;
  readonly input: Input;
}

/**
 * Keeps the last inputs of an agent in a ring, so that a broken invariant in the field comes with the
 * inputs that led to it, and a run can be replayed: feeding `inputs()` to a fresh agent with the same
 * seed gives the same outputs.
 */
export class FlightRecorder<Input> {
  readonly #ring: (Recorded<Input> | undefined)[];
  #next = 0;
  #recorded = 0;

  /** `limit` is the number of inputs kept; the oldest go first. */
  constructor(limit: number) {
    this.#ring = Array.from({ length: limit });
  }

  record(input: Input, now: Instant): void {
    this.#ring[this.#next] = { now, input };
    this.#next = (this.#next + 1) % this.#ring.length;
    this.#recorded++;
  }

  /** Whether the ring still holds everything since the agent was made. */
  get complete(): boolean {
    return this.#recorded <= this.#ring.length;
  }

  /** Returns what is kept, oldest first. */
  inputs(): readonly Recorded<Input>[] {
    const oldestFirst = [...this.#ring.slice(this.#next), ...this.#ring.slice(0, this.#next)];
    return oldestFirst.filter((entry) => entry !== undefined);
  }
}
