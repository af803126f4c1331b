import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { DaemonInLab } from './daemon.ts';
import { Lab, type Running } from './namespaces.ts';

/** One end of `TwoSites`: a daemon in the namespace of its name. */
export interface Site {
  readonly name: SiteName;
  readonly daemon: DaemonInLab;
  /** X25519, base64. */
  readonly publicKey: string;
  /** Unique on the machine: the socket for `wg` is named for it. */
  readonly device: string;
  /** The tunnel addresses, without length. */
  readonly ipv4: string;
  readonly ipv6: string;
  /** Where the other site finds this one, by the family outside the tunnel. */
  readonly endpoints: { readonly ipv4: string; readonly ipv6: string };
  /** The host behind it, in the namespace `host-<name>`, where there are LANs. */
  readonly lan: Lan;
}

export interface Lan {
  readonly networks: readonly string[];
  readonly ipv4: string;
  readonly ipv6: string;
}

export type SiteName = 'a' | 'b';

/**
 * Two daemons that know each other, joined by a veth pair, with a LAN behind each if asked for:
 *
 *   host-a ── a ── b ── host-b
 *
 * All of it, and the folder with their files, goes away with the test.
 */
export class TwoSites {
  readonly lab: Lab;
  readonly directory: string;
  readonly a: Site;
  readonly b: Site;
  readonly #outer: 'ipv4' | 'ipv6';
  readonly #hasLans: boolean;

  static async create(
    t: Test,
    prefix: string,
    options: { readonly outer?: 'ipv4' | 'ipv6'; readonly lans?: boolean } = {},
  ): Promise<TwoSites> {
    const { outer = 'ipv4', lans = false } = options;
    const directory = mkdtempSync(join(tmpdir(), `culvert-${prefix}-`));
    const lab = await Lab.create(prefix);
    t.teardown(async () => {
      await lab.destroy();
      rmSync(directory, { recursive: true, force: true });
    });
    await lab.namespace('a');
    await lab.namespace('b');
    await lab.link('a', 'b', ['10.9.0.1/24', 'fd09::1/64'], ['10.9.0.2/24', 'fd09::2/64']);
    const [a, b] = [
      await makeSite(lab, directory, prefix, 'a', 1),
      await makeSite(lab, directory, prefix, 'b', 2),
    ];
    for (const site of lans ? [a, b] : []) await makeLan(lab, site);
    return new TwoSites(lab, directory, a, b, { outer, hasLans: lans });
  }

  private constructor(
    lab: Lab,
    directory: string,
    a: Site,
    b: Site,
    options: { readonly outer: 'ipv4' | 'ipv6'; readonly hasLans: boolean },
  ) {
    this.lab = lab;
    this.directory = directory;
    this.a = a;
    this.b = b;
    this.#outer = options.outer;
    this.#hasLans = options.hasLans;
  }

  other(site: Site): Site {
    return site === this.a ? this.b : this.a;
  }

  /** The whole configuration of a site; `own` and `peer` replace values in it. */
  configurationOf(site: Site, own: object = {}, peer: object = {}): object {
    return {
      interface: {
        name: site.device,
        addresses: [`${site.ipv4}/32`, `${site.ipv6}/128`],
        ...own,
      },
      peers: [{ ...this.peerOf(site), ...peer }],
    };
  }

  /** What the site knows of the other one. */
  peerOf(site: Site): object {
    const other = this.other(site);
    const networks = this.#hasLans ? other.lan.networks : [];
    return {
      id: `site-${other.name}`,
      publicKey: other.publicKey,
      endpoint: other.endpoints[this.#outer],
      allowedIps: [`${other.ipv4}/32`, `${other.ipv6}/128`, ...networks],
    };
  }

  /** Starts both daemons with their configurations; returns when these run. */
  async start(...options: readonly string[]): Promise<void> {
    const sites = [this.a, this.b];
    for (const site of sites) site.daemon.configure(this.configurationOf(site));
    await Promise.all(sites.map(({ daemon }) => daemon.start(...options)));
  }

  /** Pings ten times a second until it is ended; returns when answers have come. */
  async startPings(from: string, to: string): Promise<Pings> {
    const running = this.lab.spawn(from, ['ping', '-n', '-i', '0.1', to]);
    await running.waitFor(/icmp_seq=2 /, 30_000);
    return new Pings(running);
  }

  /** Two pings; the first may wait for a handshake. */
  async ping(t: Test, from: string, to: string): Promise<void> {
    const command = ['ping', '-n', '-c', '2', '-i', '0.05', '-W', '10', to];
    const { code, stdout } = await this.lab.exec(from, command, { timeoutMs: 40_000 });
    t.equal(code, 0, `${to} answers ${from}${code === 0 ? '' : `: ${stdout}`}`);
  }
}

/** Pings that go on while something else happens. */
export class Pings {
  readonly #running: Running;

  constructor(running: Running) {
    this.#running = running;
  }

  /** Waits for an answer to a ping that is yet to be sent. */
  async next(): Promise<void> {
    const last = this.#running.lines.findLast((line) => line.includes('icmp_seq='));
    const sequence = Number(/icmp_seq=(\d+)/.exec(last ?? '')?.[1] ?? 0) + 2;
    const answered = Array.from({ length: 50 }, (_, i) => sequence + i).join('|');
    await this.#running.waitFor(new RegExp(`icmp_seq=(${answered}) .*time=`), 30_000);
  }

  /** Ends them; `lost` may count the one that was under way. */
  async end(): Promise<{ readonly sent: number; readonly lost: number }> {
    this.#running.signal('SIGINT');
    const [, sent, received] = await this.#running.waitFor(
      /(\d+) packets.* (\d+) received/,
      10_000,
    );
    return { sent: Number(sent), lost: Number(sent) - Number(received) };
  }
}

async function makeSite(
  lab: Lab,
  directory: string,
  prefix: string,
  name: SiteName,
  number: number,
): Promise<Site> {
  const daemon = new DaemonInLab(lab, name, join(directory, name));
  const { publicKey } = await daemon.keys();
  return {
    name,
    daemon,
    publicKey,
    device: `${prefix}-${name}`,
    ipv4: `100.64.0.${number}`,
    ipv6: `fd64::${number}`,
    endpoints: { ipv4: `10.9.0.${number}:51820`, ipv6: `[fd09::${number}]:51820` },
    lan: {
      networks: [`192.168.${number}.0/24`, `fd0${number}::/64`],
      ipv4: `192.168.${number}.2`,
      ipv6: `fd0${number}::2`,
    },
  };
}

async function makeLan(lab: Lab, { name, lan }: Site): Promise<void> {
  const host = `host-${name}`;
  const gateways = [lan.ipv4, lan.ipv6].map((address) => address.replace(/2$/, '1'));
  await lab.namespace(host);
  await lab.link(
    name,
    host,
    [`${gateways[0]}/24`, `${gateways[1]}/64`],
    [`${lan.ipv4}/24`, `${lan.ipv6}/64`],
  );
  for (const gateway of gateways) await lab.ip(host, `route add default via ${gateway}`);
  const forward =
    'echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding';
  await lab.exec(name, ['sh', '-c', forward]);
}
