import { setTimeout as wait } from 'node:timers/promises';
import { eventually } from '../lab/daemon.ts';
import { HOSTS, LAN, ResourceLab, ROUTER, type ResourceDocument } from '../lab/resource-lab.ts';
import { attempt, inTurn, type Bench, type BenchContext } from './bench-definition.ts';
import { cpuSeconds } from './process-usage.ts';
import { less, more, type Metric, type Samples } from './samples.ts';
import { fullDatagrams, ping, tcp, type Route } from './traffic.ts';

const M = {
  oneStream: more('TCP, 1 stream', 'Gbit/s'),
  cpu: less('CPU of both daemons', 's/Gbit'),
  oneStreamBack: more('TCP, 1 stream, reverse', 'Gbit/s'),
  cpuBack: less('CPU of both daemons, reverse', 's/Gbit'),
  cpuSmall: less('CPU of both daemons, UDP of 64 bytes', 'µs/packet'),
  ping: less('ping, average', 'ms'),
} as const;

const ROUTED = 'routed';
const CIDR = 'a network, translated by the client';
const DNS = 'a name, translated by both';

interface Scene {
  readonly name: string;
  readonly route: Route;
  /** Of both daemons. */
  readonly pids: readonly number[];
}

/**
 * From a host to a server in the site of a gateway: simply routed, and as resources with filters. All
 * tunnels stand from the start and are measured in turns, so that what else the machine does is shared.
 */
export const resources: Bench = {
  name: 'resources',
  title: 'Traffic to resources',
  baseline: ROUTED,
  metrics: Object.values(M),
  goals,
  async run(context) {
    const undo: (() => unknown)[] = [];
    const ends = { teardown: (end: () => unknown) => undo.push(end) };
    try {
      const scenes: Scene[] = [];
      for (const [name, build] of Object.entries(BUILDERS)) {
        await attempt(context, name, async () => {
          scenes.push(await build(name, ends));
        });
      }
      for (let round = 0; round < context.rounds; round++) {
        context.say(`round ${round + 1} of ${context.rounds}`);
        await measure(context, inTurn(scenes, round));
      }
    } finally {
      for (const end of undo) await end();
    }
  },
};

function goals(samples: Samples) {
  const ratio = (subject: string, metric: Metric): number => {
    const it = samples.median(subject, metric) / samples.median(ROUTED, metric);
    return metric.better === 'more' ? it : 1 / it;
  };
  return [CIDR, DNS].flatMap((subject) =>
    [M.oneStream, M.oneStreamBack, M.ping].map((metric) => ({
      what: `${subject}, ${metric.name}: as good as ${ROUTED}`,
      measured: ratio(subject, metric),
      wanted: { atLeast: 0.9 },
    })),
  );
}

async function measure(context: BenchContext, scenes: readonly Scene[]): Promise<void> {
  const { seconds, samples } = context;
  const each = async (work: (scene: Scene) => Promise<void>): Promise<void> => {
    for (const scene of scenes) await attempt(context, scene.name, () => work(scene));
  };
  // Compilers warm up, windows open.
  await each(async ({ route }) => void (await tcp(route, { seconds: Math.min(seconds, 2) })));
  for (const [isReverse, rate, cpu] of [
    [false, M.oneStream, M.cpu],
    [true, M.oneStreamBack, M.cpuBack],
  ] as const) {
    await each(async ({ name, route, pids }) => {
      const before = cpuOf(pids);
      const { gigabits, gigabitsPerSecond } = await tcp(route, { seconds, isReverse });
      samples.add(name, rate, gigabitsPerSecond);
      samples.add(name, cpu, (cpuOf(pids) - before) / gigabits);
    });
  }
  await each(async ({ name, route, pids }) => {
    const before = cpuOf(pids);
    const gigabits = seconds * (await fullDatagrams(route, { seconds, ...SMALL }));
    const packets = (gigabits * 1e9) / 8 / SMALL.length;
    samples.add(name, M.cpuSmall, ((cpuOf(pids) - before) * 1e6) / packets);
  });
  await each(async ({ name, route }) => {
    const { averageMs } = await ping(route, { count: Math.round(seconds * 100), interval: 0.01 });
    samples.add(name, M.ping, averageMs);
  });
}

