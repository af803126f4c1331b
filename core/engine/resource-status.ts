import type { Filter } from '../access/filter.ts';
import type { ResourceConfiguration } from '../config/resource-configuration.ts';
import type { DomainName } from '../dns/name.ts';
import { formatIpPrefix } from '../net/ip-prefix.ts';
import type { SetupFailure, SetupState, SetupStatus } from '../peering/resource-setups.ts';
import type { Instant, Millis } from '../sansio/instant.ts';
import { unreachable } from '../sansio/outcome.ts';
import type { FlowRecord } from './flow-records.ts';
import type { DnsStatus as NamesStatus } from './names.ts';
import { tenthsOf } from './path-status.ts';
import type { Resources } from './resources.ts';
import type { SessionStatus } from './sessions.ts';
import type { PeerStatus } from './status.ts';

/** Names of one resource that are told; the total is told beside them. */
export const MOST_NAMES_TOLD = 1000;

export interface ResourcesStatus {
  /** Those that peers serve. */
  readonly used: readonly UsedResource[];
  /** Those that this device serves. */
  readonly served: readonly ServedResource[];
}

/** What a resource is, whoever serves it. */
interface DescribedResource {
  readonly id: string;
  /** For people. */
  readonly name: string | undefined;
  readonly type: ResourceConfiguration['type'];
  /** Its patterns, prefixes or address; none of `internet`. */
  readonly targets: readonly string[];
  /** `tcp 443, 8000-8100`, `icmp`; none is everything. */
  readonly filters: readonly string[];
}

export interface UsedResource extends DescribedResource {
  readonly state: 'usable' | 'unusable';
  readonly why: UnusableCause | undefined;
  /** The preferred one first. */
  readonly gateways: readonly GatewayStatus[];
  /** How many names gateways were asked to translate, by what became of that. */
  readonly setups: Readonly<Record<SetupState, number>>;
  /** Those names, where they were asked for. */
  readonly names?: readonly UsedName[];
}

export type UnusableCause =
  /** Names of resources are not answered: DNS is off, or its state says why. */
  | 'dns-off'
  | 'dns-starting'
  | 'dns-failed'
  /** No gateway is connected; the state of each says why. */
  | 'no-gateway'
  /** What came of every name that a gateway was asked for. */
  | Exclude<SetupFailure, 'not-resolved'>;

export interface GatewayStatus extends Pick<PeerStatus, 'id' | 'state' | 'cause'> {
  readonly isReachable: boolean;
  /** Whether new flows go to it. */
  readonly isInUse: boolean;
}

export interface UsedName {
  readonly domain: string;
  readonly gateway: string;
  readonly state: SetupState;
  readonly why: SetupFailure | undefined;
  readonly proxies: readonly string[];
}

export interface ServedResource extends DescribedResource {
  readonly state: 'usable' | 'unusable';
  readonly why: UnservedCause | undefined;
  readonly authorizations: readonly AuthorizationStatus[];
  /** How many names peers have proxies for. */
  readonly nameCount: number;
  /** Those names, where they were asked for. */
  readonly names?: readonly ServedName[];
}

export type UnservedCause =
  | 'nobody-authorized'
  /** The packet filter does not translate peers: hosts of the site may not answer them. */
  | 'not-masqueraded';

export interface AuthorizationStatus {
  readonly peer: string;
  readonly peerState: PeerStatus['state'];
  /** Prefixes; none is any address of the peer. */
  readonly sources: readonly string[];
  /** As of the resource; none is all that it offers. */
  readonly filters: readonly string[];
  /** Milliseconds since 1970; never if absent. */
  readonly expiresUnixMs: number | undefined;
}

export interface ServedName {
  readonly domain: string;
  readonly peer: string;
  readonly proxies: readonly string[];
  /** What it resolved to in the site. */
  readonly addresses: readonly string[];
}

export interface DnsStatus extends Omit<NamesStatus, 'upstreams' | 'proxies'> {
  readonly upstreams: readonly UpstreamStatus[];
  readonly proxies: {
    readonly used: number;
    readonly capacity: number;
    /** Those given out last come last. */
    readonly names: readonly ProxiedName[];
  };
}

