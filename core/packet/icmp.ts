import { ipAddressBytes, ipFamily, type IpAddress, type IpFamily } from '../net/ip-address.ts';
import { failed, ok, type Outcome } from '../sansio/outcome.ts';
import { readUint16, readUint32, writeUint16, writeUint32 } from './big-endian.ts';
import { buildIpPacket } from './build-ip-packet.ts';
import {
  IPV4_HEADER_SIZE,
  IPV6_HEADER_SIZE,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  type IpPacket,
} from './ip-packet.ts';

/** What we tell the sender of a packet that we do not forward. */
export type IcmpError =
  | { readonly type: 'packet-too-big'; readonly mtu: number }
  | { readonly type: 'administratively-prohibited' }
  | { readonly type: 'host-unreachable' }
  /** There is no way to the destination in this family. */
  | { readonly type: 'network-unreachable' };

/** Why a packet gets no answer. */
export type NoIcmpError =
  | 'malformed'
  | 'icmp-error'
  | 'not-first-fragment'
  | 'group-destination'
  | 'no-single-source'
  | 'other-family';

/**
 * Returns the error packet for an offending packet, from `source` (an address of ours in the same family)
 * to the sender. Errors about errors, later fragments, and packets to or from what is not a single host
 * are never sent (RFC 1122 §3.2.2, RFC 4443 §2.4(e)).
 *
 * The caller limits the rate (RFC 1812 §4.3.2.8, RFC 4443 §2.4(f)).
 */
export function buildIcmpError(
  error: IcmpError,
  offending: IpPacket,
  source: IpAddress,
): Outcome<Uint8Array, NoIcmpError> {
  const { bytes, offset, family, sourceOffset, addressLength } = offending;
  if (ipFamily(source) !== family) return failed('other-family');
  const refusal = whyUnanswerable(offending);
  if (refusal !== undefined) return failed(refusal);

  const largest =
    family === 4 ? LARGEST_IPV4_ERROR - IPV4_HEADER_SIZE : LARGEST_IPV6_ERROR - IPV6_HEADER_SIZE;
  const quoted = Math.min(offending.totalLength, largest - ICMP_HEADER_SIZE);
  const message = new Uint8Array(ICMP_HEADER_SIZE + quoted);
  writeErrorHeader(message, family, error);
  message.set(bytes.subarray(offset, offset + quoted), ICMP_HEADER_SIZE);
  const fields = {
    source: ipAddressBytes(source),
    destination: bytes.subarray(sourceOffset, sourceOffset + addressLength),
    protocol: family === 4 ? PROTOCOL_ICMP : PROTOCOL_ICMPV6,
    trafficClass: INTERNETWORK_CONTROL,
  };
  return ok(buildIpPacket(fields, message));
}

/** An ICMP error as it came: what it says, and where it quotes the packet that it is about. */
export interface ReceivedIcmpError {
  readonly error: IcmpError | { readonly type: 'other' };
  readonly quotedOffset: number;
  readonly quotedLength: number;
}

/** Reads an ICMP error; the checksum is the caller's to check. `undefined` for everything else. */
export function readIcmpError(packet: IpPacket): ReceivedIcmpError | undefined {
  if (!isIcmpError(packet) || packet.payloadLength < ICMP_HEADER_SIZE) return undefined;
  // A redirect of IPv6 quotes in an option.
  if (packet.family === 6 && icmpType(packet) === ICMPV6_REDIRECT) return undefined;
  return {
    error: readErrorHeader(packet),
    quotedOffset: packet.payloadOffset + ICMP_HEADER_SIZE,
    quotedLength: packet.payloadLength - ICMP_HEADER_SIZE,
  };
}

/** Whether the protocol is the ICMP of the packet's family. */
export function isIcmp(packet: IpPacket): boolean {
  return packet.protocol === (packet.family === 4 ? PROTOCOL_ICMP : PROTOCOL_ICMPV6);
}

/** Whether it is an echo request or reply, and no later fragment of one. */
export function isIcmpEcho(packet: IpPacket): boolean {
  const types = packet.family === 4 ? ICMP_ECHOES : ICMPV6_ECHOES;
  return isIcmp(packet) && packet.isFirstOrWhole && types.has(icmpType(packet));
}

/** Whether it is an error; redirects count, which nobody may answer with an error either. */
function isIcmpError(packet: IpPacket): boolean {
  if (!isIcmp(packet) || !packet.isFirstOrWhole) return false;
  const type = icmpType(packet);
  if (packet.family === 4) return ICMP_ERRORS.has(type);
  return (type >= 0 && type < ICMPV6_FIRST_INFORMATIONAL) || type === ICMPV6_REDIRECT;
}

const ICMP_HEADER_SIZE = 8;
/** RFC 1812 §4.3.2.3: as much of the packet as fits, without the error exceeding 576 bytes. */
const LARGEST_IPV4_ERROR = 576;
/** RFC 4443 §2.4(c): the minimum MTU of IPv6. */
const LARGEST_IPV6_ERROR = 1280;
/** RFC 1812 §4.3.2.5: precedence 6, which is DSCP CS6. */
const INTERNETWORK_CONTROL = 0xc0;
/* RFC 792, RFC 1191 §4, RFC 1812 §5.2.7.1. */
const DESTINATION_UNREACHABLE = 3;
const NETWORK_UNREACHABLE = 0;
const HOST_UNREACHABLE = 1;
const FRAGMENTATION_NEEDED = 4;
const ADMINISTRATIVELY_PROHIBITED = 13;
/** Destination unreachable, source quench, redirect, time exceeded, parameter problem. */
const ICMP_ERRORS: ReadonlySet<number> = new Set([3, 4, 5, 11, 12]);
const ICMP_ECHOES: ReadonlySet<number> = new Set([0, 8]);

