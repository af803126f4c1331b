import { mkdtempSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { Authority, MOSQUITTO } from '../interop/mosquitto-broker.ts';
import type { DaemonInLab } from '../lab/daemon.ts';
import type { Lab } from '../lab/namespaces.ts';
import { attempt, type Bench, type BenchContext } from './bench-definition.ts';
import { TUNNEL, VETH } from './contestants/contestant.ts';
import { configured } from './contestants/culvert.ts';
import { inJoinedNamespaces } from './joined-namespaces.ts';
import { cpuSeconds, memoryUsage } from './process-usage.ts';
import { less, type Samples } from './samples.ts';
import { tcp } from './traffic.ts';

const M = {
  residentIdle: less('resident, idle', 'MB'),
  privateIdle: less('private, idle', 'MB'),
  cpuIdle: less('CPU, idle', 'ms/s'),
  residentLoaded: less('resident, after TCP at full speed', 'MB'),
  privateLoaded: less('private, after TCP at full speed', 'MB'),
} as const;

const BARE = 'bare node';
const ALONE = 'culvert, 1 peer';
const FLEET = 'culvert, 1 peer, fleet over TLS';
const THOUSAND = 'culvert, 1,000 idle peers';

/** What a daemon costs that does little: against a bare Node.js, which only waits. */
export const memory: Bench = {
  name: 'memory',
  title: 'Memory and idle CPU of a daemon',
  baseline: BARE,
  metrics: Object.values(M),
  goals,
  async run(context) {
    for (let round = 0; round < context.rounds; round++) {
      context.say(`round ${round + 1} of ${context.rounds}`);
      for (const [subject, measure] of Object.entries(MEASURES)) {
        await attempt(context, subject, () => inJoinedNamespaces((lab) => measure(lab, context)));
      }
    }
  },
};

function goals(samples: Samples) {
  const extra = samples.median(FLEET, M.residentIdle) - samples.median(BARE, M.residentIdle);
  const peers = samples.median(THOUSAND, M.residentIdle) - samples.median(ALONE, M.residentIdle);
  return [
    { what: `${FLEET}: more than ${BARE} (MB)`, measured: extra, wanted: { atMost: 15 } },
    {
      what: `${FLEET}: ${M.residentLoaded.name} (MB)`,
      measured: samples.median(FLEET, M.residentLoaded),
      wanted: { atMost: 60 },
    },
    { what: 'an idle peer (KB)', measured: (peers * 1024) / 1000, wanted: { atMost: 16 } },
    {
      what: `${THOUSAND}: CPU (ms/s)`,
      measured: samples.median(THOUSAND, M.cpuIdle),
      wanted: { atMost: 10 },
    },
  ];
}

const MEASURES: Readonly<Record<string, (lab: Lab, context: BenchContext) => Promise<void>>> = {
  [BARE]: async (lab, context) => {
    const running = lab.spawn('a', [process.execPath, '-e', 'setInterval(() => {}, 2 ** 30)']);
    await measureIdle(running.pid, BARE, context);
  },

  [ALONE]: async (lab, context) => {
    const { a, b } = await configured(lab, context.directory);
    await b.start();
    const running = a.spawn();
    await running.waitFor(/peer connected/, 15_000);
    await measureIdle(running.pid, ALONE, context);
    await measureLoaded(lab, running.pid, ALONE, context);
  },

  [FLEET]: async (lab, context) => {
    // The device keeps what a fleet told it, so each round has another.
    const directory = mkdtempSync(join(context.directory, 'fleet-'));
    const { a, b } = await configured(lab, directory);
    await b.start();
    const pid = await startInFleet(lab, a, directory);
    await measureIdle(pid, FLEET, context);
    await measureLoaded(lab, pid, FLEET, context);
  },

  [THOUSAND]: async (lab, context) => {
    const { a } = await configured(lab, context.directory);
    a.configure({
      interface: { name: 'cvt-bench-a', addresses: [`${TUNNEL.a}/24`] },
      peers: Array.from({ length: 1000 }, (_, i) => ({
        id: `p${i}`,
        // Any 32 bytes are a public key, but for a few.
        publicKey: Buffer.alloc(32, `peer ${i} `).toString('base64'),
        endpoint: `${VETH.b}:${10_000 + i}`,
        allowedIps: [`10.78.${i >> 8}.${i & 255}/32`],
      })),
    });
    const running = await a.start();
    await measureIdle(running.pid, THOUSAND, context);
  },
};

async function measureIdle(pid: number, subject: string, context: BenchContext): Promise<void> {
  const { samples, seconds } = context;
  await wait(SETTLE_MS);
  const before = cpuSeconds(pid);
  const started = performance.now();
  await wait(seconds * 1000);
  const passed = (performance.now() - started) / 1000;
  samples.add(subject, M.cpuIdle, ((cpuSeconds(pid) - before) * 1000) / passed);
  const { residentMb, privateMb } = memoryUsage(pid);
  samples.add(subject, M.residentIdle, residentMb);
  samples.add(subject, M.privateIdle, privateMb);
}

const SETTLE_MS = 2000;

async function measureLoaded(
  lab: Lab,
  pid: number,
  subject: string,
  { samples, seconds }: BenchContext,
): Promise<void> {
  const route = { lab, from: 'a', to: 'b', address: TUNNEL.b };
  await tcp(route, { seconds });
  await tcp(route, { seconds, isReverse: true });
  const { residentMb, privateMb } = memoryUsage(pid);
  samples.add(subject, M.residentLoaded, residentMb);
  samples.add(subject, M.privateLoaded, privateMb);
}

const OPERATOR: readonly string[] = [process.execPath, 'dist/culvert-fleet.cjs'];
const FLEET_NAME = 'bench';
const DEVICE = 'a';

/**
 * Starts the daemon with a bootstrap only; its configuration comes from an operator through Mosquitto,
 * with client certificates. Returns its process id when it has a session.
 */
async function startInFleet(lab: Lab, daemon: DaemonInLab, path: string): Promise<number> {
  const write = (name: string, text: string): string => {
    writeFileSync(join(path, name), text, { mode: 0o600 });
    return join(path, name);
  };
  const directory = { path, write, remove: () => undefined };
  const authority = new Authority(directory, 'bench-ca');
  authority.issue('broker', `IP:${VETH.b}`);
  authority.issue('device');
  authority.issue('operator');
  const configuration = write(
    'mosquitto.conf',
    [
      `listener 8883 ${VETH.b}`,
      'user root',
      `cafile ${authority.path('crt')}`,
      `certfile ${authority.path('crt', 'broker')}`,
      `keyfile ${authority.path('key', 'broker')}`,
      'require_certificate true',
      'use_identity_as_username true',
      '',
    ].join('\n'),
  );
  const broker = lab.spawn('b', [MOSQUITTO, '-c', configuration]);
  await broker.waitFor(/running/, 10_000);

  const url = `mqtts://${VETH.b}:8883`;
  const operatorKey = join(path, 'signing.key');
  const keygen = await operate(lab, `keygen --out ${operatorKey} --json`);
  const { publicKey } = JSON.parse(keygen) as { publicKey: string };
  const keys = await daemon.keys();
  const bootstrap = write(
    'bootstrap.json',
    JSON.stringify({
      fleet: FLEET_NAME,
      device: DEVICE,
      brokers: [url],
      operatorKeys: [publicKey],
      ca: authority.path('crt'),
      certificate: authority.path('crt', 'device'),
      privateKey: authority.path('key', 'device'),
    }),
  );
  const running = daemon.spawnWith('--bootstrap', bootstrap);
  await running.waitFor(/connected to a broker/, 15_000);

  const device = `--device ${DEVICE} --fleet ${FLEET_NAME} --version 1`;
  const signing = `sign --key ${operatorKey} ${device} ${daemon.configurationFile}`;
  const envelope = write('envelope.json', await operate(lab, signing));
  const [certificate, privateKey] = [
    authority.path('crt', 'operator'),
    authority.path('key', 'operator'),
  ];
  const tls = `--ca ${authority.path('crt')} --cert ${certificate} --key ${privateKey}`;
  const report = `--device-key ${DEVICE}=${keys.signingPublicKey} --wait 10`;
  await operate(lab, `push --broker ${url} ${tls} ${report} ${envelope}`);
  await running.waitFor(/peer connected/, 15_000);
  return running.pid;
}

/** Runs `culvert-fleet` with the words of `command`. */
async function operate(lab: Lab, command: string): Promise<string> {
  const words = [...OPERATOR, ...command.split(' ')];
  const { stdout, stderr, code } = await lab.exec('b', words, { timeoutMs: 30_000 });
  if (code !== 0) throw new Error(`culvert-fleet ${command}: ${stderr.trim()}`);
  return stdout;
}
