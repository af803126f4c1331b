import { Access, type Decision, type Denial } from '../access/access.ts';
import { Authorizations, type AuthorizationEvent } from '../access/authorizations.ts';
import type { Configuration } from '../config/configuration.ts';
import type { ResourceConfiguration } from '../config/resource-configuration.ts';
import { parseDomainName, withoutUnderscoredLabels, type DomainName } from '../dns/name.ts';
import { PatternTable } from '../dns/pattern.ts';
import { PROXIES_PER_FAMILY, type ProxyRanges } from '../dns/proxy-pool.ts';
import type { SiteLookupEvent } from '../dns/site-lookup.ts';
import type { Flow, FlowVerdict } from '../fastpath/flow.ts';
import { ResourceNat, targetBytes, type Assignment } from '../nat/resource-nat.ts';
import { ipAddressBytes, ipAddressFromBytes, ipFamily, type IpAddress } from '../net/ip-address.ts';
import { prefixContains } from '../net/ip-prefix.ts';
import type { DomainStatus, PeeringMessage } from '../peering/message.ts';
import type { Deadline } from '../sansio/agent.ts';
import { BoundedQueue } from '../sansio/bounded-queue.ts';
import { failed, ok, type Outcome } from '../sansio/outcome.ts';
import type { Instant } from '../sansio/instant.ts';
import type { Event } from './event.ts';
import type { FoundSession, Sessions } from './sessions.ts';

/** Names that wait to be looked up for one peer; a request more is dropped, and repeated by its sender. */
export const MOST_PENDING_PER_PEER = 64;
const MOST_EVENTS = 4096;

/** A peer as the sides of resources know it. */
export interface KnownPeer {
  readonly index: number;
  readonly id: string;
  /** Its addresses in the tunnel. */
  readonly addresses: readonly IpAddress[];
}

export type AssignedIps = Extract<PeeringMessage, { readonly type: 'assigned-ips' }>;

export type GatewaySideEvent =
  | { readonly type: 'send'; readonly peer: number; readonly message: PeeringMessage }
  | { readonly type: 'look-up'; readonly name: DomainName }
  /** What was decided about flows may be wrong now. */
  | { readonly type: 'flows-changed' }
  | AuthorizationEvent
  | Extract<Event, { readonly type: 'assignment-refused' | 'address-changed' }>;

/** Why a peer does not get a name translated. */
export type AssignmentRefusal =
  | 'unknown-resource'
  | 'no-authorization'
  /** It is none of the patterns of the resource. */
  | 'other-name'
  /** They are outside of `dns.proxies`, or too many. */
  | 'other-proxies';

/** Refusals that are told until the configuration changes. */
const MOST_TOLD = 256;

/** Requests that wait for the addresses of a name. */
interface Pending {
  readonly peer: KnownPeer;
  readonly resource: string;
  readonly proxies: readonly IpAddress[];
}

/**
 * The side that serves resources: knows who may use which, what the proxies of peers stand for, and decides
 * about the flows that come out of the tunnel. What becomes of connections changes nothing of it.
 */
export class GatewaySide {
  readonly #authorizations: Authorizations;
  readonly #access: Access;
  readonly #sessions: Sessions;
  readonly #nat: ResourceNat;
  readonly #events = new BoundedQueue<GatewaySideEvent>(MOST_EVENTS, 'oldest');
  readonly #pending = new Map<DomainName, Pending[]>();
  /** Counted while they are pending, by the index of the peer. */
  readonly #pendingOf = new Map<number, number>();
  /** What was told of it. */
  readonly #refused = new Set<string>();
  #peers: ReadonlyMap<string, KnownPeer> = new Map();
  #names = new PatternTable<ResourceConfiguration>([]);
  #served: readonly ResourceConfiguration[] = [];
  #proxies: ProxyRanges | undefined;

