import type { Flow } from '../fastpath/flow.ts';
import { ipAddressBytes, type IpAddress } from '../net/ip-address.ts';
import { PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP } from '../packet/ip-packet.ts';

/**
 * What NAT tells flows apart by. The port of the other side is no part of it: what one socket sends to
 * several ports of one address shares a session (RFC 4787 §4.1, address-dependent mapping).
 */
export interface NatTuple {
  readonly protocol: number;
  /** 4 or 16 bytes, like `destination`. */
  readonly source: Uint8Array;
  /** The source port, or the identifier of an ICMP echo; 0 where there is neither. */
  readonly port: number;
  readonly destination: Uint8Array;
}

/** Returns the tuple of a flow that leaves its sender. */
export function requestTuple(flow: Flow): NatTuple {
  const { protocol, source, sourcePort, destination } = flow;
  return { protocol, source, port: hasOwnPort(protocol) ? sourcePort : 0, destination };
}

/** Returns the tuple of the requests to which the flow is the answer. */
export function replyTuple(flow: Flow): NatTuple {
  const { protocol, source, destination, sourcePort, destinationPort } = flow;
  // An echo has the same identifier in both directions, and a flow has it as source port.
  const port = isIcmpProtocol(protocol) ? sourcePort : destinationPort;
  const kept = hasOwnPort(protocol) ? port : 0;
  return { protocol, source: destination, port: kept, destination: source };
}

/**
 * Whether the flow consists of fragments whose ports cannot be seen. They go the way of the newest session
 * between the two addresses, or else get one of port 0, which translates addresses alone.
 */
export function isPortless(flow: Flow): boolean {
  return flow.isFragment && flow.sourcePort === 0 && flow.destinationPort === 0;
}

/** The same from addresses as text. */
export function natTuple(
  protocol: number,
  source: IpAddress,
  port: number,
  destination: IpAddress,
): NatTuple {
  return {
    protocol,
    source: ipAddressBytes(source),
    port,
    destination: ipAddressBytes(destination),
  };
}

/** Whether NAT may choose the port: that of SCTP is covered by a CRC over the whole packet. */
function hasOwnPort(protocol: number): boolean {
  return (
    protocol === PROTOCOL_TCP ||
    protocol === PROTOCOL_UDP ||
    protocol === UDP_LITE ||
    isIcmpProtocol(protocol)
  );
}

const UDP_LITE = 136;

export function isIcmpProtocol(protocol: number): boolean {
  return protocol === PROTOCOL_ICMP || protocol === PROTOCOL_ICMPV6;
}
