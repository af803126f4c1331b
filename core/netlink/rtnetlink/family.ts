import { ipAddressFromBytes, type IpAddress, type IpFamily } from '../../net/ip-address.ts';
import { AF_INET, AF_INET6 } from './constants.ts';

/** Returns AF_INET or AF_INET6. */
export function encodeFamily(family: IpFamily): number {
  return family === 4 ? AF_INET : AF_INET6;
}

/** Returns `undefined` for every other address family. */
export function decodeFamily(family: number): IpFamily | undefined {
  return family === AF_INET ? 4 : family === AF_INET6 ? 6 : undefined;
}

/** Bits of an address. */
export function familyBits(family: IpFamily): number {
  return family === 4 ? 32 : 128;
}

/** Returns `undefined` when the bytes are not an address of this family. */
export function decodeIp(bytes: Uint8Array, family: IpFamily): IpAddress | undefined {
  return bytes.length * 8 === familyBits(family) ? ipAddressFromBytes(bytes) : undefined;
}

/** The address of all zeros. */
export function unspecified(family: IpFamily): IpAddress {
  return family === 4 ? UNSPECIFIED_IPV4 : UNSPECIFIED_IPV6;
}

const UNSPECIFIED_IPV4 = ipAddressFromBytes(new Uint8Array(4));
const UNSPECIFIED_IPV6 = ipAddressFromBytes(new Uint8Array(16));
