import type dnsPacket from 'dns-packet';
import { KEPT_SESSIONS, readKeptFlows } from '../../core/engine/kept-sessions.ts';
import { KEPT_PROXIES, readKeptProxies } from '../../core/engine/kept-proxies.ts';
import type { SessionStatus } from '../../core/engine/sessions.ts';
import type { Event } from '../../core/engine/event.ts';
import { socketAddressIp } from '../../core/net/socket-address.ts';
import type { Files } from '../../core/plugin/files.ts';
import type { Links } from '../../core/plugin/links.ts';
import { ok } from '../../core/sansio/outcome.ts';
import type { Millis } from '../../core/sansio/instant.ts';
import { MemoryNetwork } from '../memory/datagrams.ts';
import { plainRead, udp } from '../core/fastpath/packets.ts';
import type { Arenas } from './arenas.ts';
import { readPacket, type SeenPacket } from './read-packet.ts';
import { address, Site } from './site.ts';
import { VirtualTime } from './virtual-time.ts';

export const START_UNIX_MS = Date.UTC(2026, 0, 1);

/** The addresses of the routers in the tunnel. */
export const CLIENT = { ipv4: '100.64.0.1', ipv6: 'fd00::1' };
export const GATEWAY = { ipv4: '100.64.0.2', ipv6: 'fd00::2' };
export const CLIENT2 = { ipv4: '100.64.0.3', ipv6: 'fd00::3' };
export const GATEWAY2 = { ipv4: '100.64.0.4', ipv6: 'fd00::4' };

/** The routers; by these names they know each other too. */
export type Router = 'client' | 'gateway' | 'client2' | 'gateway2';

/** How a router ends: without a word, or with one to its peers. */
export type Stopping = 'killed' | 'leaving' | 'restarting';

const TUNNEL = { client: CLIENT, gateway: GATEWAY, client2: CLIENT2, gateway2: GATEWAY2 };
/** Their addresses outside, at first. */
const OUTER: Readonly<Record<Router, string>> = {
  client: '192.0.2.1',
  gateway: '192.0.2.2',
  client2: '192.0.2.3',
  gateway2: '192.0.2.4',
};
const ROUTERS: readonly Router[] = ['client', 'gateway', 'client2', 'gateway2'];

/** Parts of the configuration of the sites. */
export interface ResourceDocuments {
  readonly resources: readonly object[];
  readonly authorizations: readonly object[];
  /** More of the document of each client and of each gateway. */
  readonly client?: object;
  readonly gateway?: object;
  /** Networks behind the peers, besides their addresses. */
  readonly behindClient?: readonly string[];
  readonly behindGateway?: readonly string[];
}

/** A flow from a host behind a client, as that host sees it. */
export interface HostFlow {
  readonly from?: Router;
  readonly host?: string;
  readonly port?: number;
  readonly to: string;
  readonly toPort?: number;
  readonly payload?: readonly number[];
}

/**
 * Sites with real engines: hosts behind clients use what gateways serve. Nothing is simulated but the
 * machines around: the TUN devices, the network between the sites, name servers, files and time.
 */
export class ResourceSites {
  readonly time = new VirtualTime(START_UNIX_MS);
  readonly network = new MemoryNetwork();
  readonly seed: number;
  readonly routers: readonly Router[];
  readonly #sites = new Map<Router, Site>();
  readonly #arenas: Arenas | undefined;
  readonly #arenasInUse = new Map<Router, ArrayBuffer>();
  readonly #restarts = new Map<Router, number>();
  readonly #files = new Map<Router, Map<string, Uint8Array>>();
  readonly #inboxes = new Map<Router, Uint8Array[]>();
  readonly #cut = new Set<Router>();
  readonly #outer = new Map<Router, string>(Object.entries(OUTER) as [Router, string][]);
  #documents: ResourceDocuments;