export interface UpstreamStatus extends Omit<NamesStatus['upstreams'][number], 'latency'> {
  /** Smoothed; `undefined` before the first answer. */
  readonly latencyMs: Millis | undefined;
}

export interface ProxiedName {
  readonly name: string;
  readonly proxies: readonly string[];
}

export interface NatStatus {
  /** How many sessions there are in all. */
  readonly total: number;
  /** Those with the latest packets first. */
  readonly sessions: readonly SessionStatus[];
}

/** What `culvert status` and the fleet are told. */
export interface ResourcesSummary {
  readonly used: number;
  /** How many of these can be used at present. */
  readonly usable: number;
  readonly served: number;
  /** Sessions of both sides. */
  readonly sessions: number;
  readonly dns: Pick<NamesStatus, 'mode' | 'state' | 'why'>;
}

/** What people see of resources, names and flows. Reads, and changes nothing. */
export class ResourceReader {
  readonly #resources: Resources;
  readonly #peers: () => readonly PeerStatus[];

  constructor(resources: Resources, peers: () => readonly PeerStatus[]) {
    this.#resources = resources;
    this.#peers = peers;
  }

  /** With the names of the resource that has this id. */
  resources(withNamesOf?: string): ResourcesStatus {
    const peers = byId(this.#peers());
    return {
      used: this.#used(peers, withNamesOf),
      served: this.#served(peers, withNamesOf),
    };
  }

  /** With at most `most` of the names that have proxies. */
  dns(most: number): DnsStatus {
    const { names } = this.#resources;
    const { pool } = names;
    const { upstreams, proxies, ...status } = names.status();
    const told: ProxiedName[] = [];
    for (const [name] of pool.entries()) {
      if (told.length >= most) break;
      told.push({ name, proxies: this.#proxiesOf(name) });
    }
    return {
      ...status,
      upstreams: upstreams.map(({ latency, ...it }) => ({ ...it, latencyMs: tenthsOf(latency) })),
      proxies: { ...proxies, names: told },
    };
  }

  /** At most `most` of the sessions. */
  nat(most: number, now: Instant): NatStatus {
    const { sessions } = this.#resources;
    return { total: sessions.size, sessions: sessions.statuses(most, now) };
  }

  /** Records of flows after the one of that number, the oldest first; at most `most`. */
  flows(after: number, most: number): readonly FlowRecord[] {
    return this.#resources.sessions.recordsAfter(after, most);
  }

  /** `undefined` where there are no resources. */
  summary(peers: readonly PeerStatus[]): ResourcesSummary | undefined {
    const { client, gateway, names, sessions } = this.#resources;
    const { used } = client;
    const { served } = gateway;
    if (used.length === 0 && served.length === 0) return undefined;
    const { mode, state, why } = names.status();
    const usable = this.#used(byId(peers)).filter((it) => it.state === 'usable');
    return {
      used: used.length,
      usable: usable.length,
      served: served.length,
      sessions: sessions.size,
      dns: { mode, state, why },
    };
  }

  #used(peers: PeersById, withNamesOf?: string): readonly UsedResource[] {
    const { client, names } = this.#resources;
    const setups = groupBy(client.setups(), ({ resource }) => resource);
    const dns = names.status();
    return client.used.map((resource) => {
      const gateways = this.#gatewaysOf(resource, peers);
      const ofResource = setups.get(resource.id) ?? [];
      const why = causeOf(resource, gateways, ofResource, dns);
      const told = ofResource.slice(0, MOST_NAMES_TOLD).map((it) => this.#usedName(it));
      return {
        ...describe(resource),
        state: why === undefined ? 'usable' : 'unusable',
        why,
        gateways,
        setups: countOf(ofResource),
        ...(resource.id === withNamesOf ? { names: told } : {}),
      };
    });
  }

  #served(peers: PeersById, withNamesOf: string | undefined): readonly ServedResource[] {
    const { gateway, hasRulesetFailed } = this.#resources;
    const authorizations = groupBy(gateway.authorizations.entries(), ({ resource }) => resource);
    const assignments = groupBy(gateway.assignments(), ({ resource }) => resource);
    return gateway.served.map((resource) => {
      const grants = authorizations.get(resource.id) ?? [];
      const names = assignments.get(resource.id) ?? [];
      const failure = hasRulesetFailed ? 'not-masqueraded' : undefined;
      const why = grants.length === 0 ? 'nobody-authorized' : failure;
      const told = names.slice(0, MOST_NAMES_TOLD);
      return {
        ...describe(resource),
        state: why === undefined ? 'usable' : 'unusable',
        why,
        authorizations: grants.map(({ peer, sources = [], filters, expiresAt }) => ({
          peer,
          peerState: peers.get(peer)?.state ?? 'no path',
          sources: sources.map(formatIpPrefix),
          filters: filters.map(formatFilter),
          expiresUnixMs: expiresAt,
        })),
        nameCount: names.length,
        ...(resource.id === withNamesOf
          ? {
              names: told.map(({ domain, peer, proxies, addresses }) => ({
                domain,
                peer,
                proxies,
                addresses,
              })),
            }
          : {}),
      };
    });
  }

  #gatewaysOf(resource: ResourceConfiguration, peers: PeersById): readonly GatewayStatus[] {
    const inUse = this.#resources.client.gatewayOf(resource)?.id;
    return resource.gateways.flatMap((gateway) => {
      const peer = peers.get(gateway);
      if (peer === undefined) return [];
      const { id, state, cause } = peer;
      const isReachable = state === 'connected' || state === 'idle';
      return [{ id, state, cause, isReachable, isInUse: id === inUse }];
    });
  }

  #usedName({ peer, domain, state, why }: SetupStatus): UsedName {
    const gateway = this.#resources.peerId(peer) ?? '';
    return { domain, gateway, state, why, proxies: this.#proxiesOf(domain as DomainName) };
  }

  #proxiesOf(name: DomainName): readonly string[] {
    const proxies = this.#resources.names.pool.get(name);
    return proxies === undefined ? [] : [...proxies.ipv4, ...proxies.ipv6];
  }
}

