import type { Deadline } from './agent.ts';
import { after, type Instant, type Millis } from './instant.ts';
import { BugError } from './outcome.ts';

/**
 * A map whose entries expire, with at most `limit` of them. A full map drops the entry that would
 * expire first. Expired entries stay readable until `handleTimeout` takes them out.
 *
 * The entries also form a binary heap by expiry (earlier `set` first on a tie), so that setting,
 * refreshing and deleting cost O(log n); refreshing allocates nothing.
 */
export class ExpiringMap<K, V> {
  readonly #limit: number;
  readonly #reason: string;
  readonly #entries = new Map<K, Entry<K, V>>();
  readonly #heap: Entry<K, V>[] = [];
  #sequence = 0;

  constructor(limit: number, reason = 'entry expires') {
    if (!(limit >= 1)) throw new BugError(`map limit ${limit}`);
    this.#limit = limit;
    this.#reason = reason;
  }

  /**
   * Sets the entry, or replaces its value and life. Returns the entry that a full map dropped for it.
   */
  set(key: K, value: V, now: Instant, ttl: Millis): readonly [K, V] | undefined {
    const expiresAt = after(now, ttl);
    const existing = this.#entries.get(key);
    if (existing !== undefined) {
      existing.value = value;
      existing.expiresAt = expiresAt;
      existing.sequence = this.#sequence++;
      this.#restore(existing);
      return undefined;
    }
    const dropped = this.#entries.size >= this.#limit ? this.#heap[0] : undefined;
    if (dropped !== undefined) this.delete(dropped.key);
    const sequence = this.#sequence++;
    const entry = { key, value, expiresAt, sequence, index: this.#heap.length };
    this.#entries.set(key, entry);
    this.#heap.push(entry);
    this.#restore(entry);
    return dropped && [dropped.key, dropped.value];
  }

  delete(key: K): boolean {
    const entry = this.#entries.get(key);
    if (entry === undefined) return false;
    this.#entries.delete(key);
    const last = this.#heap.pop();
    if (last !== undefined && last !== entry) {
      this.#put(last, entry.index);
      this.#restore(last);
    }
    return true;
  }

  /** Takes out and returns the expired entries, in the order in which they expired. */
  handleTimeout(now: Instant): readonly (readonly [K, V])[] {
    const expired: (readonly [K, V])[] = [];
    for (;;) {
      const first = this.#heap[0];
      if (first === undefined || first.expiresAt > now) return expired;
      this.delete(first.key);
      expired.push([first.key, first.value]);
    }
  }

  pollTimeout(): Deadline | undefined {
    const first = this.#heap[0];
    return first && { at: first.expiresAt, reason: this.#reason };
  }

  get(key: K): V | undefined {
    return this.#entries.get(key)?.value;
  }

  has(key: K): boolean {
    return this.#entries.has(key);
  }

  /** Iterates in the order in which the keys were first set. */
  *entries(): IterableIterator<readonly [K, V]> {
    for (const entry of this.#entries.values()) yield [entry.key, entry.value];
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Moves an entry whose place may be wrong up or down the heap. */
  #restore(entry: Entry<K, V>): void {
    let index = entry.index;
    for (;;) {
      const parentIndex = (index - 1) >> 1;
      const parent = index > 0 ? this.#heap[parentIndex] : undefined;
      if (parent === undefined || !isBefore(entry, parent)) break;
      this.#put(parent, index);
      index = parentIndex;
    }
    for (;;) {
      let childIndex = index * 2 + 1;
      let child = this.#heap[childIndex];
      const sibling = this.#heap[childIndex + 1];
      if (child !== undefined && sibling !== undefined && isBefore(sibling, child)) {
        child = sibling;
        childIndex++;
      }
      if (child === undefined || !isBefore(child, entry)) break;
      this.#put(child, index);
      index = childIndex;
    }
    this.#put(entry, index);
  }

  #put(entry: Entry<K, V>, index: number): void {
    this.#heap[index] = entry;
    entry.index = index;
  }
}

interface Entry<K, V> {
  readonly key: K;
  value: V;
  expiresAt: Instant;
  sequence: number;
  /** Its place in the heap. */
  index: number;
}

function isBefore<K, V>(a: Entry<K, V>, b: Entry<K, V>): boolean {
  return a.expiresAt < b.expiresAt || (a.expiresAt === b.expiresAt && a.sequence < b.sequence);
}
