import type { Configuration } from '../config/configuration.ts';
import type { DnsConfiguration } from '../config/site-configuration.ts';
import { DEFAULTS } from '../config/defaults.ts';
import { parseIpPrefix } from '../net/ip-prefix.ts';
import { encodeRefusal } from '../dns/answer.ts';
import type { DnsDatagram, TransportFailure } from '../dns/forwarder.ts';
import { decodeQuery } from '../dns/message.ts';
import type { DomainName } from '../dns/name.ts';
import { RCODE, SITE_DNS_PORT } from '../dns/numbers.ts';
import { PatternTable } from '../dns/pattern.ts';
import { ProxyPool, type ProxyRanges } from '../dns/proxy-pool.ts';
import { Resolver, type SiteResource } from '../dns/resolver.ts';
import { SiteLookup, type SiteLookupEvent } from '../dns/site-lookup.ts';
import { UpstreamRules } from '../dns/upstream-rules.ts';
import type { ResourceConfiguration } from '../config/resource-configuration.ts';
import { socketAddressIp, socketAddressPort } from '../net/socket-address.ts';
import type { InterceptionFailure } from '../plugin/dns-interception.ts';
import type { DnsListenFailure, DnsQuery } from '../plugin/dns-listener.ts';
import type { SystemNameConfiguration } from '../plugin/system-names.ts';
import { earliest, type Deadline } from '../sansio/agent.ts';
import { after, type Instant, type Millis } from '../sansio/instant.ts';
import { BugError } from '../sansio/outcome.ts';
import type { Random } from '../sansio/random.ts';
import type { Command } from './command.ts';
import type { Event } from './event.ts';
import type { GatewaySide, KnownPeer } from './gateway-side.ts';
import { Interception } from './interception.ts';
import { keepProxies } from './kept-proxies.ts';
import { nameServersOf, siteGroupOf } from './name-servers.ts';

/** Proxies that were given out are written to flash at once, and at most this often. */
const KEEP_INTERVAL: Millis = 5_000;

/** The part of all names that makes room at once when all proxies are taken. */
const ROOM = 1 / 64;

/** What comes over the network about names: too much of it to be recorded. */
export type DnsInput =
  | { readonly type: 'query'; readonly query: DnsQuery }
  | { readonly type: 'answer'; readonly datagram: DnsDatagram }
  | { readonly type: 'failure'; readonly failure: TransportFailure };

/** What the sides of resources need to hear of. */
export type NamesEvent =
  | {
      readonly type: 'resource-lookup';
      readonly name: DomainName;
      readonly resources: readonly ResourceConfiguration[];
    }
  | SiteLookupEvent
  | { readonly type: 'event'; readonly event: Event };

/** How names are answered, for people. */
export interface DnsStatus {
  readonly mode: DnsConfiguration['mode'];
  /** Whether queries of the LAN come to us at present. */
  readonly state: 'off' | 'starting' | 'intercepting' | 'failed';
  readonly why: string | undefined;
  readonly detail: string | undefined;
  /** How many queries ended in what way. */
  readonly queries: Readonly<Record<string, number>>;
  readonly cache: { readonly entries: number; readonly hits: number; readonly misses: number };
  readonly upstreams: ReturnType<Resolver<SiteDns>['upstreams']>;
  readonly proxies: { readonly used: number; readonly capacity: number };
}

/** A DNS resource that a peer serves. */
interface SiteDns extends SiteResource {
  readonly resource: ResourceConfiguration;
}

/**
 * Answers queries: those of the LAN for names of resources with proxies, those of peers for names that they
 * are authorized for from the resolvers of the site, and all others from their servers. Tells where queries
 * are to be taken, and looks names up for the gateway side.
 */
