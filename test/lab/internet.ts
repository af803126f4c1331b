import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { Broker } from './broker.ts';
import { Lab, whyNoLab } from './namespaces.ts';
import { blockRules, natRules, troubleRules, type LineTrouble, type NatKind } from './nat.ts';
import { Proxy } from './proxy.ts';
import { Relay, type RelayOptions } from './relay.ts';

export const SITE_NAMES = ['a', 'b'] as const;
export type SiteName = (typeof SITE_NAMES)[number];

/** What stands on the Internet, each at an address of its own in the namespace `wan`. */
export const WAN = {
  relay: '203.0.113.10',
  /** A second address of the same relay, from which it answers to find out NATs (RFC 5780). */
  relayAlternate: '203.0.113.11',
  otherRelay: '203.0.113.12',
  proxy: '203.0.113.20',
  broker: '203.0.113.30',
} as const;

export interface InternetOptions {
  /** The NAT in front of each site; `none` where left out. */
  readonly nats?: Partial<Readonly<Record<SiteName, NatKind>>>;
  /** Whether there is a host behind each site, in the namespace `host-<site>`. */
  readonly lans?: boolean;
}

/** What changes of a site while a test runs. */
interface Line {
  readonly nat: NatKind;
  readonly trouble: LineTrouble;
  /** How often the site was given another public address, and another network of its own. */
  readonly publicNumber: number;
  readonly uplinkNumber: number;
  readonly hasUplink: boolean;
}

/** Why no Internet can be built here, for the `skip` option of a test, or `false`. */
export function whyNoInternet(): string | false {
  const missing = ['nft', 'conntrack', 'turnserver', 'mosquitto', 'tinyproxy'].find(
    (program) => spawnSync('which', [program], { env: { PATH: SYSTEM_PATH } }).status !== 0,
  );
  return whyNoLab() || (missing !== undefined && `there is no ${missing}`);
}

const SYSTEM_PATH = `${process.env['PATH']}:/usr/sbin:/sbin`;

/**
 * Two sites behind NATs, and what they need of an Internet in its middle:
 *
 *   host-a ── a ── nat-a ── wan ── nat-b ── b ── host-b
 *
 * The daemons run in `a` and `b`. `wan` routes between the addresses of RFC 5737 and drops private ones.
 * All of it, and the folder with files, goes away with the test.
 */
export class Internet {
  readonly lab: Lab;
  readonly directory: string;
  readonly #prefix: string;
  readonly #lines = new Map<SiteName, Line>();
  readonly #blocked: (readonly [string, string])[] = [];

  static async create(t: Test, prefix: string, options: InternetOptions = {}): Promise<Internet> {
    const directory = mkdtempSync(join(tmpdir(), `culvert-${prefix}-`));
    const lab = await Lab.create(prefix);
    t.teardown(async () => {
      await lab.destroy();
      rmSync(directory, { recursive: true, force: true });
    });
    const internet = new Internet(lab, prefix, directory);
    await internet.#buildWan();
    for (const site of SITE_NAMES) {
      await internet.#buildSite(site, options.nats?.[site] ?? 'none');
      if (options.lans === true) await internet.#buildLan(site);
    }
    return internet;
  }

  private constructor(lab: Lab, prefix: string, directory: string) {
    this.lab = lab;
    this.#prefix = prefix;
    this.directory = directory;
  }

  async startRelay(options: Partial<RelayOptions> = {}): Promise<Relay> {
    return Relay.start(this.lab, 'wan', this.directory, { address: WAN.relay, ...options });
  }

  async startBroker(): Promise<Broker> {
    return Broker.start(this.lab, 'wan', this.directory, WAN.broker);
  }

  async startProxy(): Promise<Proxy> {
    return Proxy.start(this.lab, 'wan', this.directory, WAN.proxy);
  }

  /** A name for the tunnel interface of a site: unique on the machine, since `wg` finds it by that. */
  interfaceOf(site: SiteName): string {
    return `${this.#prefix}-${site}`.slice(-15);
  }

  /** The host behind the site. */
  lanOf(site: SiteName): { readonly network: string; readonly gateway: string; host: string } {
    const net = `192.168.${numberOf(site)}`;
    return { network: `${net}.0/24`, gateway: `${net}.1`, host: `${net}.2` };
  }

