import type { Instant } from '../sansio/instant.ts';

/** One thing that went into an agent, and when. */
export interface Recorded<Input> {
  readonly now: Instant;
  readonly input: Input;
}

/** Bytes of messages kept, whose length a broker that nobody trusts decides: a few of the largest. */
export const MOST_RECORDED_BYTES = 4_194_304;

/**
 * Keeps the last inputs of an agent, so that a broken invariant in the field comes with the inputs that
 * led to it, and a run can be replayed: feeding `inputs()` to a fresh agent with the same seed gives
 * the same outputs.
 */
export class FlightRecorder<Input> {
  readonly #limit: number;
  /** Oldest first. */
  readonly #kept: { readonly recorded: Recorded<Input>; readonly bytes: number }[] = [];
  #bytes = 0;
  #isComplete = true;

  /** `limit` is the number of inputs kept; the oldest go first. The newest is kept whatever its size. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  record(input: Input, now: Instant): void {
    const bytes = bytesIn(input);
    this.#kept.push({ recorded: { now, input }, bytes });
    this.#bytes += bytes;
    while (
      this.#kept.length > this.#limit ||
      (this.#bytes > MOST_RECORDED_BYTES && this.#kept.length > 1)
    ) {
      this.#bytes -= this.#kept.shift()?.bytes ?? 0;
      this.#isComplete = false;
    }
  }

  /** Whether everything since the agent was made is still there. */
  get complete(): boolean {
    return this.#isComplete;
  }

  /** Returns what is kept, oldest first. */
  inputs(): readonly Recorded<Input>[] {
    return this.#kept.map(({ recorded }) => recorded);
  }
}

/** Counts the byte arrays anywhere in a value: they are what can be large. */
function bytesIn(value: unknown): number {
  if (value instanceof Uint8Array) return value.byteLength;
  if (typeof value !== 'object' || value === null) return 0;
  let bytes = 0;
  for (const item of Object.values(value)) bytes += bytesIn(item);
  return bytes;
}
