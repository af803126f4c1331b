import { after, instantAt, type Instant, type Millis } from '../sansio/instant.ts';

/**
 * What waits to be sent to one peer, urgent items first, and otherwise in the order in which they came. A
 * quiet queue lets `burst` of them go at once, and then one each `interval` (the virtual scheduling
 * algorithm of ITU-T I.371, as it tells when the next one may go).
 */
export class PacedQueue<T> {
  readonly #burst: number;
  readonly #interval: Millis;
  readonly #urgent = new Set<T>();
  readonly #others = new Set<T>();
  /** When the queue is quiet again. */
  #quietAt: Instant = instantAt(0);

  constructor(burst: number, interval: Millis) {
    this.#burst = burst;
    this.#interval = interval;
  }

  /** Puts the item behind the others of its kind; one that waits already changes its kind at most. */
  add(item: T, isUrgent: boolean): void {
    (isUrgent ? this.#others : this.#urgent).delete(item);
    (isUrgent ? this.#urgent : this.#others).add(item);
  }

  has(item: T): boolean {
    return this.#urgent.has(item) || this.#others.has(item);
  }

  delete(item: T): void {
    this.#urgent.delete(item);
    this.#others.delete(item);
  }

  /** Takes out the next item; `undefined` where none waits, or none may go yet. */
  take(now: Instant): T | undefined {
    const at = this.readyAt();
    if (at === undefined || now < at) return undefined;
    const [item] = this.#urgent.size > 0 ? this.#urgent : this.#others;
    if (item === undefined) return undefined;
    this.delete(item);
    this.#quietAt = after(now > this.#quietAt ? now : this.#quietAt, this.#interval);
    return item;
  }

  /** Returns when the next item may go, which may be in the past; `undefined` where none waits. */
  readyAt(): Instant | undefined {
    if (this.#urgent.size + this.#others.size === 0) return undefined;
    return after(this.#quietAt, (1 - this.#burst) * this.#interval);
  }
}
