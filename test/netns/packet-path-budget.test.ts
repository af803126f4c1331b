import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { DaemonInLab } from '../lab/daemon.ts';
import { whyNoLab, type Lab, type Running } from '../lab/namespaces.ts';
import { HOSTS, ResourceLab } from '../lab/resource-lab.ts';
import { TwoSites } from '../lab/two-sites.ts';

/*
 * What full load may cost apart from time: memory that is allocated, collections of the old space, and
 * system calls. All would grow with every object or call per packet.
 */

const skip = whyNoLab();

const WARM_UP_SECONDS = 10;
const LOAD_SECONDS = 15;
const PACKET_BYTES = 1400;
/** Bytes. Objects have 24 or more; what is allocated comes of batches of packets. */
const MOST_ALLOCATED_PER_PACKET = 24;
/** A call per packet would be 740 on each side. */
const MOST_CALLS_PER_MB = 80;
const TRACED_MEGABYTES = 100;
const NAME = 'app.site.example';

/** Two daemons, and the way of the traffic through both. */
interface Scene {
  readonly lab: Lab;
  readonly directory: string;
  /** The namespaces of client and server. */
  readonly from: string;
  readonly to: string;
  /** Of the server, as the client knows it. */
  readonly address: string;
  readonly daemons: readonly Running[];
}

for (const [what, build] of [
  ['routed traffic', routed],
  ['traffic through a proxy, with filters and translation on both sides', proxied],
] as const) {
  await t.test(what, { skip, timeout: 120_000 }, async (t) => {
    const scene = await build(t);
    await load(scene, WARM_UP_SECONDS);
    const warm = scene.daemons.map(({ lines }) => lines.length);
    const packets = (await load(scene, LOAD_SECONDS)) / PACKET_BYTES;
    for (const [i, { lines }] of scene.daemons.entries()) {
      const { major, allocated } = collectionsIn(lines.slice(warm[i]));
      const perPacket = allocated / packets;
      const told = `${perPacket.toFixed(2)} bytes for each of ${Math.round(packets)} packets`;
      t.comment(told);
      t.same(major, [], 'no collection of the old space');
      t.ok(perPacket < MOST_ALLOCATED_PER_PACKET, `allocates nothing per packet: ${told}`);
    }
    for (const calls of await countCalls(scene)) {
      const perMegabyte = calls.total / TRACED_MEGABYTES;
      t.comment(`${perMegabyte.toFixed(1)} calls a MB: ${calls.most}`);
      t.ok(calls.total > TRACED_MEGABYTES, 'strace saw them');
      t.ok(perMegabyte < MOST_CALLS_PER_MB, `few calls a MB: ${perMegabyte.toFixed(1)}`);
    }
  });
}

async function routed(t: Test): Promise<Scene> {
  const sites = await TwoSites.create(t, 'budget');
  const { lab, directory, a, b } = sites;
  for (const site of [a, b]) site.daemon.configure(sites.configurationOf(site));
  const daemons = await startTraced([a.daemon, b.daemon]);
  await lab.exec('a', ['ping', '-c', '1', '-W', '5', b.ipv4]);
  return { lab, directory, from: 'a', to: 'b', address: b.ipv4, daemons };
}

async function proxied(t: Test): Promise<Scene> {
  const scene = await ResourceLab.create(t, 'budget');
  const { lab, directory, a, gateway } = scene;
  await scene.startResolver([`${NAME},${HOSTS[0]!.ipv4}`]);
  const filters = [{ protocol: 'tcp', ports: ['80', '5201'] }];
  scene.configureResource({ id: 'app', type: 'dns', patterns: [NAME], filters });
  const daemons = await startTraced([a.daemon, gateway.daemon]);
  const [address = ''] = await scene.lookUp(a, NAME);
  return { lab, directory, from: 'lan-a', to: 'lan-gateway', address, daemons };
}

async function startTraced(daemons: readonly DaemonInLab[]): Promise<readonly Running[]> {
  return Promise.all(
    daemons.map((daemon) => {
      daemon.nodeFlags = ['--trace-gc'];
      return daemon.start();
    }),
  );
}

/** Fills the tunnel with one TCP stream; returns how many bytes arrived. */
async function load(scene: Scene, seconds: number): Promise<number> {
  return transfer(scene, ['-t', String(seconds)], (seconds + 20) * 1000);
}

async function transfer(
  { lab, from, to, address }: Scene,
  options: readonly string[],
  timeoutMs = 60_000,
): Promise<number> {
  const server = lab.spawn(to, ['iperf3', '-s', '-1', '--forceflush']);
  await server.waitFor(/Server listening/, 5000);
  const command = ['iperf3', '-c', address, '-J', ...options];
  const { stdout, code } = await lab.exec(from, command, { timeoutMs });
  const { end } = JSON.parse(stdout) as { end: { sum_received?: { bytes: number } } };
  if (end.sum_received === undefined) throw new Error(`iperf3 ended with ${code}: ${stdout}`);
  return end.sum_received.bytes;
}

/** Reads lines of `--trace-gc` such as `… Scavenge 12.3 (20.1) -> 8.1 (20.1) MB, …`. */
function collectionsIn(lines: readonly string[]): {
  readonly major: readonly string[];
  /** In bytes, from the first collection to the last. */
  readonly allocated: number;
} {
  let allocated = 0;
  let left: number | undefined;
  for (const line of lines) {
    const [, before, after] =
      /: [A-Z][\w- ]+.*? ([\d.]+) \([\d.]+\) -> ([\d.]+) \(/.exec(line) ?? [];
    if (before === undefined) continue;
    if (left !== undefined) allocated += (Number(before) - left) * 2 ** 20;
    left = Number(after);
  }
  return { major: lines.filter((line) => line.includes('Mark-Compact')), allocated };
}

interface Calls {
  readonly total: number;
  readonly most: string;
}

/** Counts the system calls of both daemons while the client sends `TRACED_MEGABYTES`. */
async function countCalls(scene: Scene): Promise<readonly Calls[]> {
  const traces = scene.daemons.map(({ pid }, i) => {
    const file = join(scene.directory, `calls-${i}`);
    const command = ['strace', '-c', '-f', '-o', file, '-p', `${pid}`];
    return { file, strace: scene.lab.spawn(scene.from, command) };
  });
  await Promise.all(traces.map(({ strace }) => strace.waitFor(/attached/, 10_000)));
  await transfer(scene, ['-n', `${TRACED_MEGABYTES}M`]);
  return Promise.all(
    traces.map(async ({ file, strace }) => {
      strace.signal('SIGINT');
      await strace.ended;
      return readCalls(readFileSync(file, 'utf8'));
    }),
  );
}

/** Reads the table of `strace -c`: time, seconds, µs a call, calls, (errors,) name. */
function readCalls(table: string): Calls {
  const rows = [...table.matchAll(/^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$/gm)]
    .map(([, calls, name]) => ({ calls: Number(calls), name: name ?? '' }))
    .filter(({ name }) => name !== 'total')
    .sort((x, y) => y.calls - x.calls);
  const most = rows.slice(0, 5).map(({ calls, name }) => `${name} ${calls}`);
  return { total: rows.reduce((sum, { calls }) => sum + calls, 0), most: most.join(', ') };
}
