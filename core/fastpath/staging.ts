/** The most packets that wait for a session of one peer (as in the Linux kernel), and for all. */
export const MOST_STAGED_PER_PEER = 128;
export const MOST_STAGED_BYTES = 4_194_304;

/**
 * Packets that wait for a session, oldest first. When a peer has too many, or all peers together, the
 * oldest of that peer go; `add` returns how many.
 */
export class Staging {
  readonly #queues = new Map<number, Uint8Array[]>();
  #bytes = 0;

  /** Takes ownership of a read: the packet with its virtio-net header. */
  add(peer: number, read: Uint8Array): number {
    const queue = this.#queues.get(peer) ?? [];
    let dropped = 0;
    while (
      queue.length > 0 &&
      (queue.length >= MOST_STAGED_PER_PEER || this.#bytes + read.length > MOST_STAGED_BYTES)
    ) {
      this.#bytes -= queue.shift()?.length ?? 0;
      dropped++;
    }
    if (this.#bytes + read.length > MOST_STAGED_BYTES) {
      dropped++;
    } else {
      queue.push(read);
      this.#bytes += read.length;
    }
    if (queue.length > 0) this.#queues.set(peer, queue);
    else this.#queues.delete(peer);
    return dropped;
  }

  has(peer: number): boolean {
    return this.#queues.has(peer);
  }

  shift(peer: number): Uint8Array | undefined {
    const queue = this.#queues.get(peer);
    const read = queue?.shift();
    this.#bytes -= read?.length ?? 0;
    if (queue?.length === 0) this.#queues.delete(peer);
    return read;
  }

  /** Drops all of a peer; returns how many there were. */
  clear(peer: number): number {
    let dropped = 0;
    while (this.shift(peer) !== undefined) dropped++;
    return dropped;
  }
}
