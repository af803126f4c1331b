import { ipAddressBytes } from '../net/ip-address.ts';
import { readUint16 } from '../packet/big-endian.ts';
import { readFiveTuple } from '../packet/five-tuple.ts';
import { isIcmp } from '../packet/icmp.ts';
import { IpPacket, PROTOCOL_UDP } from '../packet/ip-packet.ts';
import type { Instant } from '../sansio/instant.ts';
import { unreachable } from '../sansio/outcome.ts';
import {
  CONTROL_KEY,
  FLOW_DESTINATION,
  FLOW_KIND,
  FLOW_PORTS,
  FLOW_SOURCE,
  VERDICT_DROP,
  VERDICT_FORWARD,
  VERDICT_LOCAL,
  VERDICT_REFUSE,
} from './layout.ts';

/** What a packet says about where it comes from and goes to. */
export interface Flow {
  readonly family: 4 | 6;
  /** The IP protocol behind all IPv6 extension headers. */
  readonly protocol: number;
  /** 4 or 16 bytes, like `destination`. */
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
  /** Of TCP, UDP, UDP-Lite and SCTP; the identifier of an ICMP echo; else 0. */
  readonly sourcePort: number;
  /** The same; type << 8 | code of ICMP. */
  readonly destinationPort: number;
  /**
   * All fragments of a packet, the first included. They have no ports, but for the first of UDP: policy
   * must recognise a datagram for the daemon, and without its first fragment none is put together.
   */
  readonly isFragment: boolean;
}

/**
 * What is changed in the packets of a flow, and whose facts `PacketPath.pollFlowFacts` tells. Checksums
 * follow, the time to live stays.
 *
 * Fragments have no ports, but for the first of UDP, so that of others only addresses can change: that is a
 * flow of its own, with a rewrite of addresses alone. It is right for all of them, first ones included,
 * whose checksum follows.
 */
export interface Rewrite {
  /** In the family of the flow. */
  readonly source?: Uint8Array;
  readonly destination?: Uint8Array;
  /** Of TCP, UDP and UDP-Lite; the identifier of an ICMP echo, in both directions. */
  readonly sourcePort?: number;
  readonly destinationPort?: number;
  /**
   * A number below MOST_REWRITE_SESSIONS, or none: then there are no facts, and `forgetSession` does
   * nothing. What was decided before about answers to the flow is forgotten, as it was without the session.
   */
  readonly session?: number;
  /** Told with the facts. */
  readonly isReply?: boolean;
}

export type Refusal = 'administratively-prohibited' | 'host-unreachable' | 'network-unreachable';

/** What becomes of the packets of a flow. */
export type FlowVerdict =
  /** Outbound to the peer; inbound to the TUN, whatever the peer. */
  | { readonly type: 'forward'; readonly peer: number; readonly rewrite?: Rewrite }
  /** Dropped and counted under `reason`, one of few; with `icmp` the sender is told. */
  | { readonly type: 'drop'; readonly reason: string; readonly icmp?: Refusal }
  /** For the daemon: see `PacketPath.pollLocal`. */
  | { readonly type: 'local' };

/**
 * Decides about each flow once; the packet path remembers the verdict until `invalidateFlows`. Must not
 * call the packet path.
 */
export interface PacketPolicy {
  outbound(flow: Flow, now: Instant): FlowVerdict;
  /** `peer` sent it, authentically. Whether it may use that source is to be decided too. */
  inbound(peer: number, flow: Flow, now: Instant): FlowVerdict;
}

/** Returns the flow of a packet as `readFlow` would, for one that is held; `undefined` for what is no packet. */
export function flowOfPacket(bytes: Uint8Array): Flow | undefined {
  const packet = new IpPacket();
  if (packet.read(bytes, 0, bytes.length) !== undefined) return undefined;
  const { protocol, payloadOffset: at, isFragment } = packet;
  const hasPorts = !isFragment || (protocol === PROTOCOL_UDP && packet.isFirstOrWhole);
  const tuple = hasPorts ? readFiveTuple(packet) : undefined;
  const source = ipAddressBytes(packet.source);
  const isTyped = hasPorts && isIcmp(packet);
  return {
    family: source.length === 4 ? 4 : 6,
    protocol,
    source,
    destination: ipAddressBytes(packet.destination),
    sourcePort: tuple?.sourcePort ?? 0,
    destinationPort: isTyped ? readUint16(bytes, at) : (tuple?.destinationPort ?? 0),
    isFragment,
  };
}

/** Returns the flow whose key the kernel left at CONTROL_KEY. */
export function readFlow(arena: ArrayBuffer): Flow {
  const view = new DataView(arena, CONTROL_KEY);
  const kind = view.getUint32(FLOW_KIND, true);
  const family = (kind & 0xff) === 4 ? 4 : 6;
  const length = family === 4 ? 4 : 16;
  const bytesAt = (at: number): Uint8Array =>
    new Uint8Array(arena.slice(CONTROL_KEY + at, CONTROL_KEY + at + length));
  return {
    family,
    protocol: (kind >> 8) & 0xff,
    source: bytesAt(FLOW_SOURCE),
    destination: bytesAt(FLOW_DESTINATION),
    sourcePort: view.getUint16(FLOW_PORTS),
    destinationPort: view.getUint16(FLOW_PORTS + 2),
    isFragment: kind >> 16 !== 0,
  };
}

/** Returns the verdict word of a flow record. `dropIndex` gives each kind of drop its counter. */
export function encodeVerdict(
  verdict: FlowVerdict,
  dropIndex: (reason: string, icmp: Refusal | undefined) => number,
): number {
  switch (verdict.type) {
    case 'forward':
      return VERDICT_FORWARD | (verdict.peer << 16);
    case 'local':
      return VERDICT_LOCAL;
    case 'drop': {
      const code = verdict.icmp === undefined ? VERDICT_DROP : VERDICT_REFUSE;
      return code | (dropIndex(verdict.reason, verdict.icmp) << 8);
    }
    default:
      return unreachable(verdict);
  }
}
