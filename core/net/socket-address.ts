import { failed, ok, type Outcome } from '../sansio/outcome.ts';
import {
  ipAddressBytes,
  ipAddressFromBytes,
  parseIpAddress,
  type IpAddress,
} from './ip-address.ts';

/** An IP address and a port in canonical text: `192.0.2.1:51820`, `[2001:db8::1]:51820`. */
export type SocketAddress = string & { readonly [brand]: true };

declare const brand: unique symbol;

export function parseSocketAddress(text: string): Outcome<SocketAddress, 'not-a-socket-address'> {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(0|[1-9]\d{0,4})$/.exec(text);
  const ip = parseIpAddress(match?.[1] ?? match?.[2] ?? '');
  const port = Number(match?.[3]);
  if (!ip.ok || !(port <= 65_535)) return failed('not-a-socket-address');
  // Brackets belong to IPv6 and to nothing else.
  const isBracketed = match?.[1] !== undefined;
  if (isBracketed !== ip.value.includes(':')) return failed('not-a-socket-address');
  return ok(socketAddress(ip.value, port));
}

/** `port` is 0 to 65535. */
export function socketAddress(ip: IpAddress, port: number): SocketAddress {
  return (ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`) as SocketAddress;
}

export function socketAddressIp(address: SocketAddress): IpAddress {
  const end = address.lastIndexOf(':');
  return (address.startsWith('[') ? address.slice(1, end - 1) : address.slice(0, end)) as IpAddress;
}

export function socketAddressPort(address: SocketAddress): number {
  return Number(address.slice(address.lastIndexOf(':') + 1));
}

/**
 * Writes the address as Linux has it in memory and returns the length, 16 or 28 bytes.
 *
 * sockaddr_in:  { family u16 host-endian, port u16, address[4], zero[8] }
 * sockaddr_in6: { family u16 host-endian, port u16, flow info u32, address[16], scope id u32 }
 */
export function encodeSockaddr(address: SocketAddress, out: Uint8Array, offset: number): number {
  const ip = ipAddressBytes(socketAddressIp(address));
  const port = socketAddressPort(address);
  const isIpv4 = ip.length === 4;
  const length = isIpv4 ? SOCKADDR_IN_SIZE : SOCKADDR_IN6_SIZE;
  out.fill(0, offset, offset + length);
  out[offset] = isIpv4 ? AF_INET : AF_INET6;
  out[offset + 2] = port >> 8;
  out[offset + 3] = port;
  out.set(ip, offset + (isIpv4 ? SIN_ADDR : SIN6_ADDR));
  return length;
}

/**
 * Returns the address, or `undefined` for another family or too few bytes. An IPv4-mapped one, which a
 * dual-stack socket reports for IPv4, is returned as IPv4. Flow info and scope id are ignored.
 */
export function decodeSockaddr(bytes: Uint8Array, offset: number): SocketAddress | undefined {
  const family = (bytes[offset] ?? 0) | ((bytes[offset + 1] ?? 0) << 8);
  const port = ((bytes[offset + 2] ?? 0) << 8) | (bytes[offset + 3] ?? 0);
  const available = bytes.length - offset;
  if (family === AF_INET && available >= SOCKADDR_IN_SIZE) {
    const ip = bytes.subarray(offset + SIN_ADDR, offset + SIN_ADDR + 4);
    return socketAddress(ipAddressFromBytes(ip), port);
  }
  if (family === AF_INET6 && available >= SOCKADDR_IN6_SIZE) {
    const ip = bytes.subarray(offset + SIN6_ADDR, offset + SIN6_ADDR + 16);
    return socketAddress(ipAddressFromBytes(isMapped(ip) ? ip.subarray(12) : ip), port);
  }
  return undefined;
}

const AF_INET = 2;
const AF_INET6 = 10;
const SOCKADDR_IN_SIZE = 16;
const SOCKADDR_IN6_SIZE = 28;
const SIN_ADDR = 4;
const SIN6_ADDR = 8;

/** RFC 4291 §2.5.5.2: ::ffff:0:0/96. */
function isMapped(ip: Uint8Array): boolean {
  return ip.every((byte, i) => (i >= 12 ? true : byte === (i < 10 ? 0 : 0xff)));
}