  /** Address of the site itself on the way to the Internet. */
  addressOf(site: SiteName): string {
    return uplinkOf(site, this.#line(site)).site;
  }

  /** What the Internet sees of the site. */
  publicAddressOf(site: SiteName): string {
    const line = this.#line(site);
    return line.nat === 'none' ? uplinkOf(site, line).site : publicOf(site, line);
  }

  natOf(site: SiteName): NatKind {
    return this.#line(site).nat;
  }

  /** Replaces the NAT; all its mappings are forgotten. `none` can neither come nor go. */
  async changeNat(site: SiteName, nat: Exclude<NatKind, 'none'>): Promise<void> {
    this.#requireNat(site);
    this.#change(site, { nat });
    await this.#applyNat(site);
    await this.#forgetFlows(site);
  }

  /** UDP between the sites is dropped from now on, to and from any of their addresses. */
  async blockDirect(one: SiteName = 'a', other: SiteName = 'b'): Promise<void> {
    this.#blocked.push([networkOf(one), networkOf(other)]);
    await this.nft('wan', blockRules(this.#blocked));
  }

  async unblockDirect(): Promise<void> {
    this.#blocked.length = 0;
    await this.nft('wan', blockRules(this.#blocked));
  }

  /** That many of a hundred packets are lost on the line of a site, in each direction; 0 is none. */
  async loss(site: SiteName, percent: number): Promise<void> {
    await this.#applyTrouble(site, { lossPercent: percent });
  }

  /** Nothing comes to the site or leaves it; it keeps its addresses and cannot tell. */
  async cut(site: SiteName): Promise<void> {
    await this.#applyTrouble(site, { isCut: true });
  }

  async restore(site: SiteName): Promise<void> {
    await this.#applyTrouble(site, { isCut: false });
  }

  /** The NAT gets another public address and forgets all mappings; the site itself cannot tell. */
  async changeWan(site: SiteName): Promise<void> {
    this.#requireNat(site);
    this.#change(site, { publicNumber: this.#line(site).publicNumber + 1 });
    const address = publicOf(site, this.#line(site));
    await this.lab.ip(natOf(site), 'address flush dev to-wan');
    await this.lab.ip(natOf(site), `address add ${address}/${PUBLIC_LENGTH} dev to-wan`);
    await this.lab.ip(natOf(site), `route add default via ${gatewayOf(site)}`);
    await this.#forgetFlows(site);
  }

  /** The site loses its address and its default route, as when a modem goes down. */
  async loseUplink(site: SiteName): Promise<void> {
    await this.lab.ip(site, `address flush dev to-${natOf(site)}`);
    this.#change(site, { hasUplink: false });
  }

  /** Another provider: another address of the site, another public address. */
  async gainUplink(site: SiteName): Promise<void> {
    if (this.#line(site).hasUplink) throw new Error(`${site} has its uplink`);
    this.#requireNat(site);
    this.#change(site, { hasUplink: true, uplinkNumber: this.#line(site).uplinkNumber + 1 });
    await this.changeWan(site);
    const { gateway, length } = uplinkOf(site, this.#line(site));
    await this.lab.ip(natOf(site), `address add ${gateway}/${length} dev to-${site}`);
    await this.#applyNat(site);
    await this.#addUplink(site);
  }

  /** Packets of up to so many bytes pass between the NAT of the site and the Internet. */
  async lowMtu(site: SiteName, bytes: number): Promise<void> {
    await this.lab.ip(natOf(site), `link set to-wan mtu ${bytes}`);
    await this.lab.ip('wan', `link set to-${natOf(site)} mtu ${bytes}`);
  }

  /** Loads rules in the syntax of `nft -f` in a namespace. */
  async nft(namespace: string, rules: string): Promise<void> {
    const { code, stderr } = await this.lab.exec(namespace, ['nft', '-f', '-'], { input: rules });
    if (code !== 0) throw new Error(`nft in ${namespace}: ${stderr}`);
  }

  async #buildWan(): Promise<void> {
    const { lab } = this;
    await lab.namespace('wan');
    await this.#forward('wan');
    for (const address of Object.values(WAN))
      await lab.ip('wan', `address add ${address}/32 dev lo`);
    for (const network of PRIVATE) await lab.ip('wan', `route add blackhole ${network}`);
  }

  async #buildSite(site: SiteName, nat: NatKind): Promise<void> {
    const { lab } = this;
    const line = NEW_LINE(nat);
    this.#lines.set(site, line);
    const uplink = uplinkOf(site, line);
    await lab.namespace(natOf(site));
    await lab.namespace(site);
    await this.#forward(natOf(site));
    await this.#forward(site);
    await lab.link(
      'wan',
      natOf(site),
      [`${gatewayOf(site)}/${PUBLIC_LENGTH}`],
      [`${publicOf(site, line)}/${PUBLIC_LENGTH}`],
    );
    await lab.link(natOf(site), site, [`${uplink.gateway}/${uplink.length}`], []);
    for (const [namespace, device] of [
      ['wan', `to-${natOf(site)}`],
      [natOf(site), 'to-wan'],
      [natOf(site), `to-${site}`],
      [site, `to-${natOf(site)}`],
    ] as const) {
      // On no real line is a train of segments one packet, which is lost or too large as a whole.
      await lab.ip(namespace, `link set ${device} gso_max_segs 1`);
    }
    await lab.ip(natOf(site), `route add default via ${gatewayOf(site)}`);
    await this.#addUplink(site);
    if (nat === 'none') {
      await lab.ip('wan', `route add ${publicLanOf(site)} via ${publicOf(site, line)}`);
    }
    await this.#applyNat(site);
  }

  async #addUplink(site: SiteName): Promise<void> {
    const { site: address, gateway, length } = uplinkOf(site, this.#line(site));
    await this.lab.ip(site, `address add ${address}/${length} dev to-${natOf(site)}`);
    await this.lab.ip(site, `route replace default via ${gateway}`);
  }

  async #buildLan(site: SiteName): Promise<void> {
    const { gateway, host } = this.lanOf(site);
    const namespace = `host-${site}`;
    await this.lab.namespace(namespace);
    await this.lab.link(site, namespace, [`${gateway}/24`], [`${host}/24`]);
    await this.lab.ip(namespace, `route add default via ${gateway}`);
  }

  async #forward(namespace: string): Promise<void> {
    const command = ['sh', '-c', 'echo 1 > /proc/sys/net/ipv4/ip_forward'];
    const { code, stderr } = await this.lab.exec(namespace, command);
    if (code !== 0) throw new Error(stderr);
  }

  async #applyNat(site: SiteName): Promise<void> {
    const allowed = [
      { address: WAN.proxy, port: 3128 },
      { address: WAN.broker, port: 1883 },
    ];
    const line = this.#line(site);
    const inside = uplinkOf(site, line).site;
    await this.nft(natOf(site), natRules({ kind: line.nat, outside: 'to-wan', inside, allowed }));
  }

  async #applyTrouble(site: SiteName, trouble: Partial<LineTrouble>): Promise<void> {
    this.#change(site, { trouble: { ...this.#line(site).trouble, ...trouble } });
    await this.nft(natOf(site), troubleRules(this.#line(site).trouble));
  }

  async #forgetFlows(site: SiteName): Promise<void> {
    const { code, stderr } = await this.lab.exec(natOf(site), ['conntrack', '-F']);
    if (code !== 0) throw new Error(stderr);
  }

  #line(site: SiteName): Line {
    const line = this.#lines.get(site);
    if (line === undefined) throw new Error(`no site ${site}`);
    return line;
  }

  #change(site: SiteName, changes: Partial<Line>): void {
    this.#lines.set(site, { ...this.#line(site), ...changes });
  }

  #requireNat(site: SiteName): void {
    if (this.#line(site).nat === 'none') throw new Error(`there is no NAT before ${site}`);
  }
}

const NEW_LINE = (nat: NatKind): Line => ({
  nat,
  trouble: { isCut: false, lossPercent: 0 },
  publicNumber: 0,
  uplinkNumber: 0,
  hasUplink: true,
});

/** RFC 1918: the Internet has no route to them. */
const PRIVATE = ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16'];

/** A site has a documentation network: the lower half joins it to the Internet, the upper is its own. */
const PUBLIC_LENGTH = 25;
const PUBLIC: Readonly<Record<SiteName, string>> = { a: '192.0.2', b: '198.51.100' };

function networkOf(site: SiteName): string {
  return `${PUBLIC[site]}.0/24`;
}

function publicLanOf(site: SiteName): string {
  return `${PUBLIC[site]}.128/${PUBLIC_LENGTH}`;
}

function gatewayOf(site: SiteName): string {
  return `${PUBLIC[site]}.1`;
}

function publicOf(site: SiteName, { publicNumber }: Line): string {
  return `${PUBLIC[site]}.${2 + publicNumber}`;
}

/** The addresses between a site and its NAT. */
function uplinkOf(site: SiteName, { nat, uplinkNumber }: Line): Uplink {
  if (nat === 'none') {
    const net = PUBLIC[site];
    return { gateway: `${net}.129`, site: `${net}.130`, length: PUBLIC_LENGTH };
  }
  const net = `10.${numberOf(site)}.${uplinkNumber}`;
  return { gateway: `${net}.1`, site: `${net}.2`, length: 24 };
}

interface Uplink {
  readonly gateway: string;
  readonly site: string;
  readonly length: number;
}

function natOf(site: SiteName): string {
  return `nat-${site}`;
}

function numberOf(site: SiteName): number {
  return SITE_NAMES.indexOf(site) + 1;
}
