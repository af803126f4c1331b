import { readUint16, writeUint16 } from './big-endian.ts';
import {
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  type IpPacket,
} from './ip-packet.ts';

/*
 * The Internet checksum. A "sum" is a sum of 16-bit words that is not yet folded: a plain number to which
 * more can be added; a "checksum" is the folded complement that stands in a header.
 */

/** Adds the bytes as 16-bit words to `sum` (RFC 1071 §4.1); an odd last byte counts as a high one. */
export function addToSum(sum: number, bytes: Uint8Array, offset: number, length: number): number {
  const end = offset + length;
  let at = offset;
  for (; at + 1 < end; at += 2) sum += readUint16(bytes, at);
  return at < end ? sum + ((bytes[at] ?? 0) << 8) : sum;
}

export function checksumOfSum(sum: number): number {
  return ~fold(sum) & 0xffff;
}

/** Returns what to add to a checksum when `before` is replaced by `after`, both of the same even length. */
export function checksumDelta(before: Uint8Array, after: Uint8Array): number {
  let delta = addToSum(0, after, 0, after.length);
  for (let at = 0; at < before.length; at += 2) delta += ~readUint16(before, at) & 0xffff;
  return fold(delta);
}

/** Applies a delta (RFC 1624 §3, equation 3). Not for a UDP checksum: see `adjustUdpChecksum`. */
export function adjustChecksum(checksum: number, delta: number): number {
  return checksumOfSum((~checksum & 0xffff) + delta);
}

/** Keeps a UDP checksum of zero, which says that there is none, and never makes one (RFC 768). */
export function adjustUdpChecksum(checksum: number, delta: number): number {
  return checksum === 0 ? 0 : adjustChecksum(checksum, delta) || 0xffff;
}

export function writeIpv4HeaderChecksum(bytes: Uint8Array, offset: number): void {
  writeUint16(bytes, offset + 10, 0);
  const sum = addToSum(0, bytes, offset, ipv4HeaderLength(bytes, offset));
  writeUint16(bytes, offset + 10, checksumOfSum(sum));
}

/**
 * Whether the checksum of a TCP, UDP, ICMP or ICMPv6 packet holds. True where there is none to check: in
 * other protocols, in fragments, and in UDP over IPv4 that goes without.
 */
export function isTransportChecksumValid(packet: IpPacket): boolean {
  const field = checksumField(packet);
  if (field === undefined || packet.isFragment) return true;
  if (packet.payloadLength < field + 2) return false;
  const checksum = readUint16(packet.bytes, packet.payloadOffset + field);
  if (packet.protocol === PROTOCOL_UDP && checksum === 0) return packet.family === 4;
  return checksumOfSum(transportSum(packet)) === 0;
}

/** Computes and writes the checksum; does nothing where there is none, or in a fragment. */
export function writeTransportChecksum(packet: IpPacket): void {
  const field = checksumField(packet);
  if (field === undefined || packet.isFragment || packet.payloadLength < field + 2) return;
  const at = packet.payloadOffset + field;
  writeUint16(packet.bytes, at, 0);
  const checksum = checksumOfSum(transportSum(packet));
  const isUdp = packet.protocol === PROTOCOL_UDP;
  writeUint16(packet.bytes, at, isUdp && checksum === 0 ? 0xffff : checksum);
}

/** Returns where the checksum lies in the header of the transport protocol. */
export function checksumField(packet: IpPacket): number | undefined {
  switch (packet.protocol) {
    case PROTOCOL_TCP:
      return 16;
    case PROTOCOL_UDP:
      return 6;
    case PROTOCOL_ICMP:
      return packet.family === 4 ? 2 : undefined;
    case PROTOCOL_ICMPV6:
      return packet.family === 6 ? 2 : undefined;
    default:
      return undefined;
  }
}

/** Sums pseudo header (RFC 9293 §3.1, RFC 8200 §8.1) and payload; ICMP of IPv4 has no pseudo header. */
function transportSum(packet: IpPacket): number {
  const { bytes, payloadOffset, addressLength } = packet;
  const length = transportLength(packet);
  let sum = addToSum(0, bytes, payloadOffset, length);
  if (packet.protocol !== PROTOCOL_ICMP) {
    sum = addToSum(sum, bytes, packet.sourceOffset, addressLength);
    sum = addToSum(sum, bytes, packet.destinationOffset, addressLength);
    sum += length + packet.protocol;
  }
  return sum;
}

/** UDP states its length itself and may be followed by bytes that are no part of it (RFC 768). */
function transportLength(packet: IpPacket): number {
  if (packet.protocol !== PROTOCOL_UDP) return packet.payloadLength;
  return Math.min(readUint16(packet.bytes, packet.payloadOffset + 4), packet.payloadLength);
}

function ipv4HeaderLength(bytes: Uint8Array, offset: number): number {
  return ((bytes[offset] ?? 0) & 0x0f) * 4;
}

function fold(sum: number): number {
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x1_0000);
  return sum;
}
