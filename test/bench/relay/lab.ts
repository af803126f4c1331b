import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { Broker } from '../../lab/broker.ts';
import { FleetInLab } from '../../lab/fleet.ts';
import { Lab } from '../../lab/namespaces.ts';
import { blockRules } from '../../lab/nat.ts';
import { Relay } from '../../lab/relay.ts';

/** Where the sites, the relay and the broker are; the latter two in the middle. */
export const ADDRESS = {
  a: '192.0.2.1',
  b: '198.51.100.1',
  relay: '203.0.113.10',
  broker: '203.0.113.30',
} as const;

const GATEWAY = { a: '192.0.2.254', b: '198.51.100.254' } as const;
export const SITES = ['a', 'b'] as const;

export interface RelayLab {
  readonly lab: Lab;
  readonly relay: Relay;
  readonly fleet: FleetInLab;
  readonly directory: string;
}

/**
 * Runs the work in a fresh lab: sites `a` and `b`, and `wan` between them, which routes and has a coturn
 * and a broker. Unless told otherwise UDP from site to site is dropped there.
 */
export async function inRelayLab<Result>(
  under: string,
  { isDirect }: { readonly isDirect: boolean },
  work: (parts: RelayLab) => Promise<Result>,
): Promise<Result> {
  const directory = mkdtempSync(join(under, 'paths-'));
  const lab = await Lab.create('culvert-paths');
  try {
    for (const name of ['wan', ...SITES]) await lab.namespace(name);
    for (const site of SITES) {
      await lab.link('wan', site, [`${GATEWAY[site]}/24`], [`${ADDRESS[site]}/24`]);
      await lab.ip(site, `route add default via ${GATEWAY[site]}`);
    }
    for (const address of [ADDRESS.relay, ADDRESS.broker]) {
      await lab.ip('wan', `address add ${address}/32 dev lo`);
    }
    await succeed(lab, 'wan', ['sysctl', '-qw', 'net.ipv4.ip_forward=1']);
    if (!isDirect) {
      await succeed(lab, 'wan', ['nft', '-f', '-'], blockRules([[ADDRESS.a, ADDRESS.b]]));
    }
    const [relay, broker] = await Promise.all([
      Relay.start(lab, 'wan', directory, { address: ADDRESS.relay }),
      Broker.start(lab, 'wan', directory, ADDRESS.broker),
    ]);
    const fleet = await FleetInLab.create(lab, 'wan', directory, broker);
    return await work({ lab, relay, fleet, directory });
  } finally {
    await lab.destroy();
  }
}

/**
 * From now on the lines of the sites carry 1 Gbit/s each way, with a queue of 2 ms. Trains leave them
 * datagram by datagram, as they do on every line.
 */
export async function shapeLines({ lab }: RelayLab): Promise<void> {
  const filter = 'root tbf rate 1gbit burst 64kb latency 2ms'.split(' ');
  for (const site of SITES) {
    await succeed(lab, site, ['tc', 'qdisc', 'add', 'dev', 'to-wan', ...filter]);
    await succeed(lab, 'wan', ['tc', 'qdisc', 'add', 'dev', `to-${site}`, ...filter]);
  }
}

/** Runs a command to its end and returns what it printed. Rejects where it fails. */
export async function succeed(
  lab: Lab,
  namespace: string,
  command: readonly string[],
  input?: string,
): Promise<string> {
  const options = input === undefined ? {} : { input };
  const { stdout, stderr, code } = await lab.exec(namespace, command, options);
  if (code !== 0) throw new Error(`${command.join(' ')}: ${stderr.trim()}`);
  return stdout;
}
