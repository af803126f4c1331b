import { BugError, failed, ok, type Outcome } from '../sansio/outcome.ts';
import { formatIpv6, parseIpv4, parseIpv6 } from './ip-text.ts';

/**
 * An IP address in canonical text: dotted decimal, or RFC 5952 with all groups in hexadecimal. Equal
 * addresses are equal strings. An IPv4-mapped IPv6 address is an IPv6 address; there are no zone ids.
 */
export type IpAddress = string & { readonly [brand]: true };

export type IpFamily = 4 | 6;

declare const brand: unique symbol;

export function parseIpAddress(text: string): Outcome<IpAddress, 'not-an-ip-address'> {
  if (!text.includes(':')) {
    return parseIpv4(text) === undefined ? failed('not-an-ip-address') : ok(text as IpAddress);
  }
  const bytes = parseIpv6(text);
  return bytes === undefined ? failed('not-an-ip-address') : ok(formatIpv6(bytes) as IpAddress);
}

/** Returns the address of 4 or 16 bytes in network order; other lengths are a bug of the caller. */
export function ipAddressFromBytes(bytes: Uint8Array): IpAddress {
  if (bytes.length === 4) return `${bytes[0]}.${bytes[1]}.${bytes[2]}.${bytes[3]}` as IpAddress;
  if (bytes.length !== 16) throw new BugError(`an IP address of ${bytes.length} bytes`);
  return formatIpv6(bytes) as IpAddress;
}

/** Returns the 4 or 16 bytes of the address in network order. */
export function ipAddressBytes(address: IpAddress): Uint8Array {
  if (ipFamily(address) === 6) return parseIpv6(address) ?? new Uint8Array(16);
  // By hand: routes come in tens of thousands, and this is ten times as fast as split() and map().
  const bytes = new Uint8Array(4);
  let octet = 0;
  for (let i = 0; i < address.length; i++) {
    const code = address.charCodeAt(i);
    if (code === DOT) octet++;
    else bytes[octet] = (bytes[octet] ?? 0) * 10 + code - DIGIT_ZERO;
  }
  return bytes;
}

const DOT = 0x2e;
const DIGIT_ZERO = 0x30;

export function ipFamily(address: IpAddress): IpFamily {
  return address.includes(':') ? 6 : 4;
}

/** Whether the address means something on one link alone: fe80::/10 (RFC 4291 §2.5.6). */
export function isLinkLocal(address: IpAddress): boolean {
  return /^fe[89ab][0-9a-f]:/.test(address);
}

/** Whether the address is of a network of its own: RFC 1918, RFC 4193, and this host. */
export function isPrivate(address: IpAddress): boolean {
  return ipFamily(address) === 6
    ? /^f[cd]/.test(address) || address === '::1' || isLinkLocal(address)
    : /^(10|127|192\.168|169\.254|172\.(1[6-9]|2\d|3[01]))\./.test(address);
}

/** Whether datagrams can be addressed to one machine there: not to all, none, many, or to this host. */
export function isUnicast(address: IpAddress): boolean {
  return ipFamily(address) === 6
    ? !address.startsWith('ff') && address !== '::' && address !== '::1'
    : !/^(0|127|22[4-9]|23\d|24\d|25\d)\./.test(address);
}
