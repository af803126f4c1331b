import { formatTable } from '../../openwrt/table.ts';
import type { Bench } from './bench-definition.ts';
import type { Machine } from './machine.ts';
import { formatNumber, type Goal, type Samples } from './samples.ts';

export interface RunFacts {
  readonly machine: Machine;
  readonly rounds: number;
  readonly seconds: number;
}

/** Returns the medians as a table: a row per metric, and behind each number its ratio to the baseline. */
export function formatReport(bench: Bench, samples: Samples): string {
  const baseline = baselineOf(bench, samples);
  const heading = [bench.title, ...samples.subjects];
  const rows = samples.rows.map(({ metric, measured }) => {
    const reference = samples.median(baseline, metric);
    const cells = samples.subjects.map((subject) => {
      const found = measured.find((one) => one.subject === subject);
      if (found === undefined) return '-';
      const number = formatNumber(found.median);
      if (subject === baseline || !(reference > 0)) return number;
      return `${number} (${formatNumber(found.median / reference)} ×)`;
    });
    return [`${metric.name}, ${metric.unit}`, ...cells];
  });
  const lines = [formatTable([heading, ...rows])];
  if (baseline !== undefined && samples.subjects.length > 1) lines.push(`× of ${baseline}`);
  for (const { subject, why } of samples.failures) lines.push(`${subject}: not measured: ${why}`);
  const goals = (bench.goals?.(samples) ?? []).filter(({ measured }) => Number.isFinite(measured));
  if (goals.length > 0) lines.push('', formatTable([GOAL_HEADING, ...goals.map(goalRow)]));
  return lines.join('\n');
}

/** Returns the same for machines, with the values of each round. */
export function reportJson(bench: Bench, samples: Samples, facts: RunFacts): string {
  const goals = bench.goals?.(samples) ?? [];
  const report = {
    bench: bench.name,
    title: bench.title,
    ...facts,
    notes: Object.fromEntries(samples.notes),
    baseline: baselineOf(bench, samples),
    metrics: samples.rows.map(({ metric, measured }) => ({
      ...metric,
      measured: measured.map(({ subject, median, samples: values }) => ({
        subject,
        median: rounded(median),
        samples: values.map(rounded),
      })),
    })),
    notMeasured: samples.failures.map(({ subject, why }) => ({ subject, why: impersonal(why) })),
    goals: goals
      .filter(({ measured }) => Number.isFinite(measured))
      .map((goal) => ({ ...goal, measured: rounded(goal.measured), isMet: isMet(goal) })),
  };
  const lines = JSON.stringify(report, undefined, 2);
  const onOneLine = lines.replace(/\[[\d\s.,e-]*\]/g, (numbers) => numbers.replace(/\s+/g, ' '));
  return `${onOneLine}\n`;
}

export function baselineOf({ baseline }: Bench, samples: Samples): string | undefined {
  return samples.subjects.find((subject) => subject.includes(baseline));
}

const GOAL_HEADING = ['GOAL', 'WANTED', 'MEASURED', ''];

function goalRow(goal: Goal): string[] {
  const { what, measured, wanted } = goal;
  const limit = 'atLeast' in wanted ? `≥ ${wanted.atLeast}` : `≤ ${wanted.atMost}`;
  return [what, limit, formatNumber(measured), isMet(goal) ? 'met' : 'missed'];
}

function isMet({ measured, wanted }: Goal): boolean {
  return 'atLeast' in wanted ? measured >= wanted.atLeast : measured <= wanted.atMost;
}

/** Without addresses and paths of the machine. */
function impersonal(text: string): string {
  return text.replace(/(\w+:\/)?\/\S+/g, '…');
}

/** Five digits: more is noise. */
function rounded(value: number): number {
  return Number(value.toPrecision(5));
}
