import { ipFamily, type IpAddress } from '../net/ip-address.ts';
import {
  doPrefixesOverlap,
  formatIpPrefix,
  networkOf,
  parseIpPrefix,
  type IpPrefix,
} from '../net/ip-prefix.ts';
import { unreachable } from '../sansio/outcome.ts';
import type { Configuration } from './configuration.ts';
import type { ConfigurationError } from './error.ts';
import type { ResourceConfiguration } from './resource-configuration.ts';
import type { NatConfiguration } from './site-configuration.ts';

/** A network that a document names, and where. */
interface Located {
  readonly network: IpPrefix;
  readonly path: string;
}

export function checkPrefixMaps({ prefixMaps }: NatConfiguration): readonly ConfigurationError[] {
  const maps = prefixMaps.map(({ local, mapped }, i) => ({
    local: located(local, `nat.prefixMaps[${i}].local`),
    mapped: located(mapped, `nat.prefixMaps[${i}].mapped`),
  }));
  const locals = maps.map(({ local }) => local);
  return maps.flatMap(({ local, mapped }, i) => {
    const before = maps.slice(0, i);
    return [
      isSameSize(local.network, mapped.network)
        ? undefined
        : { path: mapped.path, message: 'must be of the same family and length as local' },
      clash(local, locals.slice(0, i)),
      clash(mapped, [...before.map((other) => other.mapped), ...locals]),
    ].flatMap((error) => error ?? []);
  });
}

/** Flows are decided by the addresses that the site itself has: nothing would ever come to the others. */
export function checkMappedTargets({
  resources,
  nat,
}: Configuration): readonly ConfigurationError[] {
  const served = resources.flatMap((resource, i) =>
    resource.gateways.length === 0 ? targetsOf(resource, `resources[${i}]`) : [],
  );
  return served.flatMap(({ network, path }) => {
    const i = nat.prefixMaps.findIndex(
      ({ mapped }) => mapped.length <= network.length && doPrefixesOverlap(mapped, network),
    );
    const message = `is what peers know nat.prefixMaps[${i}].local by: name its own addresses here`;
    return i < 0 ? [] : [{ path, message }];
  });
}

/**
 * Proxies must be nothing else's addresses; what has all addresses, as a default route, leaves them to us.
 * Where no names are used there are none.
 */
export function checkProxies(configuration: Configuration): readonly ConfigurationError[] {
  const { dns, resources } = configuration;
  if (dns.mode === 'off' && !resources.some(({ type }) => type === 'dns')) return [];
  const taken = [...networksOf(configuration)].filter(({ network }) => network.length > 0);
  return (['ipv4', 'ipv6'] as const).flatMap((family) => {
    const error = clash(located(dns.proxies[family], `dns.proxies.${family}`), taken);
    if (error === undefined) return [];
    const cure = family === 'ipv4' ? freeRange(taken) : OTHER_IPV6_RANGE;
    return [{ ...error, message: `${error.message}: ${cure}` }];
  });
}

function freeRange(taken: readonly Located[]): string {
  const isFree = (range: IpPrefix): boolean => clash(located(range, ''), taken) === undefined;
  const free = CANDIDATES.find(isFree);
  return free === undefined
    ? 'take another network, the same at both ends'
    : `take ${formatIpPrefix(free)} at both ends, which is free at this one`;
}

/** Private networks that are seldom used (RFC 6598, RFC 1918, RFC 2544), the first one to be tried first. */
const CANDIDATES = [
  '100.96.0.0/11',
  '10.96.0.0/12',
  '10.160.0.0/12',
  '10.224.0.0/12',
  '172.24.0.0/13',
  '198.18.0.0/15',
].flatMap((text) => {
  const parsed = parseIpPrefix(text);
  return parsed.ok ? [parsed.value] : [];
});
const OTHER_IPV6_RANGE =
  'take a /64 of a random unique local network (RFC 4193), the same at both ends';

/** All networks that a document gives a place. */
function* networksOf(configuration: Configuration): Iterable<Located> {
  const { interface: own, peers, resources, nat } = configuration;
  for (const [i, address] of own.addresses.entries()) {
    yield located(networkOf(address), `interface.addresses[${i}]`);
  }
  for (const [i, { allowedIps }] of peers.entries()) {
    for (const [j, network] of allowedIps.entries()) {
      yield located(network, `peers[${i}].allowedIps[${j}]`);
    }
  }
  for (const [i, resource] of resources.entries()) yield* targetsOf(resource, `resources[${i}]`);
  for (const [i, { local, mapped }] of nat.prefixMaps.entries()) {
    yield located(local, `nat.prefixMaps[${i}].local`);
    yield located(mapped, `nat.prefixMaps[${i}].mapped`);
  }
}

function targetsOf(resource: ResourceConfiguration, path: string): readonly Located[] {
  switch (resource.type) {
    case 'cidr':
      return resource.prefixes.map((prefix, i) => located(prefix, `${path}.prefixes[${i}]`));
    case 'ip':
      return [located(prefixOf(resource.address), `${path}.address`)];
    case 'dns':
    case 'internet':
      return [];
    default:
      return unreachable(resource);
  }
}

function prefixOf(address: IpAddress): IpPrefix {
  return { address, length: ipFamily(address) === 4 ? 32 : 128 };
}

/** Tells of the first of the others that has addresses in common with the network. */
function clash(one: Located, others: readonly Located[]): ConfigurationError | undefined {
  const other = others.find(({ network }) => doPrefixesOverlap(one.network, network));
  return other && { path: one.path, message: `overlaps ${other.path}` };
}

function isSameSize(a: IpPrefix, b: IpPrefix): boolean {
  return a.length === b.length && ipFamily(a.address) === ipFamily(b.address);
}

function located(network: IpPrefix, path: string): Located {
  return { network, path };
}
