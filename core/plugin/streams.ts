import type { StreamProtocol } from '../ice/candidate.ts';
import type { SocketAddress } from '../net/socket-address.ts';
import type { Millis } from '../sansio/instant.ts';
import type { Outcome } from '../sansio/outcome.ts';
import { capability, type Capability } from './capability.ts';
import type { ListenFailure } from './datagrams.ts';

/** How long a dial may take in all, and how long an accepted stream may show no protocol. */
export const DIAL_TIMEOUT: Millis = 5000;

/** Bytes. What waits for the kernel in one stream when `send` starts to refuse. */
export const SEND_QUEUE: number = 256 << 10;

/** Names a stream: chosen by the caller of `dial` (even numbers), by the transport for accepted ones (odd). */
export type StreamId = number;

export interface DialTarget {
  readonly protocol: StreamProtocol;
  readonly address: SocketAddress;
  /** For SNI, the Host header and the proxy; the address where absent. */
  readonly host?: string;
  /** How the TLS certificate is judged. */
  readonly trust:
    /** The authorities of the system: relays on the Internet. */
    | { readonly type: 'authorities' }
    /** Self-signed with this Ed25519 device key, 32 bytes; nothing else will do. */
    | { readonly type: 'pinned'; readonly deviceKey: Uint8Array }
    /** Any: what is inside authenticates itself, and nobody told us the key. */
    | { readonly type: 'any' };
  /** `http://[user:password@]host:port`: dials through CONNECT. */
  readonly proxy?: string;
  /** Marks the socket, to keep it out of the tunnel. */
  readonly mark?: number;
}

export interface StreamListenOptions {
  /** 1 to 65535. One port serves all protocols: the first bytes of a stream tell which it is. */
  readonly port: number;
  /** Ed25519 seed of the device, 32 bytes: its certificate is signed with it. Secret. */
  readonly deviceKey: Uint8Array;
}

export type StreamEvent =
  /** A dialled stream is up. `remote` is what was dialled, also through a proxy. */
  | { readonly type: 'opened'; readonly stream: StreamId; readonly local: SocketAddress }
  | {
      readonly type: 'accepted';
      readonly stream: StreamId;
      readonly protocol: StreamProtocol;
      readonly local: SocketAddress;
      readonly remote: SocketAddress;
    }
  /** Lent for the call. */
  | { readonly type: 'data'; readonly stream: StreamId; readonly bytes: Uint8Array }
  /** It takes bytes again after `send` refused some. */
  | { readonly type: 'writable'; readonly stream: StreamId }
  /** Told once, for a dial that failed too, never after `close`. `why` names the cure where there is one. */
  | { readonly type: 'closed'; readonly stream: StreamId; readonly why: string };

/**
 * Byte streams that carry datagrams where UDP does not pass: TCP, TLS, WebSocket, dialled and accepted.
 * Framing is the caller's. A stream that opens slower than DIAL_TIMEOUT is closed; so is an accepted one
 * that shows no protocol in that time; the number of both is limited.
 */
export interface Streams {
  /** Where events go; to be called once, first. */
  listenTo(onEvent: (event: StreamEvent) => void): void;
  dial(stream: StreamId, target: DialTarget): void;
  /** Accepts streams on the port; a second call moves, and when that fails the old listener stays. */
  listen(options: StreamListenOptions | undefined): Promise<Outcome<void, ListenFailure>>;
  /**
   * Queues bytes, which are copied; returns false, having taken none, while more than SEND_QUEUE bytes
   * wait: datagrams are better dropped than late.
   */
  send(stream: StreamId, bytes: Uint8Array): boolean;
  close(stream: StreamId): void;
  /** Bytes accepted by `send` and not yet by the kernel, of all streams. */
  readonly waiting: number;
}

export const streams: Capability<Streams> = capability('streams');
