import { ipAddressBytes, parseIpAddress } from '../../../core/net/ip-address.ts';

/*
 * IP packets built and checked slowly, byte by byte, after the RFCs: the oracle of the packet path.
 */

export const FIN = 0x01;
export const SYN = 0x02;
export const PSH = 0x08;
export const ACK = 0x10;
export const ECE = 0x40;
export const CWR = 0x80;

export interface IpFields {
  readonly source: string;
  readonly destination: string;
  /** Type of service or traffic class. */
  readonly tos: number;
  readonly ttl: number;
  /** IPv4 only. */
  readonly id: number;
  readonly df: boolean;
}

export interface TcpFields extends IpFields {
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly sequence: number;
  readonly acknowledgement: number;
  readonly flags: number;
  readonly window: number;
  /** A multiple of 4 bytes. */
  readonly options: Uint8Array;
  readonly payload: Uint8Array;
}

const IP: IpFields = {
  source: '10.0.0.1',
  destination: '10.0.1.1',
  tos: 0,
  ttl: 64,
  id: 1000,
  df: true,
};

export const V6 = { source: 'fd00::1', destination: 'fd00:1::1' };

export function tcp(fields: Partial<TcpFields> = {}): Uint8Array {
  const f: TcpFields = {
    ...IP,
    sourcePort: 40_000,
    destinationPort: 443,
    sequence: 0xffff_f000,
    acknowledgement: 7,
    flags: ACK,
    window: 500,
    options: new Uint8Array(0),
    payload: bytes(100),
    ...fields,
  };
  const segment = new Uint8Array(20 + f.options.length + f.payload.length);
  const view = new DataView(segment.buffer);
  view.setUint16(0, f.sourcePort);
  view.setUint16(2, f.destinationPort);
  view.setUint32(4, f.sequence);
  view.setUint32(8, f.acknowledgement);
  segment[12] = (5 + f.options.length / 4) << 4;
  segment[13] = f.flags;
  view.setUint16(14, f.window);
  segment.set(f.options, 20);
  segment.set(f.payload, 20 + f.options.length);
  return ip(f, 6, segment, 16);
}

export function udp(
  fields: Partial<IpFields> & {
    readonly payload?: Uint8Array;
    readonly sourcePort?: number;
    readonly destinationPort?: number;
  } = {},
): Uint8Array {
  const { payload = bytes(100), sourcePort = 5000, destinationPort = 6000 } = fields;
  const datagram = new Uint8Array(8 + payload.length);
  const view = new DataView(datagram.buffer);
  view.setUint16(0, sourcePort);
  view.setUint16(2, destinationPort);
  view.setUint16(4, datagram.length);
  datagram.set(payload, 8);
  return ip({ ...IP, ...fields }, 17, datagram, 6);
}

/** An ICMP echo request, or any payload of another protocol. */
export function other(
  protocol: number,
  payload: Uint8Array,
  fields: Partial<IpFields> = {},
): Uint8Array {
  return ip({ ...IP, ...fields }, protocol, payload, undefined);
}

/** Deterministic bytes. */
export function bytes(length: number, seed = 1): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 31 + seed * 17 + (i >> 8)) & 0xff);
}

/** A packet as the TUN hands it over: with a virtio-net header. */
export function plainRead(packet: Uint8Array): Uint8Array {
  return joined(new Uint8Array(10), packet);
}

/** The same with its transport checksum left to us: the field holds the sum of the pseudo-header. */
export function partialRead(packet: Uint8Array): Uint8Array {
  const { transport, protocol } = headersOf(packet);
  const field = protocol === 6 ? 16 : 6;
  const read = plainRead(packet);
  const view = new DataView(read.buffer);
  read[0] = 1;
  view.setUint16(6, transport, true);
  view.setUint16(8, field, true);
  view.setUint16(10 + transport + field, onesSum(pseudoHeader(packet)));
  return read;
}

/** A TSO or USO super-packet of segments of `size` bytes. */
export function superRead(packet: Uint8Array, size: number, ecn = 0): Uint8Array {
  const { family, transport, protocol } = headersOf(packet);
  const read = partialRead(packet);
  const view = new DataView(read.buffer);
  const headers = protocol === 6 ? ((packet[transport + 12] ?? 0) >> 4) * 4 : 8;
  read[1] = (protocol === 17 ? 5 : family === 4 ? 1 : 4) | ecn;
  view.setUint16(2, transport + headers, true);
  view.setUint16(4, size, true);
  return read;
}

