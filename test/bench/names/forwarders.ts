import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { DaemonInLab } from '../../lab/daemon.ts';
import type { Running } from '../../lab/namespaces.ts';
import type { Server } from './dnsperf.ts';
import { RESOURCE_ADDRESS, RESOURCE_ZONE } from './queries.ts';
import { ROUTER, UPSTREAM, type NamesScene } from './scene.ts';

/** A forwarder that runs. */
export interface Forwarder {
  readonly running: Running;
  readonly server: Server;
}

export const FORWARDERS: Readonly<Record<string, (scene: NamesScene) => Promise<Forwarder>>> = {
  culvert: startCulvert,
  dnsmasq: startDnsmasq,
};

const CULVERT_PORT = 5301;
const DNSMASQ_PORT = 5302;

/** About what fits into the 4 MB of our cache, and the most that dnsmasq takes without a warning. */
const CACHE_ENTRIES = 10_000;

/** The daemon with a resource of its own; the peer that serves it is not there, which no answer waits for. */
async function startCulvert({ lab, directory }: NamesScene): Promise<Forwarder> {
  const daemon = new DaemonInLab(lab, 'router', mkdtempSync(join(directory, 'culvert-')));
  await daemon.keys();
  daemon.configure({
    interface: { name: 'cvt-names', addresses: ['100.64.0.1/32'], listenPort: 51820 },
    peers: [
      {
        id: 'site',
        kind: 'culvert',
        publicKey: Buffer.alloc(32, 'site').toString('base64'),
        endpoint: `${UPSTREAM}:51820`,
        allowedIps: ['100.64.0.2/32'],
      },
    ],
    resources: [{ id: 'corp', type: 'dns', patterns: [`**.${RESOURCE_ZONE}`], gateways: ['site'] }],
    site: { lans: ['to-client'] },
    dns: { mode: 'redirect', listenPort: CULVERT_PORT, upstreams: [UPSTREAM] },
  });
  const running = daemon.spawn();
  await running.waitFor(/names of resources are answered/, 15_000);
  return { running, server: { address: ROUTER, port: CULVERT_PORT } };
}

/** As on a router, with all types kept as we do, and as many queries under way. */
async function startDnsmasq({ lab }: NamesScene): Promise<Forwarder> {
  const own = '--no-daemon -C /dev/null --user=root --no-hosts --no-resolv --cache-rr=ANY';
  const limits = `--cache-size=${CACHE_ENTRIES} --dns-forward-max=1000`;
  const names = `--server=${UPSTREAM} --address=/${RESOURCE_ZONE}/${RESOURCE_ADDRESS}`;
  const command = `dnsmasq --port=${DNSMASQ_PORT} ${own} ${limits} ${names}`;
  const running = lab.spawn('router', command.split(' '));
  await running.waitFor(/started/, 10_000);
  return { running, server: { address: ROUTER, port: DNSMASQ_PORT } };
}
