/** No row, and no next one. */
const NONE = -1;

/**
 * Rows with the same hash, chained: an index over rows that lie elsewhere. The row added last is found
 * first. Adding and removing take the same time however long the chain.
 */
export class RowChains {
  /** Row + 1, so that zeroed memory is an empty index. */
  readonly #heads: Int32Array;
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #mask: number;

  /** `buckets` is a power of two. */
  constructor(rows: number, buckets: number) {
    this.#heads = new Int32Array(buckets);
    this.#next = new Int32Array(rows);
    this.#previous = new Int32Array(rows);
    this.#mask = buckets - 1;
  }

  /** Returns the first row of the chain of this hash, or a negative number. */
  first(hash: number): number {
    return (this.#heads[hash & this.#mask] ?? 0) - 1;
  }

  /** Returns the row that follows in the chain, or a negative number. */
  next(row: number): number {
    return (this.#next[row] ?? 0) - 1;
  }

  add(row: number, hash: number): void {
    const head = this.first(hash);
    this.#next[row] = head + 1;
    this.#previous[row] = 0;
    if (head !== NONE) this.#previous[head] = row + 1;
    this.#heads[hash & this.#mask] = row + 1;
  }

  remove(row: number, hash: number): void {
    const next = this.next(row);
    const previous = (this.#previous[row] ?? 0) - 1;
    if (previous === NONE) this.#heads[hash & this.#mask] = next + 1;
    else this.#next[previous] = next + 1;
    if (next !== NONE) this.#previous[next] = previous + 1;
  }

  get byteLength(): number {
    return this.#heads.byteLength + this.#next.byteLength + this.#previous.byteLength;
  }
}
