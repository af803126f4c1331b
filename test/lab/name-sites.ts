import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { DaemonInLab, type Keys } from './daemon.ts';
import { Lab, type Running } from './namespaces.ts';
import { OpenWrtRoot } from './openwrt-root.ts';

export type NameSiteName = 'a' | 'b';
export type DnsMode = 'redirect' | 'dnsmasq';

export interface NameSite {
  readonly name: NameSiteName;
  readonly daemon: DaemonInLab;
  readonly keys: Keys;
  /** Of the tunnel interface: unique on the machine, since `wg` finds it by that. */
  readonly device: string;
  /** The tunnel addresses, without length. */
  readonly ipv4: string;
  readonly ipv6: string;
  /** Where the other site finds it. */
  readonly endpoint: string;
}

/** Addresses of hosts, by what they are. */
export const HOSTS = {
  /** The LAN of `a`: its router, and its hosts. */
  router: { ipv4: '192.168.1.1', ipv6: 'fd01::1' },
  client: { ipv4: '192.168.1.50', ipv6: 'fd01::50' },
  /** In the LAN of `b`: the resolver that knows the private names, and two servers. */
  siteResolver: '192.168.2.53',
  servers: ['192.168.2.10', '192.168.2.11'],
  serversIpv6: ['fd02::10', 'fd02::11'],
  /** At the provider: the resolver that it names, and public ones. */
  isp: '198.51.100.1',
  publicIpv4: '8.8.8.8',
  publicIpv6: '2001:4860:4860::8888',
} as const;

/** What the provider says of all names that it knows nothing else of. */
export const PUBLIC_ANSWER = '9.9.9.1';

/** Private names, which the resolver of site `b` alone knows: lines of a dnsmasq configuration. */
export const SITE_RECORDS: readonly string[] = [
  'host-record=crm.corp.example,192.168.2.10,fd02::10',
  'host-record=wiki.corp.example,192.168.2.11,fd02::11',
  'host-record=v4.corp.example,192.168.2.10',
  'srv-host=_ldap._tcp.corp.example,crm.corp.example,389,10,20',
  'srv-host=_sip._udp.crm.corp.example,crm.corp.example,5060,1,0',
  'txt-record=crm.corp.example,"kept in the site"',
];

export interface NameSitesOptions {
  /** More lines for the provider's dnsmasq. */
  readonly publicRecords?: readonly string[];
}

/**
 * A LAN that uses names of another site, which nobody else knows:
 *
 *   host-a ── br-lan [ a ] ── isp ── [ b ] br-lan ── host-b
 *
 * The router `a` looks like OpenWrt to its daemon, and runs dnsmasq for its LAN as OpenWrt does; the
 * resolvers of the provider in `isp` are all that it can ask. `host-b` has the servers of the other site
 * and its resolver, each at an address of its own. Both routers masquerade towards the provider. The
 * daemons find each other by endpoints. All of it, and the folder with files, goes away with the test.
 */
export class NameSites {
  readonly lab: Lab;
  readonly directory: string;
  readonly a: NameSite;
  readonly b: NameSite;
  readonly openwrt: OpenWrtRoot;
  readonly #ispResolver: Running;
  #siteResolver: Running | undefined;

  static async create(
    t: Test,
    prefix: string,
    { publicRecords = [] }: NameSitesOptions = {},
  ): Promise<NameSites> {
    const directory = mkdtempSync(join(tmpdir(), `culvert-${prefix}-`));
    const lab = await Lab.create(prefix);
    t.teardown(async () => {
      await lab.destroy();
      rmSync(directory, { recursive: true, force: true });
    });
    await buildIsp(lab);
    for (const site of ['a', 'b'] as const) await buildSite(lab, site);
    const openwrt = new OpenWrtRoot({
      directory,
      providers: [HOSTS.isp],
      hosts: [`${HOSTS.router.ipv4} router`, `${HOSTS.client.ipv4} laptop`],
    });
    const [a, b] = [
      await siteOf(lab, directory, prefix, 'a'),
      await siteOf(lab, directory, prefix, 'b'),
    ];
    a.daemon.prefix = openwrt.command;
    const ispResolver = await startDnsmasq(lab, 'isp', directory, [
      `address=/#/${PUBLIC_ANSWER}`,
      ...publicRecords,
    ]);
    const sites = new NameSites({ lab, directory, a, b, openwrt }, ispResolver);
    await sites.setSiteRecords(SITE_RECORDS);
    const started = await lab.exec('a', openwrt.restartDnsmasq);
    if (started.code !== 0) throw new Error(started.stderr);
    return sites;
  }

