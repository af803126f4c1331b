import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { DaemonInLab, eventually } from './daemon.ts';
import { Lab, type Running } from './namespaces.ts';

/** The gateway, whose site has what is used, and two clients. */
export type RouterName = 'gateway' | 'a' | 'c';

export interface Router {
  readonly name: RouterName;
  /** The namespace behind it, in which all hosts of its LAN are. */
  readonly lan: string;
  /** Its interface towards the LAN. */
  readonly lanDevice: string;
  readonly daemon: DaemonInLab;
  /** X25519, base64. */
  readonly publicKey: string;
  /** The tunnel's interface. Unique on the machine: the socket for `wg` is named for it. */
  readonly device: string;
  /** The tunnel addresses, without length. */
  readonly ipv4: string;
  readonly ipv6: string;
  /** Its addresses on the Internet. */
  readonly public: { readonly ipv4: string; readonly ipv6: string };
}

/** A resource as its gateway has it in its configuration. */
export interface ResourceDocument {
  readonly id: string;
  readonly type: 'dns' | 'cidr' | 'internet';
  readonly patterns?: readonly string[];
  readonly prefixes?: readonly string[];
  readonly filters?: readonly object[];
}

/** All sites have the same network, as so many do. */
export const LAN = { ipv4: '192.168.1.0/24', ipv6: 'fd01::/64' };
/** Routers have the first address of it. */
export const ROUTER = { ipv4: '192.168.1.1', ipv6: 'fd01::1' };
/** The hosts in a LAN: several addresses of one namespace. */
export const HOSTS = [10, 11, 12, 13, 14].map((n) => ({
  ipv4: `192.168.1.${n}`,
  ipv6: `fd01::${n}`,
}));
/** The resolver in the gateway's site. */
export const RESOLVER = '192.168.1.53';
/** A server on the Internet. */
export const INTERNET = { ipv4: '8.8.8.8', ipv6: '2600::8' };

const NUMBERS: Readonly<Record<RouterName, number>> = { gateway: 1, a: 2, c: 3 };

/**
 * Sites on an Internet, each with a router that runs the daemon and a LAN; clients use what the gateway serves:
 *
 *   lan-a ── a ─┐
 *   lan-c ── c ─┴─ internet ── gateway ── lan-gateway
 *
 * Routers masquerade their LAN towards the Internet, as routers do. All of it goes away with the test.
 */
export class ResourceLab {
  readonly lab: Lab;
  readonly directory: string;
  readonly gateway: Router;
  readonly a: Router;
  readonly c: Router;

  /** `prefix` is of at most 6 characters: devices bear it. */
  static async create(
    t: Pick<Test, 'teardown'>,
    prefix: string,
    clients: readonly ('a' | 'c')[] = ['a'],
  ): Promise<ResourceLab> {
    const directory = mkdtempSync(join(tmpdir(), `culvert-${prefix}-`));
    const lab = await Lab.create(prefix);
    t.teardown(async () => {
      await lab.destroy();
      rmSync(directory, { recursive: true, force: true });
    });
    await lab.namespace('internet');
    await lab.ip('internet', `address add ${INTERNET.ipv4}/32 dev lo`);
    await lab.ip('internet', `address add ${INTERNET.ipv6}/128 dev lo nodad`);
    await forwardIn(lab, 'internet');
    const built = new Set<RouterName>(['gateway', ...clients]);
    const make = async (name: RouterName): Promise<Router> => {
      if (built.has(name)) await buildSite(lab, name);
      return routerOf(lab, directory, prefix, name, built.has(name));
    };
    return new ResourceLab(lab, directory, await make('gateway'), await make('a'), await make('c'));
  }

  private constructor(lab: Lab, directory: string, gateway: Router, a: Router, c: Router) {
    this.lab = lab;
    this.directory = directory;
    this.gateway = gateway;
    this.a = a;
    this.c = c;
  }

