import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import type { Broker } from './broker.ts';
import { eventually } from './daemon.ts';
import { Download, type DownloadOptions } from './download.ts';
import { FleetInLab, type FleetDevice } from './fleet.ts';
import { Internet, SITE_NAMES, type SiteName } from './internet.ts';
import type { NatKind } from './nat.ts';
import type { Proxy } from './proxy.ts';
import type { Relay } from './relay.ts';

export interface PathSitesOptions {
  readonly nats: Readonly<Record<SiteName, NatKind>>;
  /** How the relay is reached; UDP by default. TLS is at port 443. */
  readonly relays?: readonly ('udp' | 'tcp' | 'tls')[];
  /** Whether there is a proxy although no NAT needs one yet. */
  readonly proxy?: boolean;
  /** TCP port on which the daemons take streams; 0, off, by default. */
  readonly streamPort?: number;
}

/**
 * Two sites of a fleet on an `Internet`, with a host behind each, that know of each other by the
 * fleet alone: no endpoints, a relay, a broker, and the proxy where a NAT lets nothing else pass.
 */
export class PathSites {
  readonly internet: Internet;
  readonly relay: Relay;
  readonly broker: Broker;
  readonly fleet: FleetInLab;
  readonly devices: Readonly<Record<SiteName, FleetDevice>>;
  readonly #options: PathSitesOptions;
  readonly #proxy: Proxy | undefined;

  static async create(t: Test, prefix: string, options: PathSitesOptions): Promise<PathSites> {
    const internet = await Internet.create(t, prefix, { nats: options.nats, lans: true });
    const isNeeded = SITE_NAMES.some((site) => options.nats[site] === 'only443ViaProxy');
    const needsProxy = options.proxy ?? isNeeded;
    const [relay, broker, proxy] = await Promise.all([
      internet.startRelay({ tlsPort: 443 }),
      internet.startBroker(),
      needsProxy ? internet.startProxy() : undefined,
    ]);
    const fleet = await FleetInLab.create(internet.lab, 'wan', internet.directory, broker);
    const devices = {
      a: await fleet.device(deviceOf('a'), 'a'),
      b: await fleet.device(deviceOf('b'), 'b'),
    };
    for (const { daemon } of Object.values(devices)) {
      daemon.environment = { NODE_EXTRA_CA_CERTS: relay.certificate };
    }
    return new PathSites({ internet, relay, broker, fleet, devices }, options, proxy);
  }

  private constructor(
    parts: Pick<PathSites, 'internet' | 'relay' | 'broker' | 'fleet' | 'devices'>,
    options: PathSitesOptions,
    proxy: Proxy | undefined,
  ) {
    this.internet = parts.internet;
    this.relay = parts.relay;
    this.broker = parts.broker;
    this.fleet = parts.fleet;
    this.devices = parts.devices;
    this.#options = options;
    this.#proxy = proxy;
  }

  /** The whole configuration of a site; `own` replaces members, `peer` values of the only peer. */
  configurationOf(site: SiteName, own: object = {}, peer: object = {}): object {
    const other = otherOf(site);
    const { relays = ['udp'], streamPort = 0 } = this.#options;
    const isProxied = this.internet.natOf(site) === 'only443ViaProxy';
    return {
      interface: {
        name: this.internet.interfaceOf(site),
        addresses: [`${tunnelAddressOf(site)}/32`],
      },
      peers: [
        {
          id: deviceOf(other),
          kind: 'culvert',
          publicKey: this.devices[other].keys.publicKey,
          allowedIps: [`${tunnelAddressOf(other)}/32`, this.internet.lanOf(other).network],
          ...peer,
        },
      ],
      relays: relays.map((transport) => this.relay.configuration(transport)),
      streams: {
        listenPort: streamPort,
        ...(isProxied && this.#proxy !== undefined ? { proxy: this.#proxy.url } : {}),
      },
      ...own,
    };
  }

  /** Gives each device its configuration, by the broker, and starts both. They need not have met. */
  async start(
    configurationOf: (site: SiteName) => object = (site) => this.configurationOf(site),
    ...options: readonly string[]
  ): Promise<void> {
    for (const site of SITE_NAMES) await this.fleet.push(deviceOf(site), configurationOf(site));
    await Promise.all(SITE_NAMES.map((site) => this.devices[site].start(...options)));
  }

  /** Waits for an answer from one LAN to the other. Returns how long it took, in milliseconds. */
  async meet(timeoutMs: number): Promise<number> {
    const { lab } = this.internet;
    const started = performance.now();
    const ping = ['ping', '-n', '-c', '1', '-W', '1', this.internet.lanOf('b').host];
    while (performance.now() - started < timeoutMs) {
      const { code } = await lab.exec('host-a', ping);
      if (code === 0) return performance.now() - started;
    }
    const status = await Promise.all(SITE_NAMES.map((site) => this.devices[site].daemon.status()));
    throw new Error(`no tunnel in ${timeoutMs} ms: ${JSON.stringify(status.map((s) => s.peers))}`);
  }

  /** How a site sends to the other one now, as it says itself: `relayed by turn:…`. */
  async pathOf(site: SiteName): Promise<string> {
    const { peers } = await this.devices[site].daemon.status();
    const path = peers.find(({ id }) => id === deviceOf(otherOf(site)))?.path;
    if (path?.kind === undefined) return 'none';
    return path.relay === undefined ? path.kind : `${path.kind} by ${path.relay}`;
  }

  /** Waits until each site sends by a path that matches. */
  async usesPath(pattern: RegExp, timeoutMs: number): Promise<void> {
    for (const site of SITE_NAMES) {
      await eventually(
        () => this.pathOf(site),
        (path) => pattern.test(path),
        timeoutMs,
      );
    }
  }

  /** Stops both daemons as a shutdown does, and lets them forget where they last met. */
  async stopAndForget(): Promise<void> {
    for (const { daemon } of Object.values(this.devices)) {
      await daemon.stop();
      rmSync(join(daemon.directory, 'candidates.json'), { force: true });
    }
  }

  /** What a daemon dropped, by reason. */
  async dropsOf(site: SiteName): Promise<Readonly<Record<string, number>>> {
    return (await this.devices[site].daemon.status()).drops;
  }

  /** A file comes from the host behind `b` to the one behind `a`. */
  async download(options: Pick<DownloadOptions, 'bytes' | 'bytesPerSecond'>): Promise<Download> {
    const address = this.internet.lanOf('b').host;
    const ends = { server: 'host-b', client: 'host-a', address };
    return Download.start(this.internet.lab, { ...ends, ...options });
  }
}

export function otherOf(site: SiteName): SiteName {
  return site === 'a' ? 'b' : 'a';
}

/** The name of the device in the fleet, which is also its id as a peer. */
export function deviceOf(site: SiteName): string {
  return `router-${site}`;
}

export function tunnelAddressOf(site: SiteName): string {
  return `100.64.0.${SITE_NAMES.indexOf(site) + 1}`;
}
