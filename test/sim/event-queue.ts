import { instantAt, type Instant } from '../../core/sansio/instant.ts';

/** Something that happens at one time of a simulation. The same object may be queued again and again. */
export interface Happening {
  happen(): void;
}

/** What is to happen, by time and then in the order of queueing. A binary heap in three flat arrays. */
export class EventQueue {
  readonly #at: number[] = [];
  readonly #sequence: number[] = [];
  readonly #what: Happening[] = [];
  #queued = 0;

  get length(): number {
    return this.#what.length;
  }

  /** When the next one happens; `Infinity` where nothing is queued. */
  get next(): Instant {
    return instantAt(this.#at[0] ?? Infinity);
  }

  push(at: Instant, what: Happening): void {
    const sequence = ++this.#queued;
    let hole = this.#what.length;
    while (hole > 0) {
      const parent = (hole - 1) >> 1;
      // A new one has the highest sequence: it rises only past a later time.
      if (this.#at[parent]! <= at) break;
      this.#move(parent, hole);
      hole = parent;
    }
    this.#put(hole, at, sequence, what);
  }

  /** Takes the first one off; only where there is one. */
  pop(): Happening {
    const first = this.#what[0]!;
    const at = this.#at.pop()!;
    const sequence = this.#sequence.pop()!;
    const what = this.#what.pop()!;
    const length = this.#what.length;
    if (length === 0) return first;
    let hole = 0;
    for (;;) {
      let child = 2 * hole + 1;
      if (child >= length) break;
      if (child + 1 < length && this.#isBefore(child + 1, this.#at[child]!, this.#sequence[child]!))
        child++;
      if (!this.#isBefore(child, at, sequence)) break;
      this.#move(child, hole);
      hole = child;
    }
    this.#put(hole, at, sequence, what);
    return first;
  }

  #isBefore(index: number, at: number, sequence: number): boolean {
    const other = this.#at[index]!;
    return other < at || (other === at && this.#sequence[index]! < sequence);
  }

  #move(from: number, to: number): void {
    this.#put(to, this.#at[from]!, this.#sequence[from]!, this.#what[from]!);
  }

  #put(index: number, at: number, sequence: number, what: Happening): void {
    this.#at[index] = at;
    this.#sequence[index] = sequence;
    this.#what[index] = what;
  }
}
