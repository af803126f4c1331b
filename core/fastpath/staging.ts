/** The most packets that wait for a session of one peer (as in the Linux kernel), and for all. */
export const MOST_STAGED_PER_PEER = 128;
export const MOST_STAGED_BYTES = 4_194_304;

/**
 * Packets that wait for a session, oldest first. A peer that has too many loses its oldest; when all
 * peers together have too many, the one with the most bytes does, so that none starves the others.
 */
export class Staging {
  readonly #queues = new Map<number, Queue>();
  #bytes = 0;

  /** Takes ownership of a read: the packet with its virtio-net header. Returns how many were dropped for it. */
  add(peer: number, read: Uint8Array): number {
    const queue = this.#queues.get(peer) ?? { reads: [], bytes: 0 };
    this.#queues.set(peer, queue);
    queue.reads.push(read);
    queue.bytes += read.length;
    this.#bytes += read.length;
    let dropped = 0;
    if (queue.reads.length > MOST_STAGED_PER_PEER) {
      this.shift(peer);
      dropped++;
    }
    while (this.#bytes > MOST_STAGED_BYTES) {
      this.shift(this.#largest());
      dropped++;
    }
    return dropped;
  }

  has(peer: number): boolean {
    return this.#queues.has(peer);
  }

  /** Returns the oldest of a peer, which stays. */
  first(peer: number): Uint8Array | undefined {
    return this.#queues.get(peer)?.reads[0];
  }

  shift(peer: number): Uint8Array | undefined {
    const queue = this.#queues.get(peer);
    const read = queue?.reads.shift();
    if (queue === undefined || read === undefined) return undefined;
    queue.bytes -= read.length;
    this.#bytes -= read.length;
    if (queue.reads.length === 0) this.#queues.delete(peer);
    return read;
  }

  /** Drops all of a peer; returns how many there were. */
  clear(peer: number): number {
    let dropped = 0;
    while (this.shift(peer) !== undefined) dropped++;
    return dropped;
  }

  #largest(): number {
    let largest = 0;
    let most = 0;
    for (const [peer, { bytes }] of this.#queues) {
      if (bytes <= most) continue;
      largest = peer;
      most = bytes;
    }
    return largest;
  }
}

interface Queue {
  readonly reads: Uint8Array[];
  bytes: number;
}
