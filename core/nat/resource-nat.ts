import { ipAddressBytes, ipAddressFromBytes, ipFamily, type IpAddress } from '../net/ip-address.ts';
import { BoundedQueue } from '../sansio/bounded-queue.ts';

/** What a client assigned, with what the name of it resolved to. */
export interface Assignment {
  /** The id of the peer. */
  readonly peer: string;
  /** For which it was asked for; of several that have the name, the last one. */
  readonly resource: string;
  readonly domain: string;
  /** In the order in which the peer gave them, both families. */
  readonly proxies: readonly IpAddress[];
  /** In the order of the answers; none of a family means that the name has none. */
  readonly addresses: readonly IpAddress[];
}

/** What a proxy of a peer stands for. */
export interface ProxyTarget {
  readonly resource: string;
  readonly domain: string;
  /** Absent where the name has no address of the family: the sender is told that the host is unreachable. */
  readonly address: IpAddress | undefined;
}

export type ResourceNatEvent =
  /** New flows go elsewhere while sessions are open to where they went before. */
  | {
      readonly type: 'address-changed';
      readonly peer: string;
      readonly domain: string;
      readonly proxyIp: IpAddress;
      readonly oldIp: IpAddress | undefined;
      readonly newIp: IpAddress | undefined;
    }
  /** The proxy stands for something else, or for nothing, now: the sessions through it are to be ended. */
  | { readonly type: 'released'; readonly peer: string; readonly proxyIp: IpAddress };

/**
 * Names of one peer with proxies; the one assigned longest ago gives way, of those without open sessions as
 * long as there are such: who looks up many names cuts nobody's connections.
 */
export const MOST_DOMAINS_PER_PEER = 4096;
const MOST_EVENTS = 4096;

/**
 * What the proxies of each peer stand for. Two peers may use the same proxy for different things, and two
 * resources that resolve to the same address stay apart, as each has proxies of its own.
 *
 * Proxy i of a family stands for address i of it, cyclically; addresses that come in another order change
 * nothing. This is about new flows alone: a flow with an open session keeps the address that the session
 * has. Mappings survive the loss of the connection. Whether a peer may still use what its proxies stand for
 * is not known here: who tells it that it may not must know what it was.
 */
export class ResourceNat {
  readonly #hasOpenSession: (peer: string, proxy: IpAddress) => boolean;
  readonly #peers = new Map<string, PeerProxies>();
  readonly #events = new BoundedQueue<ResourceNatEvent>(MOST_EVENTS, 'oldest');

  constructor(options: {
    /** Whether any session is open from an address of the peer to the proxy. */
    readonly hasOpenSession: (peer: string, proxy: IpAddress) => boolean;
  }) {
    this.#hasOpenSession = options.hasOpenSession;
  }