  private constructor(
    parts: Pick<NameSites, 'lab' | 'directory' | 'a' | 'b' | 'openwrt'>,
    ispResolver: Running,
  ) {
    this.lab = parts.lab;
    this.directory = parts.directory;
    this.a = parts.a;
    this.b = parts.b;
    this.openwrt = parts.openwrt;
    this.#ispResolver = ispResolver;
  }

  /**
   * The whole configuration of a site: `b` serves the resource `corp`, all names below corp.example, to
   * `a`. `own` replaces members.
   */
  configurationOf(name: NameSiteName, mode: DnsMode = 'redirect', own: object = {}): object {
    const [site, other] = name === 'a' ? [this.a, this.b] : [this.b, this.a];
    const corp = { id: 'corp', type: 'dns', patterns: ['**.corp.example'] };
    const isClient = name === 'a';
    return {
      interface: { name: site.device, addresses: [`${site.ipv4}/32`, `${site.ipv6}/128`] },
      peers: [
        {
          id: `site-${other.name}`,
          kind: 'culvert',
          publicKey: other.keys.publicKey,
          endpoint: other.endpoint,
          allowedIps: [`${other.ipv4}/32`, `${other.ipv6}/128`],
        },
      ],
      site: { lans: ['br-lan'] },
      resources: [isClient ? { ...corp, gateways: [`site-${other.name}`] } : corp],
      ...(isClient
        ? { dns: { mode } }
        : {
            authorizations: [{ peer: `site-${other.name}`, resource: 'corp' }],
            dns: { upstreams: [HOSTS.siteResolver] },
          }),
      ...own,
    };
  }

  /** Starts both daemons; returns when the queries of the LAN come to `a`. */
  async start(
    configurationOf: (name: NameSiteName) => object = (name) => this.configurationOf(name),
    ...options: readonly string[]
  ): Promise<void> {
    this.b.daemon.configure(configurationOf('b'));
    this.a.daemon.configure(configurationOf('a'));
    await Promise.all([this.b.daemon.start(...options), this.startA(...options)]);
  }

  /** Starts the daemon of `a` alone, with the configuration that it has. */
  async startA(...options: readonly string[]): Promise<Running> {
    const running = this.a.daemon.spawn(...options);
    await running.waitFor(/names of resources are answered/, 15_000);
    return running;
  }

  /**
   * Returns what `dig` prints on the host of the LAN, in short form unless it is told otherwise, in one
   * line; `none` for nothing. The router is asked unless a server is named.
   */
  async ask(...words: readonly string[]): Promise<string> {
    return this.dig('host-a', ...words);
  }

  async dig(namespace: string, ...words: readonly string[]): Promise<string> {
    const isShort = !words.includes('+noshort');
    const server = words.some((word) => word.startsWith('@')) ? [] : [`@${HOSTS.router.ipv4}`];
    const { stdout, stderr } = await this.lab.exec(namespace, [
      'dig',
      '+time=2',
      '+tries=1',
      isShort ? '+short' : '+all',
      ...server,
      ...words.filter((word) => word !== '+noshort'),
    ]);
    return (stdout.trim() || stderr.trim() || 'none').replaceAll('\n', ' ');
  }

  /** What the resolvers of the provider were asked: `A name`, in the order of asking. */
  get publicQueries(): readonly string[] {
    return queriesIn(this.#ispResolver.lines);
  }

  /** What the resolver of the site was asked since its records were set. */
  get siteQueries(): readonly string[] {
    return queriesIn(this.#siteResolver?.lines ?? []);
  }

  /** Starts the resolver of the site anew, with these lines of configuration. */
  async setSiteRecords(records: readonly string[]): Promise<void> {
    await this.#siteResolver?.stop();
    this.#siteResolver = await startDnsmasq(this.lab, 'host-b', this.directory, [
      `listen-address=${HOSTS.siteResolver}`,
      'bind-interfaces',
      'local=/corp.example/',
      'local-ttl=1',
      ...records,
    ]);
  }
}

