import { attempt, inTurn, type Bench, type BenchContext } from './bench-definition.ts';
import { flood, latency } from './names/dnsperf.ts';
import { FORWARDERS } from './names/forwarders.ts';
import { inNamesScene, UPSTREAM, type NamesScene } from './names/scene.ts';
import { cpuSeconds } from './process-usage.ts';
import { less, more, type Samples } from './samples.ts';

const M = {
  realistic: more('what a LAN asks for', 'queries/s'),
  realisticCpu: less('CPU of it', 'µs/query'),
  fresh: more('all forwarded', 'queries/s'),
  freshCpu: less('CPU of it, all forwarded', 'µs/query'),
  latency: less('an answer to a forwarded query, median', 'ms'),
} as const;

const DIRECT = 'unbound, asked directly';
const OURS = 'culvert';
const THEIRS = 'dnsmasq';

/** Our forwarder next to dnsmasq, in front of the same server, asked by dnsperf. */
export const names: Bench = {
  name: 'names',
  title: 'Answering names',
  baseline: THEIRS,
  metrics: Object.values(M),
  goals,
  async run(context) {
    const { rounds, contestants } = context;
    await inNamesScene(context.directory, async (scene) => {
      const measures = [
        [DIRECT, () => measureDirect(context, scene)] as const,
        ...Object.keys(FORWARDERS).map(
          (name) => [name, () => measure(context, scene, name)] as const,
        ),
      ].filter(([name]) => contestants.length === 0 || contestants.some((it) => name.includes(it)));
      for (let round = 0; round < rounds; round++) {
        for (const [name, run] of inTurn(measures, round)) {
          context.say(`round ${round + 1} of ${rounds}: ${name}`);
          await attempt(context, name, run);
        }
      }
    });
  },
};

function goals(samples: Samples) {
  const { realistic, latency: time } = M;
  return [
    {
      what: `${OURS}, ${realistic.name}: × ${THEIRS}`,
      measured: samples.median(OURS, realistic) / samples.median(THEIRS, realistic),
      wanted: { atLeast: 0.5 },
    },
    {
      what: `${OURS} adds to a forwarded query, median (ms)`,
      measured: samples.median(OURS, time) - samples.median(DIRECT, time),
      wanted: { atMost: 1 },
    },
  ];
}

async function measureDirect(
  { samples, seconds }: BenchContext,
  { lab, questions }: NamesScene,
): Promise<void> {
  const server = { address: UPSTREAM, port: 53 };
  samples.add(DIRECT, M.latency, await latency(lab, server, questions.single, seconds));
}

/** Each time in a process of its own, whose cache is empty. */
async function measure(
  { samples, seconds }: BenchContext,
  scene: NamesScene,
  name: string,
): Promise<void> {
  const start = FORWARDERS[name];
  if (start === undefined) throw new Error(`there is no forwarder ${name}`);
  const { lab, questions } = scene;
  const { running, server } = await start(scene);
  try {
    await flood(lab, server, questions.realistic, Math.min(seconds, 2)); // compilers warm up
    for (const [file, rate, cpu] of [
      [questions.realistic, M.realistic, M.realisticCpu],
      [questions.fresh, M.fresh, M.freshCpu],
    ] as const) {
      const before = cpuSeconds(running.pid);
      const { perSecond, completed } = await flood(lab, server, file, seconds);
      samples.add(name, rate, perSecond);
      samples.add(name, cpu, ((cpuSeconds(running.pid) - before) * 1e6) / completed);
    }
    samples.add(name, M.latency, await latency(lab, server, questions.single, seconds));
  } finally {
    await running.stop();
  }
}
