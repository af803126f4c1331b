import type { DnsClient } from '../dns/forwarder.ts';
import type { SocketAddress } from '../net/socket-address.ts';
import { capability, type Capability } from './capability.ts';
import type { ListenFailure } from './datagrams.ts';

/** Where queries are taken, over UDP and TCP. */
export interface WantedDnsListener {
  /** On every address that the interfaces have at present, with this port. */
  readonly port: number;
  readonly interfaces: readonly string[];
  /** And on these. */
  readonly addresses: readonly SocketAddress[];
}

export interface DnsQuery {
  /** For `respond`. */
  readonly client: DnsClient;
  readonly remote: SocketAddress;
  /** The address at which it came. */
  readonly local: SocketAddress;
  /** Lent for the call. */
  readonly bytes: Uint8Array;
}

export interface DnsListenFailure {
  readonly address: SocketAddress;
  readonly why: ListenFailure;
}

/** Takes queries of clients, and their answers. Framing, limits and idle streams are its own affair. */
export interface DnsListener {
  /** To be called once, before `listen`. */
  listenTo(onQuery: (query: DnsQuery) => void): void;
  /**
   * Opens what is wanted and not open, closes what is open and not wanted; the rest stays as it is.
   * Resolves to what could not be opened, the last call deciding. Interfaces without addresses are none.
   */
  listen(wanted: WantedDnsListener): Promise<readonly DnsListenFailure[]>;
  /** Nothing happens where the client has gone. */
  respond(client: DnsClient, bytes: Uint8Array): void;
}

export const dnsListener: Capability<DnsListener> = capability('dns-listener');
