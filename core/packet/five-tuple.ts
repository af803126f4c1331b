import type { IpAddress } from '../net/ip-address.ts';
import { readUint16 } from './big-endian.ts';
import { isIcmp, isIcmpEcho } from './icmp.ts';
import { PROTOCOL_TCP, PROTOCOL_UDP, type IpPacket } from './ip-packet.ts';

/** What tells one flow from another. */
export interface FiveTuple {
  readonly protocol: number;
  readonly source: IpAddress;
  /** The identifier of an ICMP echo, twice; 0 in protocols without ports. */
  readonly sourcePort: number;
  readonly destination: IpAddress;
  readonly destinationPort: number;
}

/** Returns the tuple, or `undefined` where ports should be and are not: in later fragments, cut off. */
export function readFiveTuple(packet: IpPacket): FiveTuple | undefined {
  const { protocol, bytes, payloadOffset } = packet;
  let sourcePort = 0;
  let destinationPort = 0;
  if (protocol === PROTOCOL_TCP || protocol === PROTOCOL_UDP) {
    if (!packet.isFirstOrWhole || packet.payloadLength < 4) return undefined;
    sourcePort = readUint16(bytes, payloadOffset);
    destinationPort = readUint16(bytes, payloadOffset + 2);
  } else if (isIcmp(packet)) {
    if (!packet.isFirstOrWhole || packet.payloadLength < 6) return undefined;
    if (isIcmpEcho(packet)) sourcePort = destinationPort = readUint16(bytes, payloadOffset + 4);
  }
  const { source, destination } = packet;
  return { protocol, source, sourcePort, destination, destinationPort };
}

/** Returns the tuple of the packets that flow back. */
export function reverseFiveTuple(tuple: FiveTuple): FiveTuple {
  return {
    protocol: tuple.protocol,
    source: tuple.destination,
    sourcePort: tuple.destinationPort,
    destination: tuple.source,
    destinationPort: tuple.sourcePort,
  };
}

/** Returns text that is equal for equal tuples, to be a key of a map. */
export function flowKey(tuple: FiveTuple): string {
  return `${tuple.protocol} ${tuple.source} ${tuple.sourcePort} ${tuple.destination} ${tuple.destinationPort}`;
}
