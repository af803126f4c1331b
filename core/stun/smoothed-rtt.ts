import type { Millis } from '../sansio/instant.ts';

/** The exponential average of round trips: each sample counts for an eighth (RFC 6298 §2). */
export class SmoothedRtt {
  #value: Millis | undefined;

  /** `undefined` before the first sample. */
  get value(): Millis | undefined {
    return this.#value;
  }

  add(sample: Millis): void {
    this.#value = this.#value === undefined ? sample : (7 * this.#value + sample) / 8;
  }
}
