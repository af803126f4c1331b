import type { Configuration } from '../config/configuration.ts';
import type { DnsConfiguration } from '../config/site-configuration.ts';
import { DEFAULTS } from '../config/defaults.ts';
import { parseIpPrefix } from '../net/ip-prefix.ts';
import { encodeRefusal } from '../dns/answer.ts';
import { zonesOf } from '../dns/dnsmasq.ts';
import type { DnsDatagram, TransportFailure } from '../dns/forwarder.ts';
import { decodeQuery } from '../dns/message.ts';
import type { DomainName } from '../dns/name.ts';
import { RCODE } from '../dns/numbers.ts';
import { PatternTable } from '../dns/pattern.ts';
import { ProxyPool, type ProxyRanges } from '../dns/proxy-pool.ts';
import { Resolver, type SiteResource } from '../dns/resolver.ts';
import { reverseZones } from '../dns/reverse-name.ts';
import { SiteLookup, type SiteLookupEvent } from '../dns/site-lookup.ts';
import { APPLICATION_DNS } from '../dns/stub-resolver.ts';
import { UpstreamRules } from '../dns/upstream-rules.ts';
import type { Upstream } from '../dns/upstream.ts';
import type { ResourceConfiguration } from '../config/resource-configuration.ts';
import { isUnicast, type IpAddress } from '../net/ip-address.ts';
import {
  socketAddress,
  socketAddressIp,
  socketAddressPort,
  type SocketAddress,
} from '../net/socket-address.ts';
import type { InterceptionFailure, WantedInterception } from '../plugin/dns-interception.ts';
import type { DnsListenFailure, DnsQuery, WantedDnsListener } from '../plugin/dns-listener.ts';
import type { SystemNameConfiguration } from '../plugin/system-names.ts';
import { earliest, type Deadline } from '../sansio/agent.ts';
import { after, type Instant, type Millis } from '../sansio/instant.ts';
import { BugError } from '../sansio/outcome.ts';
import type { Random } from '../sansio/random.ts';
import type { Command } from './command.ts';
import type { Event } from './event.ts';
import type { GatewaySide, KnownPeer } from './gateway-side.ts';
import { keepProxies } from './kept-proxies.ts';

/** UDP and TCP port of a tunnel address at which peers ask the resolvers of our site. */
export const SITE_DNS_PORT = 53_535;

/** Proxies that were given out are written to flash at once, and at most this often. */
const KEEP_INTERVAL: Millis = 5_000;

