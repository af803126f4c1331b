/** A quantity that is measured of several subjects. */
export interface Metric {
  readonly name: string;
  readonly unit: string;
  readonly better: 'more' | 'less';
}

/** One subject of a metric: the values of all rounds and the middle of them. */
export interface Measured {
  readonly subject: string;
  readonly median: number;
  readonly samples: readonly number[];
}

/** A number that the product is held to, in words and as measured. */
export interface Goal {
  readonly what: string;
  readonly measured: number;
  readonly wanted: { readonly atLeast: number } | { readonly atMost: number };
}

/** What a bench measured, and what it could not measure. */
export class Samples {
  /** What else is worth keeping with the numbers. */
  readonly notes = new Map<string, string>();
  readonly #subjects: string[] = [];
  readonly #metrics: Map<string, { metric: Metric; values: Map<string, number[]> }>;
  readonly #failures = new Map<string, string>();

  /** `metrics` are all that will be measured, in the order of the table. */
  constructor(metrics: readonly Metric[]) {
    this.#metrics = new Map(
      metrics.map((metric) => [metric.name, { metric, values: new Map<string, number[]>() }]),
    );
  }

  add(subject: string, metric: Metric, value: number): void {
    if (!Number.isFinite(value)) throw new Error(`${metric.name}: measured ${value}`);
    const row = this.#metrics.get(metric.name);
    if (row === undefined) throw new Error(`nobody announced the metric ${metric.name}`);
    if (!this.#subjects.includes(subject)) this.#subjects.push(subject);
    row.values.set(subject, [...(row.values.get(subject) ?? []), value]);
  }

  /** Keeps why the subject was not measured; the first reason of each subject. */
  fail(subject: string, why: string): void {
    if (!this.#failures.has(subject)) this.#failures.set(subject, why);
  }

  /** In the order in which they were first measured: the first round's. */
  get subjects(): readonly string[] {
    return this.#subjects;
  }

  get failures(): readonly { readonly subject: string; readonly why: string }[] {
    return Array.from(this.#failures, ([subject, why]) => ({ subject, why }));
  }

  get rows(): readonly { readonly metric: Metric; readonly measured: readonly Measured[] }[] {
    const rows = Array.from(this.#metrics.values(), ({ metric, values }) => ({
      metric,
      measured: this.#subjects.flatMap((subject) => {
        const samples = values.get(subject);
        return samples === undefined ? [] : [{ subject, median: median(samples), samples }];
      }),
    }));
    return rows.filter(({ measured }) => measured.length > 0);
  }

  /** NaN where it was not measured. */
  median(subject: string | undefined, metric: Metric): number {
    const samples = this.#metrics.get(metric.name)?.values.get(subject ?? '');
    return samples === undefined ? NaN : median(samples);
  }
}

export function more(name: string, unit: string): Metric {
  return { name, unit, better: 'more' };
}

export function less(name: string, unit: string): Metric {
  return { name, unit, better: 'less' };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? NaN) + upper) / 2;
}

/** Three significant digits, without an exponent: `3.13`, `112000`, `0.0521`. */
export function formatNumber(value: number): string {
  if (value === 0) return '0';
  return String(Number(value.toPrecision(3)));
}
