import { isPermitted } from '../access/filter.ts';
import { ResourceTable } from '../access/resource-table.ts';
import { isInternetAddress } from '../access/special-ranges.ts';
import type { Configuration } from '../config/configuration.ts';
import type { ResourceConfiguration } from '../config/resource-configuration.ts';
import type { DomainName } from '../dns/name.ts';
import { PatternTable } from '../dns/pattern.ts';
import type { ProxyPool, ProxyRanges } from '../dns/proxy-pool.ts';
import type { Flow, FlowVerdict } from '../fastpath/flow.ts';
import { ipAddressBytes, ipAddressFromBytes, ipFamily, type IpAddress } from '../net/ip-address.ts';
import { prefixContains } from '../net/ip-prefix.ts';
import { PEERING_PORT, type DomainStatus } from '../peering/message.ts';
import {
  ResourceSetups,
  type ResourceSetupsEvent,
  type SetupKey,
  type SetupStatus,
} from '../peering/resource-setups.ts';
import type { Deadline } from '../sansio/agent.ts';
import type { Instant } from '../sansio/instant.ts';
import { namesOf, type KnownPeer } from './gateway-side.ts';
import type { Sessions, SessionTag } from './sessions.ts';

/** Where a flow from the LAN goes because its destination is a resource elsewhere. */
type Route =
  | { readonly type: 'to'; readonly resource: ResourceConfiguration; readonly gateway: KnownPeer }
  | { readonly type: 'refused'; readonly verdict: FlowVerdict };

/**
 * The side that uses resources: knows which flows from the LAN go to which gateway, has gateways translate
 * the proxies of names, and sends everything from our own address, as gateways know no other.
 */
export class ClientSide {
  readonly #sessions: Sessions;
  readonly #pool: ProxyPool;
  readonly #setups = new ResourceSetups();
  /** Whether packets reach the peer at present, as far as is known. */
  readonly #isUp: (peer: number) => boolean;
  #peers: ReadonlyMap<string, KnownPeer> = new Map();
  #used: readonly ResourceConfiguration[] = [];
  #names = new PatternTable<ResourceConfiguration>([]);
  #resources = new ResourceTable<ResourceConfiguration>([]);
  #own: readonly IpAddress[] = [];
  #proxies: ProxyRanges | undefined;

  constructor(options: {
    readonly sessions: Sessions;
    readonly pool: ProxyPool;
    isUp(peer: number): boolean;
  }) {
    this.#sessions = options.sessions;
    this.#pool = options.pool;
    this.#isUp = (peer) => options.isUp(peer);
  }

  /** Resources that peers serve. */
  get used(): readonly ResourceConfiguration[] {
    return this.#used;
  }

  get names(): PatternTable<ResourceConfiguration> {
    return this.#names;
  }

