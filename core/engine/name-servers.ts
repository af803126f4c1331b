import type { Configuration } from '../config/configuration.ts';
import type { ResourceConfiguration } from '../config/resource-configuration.ts';
import type { UpstreamGroup } from '../dns/forwarder.ts';
import type { DomainName } from '../dns/name.ts';
import { SITE_DNS_PORT } from '../dns/numbers.ts';
import { localNames, UpstreamRules, type UpstreamRule } from '../dns/upstream-rules.ts';
import type { Upstream } from '../dns/upstream.ts';
import { isUnicast, type IpAddress } from '../net/ip-address.ts';
import type { IpPrefix } from '../net/ip-prefix.ts';
import {
  socketAddress,
  socketAddressIp,
  socketAddressPort,
  type SocketAddress,
} from '../net/socket-address.ts';
import type { SystemNameConfiguration } from '../plugin/system-names.ts';
import type { KnownPeer } from './gateway-side.ts';

/** Which servers are asked for which names. */
export interface NameServers {
  readonly groups: ReadonlyMap<string, UpstreamGroup>;
  /** For names of the LAN that belong to no resource. */
  readonly rules: UpstreamRules;
  /** For names in our own site, of which peers are told. */
  readonly siteRules: UpstreamRules;
}

/**
 * Returns the servers that follow from a configuration and from what the system says.
 *
 * - Those of `dns.rules` for their zones, `dns.upstreams` for all others, or the servers of the system.
 * - A resolver of this machine that sends us the names of resources is asked for none of the others: they
 *   would go round in a circle. Names in our site it is asked for all the same: it alone knows those that it
 *   has given out, and what it sends us of them is answered.
 * - Names that only this machine knows never go to servers that were configured in place of its own.
 */
export function nameServersOf(
  { dns }: Configuration,
  system: SystemNameConfiguration,
  used: readonly ResourceConfiguration[],
  peers: ReadonlyMap<string, KnownPeer>,
): NameServers {
  const groups = new Map<string, UpstreamGroup>();
  const isOurs = (server: SocketAddress) => socketAddressPort(server) === dns.listenPort;
  const own = system.nameservers.filter((server) => !isOurs(server));
  const distant = [...system.providerNameservers, ...own].filter((server) =>
    isUnicast(socketAddressIp(server)),
  );
  const hasUpstreams = dns.upstreams.length > 0;
  const ofSystem = plain(dns.mode === 'dnsmasq' ? distant : own);
  groups.set(OTHERS, { upstreams: hasUpstreams ? dns.upstreams : ofSystem, isCached: true });
  for (const [i, { upstreams }] of dns.rules.entries()) {
    groups.set(ruleGroup(i), { upstreams, isCached: true });
  }
  for (const resource of used) {
    groups.set(siteGroupOf(resource), { upstreams: gatewaysOf(resource, peers), isCached: false });
  }
  const configured = dns.rules.map(({ zones }, i) => ({ zones, group: ruleGroup(i) }));
  const isLocalApart = dns.mode === 'redirect' && hasUpstreams && own.length > 0;
  const local: readonly UpstreamRule[] = isLocalApart
    ? [localNames(LOCAL_DOMAINS, LOCAL_NETWORKS, MACHINE)]
    : [];
  // dnsmasq keeps answers itself; what it says of the site is not what others say of the same name.
  const isSiteApart = dns.mode === 'dnsmasq' && !hasUpstreams && own.length > 0;
  if (isLocalApart || isSiteApart) groups.set(MACHINE, { upstreams: plain(own), isCached: false });
  return {
    groups,
    rules: new UpstreamRules([...local, ...configured], OTHERS),
    siteRules: new UpstreamRules([...local, ...configured], isSiteApart ? MACHINE : OTHERS),
  };
}

/** The group of the resolvers at the site of a resource: its gateways, at their addresses in the tunnel. */
export function siteGroupOf({ gateways }: ResourceConfiguration): string {
  return `site ${gateways.join()}`;
}

function gatewaysOf(
  { gateways }: ResourceConfiguration,
  peers: ReadonlyMap<string, KnownPeer>,
): readonly Upstream[] {
  return gateways.flatMap((id): readonly Upstream[] => {
    const [address] = peers.get(id)?.addresses ?? [];
    if (address === undefined) return [];
    return [{ id: socketAddress(address, SITE_DNS_PORT), protocol: 'plain' }];
  });
}

function plain(servers: readonly SocketAddress[]): readonly Upstream[] {
  return [...new Set(servers)].map((id) => ({ id, protocol: 'plain' }));
}

function ruleGroup(i: number): string {
  return `rule ${i}`;
}

/** The servers for all names that no rule says anything of. */
const OTHERS = 'others';
/** The resolvers that this machine asks itself. */
const MACHINE = 'machine';

/** Of OpenWrt, and of RFC 8375. */
const LOCAL_DOMAINS = ['lan', 'home.arpa'] as unknown as readonly DomainName[];

/** RFC 6303 §4: their reverse names mean nothing to servers of others. */
const LOCAL_NETWORKS: readonly IpPrefix[] = [
  prefix('10.0.0.0', 8),
  prefix('172.16.0.0', 12),
  prefix('192.168.0.0', 16),
  prefix('169.254.0.0', 16),
  prefix('fd00::', 8),
  prefix('fe80::', 10),
];

function prefix(address: string, length: number): IpPrefix {
  return { address: address as IpAddress, length };
}
