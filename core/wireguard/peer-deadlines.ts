import type { Deadline } from '../sansio/agent.ts';
import type { Instant } from '../sansio/instant.ts';

/**
 * The next deadline of each peer, in a binary heap: to know the earliest of all costs nothing, to change
 * one costs O(log n), and a peer without a deadline takes no part. Deadlines at the same instant come in
 * the order of the peers.
 */
export class PeerDeadlines {
  readonly #heap: Entry[] = [];
  readonly #byPeer = new Map<number, Entry>();

  set(peer: number, deadline: Deadline | undefined): void {
    const entry = this.#byPeer.get(peer);
    if (deadline === undefined) {
      if (entry !== undefined) this.#remove(entry);
    } else if (entry === undefined) {
      const added = { peer, deadline, index: this.#heap.length };
      this.#byPeer.set(peer, added);
      this.#heap.push(added);
      this.#restore(added);
    } else {
      entry.deadline = deadline;
      this.#restore(entry);
    }
  }

  first(): Deadline | undefined {
    return this.#heap[0]?.deadline;
  }

  /** Returns the peer of the earliest deadline if that has come. */
  duePeer(now: Instant): number | undefined {
    const first = this.#heap[0];
    return first !== undefined && first.deadline.at <= now ? first.peer : undefined;
  }

  get size(): number {
    return this.#heap.length;
  }

  #remove(entry: Entry): void {
    this.#byPeer.delete(entry.peer);
    const last = this.#heap.pop();
    if (last === undefined || last === entry) return;
    this.#put(last, entry.index);
    this.#restore(last);
  }

  /** Moves an entry to its place, up or down. */
  #restore(entry: Entry): void {
    for (;;) {
      const parent = entry.index > 0 ? this.#heap[(entry.index - 1) >> 1] : undefined;
      if (parent === undefined || !isBefore(entry, parent)) break;
      this.#swap(entry, parent);
    }
    for (;;) {
      const left = this.#heap[2 * entry.index + 1];
      const right = this.#heap[2 * entry.index + 2];
      const child =
        left !== undefined && right !== undefined && isBefore(right, left) ? right : left;
      if (child === undefined || !isBefore(child, entry)) return;
      this.#swap(entry, child);
    }
  }

  #swap(a: Entry, b: Entry): void {
    const index = a.index;
    this.#put(a, b.index);
    this.#put(b, index);
  }

  #put(entry: Entry, index: number): void {
    entry.index = index;
    this.#heap[index] = entry;
  }
}

interface Entry {
  readonly peer: number;
  deadline: Deadline;
  /** Its place in the heap. */
  index: number;
}

function isBefore(a: Entry, b: Entry): boolean {
  return a.deadline.at < b.deadline.at || (a.deadline.at === b.deadline.at && a.peer < b.peer);
}
