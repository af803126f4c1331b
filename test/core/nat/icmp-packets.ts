import { ipAddressBytes, parseIpAddress } from '../../../core/net/ip-address.ts';
import { bytes, headersOf, joined, other, problemOf } from '../fastpath/packets.ts';

/* ICMP packets built and checked slowly, after the RFCs. */

/** An echo request, or a reply. */
export function echo(
  source: string,
  destination: string,
  identifier: number,
  options: { readonly isReply?: boolean; readonly payload?: Uint8Array } = {},
): Uint8Array {
  const isIpv6 = source.includes(':');
  const type = isIpv6 ? (options.isReply ? 129 : 128) : options.isReply ? 0 : 8;
  const payload = options.payload ?? bytes(56);
  const message = joined(
    Uint8Array.of(type, 0, 0, 0, identifier >> 8, identifier & 0xff, 0, 1),
    payload,
  );
  return withChecksum(message, source, destination);
}

/** An error that quotes the packet; `rest` is the second word of its header. */
export function icmpError(
  fields: {
    readonly source: string;
    readonly destination: string;
    readonly type: number;
    readonly code: number;
    readonly rest: number;
  },
  quoted: Uint8Array,
): Uint8Array {
  const { type, code, rest } = fields;
  const header = Uint8Array.of(type, code, 0, 0, rest >> 24, rest >> 16, rest >> 8, rest);
  return withChecksum(joined(header, quoted), fields.source, fields.destination);
}

/** The packet that an error quotes. */
export function quoteOf(error: Uint8Array): Uint8Array {
  return error.subarray(headersOf(error).transport + 8);
}

/** Returns what is wrong with lengths and checksums of a packet of any protocol we know, or `undefined`. */
export function ipProblem(packet: Uint8Array): string | undefined {
  const { family, transport, protocol } = headersOf(packet);
  if (protocol !== 1 && protocol !== 58) return problemOf(packet);
  if (family === 4 && sumOf(packet.subarray(0, transport)) !== 0xffff) return 'header checksum';
  const pseudo = family === 4 ? new Uint8Array(0) : pseudoHeader(packet);
  const sum = sumOf(joined(pseudo, packet.subarray(transport)));
  return sum === 0xffff ? undefined : `ICMP checksum: sum is ${sum}`;
}

function withChecksum(message: Uint8Array, source: string, destination: string): Uint8Array {
  const isIpv6 = source.includes(':');
  const packet = other(isIpv6 ? 58 : 1, message, { source, destination });
  const { transport } = headersOf(packet);
  const pseudo = isIpv6 ? pseudoHeader(packet) : new Uint8Array(0);
  const sum = sumOf(joined(pseudo, packet.subarray(transport)));
  new DataView(packet.buffer).setUint16(transport + 2, 0xffff - sum);
  return packet;
}

function pseudoHeader(packet: Uint8Array): Uint8Array {
  const length = packet.length - 40;
  return joined(packet.subarray(8, 40), Uint8Array.of(0, 0, length >> 8, length, 0, 0, 0, 58));
}

function sumOf(data: Uint8Array): number {
  let total = 0;
  for (let i = 0; i < data.length; i++) total += (data[i] ?? 0) * (i % 2 === 0 ? 256 : 1);
  return total === 0 ? 0 : total % 65_535 || 65_535;
}

/** The bytes of an address. */
export function addressBytes(text: string): Uint8Array {
  const address = parseIpAddress(text);
  if (!address.ok) throw new Error(text);
  return ipAddressBytes(address.value);
}
