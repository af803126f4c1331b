import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { build } from 'esbuild';
import t from 'tap';
import type { Outcome } from './story.ts';

/**
 * Two engines through whatever a seed makes of the Internet. `SEED=123 npx tap test/sim/paths.test.ts`
 * plays one again, `SEEDS=20000` more of them.
 */
const FIRST = Number(process.env['SEED'] ?? 1);
const COUNT = process.env['SEED'] === undefined ? Number(process.env['SEEDS'] ?? 2_000) : 1;
const WORKERS = Math.min(4, cpus().length, COUNT);
/** The number of seeds is the measure, whatever the machine. */
t.setTimeout(Math.max(600, COUNT) * 1_000);

/** One file without what the runner of tests hooks in, which takes twice the time. */
const script = await bundled('story-worker.ts');

async function bundled(file: string): Promise<string> {
  const entry = fileURLToPath(new URL(file, import.meta.url));
  const { outputFiles } = await build({
    entryPoints: [entry],
    bundle: true,
    platform: 'node',
    format: 'iife',
    sourcemap: 'inline',
    write: false,
    logLevel: 'error',
  });
  return outputFiles[0]!.text;
}

await t.test(
  'packets take the best path that there can be, whatever happened before',
  async (t) => {
    const start = performance.now();
    const outcomes: Outcome[] = [];
    const worker = async (first: number): Promise<void> => {
      const seeds = { first, last: FIRST + COUNT - 1, step: WORKERS };
      for await (const outcome of played(seeds)) {
        outcomes.push(outcome);
        if (outcome.failure !== undefined) t.fail(outcome.failure);
      }
    };
    await Promise.all(Array.from({ length: WORKERS }, (_, i) => worker(FIRST + i)));
    t.equal(outcomes.length, COUNT);
    const seconds = (performance.now() - start) / 1_000;
    const speed = `${Math.round(COUNT / seconds)} a second in ${WORKERS} threads`;
    t.comment(`${COUNT} seeds in ${seconds.toFixed(1)} s, ${speed}`);
    for (const line of summaryOf(outcomes)) t.comment(line);
  },
);

/** Plays every `step`th seed in a thread of its own. */
async function* played(seeds: { first: number; last: number; step: number }) {
  const options = { eval: true, execArgv: ['--enable-source-maps'], workerData: seeds };
  const worker = new Worker(script, options);
  const waiting: (Outcome | Error | 'end')[] = [];
  let wake = (): void => undefined;
  const take = (what: Outcome | Error | 'end'): void => {
    waiting.push(what);
    wake();
  };
  worker.on('message', take);
  worker.on('error', take);
  worker.on('exit', () => take('end'));
  for (;;) {
    const next = waiting.shift();
    if (next === 'end') return;
    if (next instanceof Error) throw next;
    if (next !== undefined) yield next;
    else await new Promise<void>((resolve) => (wake = resolve));
  }
}

/** For each kind of path how often it came to that, and after what it took longest. */
function* summaryOf(outcomes: readonly Outcome[]) {
  for (const kind of ['direct', 'relayed', 'stream', 'none'] as const) {
    const ofKind = outcomes.filter(({ kinds }) => kinds[0] === kind && kinds[1] === kind);
    const slowest = new Map<string, Outcome>();
    for (const outcome of ofKind) {
      const before = slowest.get(outcome.lastUpset);
      if (before === undefined || before.recovery < outcome.recovery) {
        slowest.set(outcome.lastUpset, outcome);
      }
    }
    const each = [...slowest.values()]
      .sort((a, b) => b.recovery - a.recovery)
      .map(({ recovery, lastUpset, seed }) => `${recovery / 1_000} s ${lastUpset} SEED=${seed}`);
    yield `${kind}: ${ofKind.length}, slowest after the last upset: ${each.join(', ')}`;
  }
}