async function buildIsp(lab: Lab): Promise<void> {
  await lab.namespace('isp');
  await forward(lab, 'isp');
  await lab.ip('isp', `address add ${HOSTS.publicIpv4}/32 dev lo`);
  await lab.ip('isp', `address add ${HOSTS.publicIpv6}/128 dev lo nodad`);
}

async function buildSite(lab: Lab, name: NameSiteName): Promise<void> {
  const { wan, lan, hosts } = NETWORKS[name];
  const host = `host-${name}`;
  await lab.namespace(name);
  await lab.namespace(host);
  // Without duplicate address detection, so that link-local addresses are of use at once.
  await lab.exec(name, ['sysctl', '-qw', 'net.ipv6.conf.default.accept_dad=0']);
  await forward(lab, name);
  await lab.link(
    'isp',
    name,
    [`${wan.gateways[0]}/24`, `${wan.gateways[1]}/64`],
    [`${wan.ipv4}/24`, `${wan.ipv6}/64`],
  );
  for (const gateway of wan.gateways) await lab.ip(name, `route add default via ${gateway}`);
  const [device] = await lab.link(
    name,
    host,
    [],
    hosts.map((address) => `${address}/${address.includes(':') ? 64 : 24}`),
  );
  await lab.ip(name, 'link add br-lan type bridge forward_delay 0');
  await lab.ip(name, `link set ${device} master br-lan`);
  await lab.ip(name, `address add ${lan.ipv4}/24 dev br-lan`);
  await lab.ip(name, `address add ${lan.ipv6}/64 dev br-lan nodad`);
  await lab.ip(name, 'link set br-lan up');
  for (const gateway of [lan.ipv4, lan.ipv6])
    await lab.ip(host, `route add default via ${gateway}`);
  const rules = `table inet provider {
    chain out {
      type nat hook postrouting priority srcnat
      oifname "to-isp" masquerade
    }
  }`;
  const masquerading = await lab.exec(name, ['nft', '-f', '-'], { input: rules });
  if (masquerading.code !== 0) throw new Error(masquerading.stderr);
}

const NETWORKS = {
  a: {
    wan: { ipv4: '198.51.100.2', ipv6: 'fda0::2', gateways: ['198.51.100.1', 'fda0::1'] },
    lan: HOSTS.router,
    hosts: [HOSTS.client.ipv4, HOSTS.client.ipv6],
  },
  b: {
    wan: { ipv4: '203.0.113.2', ipv6: 'fdb0::2', gateways: ['203.0.113.1', 'fdb0::1'] },
    lan: { ipv4: '192.168.2.1', ipv6: 'fd02::1' },
    hosts: [HOSTS.siteResolver, ...HOSTS.servers, ...HOSTS.serversIpv6],
  },
} as const;

async function siteOf(
  lab: Lab,
  directory: string,
  prefix: string,
  name: NameSiteName,
): Promise<NameSite> {
  const daemon = new DaemonInLab(lab, name, join(directory, name));
  const number = name === 'a' ? 1 : 2;
  return {
    name,
    daemon,
    keys: await daemon.keys(),
    device: `${prefix}-${name}`.slice(-15),
    ipv4: `100.64.0.${number}`,
    ipv6: `fd64::${number}`,
    endpoint: `${NETWORKS[name].wan.ipv4}:51820`,
  };
}

async function startDnsmasq(
  lab: Lab,
  namespace: string,
  directory: string,
  lines: readonly string[],
): Promise<Running> {
  const file = join(directory, `${namespace}.conf`);
  const common = ['user=root', 'no-hosts', 'no-resolv', 'log-queries'];
  writeFileSync(file, `${[...common, ...lines].join('\n')}\n`);
  const running = lab.spawn(namespace, [
    'dnsmasq',
    '--keep-in-foreground',
    `--conf-file=${file}`,
    '--log-facility=-',
  ]);
  await running.waitFor(/started/, 10_000);
  return running;
}

function queriesIn(lines: readonly string[]): readonly string[] {
  return lines.flatMap((line) => {
    const [, type, name] = /query\[([^\]]+)\] (.*) from /.exec(line) ?? [];
    return type === undefined ? [] : [`${type} ${name}`];
  });
}

async function forward(lab: Lab, namespace: string): Promise<void> {
  const all = ['net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1'];
  await lab.exec(namespace, ['sysctl', '-qw', ...all]);
}