export class Names {
  readonly pool: ProxyPool;
  readonly #gateway: GatewaySide;
  readonly #namesInUse: () => ReadonlySet<string>;
  readonly #resolver: Resolver<SiteDns>;
  readonly #lookup = new SiteLookup();
  readonly #events: NamesEvent[] = [];
  readonly #commands: Command[] = [];
  #ranges: string;
  #configuration: Configuration | undefined;
  #peers: ReadonlyMap<string, KnownPeer> = new Map();
  #used: readonly ResourceConfiguration[] = [];
  #system: SystemNameConfiguration = {
    nameservers: [],
    providerNameservers: [],
    hosts: new Map(),
  };
  #hasAskedSystem = false;
  #groups: readonly string[] = [];
  /** What the servers follow from, as it was last. */
  #serversKey = '';
  readonly #interception = new Interception();
  #keepAt: Instant | undefined;
  #mayKeepAt: Instant;

  constructor(
    options: {
      readonly gateway: GatewaySide;
      readonly random: Random;
      readonly kept: Iterable<readonly [DomainName, number]>;
      /** Names with open flows to their proxies. */
      namesInUse(): ReadonlySet<string>;
    },
    now: Instant,
  ) {
    this.#gateway = options.gateway;
    this.#namesInUse = () => options.namesInUse();
    this.#mayKeepAt = now;
    this.#ranges = keyOf(DEFAULT_RANGES);
    this.pool = new ProxyPool(DEFAULT_RANGES, options.kept);
    const rules = new UpstreamRules([], '');
    const tables = { resources: new PatternTable<SiteDns>([]), rules, siteRules: rules };
    this.#resolver = new Resolver(tables, { pool: this.pool, random: options.random }, now);
  }

  /** `used` are the resources that peers serve. */
  configure(
    configuration: Configuration,
    used: readonly ResourceConfiguration[],
    peers: ReadonlyMap<string, KnownPeer>,
  ): void {
    this.#configuration = configuration;
    this.#used = used.filter(({ type }) => type === 'dns');
    if (!this.#hasAskedSystem && (this.#used.length > 0 || this.#gateway.servesNames)) {
      this.#hasAskedSystem = true;
      this.#commands.push({ type: 'read-names' });
    }
    this.#peers = peers;
    const { proxies } = configuration.dns;
    if (keyOf(proxies) !== this.#ranges) {
      this.#ranges = keyOf(proxies);
      this.pool.setRanges(proxies);
    }
    this.#setServers();
    const { servesNames } = this.#gateway;
    this.#interception.configure({ configuration, used: this.#used, servesNames });
  }

  handleSystemNames(system: SystemNameConfiguration): void {
    this.#system = system;
    this.#lookup.setHosts(system.hosts);
    this.#setServers();
  }

  /** Our link is as configured, or addresses of this machine changed: listeners follow them. */
  handleLinks(): void {
    this.#interception.listen();
  }

  handleListening(failures: readonly DnsListenFailure[], now: Instant): void {
    this.#interception.handleListening(failures, now);
  }

  handleIntercepted(failure: InterceptionFailure | undefined, now: Instant): void {
    this.#interception.handleIntercepted(failure, now);
  }

  handleInput(input: DnsInput, now: Instant): void {
    switch (input.type) {
      case 'query':
        return this.#handleQuery(input.query, now);
      case 'answer':
        return this.#resolver.handleAnswer(input.datagram, now);
      case 'failure':
        return this.#resolver.handleFailure(input.failure, now);
    }
  }

  /** Looks up a name in our site. */
  lookUp(name: DomainName, now: Instant): void {
    this.#lookup.lookUp(name, now);
  }

  handleTimeout(now: Instant): void {
    this.#resolver.handleTimeout(now);
    this.#lookup.handleTimeout(now);
    if (this.#keepAt !== undefined && this.#keepAt <= now) {
      this.#mayKeepAt = after(now, KEEP_INTERVAL);
      this.#keep();
    }
    this.#interception.handleTimeout(now);
  }

  /** Keeps what is not kept yet, and lets the LAN ask others again. */
  stop(): void {
    if (this.#keepAt !== undefined) this.#keep();
  }

  /** Carries what is known from one to the other; returns whether there was anything. */
  settle(now: Instant): boolean {
    let worked = false;
    for (let asked = this.#lookup.pollQuestion(); asked; asked = this.#lookup.pollQuestion()) {
      this.#resolver.ask(asked.client, asked.bytes, now);
      worked = true;
    }
    for (let event = this.#resolver.pollEvent(); event; event = this.#resolver.pollEvent()) {
      this.#handleResolver(event, now);
      worked = true;
    }
    for (let event = this.#lookup.pollEvent(); event; event = this.#lookup.pollEvent()) {
      this.#events.push(event);
      worked = true;
    }
    const interception = this.#interception;
    for (let event = interception.pollEvent(); event; event = interception.pollEvent()) {
      this.#tell(event);
      worked = true;
    }
    for (let sent = interception.pollCommand(); sent; sent = interception.pollCommand()) {
      this.#commands.push(sent);
      worked = true;
    }
    for (let sent = this.#resolver.pollTransmit(); sent; sent = this.#resolver.pollTransmit()) {
      this.#commands.push({ type: 'ask-dns', transmit: sent });
      worked = true;
    }
    return worked;
  }

  pollEvent(): NamesEvent | undefined {
    return this.#events.shift();
  }

  pollCommand(): Command | undefined {
    return this.#commands.shift();
  }

  pollTimeout(): Deadline | undefined {
    return earliest(
      this.#resolver.pollTimeout(),
      this.#lookup.pollTimeout(),
      this.#keepAt === undefined ? undefined : { at: this.#keepAt, reason: 'keep proxies' },
      this.#interception.pollTimeout(),
    );
  }

  status(): DnsStatus {
    const { state } = this.#interception;
    const failure = state.type === 'failed' ? state : undefined;
    const { size, hits, misses } = this.#resolver.cache;
    return {
      mode: this.#configuration?.dns.mode ?? 'off',
      state: state.type,
      why: failure?.why,
      detail: failure?.detail,
      queries: { ...this.#resolver.stats, ...prefixed('forwarded', this.#resolver.forwarding) },
      cache: { entries: size, hits, misses },
      upstreams: this.#resolver.upstreams(),
      proxies: { used: this.pool.size, capacity: this.pool.capacity },
    };
  }

  #handleQuery({ client, remote, local, bytes }: DnsQuery, now: Instant): void {
    if (socketAddressPort(local) !== SITE_DNS_PORT) {
      return this.#resolver.handleQuery(client, bytes, now);
    }
    const query = decodeQuery(bytes);
    if (!query.ok) {
      if (query.why === 'not-a-query') return;
      const rcode = query.why === 'malformed' ? RCODE.FORMERR : RCODE.NOTIMP;
      return this.#respond(client, encodeRefusal(bytes, rcode));
    }
    const peer = this.#gateway.peerOf(socketAddressIp(remote));
    const { name } = query.value.question;
    if (peer === undefined || !this.#gateway.mayAsk(peer.id, name)) {
      return this.#respond(client, encodeRefusal(bytes, RCODE.REFUSED));
    }
    this.#resolver.ask(client, bytes, now);
  }

  #handleResolver(
    event: NonNullable<ReturnType<Resolver<SiteDns>['pollEvent']>>,
    now: Instant,
  ): void {
    switch (event.type) {
      case 'response':
        if (this.#lookup.isOurs(event.client)) {
          return this.#lookup.handleAnswer(event.client, event.bytes, now);
        }
        return this.#respond(event.client, event.bytes);
      case 'resource-lookup': {
        const resources = event.resources.map(({ resource }) => resource);
        this.#events.push({ type: 'resource-lookup', name: event.name, resources });
        return;
      }
      case 'proxies-assigned':
        this.#keepAt ??= this.#mayKeepAt > now ? this.#mayKeepAt : now;
        return;
      case 'proxies-exhausted':
        return this.#makeRoom(now);
      case 'upstream-dead':
      case 'upstream-alive':
        return this.#tell({ type: event.type, upstream: event.upstream.id });
      default:
        throw new BugError('an event that nobody knows');
    }
  }

  /**
   * Takes proxies back: from names that belong to no resource any more, else from those that were asked for
   * longest ago and have no open flows. Who asks again gets some of them.
   */
  #makeRoom(now: Instant): void {
    const table = this.#tableOf();
    let removed = this.pool.removeWhere((name) => table.matches(name).length === 0);
    if (removed === 0) {
      const inUse = this.#namesInUse();
      const most = Math.ceil(this.pool.capacity * ROOM);
      removed = this.pool.removeOldest(most, (name) => inUse.has(name));
    }
    if (removed > 0) this.#keepAt ??= this.#mayKeepAt > now ? this.#mayKeepAt : now;
    this.#tell({ type: 'proxies-exhausted', capacity: this.pool.capacity, removed });
  }

  #keep(): void {
    this.#keepAt = undefined;
    this.#commands.push(keepProxies(this.pool));
  }

  #respond(client: DnsQuery['client'], bytes: Uint8Array): void {
    this.#commands.push({ type: 'answer-dns', client, bytes });
  }

  #tell(event: Event): void {
    this.#events.push({ type: 'event', event });
  }

  /** Says where names of which zones are asked for. What was answered before is forgotten if that changes. */
  #setServers(): void {
    if (this.#configuration === undefined) return;
    const servers = nameServersOf(this.#configuration, this.#system, this.#used, this.#peers);
    const { groups, rules, siteRules } = servers;
    const key = JSON.stringify([[...groups], this.#configuration.dns.rules, this.#used]);
    if (key === this.#serversKey) return;
    this.#serversKey = key;
    for (const gone of this.#groups.filter((name) => !groups.has(name))) {
      this.#resolver.removeGroup(gone);
    }
    for (const [name, group] of groups) this.#resolver.setGroup(name, group);
    this.#groups = [...groups.keys()];
    this.#resolver.setTables({ resources: this.#tableOf(), rules, siteRules });
  }

  #tableOf(): PatternTable<SiteDns> {
    return new PatternTable(
      this.#used.flatMap((resource) => {
        if (resource.type !== 'dns') return [];
        const site = { resource, ipStack: resource.ipStack, siteGroup: siteGroupOf(resource) };
        return resource.patterns.map((pattern) => [pattern, site] as const);
      }),
    );
  }
}

const DEFAULT_RANGES: ProxyRanges = {
  ipv4: rangeOf(DEFAULTS.proxiesIpv4),
  ipv6: rangeOf(DEFAULTS.proxiesIpv6),
};

function rangeOf(text: string) {
  const prefix = parseIpPrefix(text);
  if (!prefix.ok) throw new BugError(`the default range ${text}`);
  return prefix.value;
}

function keyOf({ ipv4, ipv6 }: ProxyRanges): string {
  return `${ipv4.address}/${ipv4.length} ${ipv6.address}/${ipv6.length}`;
}

function prefixed<Value>(
  prefix: string,
  record: Readonly<Record<string, Value>>,
): Record<string, Value> {
  return Object.fromEntries(Object.entries(record).map(([key, it]) => [`${prefix}-${key}`, it]));
}
