import type { Flow } from '../fastpath/flow.ts';
import { readUint16, writeUint16 } from '../packet/big-endian.ts';
import {
  adjustChecksum,
  adjustUdpChecksum,
  checksumDelta,
  checksumField,
  isTransportChecksumValid,
  writeIpv4HeaderChecksum,
  writeTransportChecksum,
} from '../packet/checksum.ts';
import { isIcmpEcho, readIcmpError } from '../packet/icmp.ts';
import {
  IpPacket,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from '../packet/ip-packet.ts';
import { failed, ok, type Outcome } from '../sansio/outcome.ts';
import type { SessionTable } from './session-table.ts';
import type { NatTuple } from './tuple.ts';

/** Why an ICMP error goes no further. */
export type UntranslatedError =
  | 'not-a-translatable-error'
  | 'malformed'
  /** It went to somebody else than the sender of the packet that it is about. */
  | 'not-to-sender'
  | 'no-session'
  | 'ended-session';

/** What an ICMP error is about. */
export interface QuotedPacket extends NatTuple {
  readonly destinationPort: number;
  /** Then there are no ports to see. */
  readonly isLaterFragment: boolean;
}

/** Addresses and ports to be written over others. */
export interface Replacement {
  readonly source?: Uint8Array;
  readonly destination?: Uint8Array;
  /** A port, or the identifier of an ICMP echo. */
  readonly sourcePort?: number;
}

/** Whether a flow consists of ICMP errors: each is about another packet, so that no verdict fits to all. */
export function isIcmpErrorFlow(flow: Flow): boolean {
  const type = flow.destinationPort >> 8;
  if (flow.isFragment) return false;
  if (flow.protocol === PROTOCOL_ICMP && flow.family === 4) return ICMP_ERRORS.has(type);
  return flow.protocol === PROTOCOL_ICMPV6 && flow.family === 6 && type < ICMPV6_INFORMATIONAL;
}

/**
 * Translates an error that came from outside about a request of a session. Who sent the request gets it
 * about the packet that it knows, and from the address to which it wrote: a router behind that address is
 * nobody of whom it knows a way (and could be anybody).
 *
 * Errors that clients send outwards, about replies, are not for this: nothing outside may depend on them.
 */
export function translateErrorOfSession(
  packet: Uint8Array,
  sessions: SessionTable<unknown>,
): Outcome<{ readonly session: number; readonly packet: Uint8Array }, UntranslatedError> {
  const quoted = readQuotedPacket(packet);
  if (!quoted.ok) return quoted;
  const session = quoted.value.isLaterFragment
    ? sessions.findReplyFragment(quoted.value)
    : sessions.findReply(quoted.value);
  if (session === undefined) return failed('no-session');
  if (sessions.hasEnded(session)) return failed('ended-session');
  const inside = sessions.tuple(session, 'inside');
  const outside = sessions.tuple(session, 'outside');
  const isProxied = inside.destination.some((byte, i) => byte !== outside.destination[i]);
  const translated = rewriteIcmpError(
    packet,
    {
      destination: inside.source,
      ...(isProxied && { source: inside.destination }),
    },
    { source: inside.source, sourcePort: inside.port, destination: inside.destination },
  );
  return ok({ session, packet: translated });
}

/** Reads which packet an error is about, if it is one that NAT translates, whole and addressed to its sender. */
export function readQuotedPacket(packet: Uint8Array): Outcome<QuotedPacket, UntranslatedError> {
  const outer = new IpPacket();
  if (outer.read(packet, 0, packet.length) !== undefined) return failed('malformed');
  const error = outer.isFragment ? undefined : readIcmpError(outer);
  if (error === undefined) return failed('not-a-translatable-error');
  const translated = outer.family === 4 ? TRANSLATED : TRANSLATED_V6;
  if (!translated.has(packet[outer.payloadOffset] ?? 0)) return failed('not-a-translatable-error');
  if (!isTransportChecksumValid(outer)) return failed('malformed');
  const quoted = new IpPacket();
  if (quoted.readQuoted(packet, error.quotedOffset, error.quotedLength) !== undefined) {
    return failed('malformed');
  }
  if (quoted.family !== outer.family) return failed('malformed');
  const source = addressAt(packet, quoted.sourceOffset, quoted);
  const receiver = addressAt(packet, outer.destinationOffset, outer);
  if (source.some((byte, i) => byte !== receiver[i])) return failed('not-to-sender');
  const portAt = portOffset(quoted);
  const hasPorts = portAt !== undefined && quoted.protocol !== icmpOf(quoted);
  return ok({
    protocol: quoted.protocol,
    source,
    port: portAt === undefined ? 0 : readUint16(packet, portAt),
    destination: addressAt(packet, quoted.destinationOffset, quoted),
    destinationPort: hasPorts ? readUint16(packet, portAt + 2) : 0,
    isLaterFragment: !quoted.isFirstOrWhole,
  });
}

/**
 * Returns a copy of the error with replacements in it and in the packet that it quotes; all checksums
 * follow. Only for what `readQuotedPacket` could read.
 */
export function rewriteIcmpError(
  packet: Uint8Array,
  outer: Replacement,
  quoted: Replacement,
): Uint8Array {
  const copy = packet.slice();
  const ip = new IpPacket();
  const quote = new IpPacket();
  if (ip.read(copy, 0, copy.length) !== undefined) return copy;
  const error = readIcmpError(ip);
  if (error === undefined) return copy;
  if (quote.readQuoted(copy, error.quotedOffset, error.quotedLength) !== undefined) return copy;
  rewriteQuote(quote, quoted);
  if (outer.source !== undefined) copy.set(outer.source, ip.sourceOffset);
  if (outer.destination !== undefined) copy.set(outer.destination, ip.destinationOffset);
  if (ip.family === 4) writeIpv4HeaderChecksum(copy, ip.offset);
  writeTransportChecksum(ip);
  return copy;
}

/* RFC 792, RFC 4443: destination unreachable (with fragmentation needed), time exceeded, packet too big. */
const TRANSLATED: ReadonlySet<number> = new Set([3, 11]);
const TRANSLATED_V6: ReadonlySet<number> = new Set([1, 2, 3]);
/** Destination unreachable, source quench, redirect, time exceeded, parameter problem. */
const ICMP_ERRORS: ReadonlySet<number> = new Set([3, 4, 5, 11, 12]);
const ICMPV6_INFORMATIONAL = 128;

/** The end of the quoted packet may be missing, so its checksums are adjusted and never computed. */
function rewriteQuote(quote: IpPacket, replacement: Replacement): void {
  const { bytes, family } = quote;
  let addresses = 0;
  for (const [at, address] of [
    [quote.sourceOffset, replacement.source],
    [quote.destinationOffset, replacement.destination],
  ] as const) {
    if (address === undefined) continue;
    addresses += checksumDelta(addressAt(bytes, at, quote), address);
    bytes.set(address, at);
  }
  if (family === 4) adjustField(quote.offset + 10, addresses, adjustChecksum, bytes);
  let ports = 0;
  const portAt = portOffset(quote);
  if (portAt !== undefined && replacement.sourcePort !== undefined) {
    const before = bytes.slice(portAt, portAt + 2);
    writeUint16(bytes, portAt, replacement.sourcePort);
    ports = checksumDelta(before, bytes.subarray(portAt, portAt + 2));
  }
  const field = checksumField(quote);
  if (field === undefined || !quote.isFirstOrWhole || quote.payloadLength < field + 2) return;
  // The ICMP of IPv4 has no pseudo-header.
  const delta = quote.protocol === PROTOCOL_ICMP ? ports : addresses + ports;
  const adjust = quote.protocol === PROTOCOL_UDP ? adjustUdpChecksum : adjustChecksum;
  adjustField(quote.payloadOffset + field, delta, adjust, bytes);
}

function adjustField(
  at: number,
  delta: number,
  adjust: (checksum: number, delta: number) => number,
  bytes: Uint8Array,
): void {
  writeUint16(bytes, at, adjust(readUint16(bytes, at), delta));
}

/** Returns where the source port or the identifier of an echo lies; `undefined` where there is none. */
function portOffset(packet: IpPacket): number | undefined {
  const { protocol, payloadOffset, payloadLength } = packet;
  if (!packet.isFirstOrWhole) return undefined;
  if (protocol === PROTOCOL_TCP || protocol === PROTOCOL_UDP) {
    return payloadLength < 4 ? undefined : payloadOffset;
  }
  return isIcmpEcho(packet) && payloadLength >= 6 ? payloadOffset + 4 : undefined;
}

function icmpOf(packet: IpPacket): number {
  return packet.family === 4 ? PROTOCOL_ICMP : PROTOCOL_ICMPV6;
}

function addressAt(bytes: Uint8Array, at: number, { addressLength }: IpPacket): Uint8Array {
  return bytes.slice(at, at + addressLength);
}
