import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Status } from '../../core/engine/status.ts';
import { formatTable } from '../../openwrt/table.ts';
import { Lab, type CommandResult } from '../lab/namespaces.ts';

/**
 * Two sites that know nothing but their bootstrap, a broker and an operator:
 *
 *   host-a ── router-a ── internet ── router-b ── host-b
 *   192.168.10.2          203.0.113.1             192.168.20.2
 *              203.0.113.0/24   198.51.100.0/24
 *
 * The internet has no route to the LANs: what arrives there came through the tunnel.
 */
const SITES = [
  {
    device: 'router-a',
    host: 'host-a',
    wan: '203.0.113.2',
    gateway: '203.0.113.1',
    lan: 10,
    tunnel: '100.64.0.1',
    interface: 'culvert-a',
  },
  {
    device: 'router-b',
    host: 'host-b',
    wan: '198.51.100.2',
    gateway: '198.51.100.1',
    lan: 20,
    tunnel: '100.64.0.2',
    interface: 'culvert-b',
  },
] as const;
type Site = (typeof SITES)[number];
const [SITE_A, SITE_B] = SITES;

const FLEET = 'demo';
const BROKER = 'mqtt://203.0.113.1:1883';
/** A name that only the site of B knows, and the server behind it. */
const APP = 'app.site-b.example';
const APP_PAGE = 'Hello from the other site';
const FILE_BYTES = 64 * 2 ** 20;
const CULVERT = ['node', 'dist/culvert.cjs'];
const OPERATOR = ['node', 'dist/culvert-fleet.cjs'];

/** Where keys, logs and sockets of the demo lie while it runs. */
const DIRECTORY = join(tmpdir(), 'culvert-demo');

/** Runs the demo and returns the exit code. `keep` leaves everything running until Ctrl-C. */
export async function demo(options: { readonly keep: boolean }): Promise<number> {
  const other = otherDemo();
  if (other !== undefined) {
    console.error(`A demo runs already (process ${other}): end it first with Ctrl-C.`);
    return 1;
  }
  rmSync(DIRECTORY, { recursive: true, force: true });
  mkdirSync(DIRECTORY, { mode: 0o700 });
  writeFileSync(join(DIRECTORY, 'pid'), String(process.pid));
  // Also on signals, which the lab passes on to the process after it has cleaned up.
  process.on('exit', () => rmSync(DIRECTORY, { recursive: true, force: true }));
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => {
      rmSync(DIRECTORY, { recursive: true, force: true });
      console.log(`\nEnded by ${signal}; namespaces, processes and files are removed.`);
    });
  }
  const lab = await Lab.create('culvert-demo');
  try {
    await run(lab, DIRECTORY);
    if (options.keep) await keepUntilInterrupted(DIRECTORY);
    return 0;
  } catch (error) {
    console.error(`\nThe demo failed: ${error instanceof Error ? error.message : String(error)}`);
    printLogs(DIRECTORY);
    return 1;
  } finally {
    await lab.destroy();
  }
}

/** Returns the process id of a demo that is still running. */
function otherDemo(): number | undefined {
  try {
    const pid = Number(readFileSync(join(DIRECTORY, 'pid'), 'utf8'));
    // The number may be another program's by now.
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('demo') ? pid : undefined;
  } catch {
    // There is none, or it ended without cleaning up, which is made up for now.
    return undefined;
  }
}

async function run(lab: Lab, directory: string): Promise<void> {
  await step('Building two sites and an internet between them', () => buildNetwork(lab));
  await step('Starting an MQTT broker (embedded, 3.1.1)', () => startBroker(lab));
  const operatorKey = await step('Making the operator key', () => makeOperatorKey(lab, directory));
  const keys = await step('Making the device keys', () => makeDeviceKeys(lab, directory));
  await step('Starting one daemon per site, with only a bootstrap', () =>
    startDaemons(lab, directory, operatorKey),
  );
  const versions = await step('Signing the desired states and pushing them over MQTT', () =>
    pushDesired(lab, directory, keys),
  );
  const rtt = await step(`Pinging ${SITE_B.host} from ${SITE_A.host}`, () => ping(lab));
  const path = await step('Asking the daemon for the path', () => pathOf(lab, directory));
  const page = await step(`Fetching http://${APP}/ by name`, () => fetchByName(lab));
  const download = await step('Downloading a file over HTTP, with checksum', () => fetchFile(lab));
  const iperf = await step('Measuring with iperf3', () => measure(lab));

  const rows = [
    ['WHAT', 'RESULT'],
    ['path', `${SITE_A.device} → ${path.path?.remote} (${path.state}, ${path.path?.kind} UDP)`],
    ['handshake', path.handshakeMs === undefined ? '-' : `${path.handshakeMs.toFixed(1)} ms`],
    ['round trip', `${rtt} ms (LAN host to LAN host)`],
    ['by name', page],
    ['download', download],
    ['throughput', iperf],
    ...versions,
  ];
  console.log(`\n${formatTable(rows)}\n\nThe demo succeeded.`);
}

