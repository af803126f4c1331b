import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { SEND_QUEUE } from '../../core/plugin/streams.ts';
import type { Millis } from '../../core/sansio/instant.ts';
import { describeProblem } from './problem.ts';

/** What carries the bytes: TCP or TLS itself, or a WebSocket on it. */
export interface Carrier {
  readonly duplex: Duplex;
  /** What the WebSocket is on; else the duplex itself. */
  readonly socket: Socket;
}

export interface OpenStreamEvents {
  /** Lent for the call. */
  onData(bytes: Uint8Array): void;
  onWritable(): void;
  /** Told once, and not after `close`. */
  onClosed(why: string): void;
  /** Nothing of it is left, whoever ended it: what waited has left or was given up. */
  onGone(): void;
}

/**
 * A stream that is up. What is sent within one turn of the event loop leaves in one piece, because a TLS
 * record, a WebSocket frame and a system call cost more than the bytes of a datagram.
 */
export class OpenStream {
  readonly #carrier: Carrier;
  readonly #events: OpenStreamEvents;
  #waiting = 0;
  #batch: Buffer[] = [];
  #batchBytes = 0;
  #state: 'open' | 'refusing' | 'ended' = 'open';
  #linger: NodeJS.Timeout | undefined;

  constructor(carrier: Carrier, events: OpenStreamEvents) {
    this.#carrier = carrier;
    this.#events = events;
    const { duplex, socket } = carrier;
    duplex.on('data', (chunk: Buffer) => {
      // Not the Buffer itself, whose `slice` does not copy.
      const bytes = new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.length);
      if (this.#state !== 'ended') events.onData(bytes);
    });
    duplex.once('error', (error) => this.#end(describeProblem(error)));
    socket.once('error', (error) => this.#end(describeProblem(error)));
    duplex.once('end', () => this.#end('the other side closed it'));
    socket.once('close', () => {
      this.#end('the connection broke');
      this.#waiting = 0;
      clearTimeout(this.#linger);
      events.onGone();
    });
    duplex.resume();
  }

  /** Bytes that the kernel has not taken. */
  get waiting(): number {
    return this.#waiting;
  }

  send(bytes: Uint8Array): boolean {
    if (this.#state === 'ended') return false;
    if (this.#waiting > SEND_QUEUE) {
      this.#state = 'refusing';
      return false;
    }
    if (this.#batch.length === 0) process.nextTick(() => this.#flush());
    this.#waiting += bytes.length;
    for (let at = 0; at < bytes.length; at += LARGEST_BATCH) {
      this.#append(Buffer.from(bytes.subarray(at, at + LARGEST_BATCH)));
    }
    return true;
  }

  /** Lets what waits leave, for LINGER at most. */
  close(): void {
    if (this.#state === 'ended') return;
    this.#flush();
    this.#state = 'ended';
    this.#carrier.duplex.end();
    this.#linger = setTimeout(() => this.destroy(), LINGER);
  }

  /** Gives up what waits. */
  destroy(): void {
    this.#state = 'ended';
    this.#batch = [];
    this.#carrier.duplex.destroy();
    this.#carrier.socket.destroy();
  }

  #append(bytes: Buffer): void {
    if (this.#batchBytes + bytes.length > LARGEST_BATCH) this.#flush();
    this.#batch.push(bytes);
    this.#batchBytes += bytes.length;
  }

  #flush(): void {
    const batch = this.#batch;
    const count = this.#batchBytes;
    if (count === 0 || this.#state === 'ended') return;
    this.#batch = [];
    this.#batchBytes = 0;
    const [only, ...others] = batch;
    const bytes = others.length === 0 ? only : Buffer.concat(batch, count);
    this.#carrier.duplex.write(bytes, (error) => {
      if (error === undefined || error === null) this.#onTaken(count);
    });
  }

  /** The kernel took `count` bytes. */
  #onTaken(count: number): void {
    this.#waiting -= count;
    if (this.#state !== 'refusing' || this.#waiting >= SEND_QUEUE / 2) return;
    this.#state = 'open';
    this.#events.onWritable();
  }

  #end(why: string): void {
    if (this.#state === 'ended') return;
    this.destroy();
    this.#events.onClosed(why);
  }
}

/** Bytes. One message of a WebSocket, a few records of TLS. */
export const LARGEST_BATCH = 64 << 10;

/** How long a stream that is closed may take to get rid of what waits. */
const LINGER: Millis = 1000;
