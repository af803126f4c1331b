import { ipFamily, isLinkLocal, type IpAddress } from '../net/ip-address.ts';
import { formatIpPrefix, networkOf } from '../net/ip-prefix.ts';
import type { LinkAddress } from './rtnetlink/address.ts';
import { AddressFlag, HardwareType, Scope } from './rtnetlink/constants.ts';
import type { Link } from './rtnetlink/link.ts';

/** More are of no use to a peer that has to try them all. */
export const MOST_LOCAL_ADDRESSES = 32;

/**
 * Returns the addresses under which this machine may be reached on links other than `except`, in the
 * order in which they are given; but a temporary one (RFC 8981) comes before the stable one of its
 * prefix, as its owner wants to be seen under that.
 */
export function chooseLocalAddresses(
  links: readonly Link[],
  addresses: readonly LinkAddress[],
  except: string,
): readonly IpAddress[] {
  const reachable = links.filter(
    ({ name, isUp, hardwareType }) =>
      isUp && name !== except && hardwareType !== HardwareType.loopback,
  );
  const indices = new Set(reachable.map(({ index }) => index));
  const usable = addresses.filter((address) => indices.has(address.link) && isUsable(address));
  const temporary = new Map<string, LinkAddress[]>();
  for (const address of usable) {
    if (!isTemporary(address)) continue;
    const key = prefixKey(address);
    temporary.set(key, [...(temporary.get(key) ?? []), address]);
  }
  const chosen = new Set<IpAddress>();
  for (const address of usable) {
    for (const before of temporary.get(prefixKey(address)) ?? [])
      chosen.add(before.address.address);
    chosen.add(address.address.address);
  }
  return Array.from(chosen).slice(0, MOST_LOCAL_ADDRESSES);
}

function isUsable({ address, scope, flags }: LinkAddress): boolean {
  if (scope >= Scope.host) return false;
  if (ipFamily(address.address) === 4) return true;
  return !isLinkLocal(address.address) && (flags & UNUSABLE) === 0;
}

/** RFC 4862 §5.4: not yet known to be ours alone, or known not to be; §5.5.4: on the way out. */
const UNUSABLE: number = AddressFlag.tentative | AddressFlag.duplicate | AddressFlag.deprecated;

/** The flag has another meaning for IPv4. */
function isTemporary({ address, flags }: LinkAddress): boolean {
  return ipFamily(address.address) === 6 && (flags & AddressFlag.temporary) !== 0;
}

function prefixKey({ link, address }: LinkAddress): string {
  return `${link} ${formatIpPrefix(networkOf(address))}`;
}