async function buildNetwork(lab: Lab): Promise<void> {
  await lab.namespace('internet');
  await forward(lab, 'internet');
  for (const site of SITES) {
    await lab.namespace(site.device);
    await lab.namespace(site.host);
    await forward(lab, site.device);
    await lab.link('internet', site.device, [`${site.gateway}/24`], [`${site.wan}/24`]);
    await lab.link(site.device, site.host, [`192.168.${site.lan}.1/24`], [`${hostOf(site)}/24`]);
    await lab.ip(site.device, `route add default via ${site.gateway}`);
    await lab.ip(site.host, `route add default via 192.168.${site.lan}.1`);
  }
}

async function forward(lab: Lab, namespace: string): Promise<void> {
  await succeed(lab, namespace, ['sh', '-c', 'echo 1 > /proc/sys/net/ipv4/ip_forward']);
}

async function startBroker(lab: Lab): Promise<void> {
  const broker = lab.spawn('internet', ['node', 'test/demo/broker.mjs', '0.0.0.0', '1883']);
  await broker.waitFor(/listening/, 10_000);
}

async function makeOperatorKey(lab: Lab, directory: string): Promise<string> {
  const keygen = [...OPERATOR, 'keygen', '--out', join(directory, 'operator.key'), '--json'];
  const { publicKey } = JSON.parse(await succeed(lab, 'internet', keygen)) as { publicKey: string };
  return publicKey;
}

interface DeviceKeys {
  readonly publicKey: string;
  readonly signingPublicKey: string;
}

async function makeDeviceKeys(lab: Lab, directory: string): Promise<Map<string, DeviceKeys>> {
  const keys = new Map<string, DeviceKeys>();
  for (const { device } of SITES) {
    const keygen = [...CULVERT, 'keygen', '--state-dir', stateOf(directory, device), '--json'];
    keys.set(device, JSON.parse(await succeed(lab, device, keygen)) as DeviceKeys);
  }
  return keys;
}

async function startDaemons(lab: Lab, directory: string, operatorKey: string): Promise<void> {
  for (const { device } of SITES) {
    const bootstrap = { fleet: FLEET, device, brokers: [BROKER], operatorKeys: [operatorKey] };
    const file = join(directory, `${device}.bootstrap.json`);
    writeFileSync(file, JSON.stringify(bootstrap));
    const daemon = lab.spawn(device, [
      ...CULVERT,
      'run',
      '--bootstrap',
      file,
      '--state-dir',
      stateOf(directory, device),
      '--socket',
      socketOf(directory, device),
      '--log-dir',
      join(directory, `${device}.log`),
    ]);
    await daemon.waitFor(/connected to a broker/, 15_000);
  }
}