/** 40,000 packets a second: less than any tunnel takes, so that the work for each can be compared. */
const SMALL = { length: 64, gigabitsPerSecond: 0.02 };

type Build = (name: string, ends: Parameters<typeof ResourceLab.create>[0]) => Promise<Scene>;

const BUILDERS: Readonly<Record<string, Build>> = {
  [ROUTED]: async (name, ends) => {
    const scene = await openScene(ends, 'bnr');
    const { a, gateway } = scene;
    a.daemon.configure(scene.clientDocument(a, WITHOUT_NAMES, [`${SERVER}/32`]));
    gateway.daemon.configure(scene.gatewayDocument(WITHOUT_NAMES, [a], [`${CLIENT}/32`]));
    return startScene(name, scene, () => Promise.resolve(SERVER));
  },
  [CIDR]: async (name, ends) => {
    const scene = await openScene(ends, 'bnc');
    scene.configureResource({ ...RESOURCE, type: 'cidr', prefixes: [`${SERVER}/32`] });
    return startScene(name, scene, () => Promise.resolve(SERVER));
  },
  [DNS]: async (name, ends) => {
    const scene = await openScene(ends, 'bnd');
    await scene.startResolver([`${NAME},${SERVER}`]);
    scene.configureResource({ ...RESOURCE, type: 'dns', patterns: [NAME] });
    return startScene(name, scene, async () => (await scene.lookUp(scene.a, NAME))[0] ?? '');
  },
};

const NAME = 'app.site.example';
/** Addresses of their own, as both LANs are the same network. */
const CLIENT = '10.20.0.1';
const SERVER = '10.30.0.1';
const ports = ['80', '443', '5000-5999'];
const RESOURCE: Pick<ResourceDocument, 'id' | 'filters'> = {
  id: 'app',
  filters: [{ protocol: 'icmp' }, { protocol: 'tcp', ports }, { protocol: 'udp', ports }],
};
const WITHOUT_NAMES = { dns: { mode: 'off' } };

async function openScene(ends: Parameters<Build>[1], prefix: string): Promise<ResourceLab> {
  const scene = await ResourceLab.create(ends, prefix);
  const { lab } = scene;
  const host = HOSTS[0]!.ipv4;
  await lab.ip('lan-a', `address add ${CLIENT}/32 dev lo`);
  await lab.ip('a', `route add ${CLIENT} via ${host}`);
  await lab.ip('lan-a', `route replace default via ${ROUTER.ipv4} src ${CLIENT}`);
  await lab.ip('lan-gateway', `address add ${SERVER}/32 dev lo`);
  await lab.ip('gateway', `route add ${SERVER} via ${host}`);
  // Servers of UDP answer from the address that routes prefer.
  await lab.ip('lan-gateway', `route replace default via ${ROUTER.ipv4} src ${SERVER}`);
  await lab.ip('lan-gateway', `route replace ${LAN.ipv4} dev to-gateway src ${SERVER}`);
  return scene;
}

async function startScene(
  name: string,
  scene: ResourceLab,
  find: () => Promise<string>,
): Promise<Scene> {
  const { lab, a, gateway } = scene;
  const running = await Promise.all([a, gateway].map(({ daemon }) => daemon.start()));
  const route: Route = { lab, from: a.lan, to: gateway.lan, address: await find() };
  await eventually(
    () => lab.exec(a.lan, ['ping', '-n', '-c', '1', '-W', '1', route.address]),
    ({ code }) => code === 0,
    20_000,
  );
  await wait(SETTLE_MS);
  return { name, route, pids: running.map(({ pid }) => pid) };
}

/** What a daemon does right after its start is over by then. */
const SETTLE_MS = 1000;

function cpuOf(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0);
}
