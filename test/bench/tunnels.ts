import { setTimeout as wait } from 'node:timers/promises';
import { CIPHERS } from '../../openwrt/fast-path.ts';
import type { Lab } from '../lab/namespaces.ts';
import { attempt, inTurn, type Bench, type BenchContext } from './bench-definition.ts';
import { backportedWireguardGo, installedWireguardGo } from './contestants/backports.ts';
import { bareVeth, type Contestant, type Started } from './contestants/contestant.ts';
import { chosenCipher, culvert } from './contestants/culvert.ts';
import { wireguardGo } from './contestants/wireguard-go.ts';
import { inJoinedNamespaces } from './joined-namespaces.ts';
import { cpuSeconds, memoryUsage } from './process-usage.ts';
import { less, more, type Goal, type Metric, type Samples } from './samples.ts';
import { ping, pingUnderLoad, smallDatagrams, tcp, type Route } from './traffic.ts';

const M = {
  oneStream: more('TCP, 1 stream', 'Gbit/s'),
  oneStreamBack: more('TCP, 1 stream, reverse', 'Gbit/s'),
  fourStreams: more('TCP, 4 streams', 'Gbit/s'),
  fourStreamsBack: more('TCP, 4 streams, reverse', 'Gbit/s'),
  smallDatagrams: more('UDP, 64 bytes', 'packets/s'),
  cpu: less('CPU of both daemons, TCP', 's/Gbit'),
  pingAverage: less('ping, idle, average', 'ms'),
  pingMaximum: less('ping, idle, maximum', 'ms'),
  loadedPingAverage: less('ping, TCP at full load, average', 'ms'),
  loadedPingMaximum: less('ping, TCP at full load, maximum', 'ms'),
  shapedPingAverage: less('ping, TCP through 1 Gbit/s, average', 'ms'),
  shapedPingMaximum: less('ping, TCP through 1 Gbit/s, maximum', 'ms'),
  residentIdle: less('resident, idle', 'MB'),
  residentLoaded: less('resident, loaded', 'MB'),
  privateIdle: less('private, idle', 'MB'),
  privateLoaded: less('private, loaded', 'MB'),
  setUp: less('process start to first handshake', 'ms'),
} as const;

export const tunnels: Bench = {
  name: 'tunnels',
  title: 'Tunnels between two network namespaces',
  baseline: 'wireguard-go',
  metrics: Object.values(M),
  goals,
  async run(context) {
    const contestants = await findContestants(context);
    for (let round = 0; round < context.rounds; round++) {
      for (const contestant of inTurn(contestants, round)) {
        context.say(`round ${round + 1} of ${context.rounds}: ${contestant.name}`);
        await attempt(context, contestant.name, () => measure(context, contestant));
      }
    }
  },
};

/** The note that names the one of ours that the daemon takes by itself. */
const CHOSEN = 'the daemon chooses';

function goals(samples: Samples): readonly Goal[] {
  const ours = samples.notes.get(CHOSEN);
  const [debian, backports] = samples.subjects.filter((name) => name.startsWith('wireguard-go'));
  const ratio = (metric: Metric, other: string | undefined): number =>
    samples.median(ours, metric) / samples.median(other, metric);
  return [
    ...[M.oneStream, M.oneStreamBack].flatMap((metric) => [
      {
        what: `${metric.name}: × ${debian}`,
        measured: ratio(metric, debian),
        wanted: { atLeast: 5 },
      },
      {
        what: `${metric.name}: × ${backports}`,
        measured: ratio(metric, backports),
        wanted: { atLeast: 1.3 },
      },
    ]),
    {
      what: `${M.smallDatagrams.name}: × ${debian}`,
      measured: ratio(M.smallDatagrams, debian),
      wanted: { atLeast: 2 },
    },
    {
      what: `${M.loadedPingAverage.name}: × ${debian}`,
      measured: ratio(M.loadedPingAverage, debian),
      wanted: { atMost: 2 },
    },
    {
      what: `${M.shapedPingAverage.name} (ms)`,
      measured: samples.median(ours, M.shapedPingAverage),
      wanted: { atMost: 5 },
    },
    {
      what: `${M.residentLoaded.name}: × ${debian}`,
      measured: ratio(M.residentLoaded, debian),
      wanted: { atMost: 1 },
    },
    {
      what: `${M.setUp.name} (ms)`,
      measured: samples.median(ours, M.setUp),
      wanted: { atMost: 300 },
    },
  ];
}