  constructor(options: { readonly sessions: Sessions; readonly unixMs: number }, now: Instant) {
    this.#sessions = options.sessions;
    this.#authorizations = new Authorizations(options.unixMs, now);
    this.#access = new Access(this.#authorizations);
    this.#nat = new ResourceNat({
      hasOpenSession: (peer, proxy) => this.#hasOpenSession(peer, proxy),
    });
  }

  /**
   * Whether peers reach here what they are authorized for and nothing else. Where no resource is served, all
   * that is routed passes, as with plain WireGuard.
   */
  get isOn(): boolean {
    return this.#served.length > 0;
  }

  /** Resources of this site. */
  get served(): readonly ResourceConfiguration[] {
    return this.#served;
  }

  /** Whether names are looked up for peers. */
  get servesNames(): boolean {
    return this.#served.some(({ type }) => type === 'dns');
  }

  configure(
    { resources, authorizations, dns }: Configuration,
    peers: ReadonlyMap<string, KnownPeer>,
    now: Instant,
  ): void {
    for (const id of this.#peers.keys()) if (!peers.has(id)) this.#nat.removePeer(id);
    this.#peers = peers;
    this.#proxies = dns.proxies;
    this.#served = resources.filter(({ gateways }) => gateways.length === 0);
    this.#names = namesOf(this.#served);
    this.#access.setResources(this.#served);
    this.#refused.clear();
    this.#authorizations.replace(authorizations, now);
    this.#settle(now);
  }

  /** A peer is about to use proxies for a name: looks the name up, if the peer may use it. */
  handleAssignedIps(peer: KnownPeer, message: AssignedIps): void {
    const { resource, domain, proxyIps: proxies } = message;
    const permitted = this.#nameOf(peer, message);
    if (!permitted.ok) {
      this.#tellRefused(peer.id, resource, permitted.why);
      return this.#answer(peer.index, resource, domain, 'refused');
    }
    const { value: name } = permitted;
    const waiting = this.#pending.get(name);
    const isInFlight = waiting?.some(
      (other) => other.peer.index === peer.index && other.resource === resource,
    );
    const count = this.#pendingOf.get(peer.index) ?? 0;
    if (isInFlight === true || count >= MOST_PENDING_PER_PEER) return;
    this.#pendingOf.set(peer.index, count + 1);
    const pending: Pending = { peer, resource, proxies };
    if (waiting === undefined) this.#pending.set(name, [pending]);
    else waiting.push(pending);
    this.#events.push({ type: 'look-up', name });
  }

  /** A name that was to be looked up. Addresses that are mapped already outlive a lookup that fails. */
  handleResolved({ name, outcome }: SiteLookupEvent, now: Instant): void {
    const waiting = this.#pending.get(name) ?? [];
    this.#pending.delete(name);
    for (const { peer, resource, proxies } of waiting) {
      this.#countDown(peer.index);
      const isThere = this.#peers.get(peer.id)?.index === peer.index;
      if (!isThere || this.#authorizations.of(peer.id)?.has(resource) !== true) continue;
      if (outcome.ok) {
        // A resolver that asks us would send peers round in a circle.
        const addresses = outcome.value.filter((address) => !this.#isProxyAddress(address));
        this.#nat.assign({ peer: peer.id, resource, domain: name, proxies, addresses });
      }
      const isMapped = proxies.every((ip) => this.#nat.target(peer.id, ip)?.domain === name);
      this.#answer(peer.index, resource, name, isMapped ? 'active' : 'not-resolved');
    }
    if (waiting.length > 0) this.#events.push({ type: 'flows-changed' });
    this.#settle(now);
  }

  /** Takes a mapping of the last run up again; whether the peer may use it is decided with each flow. */
  restore(assignment: Assignment): void {
    if (assignment.proxies.every((proxy) => this.#isProxyAddress(proxy))) {
      this.#nat.assign(assignment);
    }
  }

  /** Whether the peer may ask the resolvers of the site for the name. */
  mayAsk(peerId: string, name: DomainName): boolean {
    const grants = this.#authorizations.of(peerId);
    if (grants === undefined) return false;
    const resources = [
      ...this.#names.matches(name),
      ...this.#names.matches(withoutUnderscoredLabels(name)),
    ];
    return resources.some(({ id }) => grants.has(id));
  }

  /** Returns the peer that has the address in the tunnel. */
  peerOf(address: IpAddress): KnownPeer | undefined {
    for (const peer of this.#peers.values()) if (peer.addresses.includes(address)) return peer;
    return undefined;
  }

  /**
   * Decides about a flow out of the tunnel, whose source is the peer's. `toSite` is its destination in the site
   * where that has other addresses in the tunnel.
   */
  decideRequest(
    peer: KnownPeer,
    flow: Flow,
    toSite: Uint8Array | undefined,
    now: Instant,
  ): FlowVerdict {
    const { index, id } = peer;
    const target = this.#nat.targetOfBytes(id, flow.destination);
    if (target === undefined && this.isProxy(flow.destination)) {
      // We have restarted, perhaps: on this the peer assigns its proxies again.
      return { type: 'drop', reason: 'unknown-proxy', icmp: 'host-unreachable' };
    }
    const wanted = toSite === undefined ? flow : { ...flow, destination: toSite };
    const decision =
      target === undefined
        ? this.#access.decideRequest(id, wanted)
        : this.#decideNamed(target.domain, (it) => this.#access.decideRequest(id, wanted, it));
    if (decision.type === 'denied') return refused(decision.reason);
    const found = this.#sessions.findRequest('gateway', flow);
    if (found !== undefined) return { type: 'forward', peer: index, rewrite: found.rewrite };
    const destination = target === undefined ? wanted.destination : targetBytes(target);
    if (destination === undefined) {
      // Not the answer to an unknown proxy: to assign it again would not help.
      return { type: 'drop', reason: 'no-address', icmp: 'network-unreachable' };
    }
    const opened = this.#sessions.open(
      flow,
      { source: flow.source, destination },
      {
        role: 'gateway',
        peer: index,
        peerId: id,
        resource: decision.resource,
        domain: target?.domain,
      },
      now,
    );
    if (!opened.ok) return { type: 'drop', reason: opened.why, icmp: 'host-unreachable' };
    return { type: 'forward', peer: index, rewrite: opened.value };
  }

  /** Decides about a flow from the site that answers one of a peer. */
  decideReply(found: FoundSession, flow: Flow): FlowVerdict {
    const { tag, rewrite } = found;
    const inside = this.#sessions.insideOf(found, flow);
    const { peerId, domain } = tag;
    // A session through a network, not a proxy, is decided by its address.
    const decision =
      domain === undefined
        ? this.#access.decideReply(peerId, { ...inside, source: flow.source })
        : this.#decideNamed(domain, (it) => this.#access.decideReply(peerId, inside, it));
    if (decision.type === 'denied') return { type: 'drop', reason: decision.reason };
    return { type: 'forward', peer: tag.peer, rewrite };
  }

  handleWallClock(unixMs: number, now: Instant): void {
    this.#authorizations.handleWallClock(unixMs, now);
    this.#settle(now);
  }

  handleTimeout(now: Instant): void {
    this.#authorizations.handleTimeout(now);
    this.#settle(now);
  }

  pollEvent(): GatewaySideEvent | undefined {
    return this.#events.shift();
  }

  pollTimeout(): Deadline | undefined {
    return this.#authorizations.pollTimeout();
  }

  get authorizations(): Authorizations {
    return this.#authorizations;
  }

  /** What the proxies of peers stand for, for people to read. */
  assignments(): ReturnType<ResourceNat['entries']> {
    return this.#nat.entries();
  }

  /** Returns the name of a request that is to be granted, or why it is not. */
  #nameOf(
    { id }: KnownPeer,
    { resource, domain, proxyIps }: AssignedIps,
  ): Outcome<DomainName, AssignmentRefusal> {
    if (this.#access.resource(resource) === undefined) return failed('unknown-resource');
    if (this.#authorizations.of(id)?.has(resource) !== true) return failed('no-authorization');
    const name = parseDomainName(domain);
    if (!name.ok || !this.#names.matches(name.value).some((known) => known.id === resource)) {
      return failed('other-name');
    }
    const isFew = ([4, 6] as const).every(
      (family) => proxyIps.filter((ip) => ipFamily(ip) === family).length <= PROXIES_PER_FAMILY,
    );
    const areProxies = proxyIps.every((ip) => this.#isProxyAddress(ip));
    return isFew && areProxies ? ok(name.value) : failed('other-proxies');
  }

  /** Once for each peer and resource, until the configuration changes. */
  #tellRefused(peer: string, resource: string, why: AssignmentRefusal): void {
    const key = `${peer} ${resource} ${why}`;
    if (this.#refused.has(key) || this.#refused.size >= MOST_TOLD) return;
    this.#refused.add(key);
    this.#events.push({ type: 'assignment-refused', peer, resource, why });
  }

  #answer(peer: number, resource: string, domain: string, status: DomainStatus): void {
    this.#events.push({
      type: 'send',
      peer,
      message: { type: 'domain-status', resource, domain, status },
    });
  }

  #countDown(peer: number): void {
    const left = (this.#pendingOf.get(peer) ?? 0) - 1;
    if (left > 0) this.#pendingOf.set(peer, left);
    else this.#pendingOf.delete(peer);
  }

  /** Whether an address stands for a name. */
  isProxy(destination: Uint8Array): boolean {
    return this.servesNames && this.#isProxyAddress(ipAddressFromBytes(destination));
  }

  #isProxyAddress(address: IpAddress): boolean {
    const range = ipFamily(address) === 4 ? this.#proxies?.ipv4 : this.#proxies?.ipv6;
    return range !== undefined && prefixContains(range, address);
  }

  /** Decides by the resources that have the name, of which the most specific that permits the flow is it. */
  #decideNamed(domain: string, decide: (resource: string) => Decision): Decision {
    let denied: Decision = NOT_AUTHORIZED;
    for (const { id } of this.#names.matches(domain as DomainName)) {
      const decision = decide(id);
      if (decision.type === 'allowed') return decision;
      if (decision.reason !== 'no-authorization') denied = decision;
    }
    return denied;
  }

  #hasOpenSession(peerId: string, proxy: IpAddress): boolean {
    const addresses = this.#peers.get(peerId)?.addresses ?? [];
    const destination = ipAddressBytes(proxy);
    return addresses
      .filter((address) => ipFamily(address) === ipFamily(proxy))
      .some((address) => this.#sessions.hasBetween(ipAddressBytes(address), destination));
  }

  /** Carries what ended through to sessions and mappings. */
  #settle(now: Instant): void {
    for (
      let event = this.#authorizations.pollEvent();
      event;
      event = this.#authorizations.pollEvent()
    ) {
      if (event.type === 'authorization-ended') {
        const { peer, resource } = event;
        this.#sessions.endWhere(
          (tag) => tag.role === 'gateway' && tag.peerId === peer && tag.resource === resource,
          now,
        );
        this.#events.push({ type: 'flows-changed' });
      }
      this.#events.push(event);
    }
    for (let event = this.#nat.pollEvent(); event; event = this.#nat.pollEvent()) {
      if (event.type === 'address-changed') {
        this.#events.push(event);
        continue;
      }
      const { peer, proxyIp } = event;
      this.#sessions.endWhere(
        (tag, session) =>
          tag.role === 'gateway' &&
          tag.peerId === peer &&
          this.#sessions.read(session).inside.destination === proxyIp,
        now,
      );
    }
  }
}

/** Returns the DNS resources by their names. */
export function namesOf<Item extends ResourceConfiguration>(
  resources: readonly Item[],
): PatternTable<Item> {
  return new PatternTable(
    resources.flatMap((resource) =>
      resource.type === 'dns'
        ? resource.patterns.map((pattern) => [pattern, resource] as const)
        : [],
    ),
  );
}

const NOT_AUTHORIZED: Decision = {
  type: 'denied',
  reason: 'no-authorization',
  icmp: 'administratively-prohibited',
};

function refused(reason: Denial): FlowVerdict {
  return { type: 'drop', reason, icmp: 'administratively-prohibited' };
}
