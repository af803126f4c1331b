import { setTimeout as wait } from 'node:timers/promises';
import { eventually } from '../lab/daemon.ts';
import type { FleetDevice } from '../lab/fleet.ts';
import { attempt, inTurn, type Bench, type BenchContext } from './bench-definition.ts';
import { KEEPALIVE_SECONDS, TUNNEL, TUNNEL_MTU } from './contestants/contestant.ts';
import { cpuSeconds } from './process-usage.ts';
import { ADDRESS, inRelayLab, shapeLines, SITES, type RelayLab } from './relay/lab.ts';
import { plainRate } from './relay/plain.ts';
import { less, more, type Metric, type Samples } from './samples.ts';
import { fullDatagrams, tcp, type Route } from './traffic.ts';

const M = {
  throughput: more('one way', 'Gbit/s'),
  throughputBack: more('the other way', 'Gbit/s'),
  shaped: more('through lines of 1 Gbit/s', 'Gbit/s'),
  shapedBack: more('through lines of 1 Gbit/s, the other way', 'Gbit/s'),
  udp: more('UDP in the tunnel, sent at the rate of plain UDP', 'Gbit/s'),
  daemonCpu: less('CPU of both daemons', 's/Gbit'),
  daemonCpuBack: less('CPU of both daemons, the other way', 's/Gbit'),
  relayCpu: less('CPU of the relay', 's/Gbit'),
  relayCpuBack: less('CPU of the relay, the other way', 's/Gbit'),
} as const;

const PLAIN = 'plain UDP through the relay';
const RELAYED = 'relayed over UDP';
const DIRECT = 'direct';
const WIREGUARD = 'direct, kind wireguard';

type Kind = 'direct' | 'relayed' | 'stream';

/** A way of the tunnel, forced by what the network lets pass and by what the daemons may use. */
interface Way {
  /** How the daemons name it; `undefined` for a peer of kind `wireguard`, which has no choice. */
  readonly kind: Kind | undefined;
  readonly relay?: 'udp' | 'tcp' | 'tls';
  readonly stream?: 'tcp' | 'tls' | 'ws' | 'wss';
}

const WAYS: Readonly<Record<string, Way>> = {
  [RELAYED]: { kind: 'relayed', relay: 'udp' },
  'relayed over TCP': { kind: 'relayed', relay: 'tcp' },
  'stream, TCP': { kind: 'stream', stream: 'tcp' },
  'stream, TLS': { kind: 'stream', stream: 'tls' },
  'stream, WebSocket': { kind: 'stream', stream: 'ws' },
  [DIRECT]: { kind: 'direct' },
  [WIREGUARD]: { kind: undefined },
};

/**
 * The tunnel over each kind of path, one TCP stream in it, beside what the same coturn carries of
 * datagrams without any tunnel.
 */
export const paths: Bench = {
  name: 'paths',
  title: 'Paths to a peer: through a relay, over streams, direct',
  baseline: PLAIN,
  metrics: Object.values(M),
  goals,
  async run(context) {
    const { contestants: wanted, rounds } = context;
    const measures = [
      [PLAIN, () => measurePlain(context)] as const,
      ...Object.entries(WAYS).map(
        ([name, way]) => [name, () => measure(context, name, way)] as const,
      ),
    ].filter(([name]) => wanted.length === 0 || wanted.some((word) => name.includes(word)));
    for (let round = 0; round < rounds; round++) {
      for (const [name, run] of inTurn(measures, round)) {
        context.say(`round ${round + 1} of ${rounds}: ${name}`);
        await attempt(context, name, run);
      }
    }
  },
};

function goals(samples: Samples) {
  const goal = (metric: Metric, one: string, other: string, atLeast: number) => ({
    what: `${one}, ${metric.name}: × ${other}`,
    measured: samples.median(one, metric) / samples.median(other, metric),
    wanted: { atLeast },
  });
  return [
    ...[M.throughput, M.throughputBack, M.shaped, M.shapedBack].map((metric) =>
      goal(metric, RELAYED, PLAIN, 0.8),
    ),
    ...[M.throughput, M.throughputBack].map((metric) => goal(metric, DIRECT, WIREGUARD, 0.9)),
  ];
}

