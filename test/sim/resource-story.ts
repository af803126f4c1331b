import type { Arenas } from './arenas.ts';
import type { SeenPacket } from './read-packet.ts';
import { CLIENT, ResourceSites, START_UNIX_MS, type Stopping } from './resource-sites.ts';
import { SeededRandom } from './seeded-random.ts';

const NAMES = ['crm', 'wiki', 'git'] as const;
type Name = (typeof NAMES)[number];

/** Names share servers, so that the NAT has to tell them apart. */
const SERVERS = ['10.9.0.1', '10.9.0.2', '10.9.0.3'];
const HOSTS = ['192.168.1.10', '192.168.1.11', '192.168.1.12'];
/** Few ports, so that flows of several hosts collide. */
const PORTS = [4000, 4000, 4001];
/** The one that filters permit, and another one. */
const PERMITTED = 80;
const FILTERED = 81;

/** Replies that are older may be about a session whose port another one has by now. */
const LATEST_REPLY = 40_000;
/** Sessions of UDP live for 60 s without a reply, and longer with one. */
const SESSION_KEPT = 50_000;

/** A request of a host, and where it was seen to arrive. */
interface Request {
  readonly number: number;
  readonly host: string;
  readonly port: number;
  readonly name: Name;
  readonly proxy: string;
  readonly arrived: SeenPacket;
  readonly at: number;
}

/**
 * Hosts, servers, operators and accidents, all at random; and what must be true whatever happens: requests
 * arrive only where they are authorized to, at a server of the name and at the same one while the session
 * lives; replies come back to who asked, from whom it asked; and when all is quiet, both do arrive.
 */
export class ResourceStory {
  readonly #random: SeededRandom;
  readonly #sites: ResourceSites;
  /** What went on, to be told when something is wrong. */
  readonly log: string[] = [];
  /** Which resources the gateway grants, and when that ends by its calendar. */
  #granted = new Map<Name, number>();
  /** What the gateway was configured with. */
  #document: ReadonlyMap<Name, number> = new Map();
  #clockStep = 0;
  readonly #addresses = new Map<Name, string>();
  readonly #everHad = new Map<Name, Set<string>>();
  readonly #proxies = new Map<Name, readonly string[]>();
  /** By host, port and proxy: the server that the session leads to. */
  readonly #sessions = new Map<string, { readonly server: string; at: number }>();
  #requests: Request[] = [];
  /** By number. */
  readonly #replied = new Map<number, Request>();
  /** Whether nothing has happened since all had time to settle. */
  #isCalm = false;
  #isPathLost = false;
  #count = 0;