async function findContestants(context: BenchContext): Promise<readonly Contestant[]> {
  const { directory, contestants: wanted } = context;
  const found: Contestant[] = [bareVeth];
  for (const [origin, find] of [
    ['installed', installedWireguardGo],
    ['backports', backportedWireguardGo],
  ] as const) {
    await attempt(context, `wireguard-go (${origin})`, async () => {
      const { version, program } = find();
      const isNew = !found.some(({ name }) => name.endsWith(version));
      if (isNew) found.push(wireguardGo(version, program, directory));
    });
  }
  await attempt(context, 'culvert', async () => {
    const cipher = await inJoinedNamespaces((lab) => chosenCipher(lab, directory));
    context.samples.notes.set(CHOSEN, `culvert ${cipher}`);
    const others = CIPHERS.filter((name) => name !== cipher);
    found.push(...[cipher, ...others].map((name) => culvert(name, directory)));
  });
  return wanted.length === 0
    ? found
    : found.filter(({ name }) => wanted.some((word) => name.includes(word)));
}

async function measure({ samples, seconds }: BenchContext, contestant: Contestant): Promise<void> {
  await inJoinedNamespaces(async (lab) => {
    const started = await contestant.start(lab);
    const { address, pids, setUpMs } = started;
    const add = (metric: Metric, value: number): void =>
      samples.add(contestant.name, metric, value);
    const route: Route = { lab, from: 'a', to: 'b', address };

    if (setUpMs !== undefined) add(M.setUp, setUpMs);
    await wait(SETTLE_MS);
    addMemory(started, add, M.residentIdle, M.privateIdle);
    await ping(route, { count: 20, interval: 0.01 }); // neighbours are found, code is loaded
    const idle = await ping(route, { count: Math.round(seconds * 100), interval: 0.01 });
    add(M.pingAverage, idle.averageMs);
    add(M.pingMaximum, idle.maximumMs);

    await tcp(route, { seconds: Math.min(seconds, 1) }); // compilers warm up, windows open
    const before = cpuOf(pids);
    const forward = await tcp(route, { seconds });
    add(M.oneStream, forward.gigabitsPerSecond);
    if (pids.length > 0) add(M.cpu, (cpuOf(pids) - before) / forward.gigabits);
    const back = await tcp(route, { seconds, isReverse: true });
    add(M.oneStreamBack, back.gigabitsPerSecond);
    const four = await tcp(route, { seconds, streams: 4 });
    add(M.fourStreams, four.gigabitsPerSecond);
    const fourBack = await tcp(route, { seconds, streams: 4, isReverse: true });
    add(M.fourStreamsBack, fourBack.gigabitsPerSecond);
    addMemory(started, add, M.residentLoaded, M.privateLoaded);

    const loaded = await pingUnderLoad(route, seconds);
    add(M.loadedPingAverage, loaded.averageMs);
    add(M.loadedPingMaximum, loaded.maximumMs);
    add(M.smallDatagrams, await smallDatagrams(route, seconds));

    await shape(lab);
    const shaped = await pingUnderLoad(route, seconds);
    add(M.shapedPingAverage, shaped.averageMs);
    add(M.shapedPingMaximum, shaped.maximumMs);
  });
}

/** What a daemon does right after its start is over by then. */
const SETTLE_MS = 1000;

/** The larger of the two daemons: one sends, the other receives. */
function addMemory(
  { pids }: Started,
  add: (metric: Metric, value: number) => void,
  resident: Metric,
  privately: Metric,
): void {
  if (pids.length === 0) return;
  const usages = pids.map(memoryUsage);
  add(resident, Math.max(...usages.map(({ residentMb }) => residentMb)));
  add(privately, Math.max(...usages.map(({ privateMb }) => privateMb)));
}

function cpuOf(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0);
}

/** The link between the sites gets slower than any contestant, with a queue of 2 ms. */
async function shape(lab: Lab): Promise<void> {
  for (const [side, other] of [
    ['a', 'b'],
    ['b', 'a'],
  ] as const) {
    const filter = 'root tbf rate 1gbit burst 256kb latency 2ms';
    const command = ['tc', 'qdisc', 'add', 'dev', `to-${other}`, ...filter.split(' ')];
    const { code, stderr } = await lab.exec(side, command);
    if (code !== 0) throw new Error(`the link cannot be shaped: ${stderr.trim()}`);
  }
}
