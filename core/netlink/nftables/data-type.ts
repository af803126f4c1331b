import { ipAddressBytes, ipAddressFromBytes, type IpAddress } from '../../net/ip-address.ts';
import type { IpPrefix } from '../../net/ip-prefix.ts';
import { encodeHex } from '../../sansio/hex.ts';
import { decodeUtf8, encodeUtf8 } from '../../sansio/utf8.ts';
import { aligned, HOST_IS_LITTLE_ENDIAN } from '../byte-order.ts';
import { ByteOrder } from './constants.ts';

/** What a field of a key or value means. The kernel sees bytes alone; `nft` prints by the type. */
export type DataType =
  'ipv4_addr' | 'ipv6_addr' | 'inet_proto' | 'inet_service' | 'ifname' | 'mark' | 'ct_state';

interface Layout {
  /** Of nft (include/datatype.h). */
  readonly number: number;
  /** Bytes. */
  readonly length: number;
  /** A `ByteOrder`. */
  readonly order: number;
}

/** The bytes of an interface's name, NULs included. */
export const INTERFACE_NAME = 16;

const LAYOUTS: Readonly<Record<DataType, Layout>> = {
  ipv4_addr: { number: 7, length: 4, order: ByteOrder.network },
  ipv6_addr: { number: 8, length: 16, order: ByteOrder.network },
  inet_proto: { number: 12, length: 1, order: ByteOrder.network },
  inet_service: { number: 13, length: 2, order: ByteOrder.network },
  mark: { number: 19, length: 4, order: ByteOrder.host },
  ct_state: { number: 26, length: 4, order: ByteOrder.host },
  ifname: { number: 41, length: INTERFACE_NAME, order: ByteOrder.host },
};

/** Bits that each field of a concatenation takes in its number. */
const TYPE_BITS = 6;

/** Returns the number of a type or of a concatenation. */
export function dataTypeNumber(fields: readonly DataType[]): number {
  return fields.reduce((number, field) => (number << TYPE_BITS) | LAYOUTS[field].number, 0);
}

/** Returns the bytes of a value: each field of a concatenation fills whole words. */
export function dataTypeLength(fields: readonly DataType[]): number {
  return fields.length === 1
    ? fieldLength(fields[0] ?? 'mark')
    : fields.reduce((length, field) => length + aligned(fieldLength(field)), 0);
}

export function fieldLength(field: DataType): number {
  return LAYOUTS[field].length;
}

export function dataByteOrder(fields: readonly DataType[]): number {
  const [only, ...others] = fields;
  return only === undefined || others.length > 0 ? ByteOrder.mixed : LAYOUTS[only].order;
}

export function addressData(address: IpAddress): Uint8Array {
  return ipAddressBytes(address);
}

export function serviceData(port: number): Uint8Array {
  return Uint8Array.of(port >> 8, port);
}

export function protocolData(protocol: number): Uint8Array {
  return Uint8Array.of(protocol);
}

/** A name in its full field. Names of more than 15 bytes do not exist. */
export function interfaceData(name: string): Uint8Array {
  const bytes = new Uint8Array(INTERFACE_NAME);
  bytes.set(encodeUtf8(name).subarray(0, INTERFACE_NAME - 1));
  return bytes;
}

/** A mark or another number of 32 bits in the machine's order. */
export function markData(mark: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, mark, HOST_IS_LITTLE_ENDIAN);
  return bytes;
}

/** Returns the fields behind each other, each filled up to whole words; a single one as it is. */
export function concatenate(...fields: readonly Uint8Array[]): Uint8Array {
  const [only, ...others] = fields;
  if (only !== undefined && others.length === 0) return only;
  const bytes = new Uint8Array(fields.reduce((sum, field) => sum + aligned(field.length), 0));
  let at = 0;
  for (const field of fields) {
    bytes.set(field, at);
    at += aligned(field.length);
  }
  return bytes;
}

/** Returns the first and the last address of a prefix. */
export function prefixRange(prefix: IpPrefix): {
  readonly first: Uint8Array;
  readonly last: Uint8Array;
} {
  const first = ipAddressBytes(prefix.address);
  const mask = prefixMask(prefix.length, first.length);
  const last = first.slice();
  for (const [i, bits] of mask.entries()) {
    first[i] = (first[i] ?? 0) & bits;
    last[i] = (last[i] ?? 0) | (~bits & 0xff);
  }
  return { first, last };
}

/** Returns `bytes` bytes whose first `length` bits are set. */
export function prefixMask(length: number, bytes: number): Uint8Array {
  return Uint8Array.from({ length: bytes }, (_, i) => {
    const bits = Math.min(Math.max(length - i * 8, 0), 8);
    return (0xff << (8 - bits)) & 0xff;
  });
}

/** Writes a value the way nft prints it: `192.0.2.1 . 53`. */
export function formatData(bytes: Uint8Array, fields: readonly DataType[]): string {
  if (bytes.length !== dataTypeLength(fields)) return encodeHex(bytes);
  let at = 0;
  const parts = fields.map((field) => {
    const length = fieldLength(field);
    const part = bytes.subarray(at, at + length);
    at += aligned(length);
    return formatField(part, field);
  });
  return parts.join(' . ');
}

function formatField(bytes: Uint8Array, field: DataType): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  switch (field) {
    case 'ipv4_addr':
    case 'ipv6_addr':
      return ipAddressFromBytes(bytes);
    case 'inet_proto':
      return String(view.getUint8(0));
    case 'inet_service':
      return String(view.getUint16(0));
    case 'ifname': {
      const nul = bytes.indexOf(0);
      const name = nul < 0 ? bytes : bytes.subarray(0, nul);
      return decodeUtf8(name) ?? encodeHex(name);
    }
    case 'mark':
    case 'ct_state':
    default:
      return `0x${view.getUint32(0, HOST_IS_LITTLE_ENDIAN).toString(16)}`;
  }
}
