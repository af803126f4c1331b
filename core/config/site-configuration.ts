import * as v from 'valibot';
import type { DomainName } from '../dns/name.ts';
import type { ProxyRanges } from '../dns/proxy-pool.ts';
import type { IpPrefix } from '../net/ip-prefix.ts';
import { DEFAULTS, LIMITS } from './defaults.ts';
import { domain, interfaceName, limited, prefix, upstream, wholeNumber } from './field.ts';
import type { Upstream } from '../dns/upstream.ts';

/** The site that this device stands in. */
export interface SiteConfiguration {
  /** Names of the interfaces of the LAN. */
  readonly lans: readonly string[];
}

export interface NatConfiguration {
  /** Whether hosts of the LAN see this device in place of the peers that use resources. */
  readonly masquerade: boolean;
  /** Networks of the LAN that have other addresses in the tunnel, as peers have the same ones. */
  readonly prefixMaps: readonly PrefixMapConfiguration[];
}

/** Prefixes of one length; the host bits stay. */
export interface PrefixMapConfiguration {
  readonly local: IpPrefix;
  /** What peers know it by. */
  readonly mapped: IpPrefix;
}

export interface DnsConfiguration {
  /**
   * How queries of the LAN come to us: `dnsmasq` sends us those for names of resources, `redirect` takes
   * all of them on their way.
   */
  readonly mode: DnsMode;
  /** UDP and TCP port, 1 to 65535. */
  readonly listenPort: number;
  /** Servers for all other names, the preferred one first; none: those of the system. */
  readonly upstreams: readonly Upstream[];
  /** Servers for names of some zones. */
  readonly rules: readonly DnsRuleConfiguration[];
  /** Where the proxies of names come from: the same at both ends. */
  readonly proxies: ProxyRanges;
}

export type DnsMode = 'off' | 'dnsmasq' | 'redirect';

export interface DnsRuleConfiguration {
  readonly zones: readonly DomainName[];
  readonly upstreams: readonly Upstream[];
}

export const siteSchema: v.GenericSchema<unknown, SiteConfiguration> = v.strictObject({
  lans: v.pipe(
    v.optional(limited(interfaceName, LIMITS.lans), []),
    v.description('Interfaces of the LAN, such as br-lan.'),
  ),
});

export const natSchema: v.GenericSchema<unknown, NatConfiguration> = v.strictObject({
  masquerade: v.pipe(
    v.optional(v.boolean(), true),
    v.description('Hosts of the LAN see this device in place of the peers that use resources.'),
  ),
  prefixMaps: v.pipe(
    v.optional(
      limited(
        v.strictObject({
          local: v.pipe(prefix, v.description('Network of the LAN.')),
          mapped: v.pipe(prefix, v.description('What peers know it by; of the same length.')),
        }),
        LIMITS.prefixMaps,
      ),
      [],
    ),
    v.description('Networks of the LAN that have other addresses in the tunnel.'),
  ),
});

const upstreams = limited(upstream, LIMITS.upstreams);

export const dnsSchema: v.GenericSchema<unknown, DnsConfiguration> = v.strictObject({
  mode: v.pipe(
    v.optional(v.picklist(['off', 'dnsmasq', 'redirect']), DEFAULTS.dnsMode),
    v.description('How queries of the LAN for names of resources come here.'),
  ),
  listenPort: v.pipe(
    v.optional(wholeNumber(1, 65_535), DEFAULTS.dnsListenPort),
    v.description('UDP and TCP port at which they are answered.'),
  ),
  upstreams: v.pipe(
    v.optional(upstreams, []),
    v.description(
      'Servers for all other names: 192.0.2.1, 192.0.2.1:53, tls://host or https://host/path; ' +
        'none: those of the system.',
    ),
  ),
  rules: v.pipe(
    v.optional(
      limited(
        v.strictObject({
          zones: v.pipe(limited(domain, LIMITS.targets), v.minLength(1, 'must name a zone')),
          upstreams: v.pipe(upstreams, v.minLength(1, 'must name a server')),
        }),
        LIMITS.dnsRules,
      ),
      [],
    ),
    v.description('Servers for names of some zones.'),
  ),
  proxies: v.pipe(
    v.optional(
      v.strictObject({
        ipv4: v.optional(prefix, DEFAULTS.proxiesIpv4),
        ipv6: v.optional(prefix, DEFAULTS.proxiesIpv6),
      }),
      {},
    ),
    v.description('Ranges of addresses that stand for names of resources; the same everywhere.'),
  ),
});
