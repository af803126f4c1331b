/** What stands in a `UseOrder`, which alone sets these. */
export interface Used<T> {
  /** Used just before this one. */
  older: T | undefined;
  newer: T | undefined;
}

/**
 * The order in which things were used last. Each step costs the same however many there are: a `Map` whose
 * entries always go from its front to its end would look through those that went.
 */
export class UseOrder<T extends Used<T>> {
  #oldest: T | undefined;
  #newest: T | undefined;
  #size = 0;

  get oldest(): T | undefined {
    return this.#oldest;
  }

  get size(): number {
    return this.#size;
  }

  /** Adds what does not stand here, as the one used last. */
  add(item: T): void {
    item.older = this.#newest;
    if (this.#newest === undefined) this.#oldest = item;
    else this.#newest.newer = item;
    this.#newest = item;
    this.#size++;
  }

  /** Takes out what stands here. */
  delete(item: T): void {
    if (item.older === undefined) this.#oldest = item.newer;
    else item.older.newer = item.newer;
    if (item.newer === undefined) this.#newest = item.older;
    else item.newer.older = item.older;
    item.older = item.newer = undefined;
    this.#size--;
  }

  touch(item: T): void {
    if (item === this.#newest) return;
    this.delete(item);
    this.add(item);
  }
}
