import type { DnsDatagram, DnsTransmit, TransportFailure } from '../dns/forwarder.ts';
import { capability, type Capability } from './capability.ts';

/**
 * The servers that names are asked of, over UDP, TCP, TLS and HTTPS. Where one is, its id says (see
 * `placeOf`). Streams are opened for the first query, shared by those that follow, and closed when idle.
 */
export interface DnsUpstreams {
  /** To be called once, before anything is sent. Handlers are never called from within `send`. */
  listenTo(handlers: {
    /** The bytes are lent for the call. */
    onAnswer(datagram: DnsDatagram): void;
    onFailure(failure: TransportFailure): void;
  }): void;
  send(transmit: DnsTransmit): void;
}

export const dnsUpstreams: Capability<DnsUpstreams> = capability('dns-upstreams');
