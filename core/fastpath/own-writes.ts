import { BoundedQueue } from '../sansio/bounded-queue.ts';
import {
  IOVECS,
  IOVEC_SIZE,
  UDP_IN,
  UDP_IN_END,
  VNET_HEADER_SIZE,
  WRITES,
  WRITE_COUNT,
  WRITE_IOVECS,
  WRITE_RESULT,
  WRITE_SIZE,
} from './layout.ts';

/** Packets of ours that wait for the TUN; the newest is dropped. */
const MOST_WAITING = 256;
const LARGEST_PACKET = 65_535;

/** The IP packets that the daemon itself hands to the TUN. */
export class OwnWrites {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #waiting = new BoundedQueue<Uint8Array>(MOST_WAITING, 'newest');

  constructor(arena: ArrayBuffer) {
    this.#bytes = new Uint8Array(arena);
    this.#view = new DataView(arena);
  }

  /** Returns false when it had to be dropped. */
  push(packet: Uint8Array): boolean {
    return this.#waiting.push(packet) === undefined;
  }

  /** Makes write records, in the buffers that hold no datagrams by then; returns how many. */
  lay(): number {
    let at = UDP_IN;
    let count = 0;
    while (at + VNET_HEADER_SIZE + LARGEST_PACKET <= UDP_IN_END) {
      const packet = this.#waiting.shift();
      if (packet === undefined) break;
      const length = VNET_HEADER_SIZE + packet.length;
      const write = WRITES + count * WRITE_SIZE;
      const iovec = IOVECS + count * IOVEC_SIZE;
      this.#bytes.fill(0, at, at + VNET_HEADER_SIZE);
      this.#bytes.set(packet, at + VNET_HEADER_SIZE);
      this.#setU32(iovec, at);
      this.#setU32(iovec + 4, length);
      this.#setU32(write + WRITE_IOVECS, iovec);
      this.#setU32(write + WRITE_COUNT, 1);
      this.#setU32(write + WRITE_RESULT, 0);
      at += length;
      count++;
    }
    return count;
  }

  #setU32(at: number, value: number): void {
    this.#view.setUint32(at, value, true);
  }
}
