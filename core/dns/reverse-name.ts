import {
  ipAddressBytes,
  ipAddressFromBytes,
  ipFamily,
  parseIpAddress,
  type IpAddress,
} from '../net/ip-address.ts';
import type { IpPrefix } from '../net/ip-prefix.ts';
import type { DomainName } from './name.ts';

/** Returns the name that PTR records of the address stand at (RFC 1035 §3.5, RFC 3596 §2.5). */
export function reverseName(address: IpAddress): DomainName {
  return zoneOf(digitsOf(address), ipFamily(address));
}

/** Returns whose reverse name it is; `undefined` for the name of a whole network, and all others. */
export function addressOfReverseName(name: DomainName): IpAddress | undefined {
  if (name.endsWith(IPV4_ZONE)) {
    const octets = name.slice(0, -IPV4_ZONE.length).split('.').reverse();
    const address = parseIpAddress(octets.join('.'));
    return octets.length === 4 && address.ok ? address.value : undefined;
  }
  if (!name.endsWith(IPV6_ZONE)) return undefined;
  const nibbles = name.slice(0, -IPV6_ZONE.length);
  if (!/^[0-9a-f](\.[0-9a-f]){31}$/.test(nibbles)) return undefined;
  const digits = nibbles.split('.').reverse();
  return ipAddressFromBytes(
    Uint8Array.from({ length: 16 }, (_, i) => parseInt(`${digits[2 * i]}${digits[2 * i + 1]}`, 16)),
  );
}

/**
 * Returns the zones that hold the reverse names of the prefix and no others: one where its length ends a
 * label, else up to 128 (IPv4) or 8 (IPv6).
 */
export function reverseZones(prefix: IpPrefix): readonly DomainName[] {
  const family = ipFamily(prefix.address);
  const bitsPerLabel = family === 4 ? 8 : 4;
  const labels = Math.ceil(prefix.length / bitsPerLabel);
  const digits = digitsOf(prefix.address).slice(0, labels);
  const open = labels * bitsPerLabel - prefix.length;
  const last = parseInt(digits.pop() ?? '0', family === 4 ? 10 : 16);
  if (labels === 0) return [zoneOf([], family)];
  return Array.from({ length: 2 ** open }, (_, i) =>
    zoneOf([...digits, (last + i).toString(family === 4 ? 10 : 16)], family),
  );
}

const IPV4_ZONE = '.in-addr.arpa';
const IPV6_ZONE = '.ip6.arpa';

/** The labels of the reverse name in the order of the address. */
function digitsOf(address: IpAddress): string[] {
  if (ipFamily(address) === 4) return address.split('.');
  const digits: string[] = [];
  for (const byte of ipAddressBytes(address)) {
    digits.push((byte >> 4).toString(16), (byte & 15).toString(16));
  }
  return digits;
}

function zoneOf(digits: readonly string[], family: 4 | 6): DomainName {
  const zone = family === 4 ? IPV4_ZONE : IPV6_ZONE;
  return `${[...digits].reverse().join('.')}${zone}`.replace(/^\./, '') as DomainName;
}