async function measurePlain({ samples, seconds, directory }: BenchContext): Promise<void> {
  await inRelayLab(directory, { isDirect: false }, async (parts) => {
    const forward = await plainRate(parts, seconds, 'from client');
    samples.add(PLAIN, M.throughput, forward.gigabitsPerSecond);
    samples.add(PLAIN, M.relayCpu, forward.relayCpu);
    const back = await plainRate(parts, seconds, 'to client');
    samples.add(PLAIN, M.throughputBack, back.gigabitsPerSecond);
    samples.add(PLAIN, M.relayCpuBack, back.relayCpu);
    await shapeLines(parts);
    const shaped = await plainRate(parts, seconds, 'from client');
    samples.add(PLAIN, M.shaped, shaped.gigabitsPerSecond);
    const shapedBack = await plainRate(parts, seconds, 'to client');
    samples.add(PLAIN, M.shapedBack, shapedBack.gigabitsPerSecond);
  });
}

async function measure(context: BenchContext, name: string, way: Way): Promise<void> {
  const { samples, seconds, directory } = context;
  const isDirect = way.kind === 'direct' || way.kind === undefined;
  await inRelayLab(directory, { isDirect }, async (parts) => {
    const { lab, relay } = parts;
    const pids = await start(parts, way);
    const route: Route = { lab, from: 'a', to: 'b', address: TUNNEL.b };
    await tcp(route, { seconds: Math.min(seconds, 1) }); // compilers warm up, windows open
    for (const [isReverse, rate, daemonCpu, relayCpu] of [
      [false, M.throughput, M.daemonCpu, M.relayCpu],
      [true, M.throughputBack, M.daemonCpuBack, M.relayCpuBack],
    ] as const) {
      const before = { daemons: cpuOf(pids), relay: cpuSeconds(relay.pid) };
      const { gigabits, gigabitsPerSecond } = await tcp(route, { seconds, isReverse });
      samples.add(name, rate, gigabitsPerSecond);
      samples.add(name, daemonCpu, (cpuOf(pids) - before.daemons) / gigabits);
      if (way.relay !== undefined) {
        samples.add(name, relayCpu, (cpuSeconds(relay.pid) - before.relay) / gigabits);
      }
    }
    if (way.relay !== 'udp') return;
    const plain = samples.median(PLAIN, M.throughput);
    if (plain > 0) {
      const udp = { seconds, gigabitsPerSecond: plain, length: TUNNEL_MTU - IPV4_AND_UDP_HEADERS };
      samples.add(name, M.udp, await fullDatagrams(route, udp));
    }
    await shapeLines(parts);
    const shaped = await tcp(route, { seconds });
    samples.add(name, M.shaped, shaped.gigabitsPerSecond);
    const shapedBack = await tcp(route, { seconds, isReverse: true });
    samples.add(name, M.shapedBack, shapedBack.gigabitsPerSecond);
  });
}

const IPV4_AND_UDP_HEADERS = 28;

/** Starts both daemons and waits until they use the way; returns their process ids. */
async function start({ lab, fleet, relay }: RelayLab, way: Way): Promise<readonly number[]> {
  const devices = { a: await fleet.device('a', 'a'), b: await fleet.device('b', 'b') };
  for (const site of SITES) {
    const other = site === 'a' ? 'b' : 'a';
    const kind =
      way.kind === undefined
        ? { endpoint: `${ADDRESS[other]}:51820`, keepalive: KEEPALIVE_SECONDS }
        : { kind: 'culvert' };
    await fleet.push(site, {
      interface: {
        name: `cvt-paths-${site}`,
        mtu: TUNNEL_MTU,
        addresses: [`${TUNNEL[site]}/24`],
        listenPort: 51820,
      },
      peers: [
        {
          id: other,
          publicKey: devices[other].keys.publicKey,
          allowedIps: [`${TUNNEL[other]}/32`],
          ...kind,
        },
      ],
      // One relay on the way, as for plain UDP: the other side talks with the relayed address.
      relays: way.relay !== undefined && site === 'a' ? [relay.configuration(way.relay)] : [],
      ...(way.stream === undefined
        ? {}
        : { streams: { listenPort: STREAM_PORT, protocol: way.stream } }),
    });
  }
  const running = await Promise.all(SITES.map((site) => devices[site].start()));
  await eventually(
    () => lab.exec('a', ['ping', '-n', '-c', '1', '-W', '1', TUNNEL.b]),
    ({ code }) => code === 0,
    20_000,
  );
  if (way.kind !== undefined) {
    for (const site of SITES) await usesPath(devices[site], way.kind);
  }
  await wait(SETTLE_MS);
  return running.map(({ pid }) => pid);
}

const STREAM_PORT = 51821;

/** For better pairs of the same kind, which are found later, and for code to be loaded. */
const SETTLE_MS = 1000;

async function usesPath({ daemon }: FleetDevice, kind: Kind): Promise<void> {
  await eventually(
    async () => (await daemon.status()).peers[0]?.path?.kind,
    (used) => used === kind,
    10_000,
  );
}

function cpuOf(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0);
}