  constructor(seed: number, arenas: Arenas) {
    this.#random = new SeededRandom(seed);
    this.#sites = new ResourceSites(seed, this.#documents(new Map()), { arenas });
    this.#sites.gateway.names.zone = ({ name, type }) => {
      const data = this.#addresses.get(name.split('.')[0] as Name);
      return type === 'A' && data !== undefined ? [{ type, name, ttl: 1, data }] : [];
    };
    for (const name of NAMES) this.#resolveTo(name, this.#oneOf(SERVERS));
    this.#authorize();
    this.#lookUpAll();
  }

  run(steps: number): void {
    for (let i = 0; i < steps; i++) this.#step();
    this.#sites.restore('client');
    this.#grant(new Map(NAMES.map((name) => [name, Infinity])));
    this.#calmDown();
    for (const host of HOSTS) for (const name of NAMES) this.#send(host, 5000, name, PERMITTED);
  }

  end(): void {
    this.#sites.end();
  }

  #step(): void {
    const choice = this.#below(100);
    if (choice < 45) {
      const port = this.#below(5) === 0 ? FILTERED : PERMITTED;
      return this.#send(this.#oneOf(HOSTS), this.#oneOf(PORTS), this.#oneOf(NAMES), port);
    }
    if (choice < 55) return this.#lookUp(this.#oneOf(NAMES));
    if (choice < 63) return this.#replyLate();
    if (choice < 67) return this.#forgeReply();
    if (choice < 75) return this.#resolveAnew(this.#oneOf(NAMES));
    if (choice < 82) return this.#wait(this.#below(30_000));
    if (choice < 84) return this.#wait(this.#below(600_000));
    if (choice < 88) return this.#authorize();
    if (choice < 90) return this.#setClock((this.#below(5) - 2) * 1_800_000);
    if (choice < 93) return this.#cut();
    if (choice < 96) return this.#restart();
    return this.#calmDown();
  }

  #send(host: string, port: number, name: Name, toPort: number): void {
    const [proxy] = this.#proxies.get(name) ?? [];
    if (proxy === undefined) return;
    const number = ++this.#count % 250;
    this.#note(`${host}:${port} to ${name} ${toPort}`);
    this.#collect();
    this.#sites.sendUdp({ host, port, to: proxy, toPort, payload: [number] });
    const isPermitted = this.#mayUse(name) && toPort === PERMITTED;
    const arrivals = this.#sites.seen('gateway');
    const arrived = arrivals.find((packet) => packet.payload[0] === number);
    for (const packet of arrivals) if (packet !== arrived) this.#expectAllowed(packet);
    if (arrived === undefined) {
      this.#expect(!this.#isCalm || !isPermitted, 'nothing arrived');
      return;
    }
    this.#expect(isPermitted, 'it arrived and may not');
    this.#expectAllowed(arrived);
    const request = { number, host, port, name, proxy, arrived, at: this.#now };
    this.#expectSession(request);
    if (this.#below(3) === 0) this.#requests.push(request);
    else this.#reply(request);
  }

  /** What is true of all packets that come into the site. */
  #expectAllowed({ source, destination, destinationPort }: SeenPacket): void {
    this.#expect(source === CLIENT.ipv4, `from ${source}`);
    this.#expect(destinationPort === PERMITTED, 'to a port that is filtered');
    const isOfGranted = [...this.#everHad].some(
      ([name, servers]) => this.#mayUse(name) && servers.has(destination),
    );
    this.#expect(isOfGranted, `to ${destination}, which is nothing that may be used`);
  }

  /** Open sessions keep their server, whatever the name resolves to by now. */
  #expectSession({ host, port, proxy, name, arrived }: Request): void {
    const key = `${host} ${port} ${proxy}`;
    const before = this.#sessions.get(key);
    const isOpen = before !== undefined && this.#now - before.at < SESSION_KEPT;
    if (isOpen) {
      this.#expect(before.server === arrived.destination, `${arrived.destination}: was cut`);
    } else {
      this.#expect(
        this.#everHad.get(name)?.has(arrived.destination) === true,
        `${arrived.destination} is no server of ${name}`,
      );
    }
    this.#sessions.set(key, { server: arrived.destination, at: this.#now });
  }

  #reply(request: Request): void {
    const { arrived, number, name, host, port } = request;
    this.#collect();
    this.#replied.set(number, request);
    const came = this.#sites.answer(arrived, [number]);
    if (came === undefined || came.protocol === 'icmp') {
      this.#expect(!this.#isCalm || !this.#mayUse(name), `no reply came to ${host}:${port}`);
      return;
    }
    // One that had waited may come before it.
    const replied = this.#replied.get(came.payload[0] ?? 0) ?? request;
    if (replied === request) this.#expect(this.#mayUse(name), 'a reply came that may not');
    this.#expectReply(came, replied);
  }

  #expectReply(
    came: SeenPacket,
    { host, port, proxy }: Pick<Request, 'host' | 'port' | 'proxy'>,
  ): void {
    const { destination, destinationPort, source } = came;
    this.#expect(destination === host && destinationPort === port, `reply to ${destination}`);
    this.#expect(source === proxy, `reply from ${source}, which was not asked`);
  }

  #replyLate(): void {
    this.#requests = this.#requests.filter(({ at }) => this.#now - at < LATEST_REPLY);
    const request = this.#requests.shift();
    if (request === undefined) return;
    this.#note(`late reply to ${request.host}`);
    this.#reply(request);
  }

  /** A host of the site that nobody asked writes to ports that are open. */
  #forgeReply(): void {
    this.#note('forged reply');
    this.#collect();
    for (const port of PORTS) {
      const way = { source: CLIENT.ipv4, destination: '10.66.0.1' };
      const like = { ...NO_PACKET, ...way, sourcePort: port, destinationPort: PERMITTED };
      const came = this.#sites.answer(like, [255]);
      // What waited before may come now, and what a gateway says of it.
      const isIt = came?.protocol === 'udp' && came.payload[0] === 255;
      this.#expect(!isIt, 'a forged reply came');
    }
  }

  #lookUp(name: Name): void {
    this.#note(`look up ${name}`);
    this.#collect();
    const proxies = this.#sites.lookUp(`${name}.corp.example`);
    this.#expect(proxies.length === 4, 'no proxies');
    const before = this.#proxies.get(name);
    this.#expect(before === undefined || before[0] === proxies[0], 'another proxy');
    this.#proxies.set(name, proxies);
  }

  #resolveAnew(name: Name): void {
    this.#resolveTo(name, this.#oneOf(SERVERS));
    this.#wait(3000);
    if (this.#below(3) > 0) this.#lookUp(name);
  }

  #resolveTo(name: Name, server: string): void {
    this.#note(`${name} is at ${server}`);
    this.#addresses.set(name, server);
    const servers = this.#everHad.get(name) ?? new Set<string>();
    this.#everHad.set(name, servers.add(server));
  }

  #wait(ms: number): void {
    this.#note(`wait ${ms}`);
    this.#sites.advance(ms);
    this.#collect();
    this.#expire();
  }

  /** The operator grants some of the resources, some of them for a time. */
  #authorize(): void {
    const granted = new Map<Name, number>();
    for (const name of NAMES) {
      if (this.#below(4) === 0) continue;
      const isForEver = this.#below(2) === 0;
      const ends = this.#calendar + 60_000 + this.#below(1_200_000);
      granted.set(name, isForEver ? Infinity : ends);
    }
    this.#grant(granted);
  }

  #grant(granted: Map<Name, number>): void {
    this.#note(`grant ${[...granted.keys()].join()}`);
    this.#collect();
    const ended = [...this.#granted.keys()].filter((name) => !granted.has(name));
    this.#document = new Map(granted);
    this.#granted = granted;
    this.#sites.reconfigure(this.#documents(granted));
    this.#handleEnded(ended);
  }

  #setClock(step: number): void {
    this.#note(`clock ${step}`);
    this.#collect();
    this.#clockStep = step;
    this.#sites.setClock('gateway', step);
    this.#expire();
  }

  #expire(): void {
    const ended = NAMES.filter((name) => (this.#granted.get(name) ?? Infinity) <= this.#calendar);
    for (const name of ended) this.#granted.delete(name);
    this.#handleEnded(ended);
  }

  /** Sessions end with what granted them; replies to them must not come. */
  #handleEnded(names: readonly Name[]): void {
    this.#isCalm = false;
    const isOfEnded = ({ name }: Request) => names.includes(name);
    const requests = this.#requests.filter(isOfEnded);
    this.#requests = this.#requests.filter((request) => !isOfEnded(request));
    for (const request of requests) this.#reply(request);
    // A peer without any is told goodbye, which ends the rest.
    if (this.#granted.size === 0) this.#forgetSessions();
    for (const name of names) {
      const [proxy] = this.#proxies.get(name) ?? [];
      for (const key of this.#sessions.keys()) {
        if (key.endsWith(` ${proxy}`)) this.#sessions.delete(key);
      }
    }
  }

  #cut(): void {
    this.#note('cut');
    this.#sites.cut('client');
    this.#isCalm = false;
    this.#isPathLost = true;
    this.#wait(this.#below(120_000));
    if (this.#below(2) === 0) this.#sites.restore('client');
  }

  #restart(): void {
    const router = this.#below(2) === 0 ? 'client' : 'gateway';
    const how = this.#oneOf<Stopping>(['killed', 'leaving', 'restarting']);
    this.#note(`${router} ${how}`);
    // Long enough for proxies to be on flash.
    this.#wait(6000);
    this.#sites.restart(router, how);
    this.#forgetSessions();
    if (router === 'client') return this.#expire();
    // It begins with the right time, whatever had expired by a wrong one.
    this.#clockStep = 0;
    this.#granted = new Map(this.#document);
    this.#expire();
  }

  #forgetSessions(): void {
    this.#isPathLost = true;
    this.#requests = [];
    this.#sessions.clear();
  }

  /** Everything is well, and has time to become so. */
  #calmDown(): void {
    this.#note('calm');
    this.#sites.restore('client');
    // Longer than the pause between two attempts to find a path.
    if (this.#isPathLost) this.#wait(60_000);
    this.#lookUpAll();
    if (this.#isPathLost) this.#wait(20_000);
    this.#lookUpAll();
    this.#isPathLost = false;
  }

  /** Hosts know where everything is, and gateways have had time to find out. */
  #lookUpAll(): void {
    for (const name of NAMES) this.#lookUp(name);
    this.#wait(3000);
    this.#isCalm = true;
  }

  /** Takes what came later than it was sent, as it had to wait for a path or the gateway; and errors. */
  #collect(): void {
    for (const packet of this.#sites.seen('gateway')) this.#expectAllowed(packet);
    for (const packet of this.#sites.seen('client')) {
      if (packet.protocol === 'icmp') continue;
      const request = this.#replied.get(packet.payload[0] ?? 0);
      this.#expect(request !== undefined, 'a reply that nobody sent');
      if (request !== undefined) this.#expectReply(packet, request);
    }
  }

  #mayUse(name: Name): boolean {
    return this.#granted.has(name);
  }

  #documents(granted: ReadonlyMap<Name, number>) {
    const filters = [{ protocol: 'udp', ports: [String(PERMITTED)] }];
    return {
      resources: NAMES.map((id) => ({
        id,
        type: 'dns',
        patterns: [`${id}.corp.example`],
        filters,
      })),
      authorizations: [...granted].map(([resource, ends]) => ({
        peer: 'client',
        resource,
        ...(ends === Infinity ? {} : { expiresAt: new Date(ends).toISOString() }),
      })),
    };
  }

  get #now(): number {
    return this.#sites.time.now;
  }

  /** What the calendar of the gateway shows. */
  get #calendar(): number {
    return START_UNIX_MS + this.#now + this.#clockStep;
  }

  #below(limit: number): number {
    return Math.floor(this.#random.fraction() * limit);
  }

  #oneOf<Item>(items: readonly Item[]): Item {
    return items[this.#below(items.length)] as Item;
  }

  #note(what: string): void {
    this.log.push(`${this.#sites.time.now} ${what}`);
  }

  #expect(isTrue: boolean, otherwise: string): void {
    if (!isTrue) throw new Error(`${otherwise}\n${this.log.slice(-40).join('\n')}`);
  }
}

const NO_PACKET: SeenPacket = {
  protocol: 'udp',
  source: '',
  destination: '',
  sourcePort: 0,
  destinationPort: 0,
  flags: 0,
  icmp: '',
  about: undefined,
  payload: [],
  bytes: new Uint8Array(0),
};
