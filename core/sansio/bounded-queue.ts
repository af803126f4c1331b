import { BugError } from './outcome.ts';

/** A first-in, first-out queue that never holds more than `limit` items. */
export class BoundedQueue<T> {
  readonly #limit: number;
  readonly #drop: 'oldest' | 'newest';
  /** Items wait in [#head, length): taking one moves the head, and the front is cut off in bulk. */
  #items: T[] = [];
  #head = 0;
  #dropped = 0;

  constructor(limit: number, drop: 'oldest' | 'newest') {
    if (!(limit >= 1)) throw new BugError(`queue limit ${limit}`);
    this.#limit = limit;
    this.#drop = drop;
  }

  /** Appends the item. Returns what a full queue dropped for it: the oldest item, or this one. */
  push(item: T): T | undefined {
    let dropped: T | undefined;
    if (this.length >= this.#limit) {
      this.#dropped++;
      if (this.#drop === 'newest') return item;
      dropped = this.shift();
    }
    this.#items.push(item);
    return dropped;
  }

  shift(): T | undefined {
    if (this.length === 0) return undefined;
    const item = this.#items[this.#head++];
    if (this.#head === this.#items.length) this.clear();
    else if (this.#head > CUT_AFTER && this.#head * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    }
    return item;
  }

  clear(): void {
    this.#items.length = 0;
    this.#head = 0;
  }

  get length(): number {
    return this.#items.length - this.#head;
  }

  /** How many items were dropped since the queue was made. */
  get dropped(): number {
    return this.#dropped;
  }
}

/** Taken items stay referenced until at least this many can be cut off together. */
const CUT_AFTER = 32;