  constructor(
    seed: number,
    documents: ResourceDocuments,
    options: { readonly routers?: readonly Router[]; readonly arenas?: Arenas } = {},
  ) {
    this.seed = seed;
    this.#documents = documents;
    this.#arenas = options.arenas;
    this.routers = options.routers ?? ['client', 'gateway'];
    this.network.fate = (datagram) => {
      const ends = [datagram.from, datagram.to].map((end) => String(socketAddressIp(end)));
      return [...this.#cut].some((router) => ends.includes(this.#outerOf(router)))
        ? []
        : [datagram];
    };
    for (const router of this.routers) this.#start(router);
    this.configure(documents);
    this.advance(2000);
  }

  get client(): Site {
    return this.site('client');
  }

  get gateway(): Site {
    return this.site('gateway');
  }

  site(router: Router): Site {
    const site = this.#sites.get(router);
    if (site === undefined) throw new Error(`no ${router}`);
    return site;
  }

  /** Gives the sites other documents. */
  configure(documents: ResourceDocuments): void {
    this.#documents = documents;
    for (const router of this.routers) this.#configure(router);
    this.advance(1);
  }

  /** The same with parts of the present ones. */
  reconfigure(change: Partial<ResourceDocuments>): void {
    this.configure({ ...this.#documents, ...change });
  }

  /** Starts a router anew, with what it had on flash: killed, or stopped with a word to its peers. */
  restart(router: Router, how: Stopping = 'killed'): void {
    this.stop(router, how);
    this.start(router);
  }

  /** Starts one that was stopped. */
  start(router: Router): void {
    const { zone } = this.site(router).names;
    this.#restarts.set(router, (this.#restarts.get(router) ?? 0) + 1);
    this.#start(router).names.zone = zone;
    this.#configure(router);
    this.advance(1);
  }

  /** A router gets another address outside. */
  move(router: Router, to: string): void {
    this.site(router).addresses = [address(to)];
    this.#outer.set(router, to);
    this.site(router).input({ type: 'links-changed' });
    this.advance(1);
  }

  /** The sessions of NAT that a router has. */
  sessions(router: Router): readonly SessionStatus[] {
    return this.site(router).engine.resources.nat(1000, this.time.now).sessions;
  }

  stop(router: Router, how: Stopping): void {
    const site = this.site(router);
    if (how !== 'killed') site.input({ type: 'stop', reason: how });
    this.advance(1);
    site.kill();
    // What is still under way to it comes to nobody.
    site.addresses = [];
  }

  /** Nothing comes to the router from outside any more, and nothing leaves it. */
  cut(router: Router): void {
    this.#cut.add(router);
  }

  restore(router: Router): void {
    this.#cut.delete(router);
  }

  /** The calendar of a router is set, so far from the true time. */
  setClock(router: Router, byMs: Millis): void {
    const unixMs = START_UNIX_MS + this.time.now + byMs;
    this.site(router).input({ type: 'wall-clock', unixMs });
    this.advance(1);
  }

  advance(ms: Millis): void {
    this.time.advance(ms, () => this.#settle());
    // What the last packets set off takes no time: a question to a server, its answer, what follows from it.
    for (let i = 0; i < 4; i++) this.time.advance(0, () => this.#settle());
  }

  /** Ends all routers; the simulation is over. */
  end(): void {
    for (const site of this.#sites.values()) site.kill();
    for (const arena of this.#arenasInUse.values()) this.#arenas?.giveBack(arena);
  }

  /** A host of the LAN looks a name up; returns the addresses that it is answered. */
  lookUp(name: string, type: 'A' | 'AAAA' = 'A', router: Router = 'client'): readonly string[] {
    const answer = this.ask(type, name, router);
    return (answer?.answers ?? []).flatMap((it) => (it.type === type ? [it.data] : []));
  }

  /** A host of the LAN asks; returns the answer, if there is one at once. */
  ask(type: string, name: string, router: Router = 'client'): dnsPacket.DecodedPacket | undefined {
    const { names } = this.site(router);
    const id = names.ask(type, name);
    this.advance(1);
    return names.answers.get(id);
  }

  /** Has a host behind a router send a packet into the tunnel. */
  send(from: Router, packet: Uint8Array): void {
    const { tun } = this.site(from);
    tun.send(plainRead(packet));
    tun.report();
    this.advance(20);
  }

  /** Takes the packets that came out of the tunnel of a router. */
  received(at: Router): readonly Uint8Array[] {
    return this.#inboxOf(at).splice(0);
  }

  /** The same, read. */
  seen(at: Router): readonly SeenPacket[] {
    return this.received(at).map(readPacket);
  }

  /** A host behind a client sends a datagram. */
  sendUdp({ from = 'client', host, port = 4000, to, toPort = 80, payload = [1] }: HostFlow): void {
    const own = to.includes(':') ? 'fd00:a::10' : '192.168.1.10';
    const packet = udp({
      source: host ?? own,
      destination: to,
      sourcePort: port,
      destinationPort: toPort,
      payload: Uint8Array.from(payload),
    });
    this.send(from, packet);
  }

  /** Sends a datagram of a host behind a client, and returns what arrives in the site of a gateway. */
  deliver(flow: HostFlow, at: Router = 'gateway'): SeenPacket | undefined {
    this.received(at);
    this.sendUdp(flow);
    return this.seen(at).at(0);
  }

  /** The server answers a datagram that arrived in its site; returns what then arrives at a client. */
  answer(
    arrived: SeenPacket,
    payload: readonly number[] = [2],
    way: { readonly from?: Router; readonly at?: Router } = {},
  ): SeenPacket | undefined {
    const { from = 'gateway', at = 'client' } = way;
    const packet = udp({
      source: arrived.destination,
      destination: arrived.source,
      sourcePort: arrived.destinationPort,
      destinationPort: arrived.sourcePort,
      payload: Uint8Array.from(payload),
    });
    this.received(at);
    this.send(from, packet);
    return this.seen(at).at(0);
  }

  /** Takes the events of a type that a router has told since the last time. */
  told<Type extends Event['type']>(
    router: Router,
    type: Type,
  ): readonly Extract<Event, { readonly type: Type }>[] {
    const { events } = this.site(router);
    const isOfType = (event: Event): event is Extract<Event, { readonly type: Type }> =>
      event.type === type;
    const found = events.filter(isOfType);
    events.splice(0, events.length, ...events.filter((event) => !isOfType(event)));
    return found;
  }

  #outerOf(router: Router): string {
    return this.#outer.get(router) ?? OUTER[router];
  }

  #inboxOf(router: Router): Uint8Array[] {
    const inbox = this.#inboxes.get(router) ?? [];
    this.#inboxes.set(router, inbox);
    return inbox;
  }

  #start(router: Router): Site {
    const links: Links = {
      apply: () => ({ ...ok({ changes: 0 }), failures: [] }),
      localAddresses: () => [address(this.#outerOf(router))],
      clear: () => undefined,
      monitor: () => () => undefined,
    };
    const stored = this.#files.get(router) ?? new Map<string, Uint8Array>();
    this.#files.set(router, stored);
    const site = new Site({
      time: this.time,
      network: this.network,
      seed: this.seed + 1 + ROUTERS.indexOf(router),
      restarts: this.#restarts.get(router) ?? 0,
      address: this.#outerOf(router),
      links,
      files: filesOf(stored),
      keptProxies: readKeptProxies(stored.get(KEPT_PROXIES) ?? new Uint8Array(0)),
      keptFlows: readKeptFlows(
        stored.get(KEPT_SESSIONS) ?? new Uint8Array(0),
        START_UNIX_MS + this.time.now,
      ),
      ...this.#arenaOf(router),
    });
    this.#sites.set(router, site);
    site.names.askSite = ({ upstream, port, bytes }) => {
      const to = upstream.id.slice(0, upstream.id.lastIndexOf(':')).replace(/[[\]]/g, '');
      const isToGateway = this.routers.some((it) => Object.values(TUNNEL[it]).includes(to));
      if (!isToGateway) return false;
      const source = to.includes(':') ? TUNNEL[router].ipv6 : TUNNEL[router].ipv4;
      const destinationPort = SITE_DNS_PORT;
      const packet = udp({
        source,
        destination: to,
        sourcePort: FIRST_PORT + port,
        destinationPort,
        payload: bytes,
      });
      site.tun.send(plainRead(packet));
      site.tun.report();
      return true;
    };
    return site;
  }

  #arenaOf(router: Router): { readonly arena?: ArrayBuffer } {
    if (this.#arenas === undefined) return {};
    const before = this.#arenasInUse.get(router);
    if (before !== undefined) this.#arenas.giveBack(before);
    const arena = this.#arenas.take();
    this.#arenasInUse.set(router, arena);
    return { arena };
  }

  #configure(router: Router): void {
    this.site(router).configure(this.documentOf(router));
  }

  /** What the router is configured with. */
  documentOf(router: Router): object {
    const { resources, authorizations, client, gateway } = this.#documents;
    const { behindClient = [], behindGateway = [] } = this.#documents;
    const { ipv4, ipv6 } = TUNNEL[router];
    const own = { addresses: [`${ipv4}/32`, `${ipv6}/128`] };
    const isClient = isClientRouter(router);
    const others = this.routers.filter((other) => isClientRouter(other) !== isClient);
    const behind = isClient ? behindGateway : behindClient;
    const peers = others.map((id) => ({
      id,
      publicKey: this.site(id).publicKey,
      kind: 'culvert',
      endpoint: `${OUTER[id]}:51820`,
      allowedIps: [
        `${TUNNEL[id].ipv4}/32`,
        `${TUNNEL[id].ipv6}/128`,
        ...(id.endsWith('2') ? [] : behind),
      ],
    }));
    if (!isClient) return { interface: own, peers, resources, authorizations, ...gateway };
    return {
      interface: own,
      peers,
      resources: resources.map((resource) => ({ ...resource, gateways: others })),
      site: { lans: ['br-lan'] },
      dns: { mode: 'redirect' },
      ...client,
    };
  }

  /** Carries what is in the network, and what comes out of the tunnels: questions for the resolver of a site. */
  #settle(): void {
    for (let worked = true; worked;) {
      worked = false;
      this.network.deliver();
      for (const [router, site] of this.#sites) {
        for (const written of site.tun.received.splice(0)) {
          if (this.#carryDns(router, site, written.subarray(10))) worked = true;
          else this.#inboxOf(router).push(written.subarray(10));
        }
      }
    }
  }

  /** The programs of the router itself that listen in the tunnel: the resolver, and who asks one. */
  #carryDns(router: Router, site: Site, packet: Uint8Array): boolean {
    const seen = readPacket(packet);
    if (seen.protocol !== 'udp') return false;
    if (!Object.values(TUNNEL[router]).includes(seen.destination)) return false;
    const bytes = Uint8Array.from(seen.payload);
    if (seen.sourcePort === SITE_DNS_PORT) {
      site.names.handleAnswer(
        withPort(seen.source, SITE_DNS_PORT),
        seen.destinationPort - FIRST_PORT,
        bytes,
      );
      return true;
    }
    if (seen.destinationPort !== SITE_DNS_PORT) return false;
    const remote = withPort(seen.source, seen.sourcePort);
    const local = withPort(seen.destination, SITE_DNS_PORT);
    site.names.handleQuery({ remote, local, bytes }, (answer) => {
      const { source, destination, sourcePort, destinationPort } = seen;
      const turned = { source: destination, destination: source };
      const ports = { sourcePort: destinationPort, destinationPort: sourcePort };
      site.tun.send(plainRead(udp({ ...turned, ...ports, payload: answer })));
      site.tun.report();
    });
    return true;
  }
}

const SITE_DNS_PORT = 53_535;
/** Of those from which a router asks the resolvers of other sites. */
const FIRST_PORT = 30_000;

function isClientRouter(router: Router): boolean {
  return router.startsWith('client');
}

function withPort(ip: string, port: number): string {
  return ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`;
}

/** A state directory in memory. */
function filesOf(stored: Map<string, Uint8Array>): Files {
  return {
    read: (name) => stored.get(name),
    write: (name, bytes) => {
      stored.set(name, bytes.slice());
      return ok(undefined);
    },
    remove: (name) => void stored.delete(name),
  };
}