/** What could not be opened or intercepted is tried again after this long. */
const RETRY_INTERVAL: Millis = 30_000;

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
  /** What an earlier run that was killed has changed for the LAN. */
  #mayHaveLeftovers = true;
  #isListening = false;
  #groups: readonly string[] = [];
  #interception: Interception = { type: 'off' };
  #keepAt: Instant | undefined;
  #mayKeepAt: Instant;
  #retryAt: Instant | undefined;

  constructor(
    options: {
      readonly gateway: GatewaySide;
      readonly random: Random;
      readonly kept: Iterable<readonly [DomainName, number]>;
    },
    now: Instant,
  ) {
    this.#gateway = options.gateway;
    this.#mayKeepAt = now;
    this.#ranges = keyOf(DEFAULT_RANGES);
    this.pool = new ProxyPool(DEFAULT_RANGES, options.kept);
    const tables = {
      resources: new PatternTable<SiteDns>([]),
      rules: new UpstreamRules([], OTHERS),
    };
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
  }

  handleSystemNames(system: SystemNameConfiguration): void {
    this.#system = system;
    this.#lookup.setHosts(system.hosts);
    this.#setServers();
  }

  /** Our link is as configured, or addresses of this machine changed: listeners follow them. */
  handleLinks(): void {
    this.#listen();
  }

  handleListening(failures: readonly DnsListenFailure[], now: Instant): void {
    const [first] = failures;
    if (first === undefined) {
      if (this.#interception.type === 'off') return;
      if (!this.#isIntercepting()) {
        this.#interception = { type: 'off' };
        this.#retryAt = undefined;
        return;
      }
      this.#commands.push({ type: 'intercept-dns', wanted: this.#wantedInterception() });
      return;
    }
    const { address, why } = first;
    const isNews = this.#interception.type !== 'failed';
    this.#interception = { type: 'failed', why, detail: address };
    this.#retryAt = after(now, RETRY_INTERVAL);
    if (isNews) this.#tell({ type: 'dns-not-listening', address, why });
  }

  handleIntercepted(failure: InterceptionFailure | undefined, now: Instant): void {
    const { type } = this.#interception;
    if (type === 'off' || !this.#isIntercepting()) return;
    const mode = this.#configuration?.dns.mode ?? 'off';
    if (failure === undefined) {
      this.#interception = { type: 'intercepting' };
      this.#retryAt = undefined;
      if (type !== 'intercepting') this.#tell({ type: 'dns-intercepting', mode });
      return;
    }
    this.#interception = { type: 'failed', ...failure };
    this.#retryAt = after(now, RETRY_INTERVAL);
    if (type !== 'failed') this.#tell({ type: 'dns-not-intercepted', mode, ...failure });
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
    if (this.#retryAt !== undefined && this.#retryAt <= now) {
      this.#retryAt = undefined;
      this.#listen();
    }
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
      this.#retryAt === undefined
        ? undefined
        : { at: this.#retryAt, reason: 'intercept DNS again' },
    );
  }

  status(): DnsStatus {
    const { type } = this.#interception;
    const failure = this.#interception.type === 'failed' ? this.#interception : undefined;
    const { size, hits, misses } = this.#resolver.cache;
    return {
      mode: this.#configuration?.dns.mode ?? 'off',
      state: type,
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
        return this.#makeRoom();
      case 'upstream-dead':
      case 'upstream-alive':
        return this.#tell({ type: event.type, upstream: event.upstream.id });
      default:
        throw new BugError('an event that nobody knows');
    }
  }

  /** Takes proxies back from names that belong to no resource any more. */
  #makeRoom(): void {
    const table = this.#tableOf();
    const removed = this.pool.removeWhere((name) => table.matches(name).length === 0);
    if (removed === 0) this.#tell({ type: 'proxies-exhausted', capacity: this.pool.capacity });
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

  /** Says where names of which zones are asked for. */
  #setServers(): void {
    if (this.#configuration === undefined) return;
    const { dns } = this.#configuration;
    const groups = new Map<string, { upstreams: readonly Upstream[]; isCached: boolean }>();
    const others = dns.upstreams.length > 0 ? dns.upstreams : this.#systemUpstreams(dns);
    groups.set(OTHERS, { upstreams: others, isCached: true });
    for (const [i, { upstreams }] of dns.rules.entries()) {
      groups.set(`rule ${i}`, { upstreams, isCached: true });
    }
    for (const resource of this.#used) {
      groups.set(siteGroupOf(resource), {
        upstreams: this.#siteUpstreams(resource),
        isCached: false,
      });
    }
    for (const gone of this.#groups.filter((name) => !groups.has(name))) {
      this.#resolver.removeGroup(gone);
    }
    for (const [name, group] of groups) this.#resolver.setGroup(name, group);
    this.#groups = [...groups.keys()];
    const rules = dns.rules.map(({ zones }, i) => ({ zones, group: `rule ${i}` }));
    this.#resolver.setTables({
      resources: this.#tableOf(),
      rules: new UpstreamRules(rules, OTHERS),
    });
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

  /**
   * The servers that the machine itself asks. A resolver on it that sends us names is none of them: what is
   * no resource's would go round in a circle.
   */
  #systemUpstreams({ mode, listenPort }: DnsConfiguration): readonly Upstream[] {
    const { nameservers, providerNameservers } = this.#system;
    const usable =
      mode === 'dnsmasq'
        ? [...providerNameservers, ...nameservers].filter((it) => isUnicast(socketAddressIp(it)))
        : nameservers.filter((it) => socketAddressPort(it) !== listenPort);
    return usable.map((address) => ({ id: address, protocol: 'plain' }));
  }

  /** The gateways of a resource, at their addresses in the tunnel. */
  #siteUpstreams({ gateways }: ResourceConfiguration): readonly Upstream[] {
    return gateways.flatMap((id): readonly Upstream[] => {
      const [address] = this.#peers.get(id)?.addresses ?? [];
      if (address === undefined) return [];
      return [{ id: socketAddress(address, SITE_DNS_PORT), protocol: 'plain' }];
    });
  }

  #isIntercepting(): boolean {
    return this.#configuration?.dns.mode !== 'off' && this.#used.length > 0;
  }

  #listen(): void {
    const { dns, site, interface: own } = this.#configuration ?? {};
    if (dns === undefined || site === undefined || own === undefined) return;
    const wasOff = this.#interception.type === 'off';
    const tunnel = this.#gateway.servesNames ? own.addresses.map(({ address }) => address) : [];
    const addresses = tunnel.map((address) => socketAddress(address, SITE_DNS_PORT));
    if (this.#isIntercepting()) {
      if (wasOff) this.#interception = { type: 'starting' };
      if (dns.mode === 'dnsmasq') addresses.push(socketAddress(LOOPBACK, dns.listenPort));
    } else if (!wasOff || this.#mayHaveLeftovers) {
      // Where peers ask could not be opened, perhaps: that is so until it is.
      const hasFailed = tunnel.length > 0 && this.#interception.type === 'failed';
      if (!hasFailed) this.#interception = { type: 'off' };
      this.#retryAt = undefined;
      this.#commands.push({ type: 'intercept-dns', wanted: { type: 'off' } });
    }
    this.#mayHaveLeftovers = false;
    const isRedirecting = this.#isIntercepting() && dns.mode === 'redirect';
    const interfaces = isRedirecting ? site.lans : [];
    const wanted: WantedDnsListener = { port: dns.listenPort, interfaces, addresses };
    const isWanted = interfaces.length + addresses.length > 0;
    if (!isWanted && !this.#isListening) return;
    this.#isListening = isWanted;
    this.#commands.push({ type: 'listen-dns', wanted });
  }

  #wantedInterception(): WantedInterception {
    const { dns, site } = this.#configuration ?? {};
    if (dns === undefined || site === undefined || !this.#isIntercepting()) return { type: 'off' };
    if (dns.mode === 'redirect') {
      return { type: 'redirect', interfaces: site.lans, port: dns.listenPort };
    }
    const patterns = this.#used.flatMap((it) => (it.type === 'dns' ? it.patterns : []));
    // Of its own accord dnsmasq would ask the provider who a proxy is, and browsers would go around it.
    const { ipv4, ipv6 } = dns.proxies;
    const reverse = [...reverseZones(ipv4), ...reverseZones(ipv6)];
    const zones = [...zonesOf(patterns), ...reverse, APPLICATION_DNS];
    const server: SocketAddress = socketAddress(LOOPBACK, dns.listenPort);
    return { type: 'dnsmasq', zones, server };
  }
}

type Interception =
  | { readonly type: 'off' }
  | { readonly type: 'starting' }
  | { readonly type: 'intercepting' }
  | { readonly type: 'failed'; readonly why: string; readonly detail: string };

/** The servers for all names that no rule says anything of. */
const OTHERS = 'others';

const LOOPBACK = '127.0.0.1' as IpAddress;

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

function siteGroupOf({ gateways }: ResourceConfiguration): string {
  return `site ${gateways.join()}`;
}

function prefixed<Value>(
  prefix: string,
  record: Readonly<Record<string, Value>>,
): Record<string, Value> {
  return Object.fromEntries(Object.entries(record).map(([key, it]) => [`${prefix}-${key}`, it]));
}