/** Each site learns of the other and of the LAN behind it. Returns a row per device. */
async function pushDesired(
  lab: Lab,
  directory: string,
  keys: Map<string, DeviceKeys>,
): Promise<string[][]> {
  const rows: string[][] = [];
  for (const [own, other] of [
    [SITE_A, SITE_B],
    [SITE_B, SITE_A],
  ] as const) {
    const resources = own === SITE_A ? USED_BY_A : SERVED_BY_B;
    const configuration = {
      schema: 1,
      // wg finds a userspace interface by its name, machine-wide: two of one name hide each other.
      interface: { name: own.interface, addresses: [`${own.tunnel}/32`] },
      peers: [
        {
          id: other.device,
          kind: 'culvert',
          publicKey: keys.get(other.device)?.publicKey,
          endpoint: `${other.wan}:51820`,
          allowedIps: [`${other.tunnel}/32`, `192.168.${other.lan}.0/24`],
        },
      ],
      site: { lans: [`to-${own.host}`] },
      ...resources,
    };
    const file = join(directory, `${own.device}.json`);
    writeFileSync(file, JSON.stringify(configuration, undefined, 2));
    const sign = ['sign', '--key', join(directory, 'operator.key'), '--fleet', FLEET];
    const envelope = await succeed(lab, 'internet', [
      ...OPERATOR,
      ...sign,
      '--device',
      own.device,
      '--version',
      '1',
      file,
    ]);
    const envelopeFile = join(directory, `${own.device}.envelope.json`);
    writeFileSync(envelopeFile, envelope);
    const deviceKey = `${own.device}=${keys.get(own.device)?.signingPublicKey}`;
    const push = ['push', '--broker', BROKER, '--wait', '20', '--device-key', deviceKey, '--json'];
    const reported = await succeed(lab, 'internet', [...OPERATOR, ...push, envelopeFile], 30_000);
    rows.push([`${own.device} reports`, reportOf(reported)]);
  }
  return rows;
}

/** Host A uses a name of site B through its router, to which its queries are sent. */
const USED_BY_A = {
  resources: [{ id: 'app', type: 'dns', patterns: [APP], gateways: [SITE_B.device] }],
  dns: { mode: 'redirect' },
};

/** Site B offers the name, and its LAN, and says who may use them. */
const SERVED_BY_B = {
  resources: [
    { id: 'app', type: 'dns', patterns: [APP], filters: [{ protocol: 'tcp', ports: ['80'] }] },
    { id: 'lan', type: 'cidr', prefixes: [`192.168.${SITE_B.lan}.0/24`] },
  ],
  authorizations: [
    { peer: SITE_A.device, resource: 'app' },
    { peer: SITE_A.device, resource: 'lan' },
  ],
  dns: { upstreams: [hostOf(SITE_B)] },
};

function reportOf(output: string): string {
  const last = output.trim().split('\n').at(-1) ?? '{}';
  const { payload } = JSON.parse(last) as { payload?: { phase: string; appliedVersion: number } };
  return `version ${payload?.appliedVersion} ${payload?.phase} (its signature verified)`;
}

async function ping(lab: Lab): Promise<string> {
  // The first packet starts the handshake; it waits for it and is not lost.
  await succeed(lab, SITE_A.host, ['ping', '-c', '1', '-W', '5', hostOf(SITE_B)]);
  const output = await succeed(lab, SITE_A.host, [
    'ping',
    '-c',
    '5',
    '-i',
    '0.2',
    '-W',
    '5',
    hostOf(SITE_B),
  ]);
  const [, average] = /= [\d.]+\/([\d.]+)\//.exec(output) ?? [];
  if (average === undefined || !output.includes(' 0% packet loss')) throw new Error(output);
  return average;
}

async function pathOf(lab: Lab, directory: string): Promise<Status['peers'][number]> {
  const command = [...CULVERT, 'status', '--json', '--socket', socketOf(directory, SITE_A.device)];
  const status = JSON.parse(await succeed(lab, SITE_A.device, command)) as Status;
  const [peer] = status.peers;
  if (peer?.state !== 'connected') throw new Error(`not connected: ${JSON.stringify(status)}`);
  return peer;
}

async function fetchByName(lab: Lab): Promise<string> {
  const names = ['node', 'test/demo/name-server.mjs', hostOf(SITE_B), APP, hostOf(SITE_B)];
  await lab.spawn(SITE_B.host, names).waitFor(/listening/, 10_000);
  const page = `require('http').createServer((_, r) => r.end('${APP_PAGE}'))`;
  const web = `${page}.listen(80, '${hostOf(SITE_B)}', () => console.log('listening'))`;
  await lab.spawn(SITE_B.host, ['node', '-e', web]).waitFor(/listening/, 10_000);
  const router = `192.168.${SITE_A.lan}.1`;
  const fetch = ['node', 'test/demo/fetch-by-name.mjs', `http://${APP}/`, router];
  const { address, status, text } = JSON.parse(await succeed(lab, SITE_A.host, fetch, 15_000)) as {
    address: string;
    status: number;
    text: string;
  };
  if (status !== 200 || text !== APP_PAGE) throw new Error(`${address} said ${status}: ${text}`);
  return `http://${APP}/ at ${address} here, ${hostOf(SITE_B)} there: "${text}"`;
}

