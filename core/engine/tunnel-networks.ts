import { prefixesOf } from '../access/resource-table.ts';
import type { Configuration } from '../config/configuration.ts';
import type { IpPrefix } from '../net/ip-prefix.ts';

/**
 * Returns the destinations that lead into the tunnel: networks behind peers, resources that peers serve, and
 * the proxies of their names. A default route is none of them: it would swallow the tunnel's own datagrams.
 */
export function tunnelNetworks({ peers, resources, dns }: Configuration): readonly IpPrefix[] {
  const used = resources.filter(({ gateways }) => gateways.length > 0);
  const { ipv4, ipv6 } = dns.proxies;
  const networks = [
    ...peers.flatMap(({ allowedIps }) => allowedIps),
    ...used.flatMap(prefixesOf),
    ...(used.some(({ type }) => type === 'dns') ? [ipv4, ipv6] : []),
  ];
  return networks.filter(({ length }) => length > 0);
}