export interface Headers {
  readonly family: number;
  readonly transport: number;
  readonly protocol: number;
}

/** Of packets without IPv6 extension headers. */
export function headersOf(packet: Uint8Array): Headers {
  const first = packet[0] ?? 0;
  return first >> 4 === 4
    ? { family: 4, transport: (first & 15) * 4, protocol: packet[9] ?? 0 }
    : { family: 6, transport: 40, protocol: packet[6] ?? 0 };
}

export function payloadOf(packet: Uint8Array): Uint8Array {
  const { transport, protocol } = headersOf(packet);
  const headers = protocol === 6 ? ((packet[transport + 12] ?? 0) >> 4) * 4 : 8;
  return packet.subarray(transport + headers);
}

/** Returns what is wrong with lengths and checksums, or `undefined`. */
export function problemOf(packet: Uint8Array): string | undefined {
  const { family, transport, protocol } = headersOf(packet);
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
  if (family === 4) {
    if (view.getUint16(2) !== packet.length) return 'total length';
    if (onesSum(packet.subarray(0, transport)) !== 0xffff) return 'header checksum';
  } else if (view.getUint16(4) !== packet.length - 40) {
    return 'payload length';
  }
  if (protocol === 17 && view.getUint16(transport + 4) !== packet.length - transport) {
    return 'datagram length';
  }
  if (protocol === 17 && view.getUint16(transport + 6) === 0) return 'no datagram checksum';
  const sum = onesSum(joined(pseudoHeader(packet), packet.subarray(transport)));
  return sum === 0xffff ? undefined : `transport checksum: sum is ${sum}`;
}

export function joined(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** The one's complement sum of 16-bit words: their sum modulo 65535, where only nothing gives 0. */
function onesSum(data: Uint8Array): number {
  let total = 0;
  for (let i = 0; i < data.length; i++) total += (data[i] ?? 0) * (i % 2 === 0 ? 256 : 1);
  return total === 0 ? 0 : total % 65_535 || 65_535;
}

function pseudoHeader(packet: Uint8Array): Uint8Array {
  const { family, transport, protocol } = headersOf(packet);
  const addresses = family === 4 ? packet.subarray(12, 20) : packet.subarray(8, 40);
  const length = packet.length - transport;
  return joined(addresses, Uint8Array.of(0, protocol, length >> 8, length & 0xff));
}

function ip(
  fields: IpFields,
  protocol: number,
  payload: Uint8Array,
  checksumField: number | undefined,
): Uint8Array {
  const source = addressBytes(fields.source);
  const isIpv4 = source.length === 4;
  const header = new Uint8Array(isIpv4 ? 20 : 40);
  const view = new DataView(header.buffer);
  if (isIpv4) {
    header[0] = 0x45;
    header[1] = fields.tos;
    view.setUint16(2, 20 + payload.length);
    view.setUint16(4, fields.id);
    header[6] = fields.df ? 0x40 : 0;
    header[8] = fields.ttl;
    header[9] = protocol;
  } else {
    view.setUint16(0, 0x6000 | (fields.tos << 4));
    view.setUint16(4, payload.length);
    header[6] = protocol;
    header[7] = fields.ttl;
  }
  header.set(source, isIpv4 ? 12 : 8);
  header.set(addressBytes(fields.destination), isIpv4 ? 16 : 24);
  if (isIpv4) view.setUint16(10, 0xffff - onesSum(header));
  const packet = joined(header, payload);
  if (checksumField !== undefined) {
    const sum = onesSum(joined(pseudoHeader(packet), payload));
    const checksum = 0xffff - sum || (protocol === 17 ? 0xffff : 0);
    new DataView(packet.buffer).setUint16(header.length + checksumField, checksum);
  }
  return packet;
}

function addressBytes(text: string): Uint8Array {
  const address = parseIpAddress(text);
  if (!address.ok) throw new Error(text);
  return ipAddressBytes(address.value);
}