  /** What a client's document says, replaced in part by `own`; `allowedIps` are networks behind the gateway. */
  clientDocument(client: Router, own: object, allowedIps: readonly string[] = []): object {
    return {
      interface: interfaceOf(client),
      peers: [peerOf(this.gateway, allowedIps)],
      site: { lans: [client.lanDevice] },
      dns: { mode: 'redirect', upstreams: [INTERNET.ipv4] },
      ...own,
    };
  }

  /** What the gateway's document says; `allowedIps` are networks behind the clients. */
  gatewayDocument(
    own: object,
    clients: readonly Router[] = [this.a],
    allowedIps: readonly string[] = [],
  ): object {
    return {
      interface: interfaceOf(this.gateway),
      peers: clients.map((client) => peerOf(client, allowedIps)),
      site: { lans: [this.gateway.lanDevice] },
      dns: { upstreams: [RESOLVER] },
      ...own,
    };
  }

  /**
   * Both documents for a resource that the gateway serves, for which all clients are authorized.
   * `gateway` is more of its document; `behindGateway` are networks that clients send there besides.
   */
  configureResource(
    resource: ResourceDocument,
    {
      clients = [this.a],
      gateway = {},
      behindGateway = [],
    }: {
      readonly clients?: readonly Router[];
      readonly gateway?: object;
      readonly behindGateway?: readonly string[];
    } = {},
  ): void {
    const authorizations = clients.map(({ name }) => ({ peer: name, resource: resource.id }));
    this.gateway.daemon.configure(
      this.gatewayDocument({ resources: [resource], authorizations, ...gateway }, clients),
    );
    const used = { ...resource, gateways: ['gateway'] };
    for (const router of clients) {
      router.daemon.configure(this.clientDocument(router, { resources: [used] }, behindGateway));
    }
  }

  /** Starts the daemons of the gateway and of the clients. */
  async start(clients: readonly Router[] = [this.a], ...options: readonly string[]): Promise<void> {
    await Promise.all([this.gateway, ...clients].map(({ daemon }) => daemon.start(...options)));
  }

  /** Starts dnsmasq in the gateway's site with records such as `app.example,192.168.1.10`. */
  async startResolver(records: readonly string[]): Promise<Running> {
    const options = [
      '-C',
      '/dev/null',
      '--user=root',
      '--no-hosts',
      '--no-resolv',
      '--log-queries',
    ];
    const running = this.lab.spawn('lan-gateway', [
      'dnsmasq',
      '--no-daemon',
      ...options,
      `--listen-address=${RESOLVER}`,
      '--bind-interfaces',
      ...records.map((record) => `--host-record=${record}`),
    ]);
    await running.waitFor(/started/, 10_000);
    return running;
  }

  /** Asks the client's router until it answers, as it does once queries come to the daemon. */
  async lookUp(client: Router, name: string, type: 'A' | 'AAAA' = 'A'): Promise<readonly string[]> {
    const dig = ['dig', '+short', '+time=1', '+tries=1', `@${ROUTER.ipv4}`, name, type];
    const addresses = async (): Promise<readonly string[]> => {
      const { stdout } = await this.lab.exec(client.lan, dig);
      return stdout.split('\n').filter((line) => /^[\da-f.:]+$/.test(line));
    };
    return eventually(addresses, (found) => found.length > 0, 15_000);
  }

  /** What the server at an address sees of who asks it, by UDP. */
  async whoAmI(from: string, address: string, port = 7): Promise<string> {
    const ask = [process.execPath, 'test/lab/echo.mjs', 'ask', address, String(port)];
    return (await this.lab.exec(from, ask)).stdout.trim();
  }

  /** Starts what `converse` speaks with. */
  async startConversations(namespace: string): Promise<void> {
    const serve = ['test/lab/conversation.mjs', 'serve', '9000'];
    const running = this.lab.spawn(namespace, [process.execPath, ...serve]);
    await running.waitFor(/listening/, 10_000);
  }

  /** Opens a connection; returns when it is established. */
  async converse(from: string, address: string): Promise<Conversation> {
    const speak = ['test/lab/conversation.mjs', 'speak', address, '9000'];
    const running = this.lab.spawn(from, [process.execPath, ...speak]);
    await running.waitFor(/established/, 10_000);
    return new Conversation(running);
  }