  /** Sets what the proxies stand for, and releases those that the domain had besides. */
  assign(assignment: Assignment): void {
    const { peer, resource, domain, proxies } = assignment;
    const known = this.#peers.get(peer) ?? { byProxy: new Map(), byName: new Map() };
    this.#peers.set(peer, known);
    const before = known.byName.get(domain);
    for (const proxy of before?.proxies ?? []) {
      if (!proxies.includes(proxy)) this.#release(peer, known, proxy, before);
    }
    for (const proxy of proxies) {
      const owner = known.byProxy.get(proxy);
      if (owner !== before) this.#release(peer, known, proxy, owner);
    }

    const after: Name = { resource, domain, proxies, targets: new Map() };
    for (const [proxy, address] of targetsOf(assignment, before)) {
      after.targets.set(proxy, address);
      known.byProxy.set(proxy, after);
      if (before?.targets.has(proxy) !== true) continue;
      const oldIp = before.targets.get(proxy);
      if (oldIp === address || !this.#hasOpenSession(peer, proxy)) continue;
      const change = { peer, domain, proxyIp: proxy, oldIp, newIp: address };
      this.#events.push({ type: 'address-changed', ...change });
    }
    // To the end of the order: it was assigned last.
    known.byName.delete(domain);
    known.byName.set(domain, after);
    if (known.byName.size > MOST_DOMAINS_PER_PEER) this.#forgetOne(peer, known);
  }

  /** Returns what the proxy stands for; `undefined` if it was not assigned (the gateway has restarted). */
  target(peer: string, proxy: IpAddress): ProxyTarget | undefined {
    const name = this.#peers.get(peer)?.byProxy.get(proxy);
    return (
      name && { resource: name.resource, domain: name.domain, address: name.targets.get(proxy) }
    );
  }

  /** The same for the address that lies in a packet. */
  targetOfBytes(peer: string, proxy: Uint8Array): ProxyTarget | undefined {
    return this.target(peer, ipAddressFromBytes(proxy));
  }

  removePeer(peer: string): void {
    const known = this.#peers.get(peer);
    if (known === undefined) return;
    for (const key of Array.from(known.byName.keys())) this.#forget(peer, known, key);
    this.#peers.delete(peer);
  }

  /** All names with proxies, for people to read. */
  *entries(): IterableIterator<Assignment> {
    for (const [peer, { byName }] of this.#peers) {
      for (const { resource, domain, proxies, targets } of byName.values()) {
        const addresses = Array.from(new Set(targets.values())).filter((ip) => ip !== undefined);
        yield { peer, resource, domain, proxies, addresses };
      }
    }
  }

  pollEvent(): ResourceNatEvent | undefined {
    return this.#events.shift();
  }

  #forgetOne(peer: string, known: PeerProxies): void {
    const [oldest] = known.byName.keys();
    let idle: string | undefined;
    for (const [key, { proxies }] of known.byName) {
      if (proxies.some((proxy) => this.#hasOpenSession(peer, proxy))) continue;
      idle = key;
      break;
    }
    const key = idle ?? oldest;
    if (key !== undefined) this.#forget(peer, known, key);
  }

  #forget(peer: string, known: PeerProxies, key: string): void {
    const name = known.byName.get(key);
    known.byName.delete(key);
    for (const proxy of name?.proxies ?? []) this.#release(peer, known, proxy, name);
  }

  /** Takes the proxy from a name, if that still has it. */
  #release(peer: string, known: PeerProxies, proxy: IpAddress, name: Name | undefined): void {
    if (name === undefined || known.byProxy.get(proxy) !== name) return;
    known.byProxy.delete(proxy);
    if (this.#hasOpenSession(peer, proxy)) {
      this.#events.push({ type: 'released', peer, proxyIp: proxy });
    }
  }
}

interface PeerProxies {
  readonly byProxy: Map<IpAddress, Name>;
  /** In the order in which they were assigned. */
  readonly byName: Map<string, Name>;
}

interface Name {
  readonly resource: string;
  readonly domain: string;
  readonly proxies: readonly IpAddress[];
  readonly targets: Map<IpAddress, IpAddress | undefined>;
}

function* targetsOf(
  { proxies, addresses }: Assignment,
  before: Name | undefined,
): Iterable<readonly [IpAddress, IpAddress | undefined]> {
  for (const family of [4, 6] as const) {
    const ofFamily = proxies.filter((proxy) => ipFamily(proxy) === family);
    const found = Array.from(new Set(addresses.filter((address) => ipFamily(address) === family)));
    const isSameAsBefore = before !== undefined && hasSame(before, ofFamily, found);
    for (const [i, proxy] of ofFamily.entries()) {
      yield [proxy, isSameAsBefore ? before.targets.get(proxy) : found[i % found.length]];
    }
  }
}

/** Whether the proxies have the addresses that they would get, if in another order. */
function hasSame(
  before: Name,
  proxies: readonly IpAddress[],
  addresses: readonly IpAddress[],
): boolean {
  if (!proxies.every((proxy) => before.targets.has(proxy))) return false;
  const had = new Set(proxies.map((proxy) => before.targets.get(proxy)));
  // More addresses than proxies: those that the proxies have must still be there.
  const isUsed = had.size === Math.min(Math.max(addresses.length, 1), proxies.length);
  return (
    isUsed &&
    Array.from(had).every((ip) =>
      ip === undefined ? addresses.length === 0 : addresses.includes(ip),
    )
  );
}

/** The bytes of the address that new flows through the proxy go to. */
export function targetBytes(target: ProxyTarget): Uint8Array | undefined {
  return target.address && ipAddressBytes(target.address);
}
