import type { Goal, Metric, Samples } from './samples.ts';

/** What a bench gets to work with. */
export interface BenchContext {
  readonly samples: Samples;
  readonly rounds: number;
  /** For which traffic flows, or a loop runs, in one measurement. */
  readonly seconds: number;
  /** Only contestants whose name holds one of these words; all of them where it is empty. */
  readonly contestants: readonly string[];
  /** For files that may go away with the run. */
  readonly directory: string;
  /** Shows what is going on. */
  readonly say: (text: string) => void;
}

export interface Bench {
  /** kebab-case: for `--only`, and the name of its files. */
  readonly name: string;
  readonly title: string;
  /** A word in the name of the subject that the ratios refer to. */
  readonly baseline: string;
  readonly metrics: readonly Metric[];
  /** What the numbers should be. They are told, and nothing depends on them. */
  goals?(samples: Samples): readonly Goal[];
  run(context: BenchContext): Promise<void>;
}

/** Measures one subject; where that fails, says why and lets the others go on. */
export async function attempt(
  { samples, say }: BenchContext,
  subject: string,
  measure: () => Promise<void>,
): Promise<void> {
  try {
    await measure();
  } catch (error) {
    const why = reasonOf(error);
    samples.fail(subject, why);
    say(`${subject}: not measured: ${why}`);
  }
}

/** Each round begins with another one, so that none is always first. */
export function inTurn<Item>(items: readonly Item[], round: number): readonly Item[] {
  const first = items.length === 0 ? 0 : round % items.length;
  return [...items.slice(first), ...items.slice(0, first)];
}

/** Returns the line that says what went wrong; of a program that failed, what it wrote last. */
function reasonOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  const said = error instanceof Error && 'stderr' in error ? String(error.stderr) : '';
  const lines = `${said}\n${message}`.split('\n').map((line) => line.trim());
  const thrown = lines.find((line) => /^\w*Error: /.test(line));
  return (thrown ?? lines.find((line) => line !== '') ?? '').slice(0, LONGEST_REASON);
}

const LONGEST_REASON = 300;