  configure(
    { resources, dns, interface: own }: Configuration,
    peers: ReadonlyMap<string, KnownPeer>,
    now: Instant,
  ): void {
    this.#peers = peers;
    this.#used = resources.filter(({ gateways }) => gateways.length > 0);
    this.#names = namesOf(this.#used);
    this.#resources = new ResourceTable(this.#used);
    this.#own = own.addresses.map(({ address }) => address);
    this.#proxies = dns.proxies;
    const known = new Set([...peers.values()].map(({ index }) => index));
    this.#setups.removeWhere(({ peer, resource, domain }) => {
      const matching = this.#names.matches(domain as DomainName);
      return !known.has(peer) || !matching.some(({ id }) => id === resource);
    });
    const ids = new Set<string>(this.#used.map(({ id }) => id));
    this.#sessions.endWhere(
      ({ role, resource }) => role === 'client' && resource !== undefined && !ids.has(resource),
      now,
    );
  }

  /** Returns the peer that traffic of the resource goes to: the preferred one, if it can be reached. */
  gatewayOf({ gateways }: ResourceConfiguration): KnownPeer | undefined {
    const known = gateways.flatMap((id) => this.#peers.get(id) ?? []);
    return known.find(({ index }) => this.#isUp(index)) ?? known[0];
  }

  /** A host of the LAN is about to use the name: its gateways are to look it up, again where they have. */
  handleLookup(name: DomainName, resources: readonly ResourceConfiguration[], now: Instant): void {
    const proxies = this.#proxiesOf(name);
    const asked = new Set<string>();
    for (const resource of resources) {
      const gateway = this.gatewayOf(resource);
      // A resource may be found by several of its patterns.
      if (gateway === undefined || asked.has(resource.id)) continue;
      asked.add(resource.id);
      this.#setups.request(keyOf(gateway, resource, name), proxies, now);
    }
  }

  /**
   * Decides about a flow from the LAN; `undefined` where its destination is no resource that peers serve.
   * `internet` is decided apart, as every network behind a peer is more specific.
   */
  decideRequest(flow: Flow, now: Instant): FlowVerdict | undefined {
    const address = ipAddressFromBytes(flow.destination);
    if (this.#isProxy(address)) return this.#decideProxied(flow, address, now);
    const resources = [...this.#resources.around(flow)];
    if (resources.length === 0) return undefined;
    return this.#forward(flow, this.#choose(resources, flow), undefined, now);
  }

  /** Decides about a flow from the LAN that goes nowhere else; `undefined` where there is no such resource. */
  decideInternet(flow: Flow, now: Instant): FlowVerdict | undefined {
    const { internet } = this.#resources;
    if (internet.length === 0) return undefined;
    if (!isInternetAddress(flow.destination)) {
      return { type: 'drop', reason: 'special-address', icmp: 'host-unreachable' };
    }
    return this.#forward(flow, this.#choose(internet, flow), undefined, now);
  }

  /**
   * Holds a packet from the LAN to a proxy whose gateway is to translate it first. Returns false where there is
   * none any more: what is decided about the flow now is another thing.
   */
  hold(packet: Uint8Array, flow: Flow, now: Instant): boolean {
    const name = this.#pool.nameOf(ipAddressFromBytes(flow.destination));
    if (name === undefined) return false;
    const route = this.#choose(this.#names.matches(name), flow);
    if (route.type === 'refused') return false;
    const key = keyOf(route.gateway, route.resource, name);
    this.#setups.hold(key, this.#proxiesOf(name), packet, now);
    return true;
  }

  handleStatus(
    peer: KnownPeer,
    { resource, domain, status }: { resource: string; domain: string; status: DomainStatus },
    now: Instant,
  ): void {
    this.#setups.handleStatus({ peer: peer.index, resource, domain }, status, now);
  }

  /**
   * A gateway told by ICMP that it does not take a packet of the session. Returns whether the sender need not
   * hear of it, as the gateway is asked to translate the name again.
   */
  handleUnreachable({ peer, resource, domain }: SessionTag, now: Instant): boolean {
    if (resource === undefined || domain === undefined) return false;
    const proxies = this.#proxiesOf(domain as DomainName);
    return this.#setups.handleUnreachable({ peer, resource, domain }, proxies, now);
  }

  /** The gateway has gone, or begun anew. */
  handlePeerLost(peer: number, now: Instant): void {
    this.#setups.handlePeerLost(peer, now);
  }

  removePeer(peer: number): void {
    this.#setups.removePeer(peer);
  }

  handleTimeout(now: Instant): void {
    this.#setups.handleTimeout(now);
  }

  pollEvent(): ResourceSetupsEvent | undefined {
    return this.#setups.pollEvent();
  }

  pollTimeout(): Deadline | undefined {
    return this.#setups.pollTimeout();
  }

  drops(): Readonly<Record<string, number>> {
    return this.#setups.drops;
  }

  setups(): readonly SetupStatus[] {
    return this.#setups.statuses();
  }

  /** Opens a session that changes nothing, or the source alone, so that what answers is let in. */
  openPlain(flow: Flow, peer: KnownPeer, source: Uint8Array, now: Instant): FlowVerdict {
    const found = this.#sessions.findRequest('client', flow);
    if (found !== undefined) return { type: 'forward', peer: peer.index, rewrite: found.rewrite };
    const tag = { role: 'client', peer: peer.index, peerId: peer.id } as const;
    const outside = { source, destination: flow.destination };
    const none = { resource: undefined, domain: undefined };
    const opened = this.#sessions.open(flow, outside, { ...tag, ...none }, now);
    if (!opened.ok) return { type: 'drop', reason: opened.why, icmp: 'host-unreachable' };
    return { type: 'forward', peer: peer.index, rewrite: opened.value };
  }

  #decideProxied(flow: Flow, address: IpAddress, now: Instant): FlowVerdict {
    const name = this.#pool.nameOf(address);
    const resources = name === undefined ? [] : this.#names.matches(name);
    if (name === undefined || resources.length === 0) {
      return { type: 'drop', reason: 'unassigned-proxy', icmp: 'host-unreachable' };
    }
    const route = this.#choose(resources, flow);
    if (route.type === 'to') {
      const key = keyOf(route.gateway, route.resource, name);
      if (this.#setups.isHeld(key)) return { type: 'local' };
    }
    return this.#forward(flow, route, name, now);
  }

  /** Chooses the most specific resource that permits the flow. */
  #choose(resources: readonly ResourceConfiguration[], flow: Flow): Route {
    const resource = resources.find(({ filters }) => isPermitted(filters, flow));
    if (resource === undefined) {
      const icmp = 'administratively-prohibited';
      return { type: 'refused', verdict: { type: 'drop', reason: 'filtered', icmp } };
    }
    const gateway = this.gatewayOf(resource);
    if (gateway !== undefined) return { type: 'to', resource, gateway };
    const icmp = 'host-unreachable';
    return { type: 'refused', verdict: { type: 'drop', reason: 'no-gateway', icmp } };
  }

  #forward(flow: Flow, route: Route, domain: DomainName | undefined, now: Instant): FlowVerdict {
    if (route.type === 'refused') return route.verdict;
    const { index, id } = route.gateway;
    const found = this.#sessions.findRequest('client', flow);
    if (found !== undefined) {
      const { peer } = found.tag;
      // What is open stays with its gateway while that can be reached.
      const stays = peer === index || this.#isUp(peer);
      if (stays) return { type: 'forward', peer, rewrite: found.rewrite };
      this.#sessions.end(found.session, now);
    }
    const source = this.#own.find((own) => ipFamily(own) === flow.family);
    if (source === undefined) {
      return { type: 'drop', reason: 'no-tunnel-address', icmp: 'host-unreachable' };
    }
    const outside = {
      source: ipAddressBytes(source),
      destination: flow.destination,
      // Answers to that port of ours would be taken for what daemons say.
      ...(flow.sourcePort === PEERING_PORT ? { port: PEERING_PORT + 1 } : {}),
    };
    const tag = { role: 'client', peer: index, peerId: id } as const;
    const opened = this.#sessions.open(
      flow,
      outside,
      { ...tag, resource: route.resource.id, domain },
      now,
    );
    if (!opened.ok) return { type: 'drop', reason: opened.why, icmp: 'host-unreachable' };
    return { type: 'forward', peer: index, rewrite: opened.value };
  }

  #isProxy(address: IpAddress): boolean {
    if (this.#used.length === 0) return false;
    const range = ipFamily(address) === 4 ? this.#proxies?.ipv4 : this.#proxies?.ipv6;
    return range !== undefined && prefixContains(range, address);
  }

  #proxiesOf(name: DomainName): readonly IpAddress[] {
    const proxies = this.#pool.get(name);
    return proxies === undefined ? [] : [...proxies.ipv4, ...proxies.ipv6];
  }
}

function keyOf(gateway: KnownPeer, resource: ResourceConfiguration, domain: DomainName): SetupKey {
  return { peer: gateway.index, resource: resource.id, domain };
}
