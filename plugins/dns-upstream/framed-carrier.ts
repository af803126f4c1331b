import type { Socket } from 'node:net';
import { HEADER_LENGTH } from '../../core/dns/message.ts';
import { codeOf } from './code.ts';
import { FrameReader } from './frame-reader.ts';
import type { Carrier, CarrierEvents } from './query-stream.ts';

/** Messages with their length before them (RFC 7766 §8), over TCP or TLS (RFC 7858 §3.3). */
export class FramedCarrier implements Carrier {
  readonly #socket: Socket;
  readonly #events: CarrierEvents;
  readonly #reader = new FrameReader((message) => this.#onMessage(message));
  #isOver = false;

  constructor(socket: Socket, events: CarrierEvents) {
    this.#socket = socket;
    this.#events = events;
    socket.on('data', (chunk: Buffer) => this.#reader.push(chunk));
    // Stays for good: an error that nobody listens to would end the process.
    socket.on('error', (error) => this.#end(codeOf(error)));
    socket.once('end', () => this.#end('closed by the server'));
    socket.once('close', () => this.#end('closed'));
  }

  send(query: Uint8Array): void {
    // RFC 7766 §8: length and message leave together. So do the messages of one turn.
    if (this.#socket.writableCorked === 0) {
      this.#socket.cork();
      process.nextTick(() => this.#socket.uncork());
    }
    const frame = new Uint8Array(2 + query.length);
    frame[0] = query.length >> 8;
    frame[1] = query.length;
    frame.set(query, 2);
    this.#socket.write(frame);
  }

  get waiting(): number {
    return this.#socket.writableLength;
  }

  destroy(): void {
    this.#isOver = true;
    this.#socket.destroy();
  }

  #onMessage(message: Uint8Array): void {
    if (this.#isOver) return;
    if (message.length < HEADER_LENGTH) this.#end('not DNS');
    else this.#events.onAnswer(message);
  }

  #end(why: string): void {
    if (this.#isOver) return;
    this.destroy();
    this.#events.onClosed(why);
  }
}
