import { PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP } from '../packet/ip-packet.ts';
import type { Session, SessionSide, Traffic } from '../nat/session.ts';
import type { PathKind } from '../peering/message.ts';
import type { Instant } from '../sansio/instant.ts';
import { elapsed } from '../sansio/instant.ts';
import type { SessionTag } from './sessions.ts';

/** Records that are kept for who comes to read them; the oldest give way. */
export const MOST_FLOW_RECORDS = 4096;

/**
 * That a flow began or ended, for people and collectors: one record each. `client` is the side that uses a
 * resource, `gateway` the one that serves it; sent is what went towards the resource, on both.
 */
export interface FlowRecord {
  /** Counts all records of this run of the daemon: gaps are records that gave way. */
  readonly sequence: number;
  /** Milliseconds since 1970, as `openedAt` and `lastPacketAt`. */
  readonly time: number;
  readonly event: 'open' | 'close';
  readonly role: 'client' | 'gateway';
  readonly peer: string;
  /** How the peer was reached at the time of the record. */
  readonly path: PathKind | undefined;
  readonly resource: string | undefined;
  readonly domain: string | undefined;
  /** `tcp`, `udp`, `icmp`, or the number of another protocol. */
  readonly protocol: string;
  /** Address and port as the side of the client has them. */
  readonly source: string;
  readonly destination: string;
  /** The same behind the translation. */
  readonly translatedSource: string;
  readonly translatedDestination: string;
  readonly openedAt: number;
  /** The rest is known at the end. */
  readonly lastPacketAt?: number;
  readonly sentPackets?: number;
  readonly sentBytes?: number;
  readonly receivedPackets?: number;
  readonly receivedBytes?: number;
}

/** Makes the records, and keeps the newest of them. */
export class FlowRecords {
  readonly #ring: FlowRecord[] = [];
  #next = 1;
  /** What the calendar shows at instant 0. */
  #epoch: number;

  constructor(unixMs: number, now: Instant) {
    this.#epoch = unixMs - now;
  }

  handleWallClock(unixMs: number, now: Instant): void {
    this.#epoch = unixMs - now;
  }

  add(
    event: FlowRecord['event'],
    session: Session,
    about: SessionTag & { readonly destinationPort: number; readonly path: PathKind | undefined },
    now: Instant,
  ): void {
    const { inside, outside } = session;
    const { destinationPort: port } = about;
    const record: FlowRecord = {
      sequence: this.#next++,
      time: this.#time(now),
      event,
      role: about.role,
      peer: about.peerId,
      path: about.path,
      resource: about.resource,
      domain: about.domain,
      protocol: nameOfProtocol(session.protocol),
      source: withPort(inside.source, inside.port),
      destination: withPort(inside.destination, port),
      translatedSource: withPort(outside.source, outside.port),
      translatedDestination: withPort(outside.destination, port),
      openedAt: this.#time(session.openedAt),
      ...(event === 'open' ? {} : this.#endOf(session)),
    };
    this.#ring.push(record);
    // Cut off in bulk: a ring of its own for the last records is not worth it.
    if (this.#ring.length >= 2 * MOST_FLOW_RECORDS) this.#ring.splice(0, MOST_FLOW_RECORDS);
  }

  /** Returns the records after the one of that number, the oldest first; at most `most`. */
  after(sequence: number, most: number): readonly FlowRecord[] {
    const first = this.#ring[0]?.sequence ?? 0;
    const start = Math.max(0, sequence + 1 - first, this.#ring.length - MOST_FLOW_RECORDS);
    return this.#ring.slice(start, start + most);
  }

  #endOf({ requests, replies, touchedAt, openedAt }: Session): Partial<FlowRecord> {
    const last = elapsed(openedAt, touchedAt) < 0 ? openedAt : touchedAt;
    return { lastPacketAt: this.#time(last), ...trafficOf(requests, replies) };
  }

  #time(at: Instant): number {
    return Math.round(this.#epoch + at);
  }
}

function trafficOf(requests: Traffic, replies: Traffic): Partial<FlowRecord> {
  return {
    sentPackets: requests.packets,
    sentBytes: requests.bytes,
    receivedPackets: replies.packets,
    receivedBytes: replies.bytes,
  };
}

/** Returns what people call the protocol. */
export function nameOfProtocol(protocol: number): string {
  return PROTOCOLS[protocol] ?? String(protocol);
}

const PROTOCOLS: Readonly<Record<number, string>> = {
  [PROTOCOL_ICMP]: 'icmp',
  [PROTOCOL_TCP]: 'tcp',
  [PROTOCOL_UDP]: 'udp',
  [PROTOCOL_ICMPV6]: 'icmp',
};

function withPort(address: SessionSide['source'], port: number): string {
  if (port === 0) return address;
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}
