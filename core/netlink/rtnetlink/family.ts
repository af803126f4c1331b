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
  return ipAddressFromBytes(new Uint8Array(familyBits(family) / 8));
}