/* RFC 4443 §2.1, §3, RFC 4861 §4.5. */
const ICMPV6_DESTINATION_UNREACHABLE = 1;
const ICMPV6_PACKET_TOO_BIG = 2;
const ICMPV6_ADMINISTRATIVELY_PROHIBITED = 1;
const ICMPV6_NO_ROUTE = 0;
const ICMPV6_ADDRESS_UNREACHABLE = 3;
const ICMPV6_FIRST_INFORMATIONAL = 128;
const ICMPV6_REDIRECT = 137;
const ICMPV6_ECHOES: ReadonlySet<number> = new Set([128, 129]);

/** RFC 8200 §5: a sender of IPv6 need not send smaller packets, and RFC 8201 §4 ignores smaller values. */
const SMALLEST_IPV6_MTU = 1280;

function whyUnanswerable(packet: IpPacket): NoIcmpError | undefined {
  const { bytes, sourceOffset, destinationOffset, family } = packet;
  if (!packet.isFirstOrWhole) return 'not-first-fragment';
  if (isIcmp(packet) && packet.payloadLength < 1) return 'malformed';
  if (isIcmpError(packet)) return 'icmp-error';
  if (isGroup(bytes, destinationOffset, family)) return 'group-destination';
  if (isGroup(bytes, sourceOffset, family) || isNobody(bytes, sourceOffset, family)) {
    return 'no-single-source';
  }
  return undefined;
}

/** Multicast; in IPv4 also the reserved class E with the limited broadcast address. */
function isGroup(bytes: Uint8Array, offset: number, family: IpFamily): boolean {
  const first = bytes[offset] ?? 0;
  return family === 4 ? first >= 224 : first === 0xff;
}

/** The unspecified and the loopback addresses. */
function isNobody(bytes: Uint8Array, offset: number, family: IpFamily): boolean {
  if (family === 4) return bytes[offset] === 0 || bytes[offset] === 127;
  for (let i = 0; i < 12; i += 4) if (readUint32(bytes, offset + i) !== 0) return false;
  return readUint32(bytes, offset + 12) <= 1;
}

function writeErrorHeader(message: Uint8Array, family: IpFamily, error: IcmpError): void {
  const isIpv4 = family === 4;
  message[0] = isIpv4 ? DESTINATION_UNREACHABLE : ICMPV6_DESTINATION_UNREACHABLE;
  switch (error.type) {
    case 'packet-too-big':
      if (isIpv4) {
        message[1] = FRAGMENTATION_NEEDED;
        writeUint16(message, 6, error.mtu);
      } else {
        message[0] = ICMPV6_PACKET_TOO_BIG;
        writeUint32(message, 4, Math.max(error.mtu, SMALLEST_IPV6_MTU));
      }
      break;
    case 'administratively-prohibited':
      message[1] = isIpv4 ? ADMINISTRATIVELY_PROHIBITED : ICMPV6_ADMINISTRATIVELY_PROHIBITED;
      break;
    case 'host-unreachable':
      message[1] = isIpv4 ? HOST_UNREACHABLE : ICMPV6_ADDRESS_UNREACHABLE;
      break;
    case 'network-unreachable':
      message[1] = isIpv4 ? NETWORK_UNREACHABLE : ICMPV6_NO_ROUTE;
      break;
  }
}

function readErrorHeader(packet: IpPacket): ReceivedIcmpError['error'] {
  const { bytes, payloadOffset } = packet;
  const type = bytes[payloadOffset];
  const code = bytes[payloadOffset + 1];
  if (packet.family === 6) {
    if (type === ICMPV6_PACKET_TOO_BIG) {
      return { type: 'packet-too-big', mtu: readUint32(bytes, payloadOffset + 4) };
    }
    if (type !== ICMPV6_DESTINATION_UNREACHABLE) return { type: 'other' };
    if (code === ICMPV6_ADMINISTRATIVELY_PROHIBITED) return { type: 'administratively-prohibited' };
    if (code === ICMPV6_NO_ROUTE) return { type: 'network-unreachable' };
    return { type: code === ICMPV6_ADDRESS_UNREACHABLE ? 'host-unreachable' : 'other' };
  }
  if (type !== DESTINATION_UNREACHABLE) return { type: 'other' };
  if (code === FRAGMENTATION_NEEDED) {
    return { type: 'packet-too-big', mtu: readUint16(bytes, payloadOffset + 6) };
  }
  if (code === ADMINISTRATIVELY_PROHIBITED) return { type: 'administratively-prohibited' };
  if (code === NETWORK_UNREACHABLE) return { type: 'network-unreachable' };
  return { type: code === HOST_UNREACHABLE ? 'host-unreachable' : 'other' };
}

/** Returns -1 where even the type is cut off. */
function icmpType(packet: IpPacket): number {
  return packet.payloadLength > 0 ? (packet.bytes[packet.payloadOffset] ?? -1) : -1;
}