type PeersById = ReadonlyMap<string, PeerStatus>;

function byId(peers: readonly PeerStatus[]): PeersById {
  return new Map(peers.map((peer) => [peer.id, peer]));
}

/** Why the resource cannot be used at present; what comes first in the way of a packet is told. */
function causeOf(
  { type }: ResourceConfiguration,
  gateways: readonly GatewayStatus[],
  setups: readonly SetupStatus[],
  dns: Pick<NamesStatus, 'state'>,
): UnusableCause | undefined {
  if (type === 'dns' && dns.state !== 'intercepting') return `dns-${dns.state}`;
  if (!gateways.some(({ isReachable }) => isReachable)) return 'no-gateway';
  // A name that does not exist, or one that is refused, says nothing of the others.
  const causes = new Set(setups.map(({ why }) => why));
  const [first] = causes;
  return causes.size === 1 && first !== 'not-resolved' ? first : undefined;
}

function describe(resource: ResourceConfiguration): DescribedResource {
  const { id, name, type, filters } = resource;
  return {
    id,
    name,
    type,
    targets: targetsOf(resource),
    filters: filters.map(formatFilter),
  };
}

function targetsOf(resource: ResourceConfiguration): readonly string[] {
  switch (resource.type) {
    case 'dns':
      return resource.patterns;
    case 'cidr':
      return resource.prefixes.map(formatIpPrefix);
    case 'ip':
      return [resource.address];
    case 'internet':
      return [];
    default:
      return unreachable(resource);
  }
}

function formatFilter(filter: Filter): string {
  if (filter.protocol === 'icmp') return 'icmp';
  const ports = filter.ports.map(({ first, last }) =>
    first === last ? String(first) : `${first}-${last}`,
  );
  return [filter.protocol, ports.join(', ')].join(' ').trimEnd();
}

function countOf(setups: readonly SetupStatus[]): Readonly<Record<SetupState, number>> {
  const counts = { pending: 0, confirmed: 0, recreating: 0, failed: 0 };
  for (const { state } of setups) counts[state]++;
  return counts;
}

function groupBy<Item>(items: Iterable<Item>, keyOf: (item: Item) => string) {
  const groups = new Map<string, Item[]>();
  for (const item of items) {
    const key = keyOf(item);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [item]);
    else group.push(item);
  }
  return groups;
}
