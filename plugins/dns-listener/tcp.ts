import { createServer, isIPv6, type Server, type Socket } from 'node:net';
import { MOST_QUERY_BYTES, type DnsClient } from '../../core/dns/forwarder.ts';
import { HEADER_LENGTH } from '../../core/dns/message.ts';
import { parseIpAddress } from '../../core/net/ip-address.ts';
import { socketAddress } from '../../core/net/socket-address.ts';
import type { ListenFailure } from '../../core/plugin/datagrams.ts';
import type { DnsQuery } from '../../core/plugin/dns-listener.ts';
import type { Millis } from '../../core/sansio/instant.ts';
import type { Log } from '../../core/sansio/log.ts';
import type { Place } from './places.ts';
import { listenFailure } from './problem.ts';

/** Streams at the same time; newer ones are closed. */
export const MOST_STREAMS = 128;
/** Of one client: RFC 7766 §6.2.2 asks for one, some programs open one for each query. */
export const MOST_STREAMS_OF_CLIENT = 16;
/** Queries of a stream without an answer. Further ones are not read until some have theirs. */
export const MOST_OPEN_QUERIES = 16;
/** After the last query or answer (RFC 7766 §6.2.3: a few seconds). Bytes alone keep no stream open. */
export const IDLE_TIMEOUT: Millis = 10_000;
/** Bytes of answers that wait for the client to read: from here on no more queries are read of it, */
const SOME_UNSENT = 128 << 10;
/** and from here on it is given up. */
const MOST_UNSENT = 512 << 10;

/** A TCP port at one address. */
export class TcpPlace {
  readonly #place: Place;
  readonly #log: Log;
  readonly #server: Server;
  readonly #streams: TcpStreams;

  constructor(place: Place, log: Log, streams: TcpStreams) {
    this.#place = place;
    this.#log = log;
    this.#streams = streams;
    // A client may close its side once it has asked, and waits for the answers (RFC 7766 §6.2.4).
    this.#server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) =>
      streams.accept(socket, place),
    );
  }

  /** The address is reusable after a restart: Node.js sets SO_REUSEADDR on what listens. */
  open(): Promise<ListenFailure | undefined> {
    const server = this.#server;
    return new Promise((resolve) => {
      server.once('error', (error) => resolve(listenFailure(error)));
      const { host, port } = this.#place;
      server.listen({ host, port, ipv6Only: isIPv6(host), exclusive: true }, () => {
        server.removeAllListeners('error');
        // What accept(2) refuses, such as too many open files, concerns one caller only.
        server.on('error', ({ message }) => this.#log.debug('not accepted', { error: message }));
        resolve(undefined);
      });
    });
  }

  close(): void {
    this.#server.close();
    this.#streams.closeAt(this.#place);
  }
}

/** The streams of all places, which share the limits. */
export class TcpStreams {
  readonly #onQuery: (query: DnsQuery) => void;
  readonly #streams = new Map<number, DnsStream>();
  #lastNumber = 0;

  constructor(onQuery: (query: DnsQuery) => void) {
    this.#onQuery = onQuery;
  }

  accept(socket: Socket, place: Place): void {
    // Who closes early is no error of ours.
    socket.on('error', () => undefined);
    const ip = parseIpAddress((socket.remoteAddress ?? '').replace(/%.*$/, ''));
    if (!ip.ok || socket.remotePort === undefined || !this.#hasRoomFor(socket)) {
      socket.destroy();
      return;
    }
    const number = ++this.#lastNumber;
    const remote = socketAddress(ip.value, socket.remotePort);
    const client: DnsClient = { source: String(number), transport: 'tcp' };
    const stream = new DnsStream(socket, place, (bytes) =>
      this.#onQuery({ client, remote, local: place.address, bytes }),
    );
    this.#streams.set(number, stream);
    socket.once('close', () => this.#streams.delete(number));
  }

  respond(number: number, bytes: Uint8Array): void {
    this.#streams.get(number)?.respond(bytes);
  }

  closeAt(place: Place): void {
    for (const stream of this.#streams.values()) if (stream.place === place) stream.destroy();
  }

  #hasRoomFor({ remoteAddress }: Socket): boolean {
    if (this.#streams.size >= MOST_STREAMS) return false;
    let ofClient = 0;
    for (const stream of this.#streams.values()) if (stream.host === remoteAddress) ofClient++;
    return ofClient < MOST_STREAMS_OF_CLIENT;
  }
}

/**
 * Queries of one stream, each behind its length in two bytes (RFC 1035 §4.2.2), answered in any order.
 * It is read no further than it can be answered: the rest waits in the kernel, and in the client.
 */
class DnsStream {
  readonly place: Place;
  readonly host: string | undefined;
  readonly #socket: Socket;
  readonly #onQuery: (bytes: Uint8Array) => void;
  readonly #idle: NodeJS.Timeout;
  /** What was read and not asked: part of a query, or more while reading is paused. */
  #unread: Buffer = NOTHING;
  #open = 0;
  #hasEnded = false;
  #isAsking = false;

  constructor(socket: Socket, place: Place, onQuery: (bytes: Uint8Array) => void) {
    this.place = place;
    this.host = socket.remoteAddress;
    this.#socket = socket;
    this.#onQuery = onQuery;
    this.#idle = setTimeout(() => socket.destroy(), IDLE_TIMEOUT);
    socket.on('data', (chunk) => {
      this.#unread = this.#unread.length === 0 ? chunk : Buffer.concat([this.#unread, chunk]);
      this.#ask();
    });
    socket.on('end', () => {
      this.#hasEnded = true;
      this.#ask();
    });
    socket.on('drain', () => this.#ask());
    socket.once('close', () => {
      clearTimeout(this.#idle);
      this.#unread = NOTHING;
    });
  }

  respond(bytes: Uint8Array): void {
    if (this.#socket.destroyed || bytes.length > LONGEST_MESSAGE) return;
    // In one piece: some clients take what comes first for the whole (RFC 7766 §8).
    const framed = Buffer.allocUnsafe(2 + bytes.length);
    framed.writeUInt16BE(bytes.length);
    framed.set(bytes, 2);
    this.#open--;
    this.#socket.write(framed);
    if (this.#socket.writableLength > MOST_UNSENT) {
      this.#socket.destroy();
      return;
    }
    this.#idle.refresh();
    this.#ask();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #ask(): void {
    // An answer may come before the query has been handed over.
    if (this.#isAsking || this.#socket.destroyed) return;
    this.#isAsking = true;
    let offset = 0;
    while (this.#canAsk() && offset + 2 <= this.#unread.length) {
      const length = this.#unread.readUInt16BE(offset);
      // Who asks no question has no use for the stream.
      if (length < HEADER_LENGTH || length > MOST_QUERY_BYTES) {
        this.#socket.destroy();
        return;
      }
      const end = offset + 2 + length;
      if (end > this.#unread.length) break;
      this.#open++;
      this.#idle.refresh();
      this.#onQuery(this.#unread.subarray(offset + 2, end));
      offset = end;
    }
    this.#unread = offset === this.#unread.length ? NOTHING : this.#unread.subarray(offset);
    this.#isAsking = false;
    if (!this.#canAsk()) this.#socket.pause();
    else if (this.#hasEnded && this.#open === 0) this.#socket.end();
    else this.#socket.resume();
  }

  #canAsk(): boolean {
    return this.#open < MOST_OPEN_QUERIES && this.#socket.writableLength < SOME_UNSENT;
  }
}

const NOTHING = Buffer.alloc(0);
const LONGEST_MESSAGE = 65_535;
