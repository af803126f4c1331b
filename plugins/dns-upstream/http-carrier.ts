import { connect, constants, type ClientHttp2Session, type ClientHttp2Stream } from 'node:http2';
import type { TLSSocket } from 'node:tls';
import { formatEndpoint, type Endpoint } from '../../core/config/endpoint.ts';
import { EXCHANGE_PATIENCE } from '../../core/dns/forwarder.ts';
import { HEADER_LENGTH } from '../../core/dns/message.ts';
import { readUint16, writeUint16 } from '../../core/packet/big-endian.ts';
import { codeOf } from './code.ts';
import type { Carrier, CarrierEvents } from './query-stream.ts';

/** Bytes of a DNS message. */
const LONGEST_MESSAGE = 65_535;
/** Bytes of all answers that are on their way. */
const MOST_BUFFERED = 1 << 20;
/** Megabytes that a server can make the session hold. */
const MOST_SESSION_MEMORY = 2;

/** DNS over HTTP/2 (RFC 8484): one request a query, many at a time. */
export class HttpCarrier implements Carrier {
  readonly #socket: TLSSocket;
  readonly #session: ClientHttp2Session;
  readonly #path: string;
  readonly #events: CarrierEvents;
  /** Bytes of answers that are not complete. */
  #buffered = 0;
  #isOver = false;

  /** `socket` offers `h2` alone (RFC 9113 §3.3). */
  constructor(
    socket: TLSSocket,
    { endpoint, path }: { readonly endpoint: Endpoint; readonly path: string },
    events: CarrierEvents,
  ) {
    this.#socket = socket;
    this.#path = path;
    this.#events = events;
    this.#session = connect(`https://${formatEndpoint(endpoint)}`, {
      createConnection: () => socket,
      maxSessionMemory: MOST_SESSION_MEMORY,
      settings: { enablePush: false },
    });
    socket.once('secureConnect', () => {
      if (socket.alpnProtocol !== 'h2') this.#end('no HTTP/2');
    });
    // These stay for good: an error that nobody listens to would end the process.
    socket.on('error', (error) => this.#end(codeOf(error)));
    this.#session.on('error', (error) => this.#end(codeOf(error)));
    // What it leaves open is asked again elsewhere, though it may still be answered here.
    this.#session.once('goaway', () => this.#end('closed by the server'));
    this.#session.once('close', () => this.#end('closed'));
    socket.once('close', () => this.#end('closed'));
  }

  send(query: Uint8Array): void {
    const id = readUint16(query, 0);
    const body = query.slice();
    // RFC 8484 §4.1: so that equal questions are equal requests. The stream tells whose the answer is.
    writeUint16(body, 0, 0);
    const request = this.#request(body.length);
    if (request === undefined) {
      setImmediate(() => this.#end('closed'));
      return;
    }
    this.#receive(request, id);
    request.end(body);
  }

  get waiting(): number {
    return this.#socket.writableLength;
  }

  destroy(): void {
    this.#isOver = true;
    this.#session.destroy();
    this.#socket.destroy();
  }

  #request(length: number): ClientHttp2Stream | undefined {
    try {
      return this.#session.request({
        ':method': 'POST',
        ':path': this.#path,
        accept: MEDIA_TYPE,
        'content-type': MEDIA_TYPE,
        'content-length': length,
      });
    } catch {
      return undefined; // the session has ended, or has used up all ids of streams
    }
  }

  #receive(request: ClientHttp2Stream, id: number): void {
    const chunks: Buffer[] = [];
    let length = 0;
    let isDone = false;
    const finish = (): void => {
      isDone = true;
      this.#buffered -= length;
      clearTimeout(patience);
    };
    const refuse = (why: string): void => {
      if (isDone || this.#isOver) return;
      finish();
      request.close(constants.NGHTTP2_CANCEL);
      this.#events.onRefused(id, why);
    };
    // Who asks has given up by then, and the server would hold the request for ever.
    const patience = setTimeout(() => refuse('silence'), EXCHANGE_PATIENCE);
    request.on('response', (headers) => {
      const status = headers[':status'];
      if (status !== 200) refuse(`status ${status}`);
      else if (!isDns(headers['content-type'])) refuse('not DNS');
    });
    request.on('data', (chunk: Buffer) => {
      if (isDone) return;
      length += chunk.length;
      this.#buffered += chunk.length;
      if (length > LONGEST_MESSAGE || this.#buffered > MOST_BUFFERED) refuse('too long');
      else chunks.push(chunk);
    });
    let problem = 'closed by the server';
    request.on('error', (error) => (problem = codeOf(error)));
    request.once('close', () => {
      clearTimeout(patience);
      if (isDone || this.#isOver) return;
      // A stream that is reset may end like one that is complete.
      const isWhole = request.readableEnded && request.rstCode === constants.NGHTTP2_NO_ERROR;
      // A server that ends the session may end its streams first.
      if (!isWhole) return void setImmediate(() => this.#onBroken(problem, refuse));
      if (length < HEADER_LENGTH) return refuse('not DNS');
      finish();
      const message = Uint8Array.from(Buffer.concat(chunks, length));
      writeUint16(message, 0, id);
      this.#events.onAnswer(message);
    });
  }

  /** A request ended without an answer: alone, or because the session did. */
  #onBroken(why: string, refuse: (why: string) => void): void {
    if (this.#session.closed || this.#session.destroyed || this.#socket.destroyed) this.#end(why);
    else refuse(why);
  }

  #end(why: string): void {
    if (this.#isOver) return;
    this.destroy();
    this.#events.onClosed(why);
  }
}

const MEDIA_TYPE = 'application/dns-message';

/** RFC 9110 §8.3.1: in any case, and what follows a semicolon are parameters. */
function isDns(contentType: string | undefined): boolean {
  return contentType?.split(';')[0]?.trim().toLowerCase() === MEDIA_TYPE;
}
