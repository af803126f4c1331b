import { createSocket, type Socket } from 'node:dgram';
import { isIPv6 } from 'node:net';
import type { Endpoint } from '../../core/config/endpoint.ts';
import { HEADER_LENGTH } from '../../core/dns/message.ts';
import { placeOf } from '../../core/dns/upstream-url.ts';
import type { Millis } from '../../core/sansio/instant.ts';
import { codeOf } from './code.ts';

/** At the same time, for all servers: four of them with all of their ports. One more closes the oldest. */
export const MOST_SOCKETS = 256;
/** Queries that wait for a socket to open, which takes no packet: more are refused. */
const MOST_WAITING = 64;
/** Without a query. Longer than any is waited for, and the next one leaves from another port. */
export const UDP_IDLE: Millis = 10_000;

export interface UdpEvents {
  /** The bytes are lent for the call. */
  onAnswer(upstream: string, port: number, bytes: Uint8Array): void;
  onFailure(upstream: string, why: string): void;
}

/**
 * A connected socket for each server and port number, though one could serve several servers:
 *
 * - The kernel tells a connected socket of ICMP errors (RFC 1122 §4.1.3.3), so that a server which does
 *   not run costs no waiting.
 * - It answers datagrams of all other addresses as if the port were closed. An open port that everybody
 *   can find by asking adds nothing to the id that a forger must guess (RFC 5452 §9.2), and such sockets
 *   live for long on a busy router.
 */
export class UdpSockets {
  readonly #events: UdpEvents;
  /** By port number and server, in the order of their use. */
  readonly #sockets = new Map<string, UdpSocket>();

  constructor(events: UdpEvents) {
    this.#events = events;
  }

  /** Returns false where it cannot be sent. */
  send(upstream: string, port: number, bytes: Uint8Array): boolean {
    const key = `${port} ${upstream}`;
    const socket = this.#sockets.get(key) ?? this.#open(key, upstream, port);
    if (socket === undefined) return false;
    this.#sockets.delete(key);
    this.#sockets.set(key, socket);
    return socket.send(bytes);
  }

  stop(): void {
    for (const socket of this.#sockets.values()) socket.close();
    this.#sockets.clear();
  }

  get size(): number {
    return this.#sockets.size;
  }

  #open(key: string, upstream: string, port: number): UdpSocket | undefined {
    const place = placeOf(upstream);
    if (place?.protocol !== 'plain') return undefined;
    const [oldest] = this.#sockets.keys();
    if (oldest !== undefined && this.#sockets.size >= MOST_SOCKETS) this.#forget(oldest);
    return new UdpSocket(place.endpoint, {
      onMessage: (bytes) => this.#events.onAnswer(upstream, port, bytes),
      onIdle: () => this.#forget(key),
      onError: (why) => {
        this.#forget(key);
        this.#events.onFailure(upstream, why);
      },
    });
  }

  #forget(key: string): void {
    this.#sockets.get(key)?.close();
    this.#sockets.delete(key);
  }
}

interface SocketEvents {
  onMessage(bytes: Uint8Array): void;
  onIdle(): void;
  onError(why: string): void;
}

/** From a port that the kernel chooses at random, to one server. */
class UdpSocket {
  readonly #socket: Socket;
  readonly #idle: NodeJS.Timeout;
  readonly #onSent: (error: Error | null) => void;
  /** Until it is connected. */
  #waiting: Uint8Array[] | undefined = [];
  #isClosed = false;

  constructor({ host, port }: Endpoint, events: SocketEvents) {
    const isIpv6 = isIPv6(host);
    this.#socket = createSocket({ type: isIpv6 ? 'udp6' : 'udp4', ipv6Only: isIpv6 });
    this.#idle = setTimeout(() => events.onIdle(), UDP_IDLE);
    const onError = (error: Error): void => {
      // About one datagram that was too long for the path: it is lost like others.
      if (!this.#isClosed && codeOf(error) !== 'EMSGSIZE') events.onError(codeOf(error));
    };
    this.#onSent = (error) => {
      if (error !== null) onError(error);
    };
    this.#socket.on('error', onError);
    this.#socket.on('connect', () => {
      const waiting = this.#waiting ?? [];
      this.#waiting = undefined;
      for (const bytes of waiting) this.#socket.send(bytes, this.#onSent);
    });
    this.#socket.on('message', (message, from) => {
      // The kernel has taken care of the source but for what came before the socket was connected.
      if (this.#isClosed || from.port !== port || from.address !== host) return;
      if (message.length < HEADER_LENGTH) return;
      // Not the Buffer itself, whose `slice` does not copy.
      events.onMessage(new Uint8Array(message.buffer, message.byteOffset, message.length));
    });
    this.#socket.connect(port, host);
  }

  send(bytes: Uint8Array): boolean {
    this.#idle.refresh();
    if (this.#waiting === undefined) {
      this.#socket.send(bytes, this.#onSent);
      return true;
    }
    if (this.#waiting.length >= MOST_WAITING) return false;
    this.#waiting.push(bytes);
    return true;
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearTimeout(this.#idle);
    this.#socket.close();
  }
}