async function fetchFile(lab: Lab): Promise<string> {
  const serve = ['node', 'test/lab/file-server.mjs', '0.0.0.0', '8080', String(FILE_BYTES)];
  const server = lab.spawn(SITE_B.host, serve);
  const [, served] = await server.waitFor(/listening (\w+)/, 10_000);
  const download = ['node', 'test/lab/download.mjs', `http://${hostOf(SITE_B)}:8080/`];
  const { bytes, seconds, sha256 } = JSON.parse(
    await succeed(lab, SITE_A.host, download, 60_000),
  ) as { bytes: number; seconds: number; sha256: string };
  if (sha256 !== served) throw new Error(`the download is damaged: ${sha256}, not ${served}`);
  const rate = ((bytes * 8) / seconds / 1e9).toFixed(2);
  return `${bytes / 2 ** 20} MiB in ${seconds.toFixed(2)} s, ${rate} Gbit/s, SHA-256 ${sha256.slice(0, 16)}… right`;
}

async function measure(lab: Lab): Promise<string> {
  const server = lab.spawn(SITE_B.host, ['iperf3', '-s', '-1', '--forceflush']);
  try {
    await server.waitFor(/Server listening/, 3000);
  } catch {
    return 'not measured (iperf3 is not installed)';
  }
  const output = await succeed(
    lab,
    SITE_A.host,
    ['iperf3', '-c', hostOf(SITE_B), '-t', '3', '-J'],
    30_000,
  );
  const { end } = JSON.parse(output) as { end: { sum_received: { bits_per_second: number } } };
  return `${(end.sum_received.bits_per_second / 1e9).toFixed(2)} Gbit/s (iperf3, one TCP stream, 3 s)`;
}

/** The signal that ends it finds the lab's handlers, which clean up. */
async function keepUntilInterrupted(directory: string): Promise<never> {
  const socket = (device: string): string => socketOf(directory, device);
  console.log(`
Everything keeps running. Look around in another terminal, in this folder:

  ip netns exec culvert-demo.router-a ${CULVERT.join(' ')} status --socket ${socket('router-a')}
  ip netns exec culvert-demo.router-a wg show
  ip netns exec culvert-demo.host-a ping ${hostOf(SITE_B)}
  tail -f ${directory}/router-a.log/culvert.log | jq -r '"\\(.time) \\(.severity) \\(.message)"'
  ip netns exec culvert-demo.internet ${OPERATOR.join(' ')} watch --broker ${BROKER} --fleet ${FLEET}

Ctrl-C ends the demo and removes everything.`);
  return new Promise<never>(() => {
    // A pending timer keeps the process alive.
    setInterval(() => undefined, 2 ** 30);
  });
}

async function step<Result>(what: string, work: () => Promise<Result>): Promise<Result> {
  const started = performance.now();
  process.stdout.write(`${what} ... `);
  const result = await work();
  process.stdout.write(`done in ${((performance.now() - started) / 1000).toFixed(1)} s\n`);
  return result;
}

/** Runs a command in a namespace and returns what it printed; anything but success is an error. */
async function succeed(
  lab: Lab,
  namespace: string,
  command: readonly string[],
  timeoutMs = 15_000,
): Promise<string> {
  const result: CommandResult = await lab.exec(namespace, command, { timeoutMs });
  if (result.code !== 0) {
    throw new Error(
      `${command.join(' ')} ended with ${result.code}:\n${result.stderr}${result.stdout}`,
    );
  }
  return result.stdout;
}

function printLogs(directory: string): void {
  for (const { device } of SITES) {
    try {
      const log = readFileSync(join(directory, `${device}.log`, 'culvert.log'), 'utf8');
      console.error(`\nthe last lines of ${device}:\n${log.split('\n').slice(-15).join('\n')}`);
    } catch {
      // It has not written any yet.
    }
  }
}

function hostOf({ lan }: Site): string {
  return `192.168.${lan}.2`;
}

function stateOf(directory: string, device: string): string {
  const path = join(directory, `${device}.state`);
  mkdirSync(path, { recursive: true, mode: 0o700 });
  return path;
}

function socketOf(directory: string, device: string): string {
  return join(directory, `${device}.sock`);
}
