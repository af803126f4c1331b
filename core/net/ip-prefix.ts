import { failed, ok, type Outcome } from '../sansio/outcome.ts';
import {
  ipAddressBytes,
  ipAddressFromBytes,
  ipFamily,
  parseIpAddress,
  type IpAddress,
} from './ip-address.ts';

/** An address with the number of its leading bits that count. */
export interface IpPrefix {
  readonly address: IpAddress;
  /** 0 to 32, or 0 to 128. */
  readonly length: number;
}

/** Reads `192.0.2.0/24`; bits behind the length are cleared, a bare address has full length. */
export function parseIpPrefix(text: string): Outcome<IpPrefix, 'not-an-ip-prefix'> {
  const parsed = parseInterfaceAddress(text);
  return parsed.ok ? ok(networkOf(parsed.value)) : failed('not-an-ip-prefix');
}

/** Reads `192.0.2.7/24` and keeps the host bits, as an address of an interface has them. */
export function parseInterfaceAddress(text: string): Outcome<IpPrefix, 'not-an-interface-address'> {
  const slash = text.indexOf('/');
  const address = parseIpAddress(slash < 0 ? text : text.slice(0, slash));
  if (!address.ok) return failed('not-an-interface-address');
  const width = widthOf(address.value);
  const digits = slash < 0 ? String(width) : text.slice(slash + 1);
  const length = /^(0|[1-9]\d{0,2})$/.test(digits) ? Number(digits) : width + 1;
  if (length > width) return failed('not-an-interface-address');
  return ok({ address: address.value, length });
}

export function formatIpPrefix(prefix: IpPrefix): string {
  return `${prefix.address}/${prefix.length}`;
}

/** Returns the prefix with the bits behind its length cleared. */
export function networkOf(prefix: IpPrefix): IpPrefix {
  const bytes = ipAddressBytes(prefix.address);
  let isNetwork = true;
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i] ?? 0;
    const masked = byte & maskByte(prefix.length, i);
    if (masked !== byte) isNetwork = false;
    bytes[i] = masked;
  }
  return isNetwork ? prefix : { address: ipAddressFromBytes(bytes), length: prefix.length };
}

export function prefixContains(prefix: IpPrefix, address: IpAddress): boolean {
  if (ipFamily(prefix.address) !== ipFamily(address)) return false;
  const a = ipAddressBytes(prefix.address);
  const b = ipAddressBytes(address);
  return a.every((byte, i) => ((byte ^ (b[i] ?? 0)) & maskByte(prefix.length, i)) === 0);
}

/** Whether there is an address that lies in both. */
export function doPrefixesOverlap(a: IpPrefix, b: IpPrefix): boolean {
  return a.length <= b.length ? prefixContains(a, b.address) : prefixContains(b, a.address);
}

/** Whether the prefix is one address. */
export function isFullLength({ address, length }: IpPrefix): boolean {
  return length === widthOf(address);
}

function widthOf(address: IpAddress): number {
  return ipFamily(address) === 4 ? 32 : 128;
}

/** Returns the byte at `index` of the netmask of this length. */
function maskByte(length: number, index: number): number {
  const bits = Math.min(Math.max(length - index * 8, 0), 8);
  return (0xff << (8 - bits)) & 0xff;
}
