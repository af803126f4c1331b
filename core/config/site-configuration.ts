import * as v from 'valibot';
import type { DomainName } from '../dns/name.ts';
import type { ProxyRanges } from '../dns/proxy-pool.ts';
import type { Upstream } from '../dns/upstream.ts';
import { ipFamily, type IpFamily } from '../net/ip-address.ts';
import type { IpPrefix } from '../net/ip-prefix.ts';
import { DEFAULTS, LIMITS } from './defaults.ts';
import { domain, interfaceName, limited, prefix, upstream, wholeNumber } from './field.ts';

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
    v.optional(v.boolean(), DEFAULTS.masquerade),
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

// Each name takes four addresses of both families.
const MOST_PROXY_LENGTH_IPV4 = 24;
const MOST_PROXY_LENGTH_IPV6 = 112;

function proxyRange(family: IpFamily, mostLength: number): v.GenericSchema<string, IpPrefix> {
  return v.pipe(
    prefix,
    v.check(
      ({ address, length }) => ipFamily(address) === family && length <= mostLength,
      `must be an IPv${family} network with a length of at most ${mostLength}`,
    ),
  );
}

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
      'Servers for all other names, the preferred one first; none: those of the system.',
    ),
  ),
  rules: v.pipe(
    v.optional(
      limited(
        v.strictObject({
          zones: v.pipe(
            limited(domain, LIMITS.targets),
            v.minLength(1, 'must name at least one zone'),
            v.description('Domains; of several that hold a name the longest has it.'),
          ),
          upstreams: v.pipe(
            upstreams,
            v.minLength(1, 'must name at least one server'),
            v.description('Servers for them, the preferred one first.'),
          ),
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
        ipv4: v.pipe(
          v.optional(proxyRange(4, MOST_PROXY_LENGTH_IPV4), DEFAULTS.proxiesIpv4),
          v.description('IPv4 network of 24 bits or fewer.'),
        ),
        ipv6: v.pipe(
          v.optional(proxyRange(6, MOST_PROXY_LENGTH_IPV6), DEFAULTS.proxiesIpv6),
          v.description('IPv6 network of 112 bits or fewer.'),
        ),
      }),
      {},
    ),
    v.description('Ranges of addresses that stand for names of resources; the same everywhere.'),
  ),
});
