const NONE = -1;

/** Queues of rows: each row stands in one queue at most, and leaves it from any place. */
export class RowQueues {
  readonly #heads: Int32Array;
  readonly #tails: Int32Array;
  readonly #lengths: Int32Array;
  readonly #next: Int32Array;
  readonly #previous: Int32Array;

  constructor(rows: number, queues: number) {
    this.#heads = new Int32Array(queues).fill(NONE);
    this.#tails = new Int32Array(queues).fill(NONE);
    this.#lengths = new Int32Array(queues);
    this.#next = new Int32Array(rows);
    this.#previous = new Int32Array(rows);
  }

  /** Returns the row that stands in the queue for longest, or a negative number. */
  first(queue: number): number {
    return this.#heads[queue] ?? NONE;
  }

  /** Returns the row behind this one, or a negative number. */
  next(row: number): number {
    return this.#next[row] ?? NONE;
  }

  /** Returns the row that came last, or a negative number. */
  last(queue: number): number {
    return this.#tails[queue] ?? NONE;
  }

  /** Returns the row before this one, or a negative number. */
  previous(row: number): number {
    return this.#previous[row] ?? NONE;
  }

  length(queue: number): number {
    return this.#lengths[queue] ?? 0;
  }

  append(row: number, queue: number): void {
    const tail = this.#tails[queue] ?? NONE;
    this.#next[row] = NONE;
    this.#previous[row] = tail;
    if (tail === NONE) this.#heads[queue] = row;
    else this.#next[tail] = row;
    this.#tails[queue] = row;
    this.#lengths[queue] = this.length(queue) + 1;
  }

  remove(row: number, queue: number): void {
    const next = this.next(row);
    const previous = this.previous(row);
    if (previous === NONE) this.#heads[queue] = next;
    else this.#next[previous] = next;
    if (next === NONE) this.#tails[queue] = previous;
    else this.#previous[next] = previous;
    this.#lengths[queue] = this.length(queue) - 1;
  }

  get byteLength(): number {
    return this.#next.byteLength + this.#previous.byteLength;
  }
}