  /** Starts what `whoAmI` asks, at port 7 of all addresses. */
  async startEcho(namespace: string): Promise<Running> {
    const echo = ['test/lab/echo.mjs', 'serve', '7'];
    const running = this.lab.spawn(namespace, [process.execPath, ...echo]);
    await running.waitFor(/listening/, 10_000);
    return running;
  }
}

/** A TCP connection over which both ends speak while something else happens. */
export class Conversation {
  readonly #running: Running;

  constructor(running: Running) {
    this.#running = running;
  }

  /** Waits until what is said now is answered; `isWhole` unless anything was lost or came twice. */
  async end(): Promise<{ readonly isWhole: boolean; readonly longestGapMs: number }> {
    this.#running.signal('SIGUSR2');
    const [line] = await this.#running.waitFor(/^\{.*\}$/, 30_000);
    return JSON.parse(line) as Awaited<ReturnType<Conversation['end']>>;
  }
}

function interfaceOf({ device, ipv4, ipv6 }: Router): object {
  return { name: device, addresses: [`${ipv4}/32`, `${ipv6}/128`] };
}

function peerOf(router: Router, allowedIps: readonly string[]): object {
  return {
    id: router.name,
    kind: 'culvert',
    publicKey: router.publicKey,
    endpoint: `${router.public.ipv4}:51820`,
    allowedIps: [`${router.ipv4}/32`, `${router.ipv6}/128`, ...allowedIps],
  };
}

async function routerOf(
  lab: Lab,
  directory: string,
  prefix: string,
  name: RouterName,
  isBuilt: boolean,
): Promise<Router> {
  const number = NUMBERS[name];
  const daemon = new DaemonInLab(lab, name, join(directory, name));
  return {
    name,
    lan: `lan-${name}`,
    lanDevice: `to-lan-${name}`,
    daemon,
    publicKey: isBuilt ? (await daemon.keys()).publicKey : '',
    device: `${prefix}-${name}`,
    ipv4: `100.64.0.${number}`,
    ipv6: `fd64::${number}`,
    public: { ipv4: `9.0.${number}.2`, ipv6: `2600:${number}::2` },
  };
}

async function buildSite(lab: Lab, name: RouterName): Promise<void> {
  const number = NUMBERS[name];
  const lan = `lan-${name}`;
  await lab.namespace(name);
  await lab.namespace(lan);
  const [wanDevice] = await lab.link(
    name,
    'internet',
    [`9.0.${number}.2/24`, `2600:${number}::2/64`],
    [`9.0.${number}.1/24`, `2600:${number}::1/64`],
  );
  await lab.ip(name, `route add default via 9.0.${number}.1`);
  await lab.ip(name, `route add default via 2600:${number}::1`);
  const hosts = HOSTS.flatMap(({ ipv4, ipv6 }) => [`${ipv4}/24`, `${ipv6}/64`]);
  const resolver = name === 'gateway' ? [`${RESOLVER}/24`] : [];
  const first = [`${ROUTER.ipv4}/24`, `${ROUTER.ipv6}/64`];
  await lab.link(name, lan, first, [...hosts, ...resolver]);
  await lab.ip(lan, `route add default via ${ROUTER.ipv4}`);
  await lab.ip(lan, `route add default via ${ROUTER.ipv6}`);
  await forwardIn(lab, name);
  const masquerade = `table inet router {
    chain srcnat {
      type nat hook postrouting priority srcnat
      iifname "to-${lan}" oifname "${wanDevice}" masquerade
    }
  }`;
  const { code, stderr } = await lab.exec(name, ['nft', '-f', '-'], { input: masquerade });
  if (code !== 0) throw new Error(stderr);
}

async function forwardIn(lab: Lab, name: string): Promise<void> {
  const on = ['net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1'];
  await lab.exec(name, ['sysctl', '-qw', ...on]);
}
