import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { Bench } from './bench-definition.ts';
import { describeMachine } from './machine.ts';
import { memory } from './memory.ts';
import { microBenches } from './micro-benches.ts';
import { names } from './names.ts';
import { paths } from './paths.ts';
import { plot } from './plot.ts';
import { formatReport, reportJson } from './report.ts';
import { resources } from './resources.ts';
import { Samples } from './samples.ts';
import { size } from './size.ts';
import { tunnels } from './tunnels.ts';

const BENCHES: readonly Bench[] = [tunnels, paths, resources, names, memory, size, ...microBenches];

/** Numbers that are worth keeping lie beside the code; those of a quick look do not. */
const RESULTS = 'test/bench/results';
const QUICK_RESULTS = 'dist/bench/results';

const HELP = `npm run bench -- [options]

Measures, in about half an hour on two cores, and prints medians and ratios.

  --quick              one short round, to see that everything works; results go to ${QUICK_RESULTS}
  --only NAME          this bench alone, may be given more than once: ${BENCHES.map(({ name }) => name).join(', ')}
  --contestant WORD    only tunnels, paths or forwarders whose name holds the word, may be given more than once
  --rounds N           3 by default
  --seconds N          of each measurement, 5 by default
  --out DIR            where JSON and SVG go, ${RESULTS} by default
`;

/** Runs the benches; returns the exit code, which does not depend on any number. */
export async function bench(parameters: readonly string[]): Promise<number> {
  if (parameters.includes('--help')) {
    console.log(HELP);
    return 0;
  }
  const options = parseOptions(parameters);
  if (options === undefined) return 2;
  const { rounds, seconds, out } = options;
  const machine = describeMachine();
  const directory = mkdtempSync(join(tmpdir(), 'culvert-bench-'));
  try {
    for (const one of options.benches) {
      console.log(`\n— ${one.name}`);
      const samples = new Samples(one.metrics);
      const say = (text: string): void => console.log(text);
      const { contestants } = options;
      await one.run({ samples, rounds, seconds, contestants, directory, say });
      const facts = { machine, rounds, seconds };
      console.log(`\n${formatReport(one, samples)}`);
      if (samples.rows.length === 0) continue;
      mkdirSync(out, { recursive: true });
      writeFileSync(join(out, `${one.name}.json`), reportJson(one, samples, facts));
      writeFileSync(join(out, `${one.name}.svg`), plot(one, samples, facts));
    }
    console.log(`\nresults: ${out}`);
    return 0;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

interface Options {
  readonly benches: readonly Bench[];
  readonly contestants: readonly string[];
  readonly rounds: number;
  readonly seconds: number;
  readonly out: string;
}

/** Returns `undefined` after having said what is wrong, or what there is. */
function parseOptions(parameters: readonly string[]): Options | undefined {
  try {
    return optionsOf(parameters);
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : String(error)}\n\n${HELP}`);
    return undefined;
  }
}

function optionsOf(parameters: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...parameters],
    options: {
      quick: { type: 'boolean', default: false },
      only: { type: 'string', multiple: true, default: [] },
      contestant: { type: 'string', multiple: true, default: [] },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      out: { type: 'string' },
    },
  });
  const { quick, only } = values;
  const unknown = only.filter((name) => !BENCHES.some((one) => one.name === name));
  const rounds = Number(values.rounds ?? (quick ? 1 : 3));
  const seconds = Number(values.seconds ?? (quick ? 1 : 5));
  if (unknown.length > 0) throw new Error(`there is no bench '${unknown.join("', '")}'`);
  if (!(rounds >= 1 && seconds >= 1)) throw new Error('--rounds and --seconds are from 1 on');
  return {
    benches: BENCHES.filter(({ name }) => only.length === 0 || only.includes(name)),
    contestants: values.contestant,
    rounds,
    seconds,
    out: values.out ?? (quick ? QUICK_RESULTS : RESULTS),
  };
}
