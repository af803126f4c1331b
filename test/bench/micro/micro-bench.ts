import type { Metric } from '../samples.ts';

/** As `npm run build` makes it. */
export const NATIVE_FILE = `dist/native/culvert-${process.arch}.node`;

/** What a micro-benchmark prints: one value, or why there is none. */
export type Finding =
  | { readonly subject: string; readonly metric: Metric; readonly value: number }
  | { readonly subject: string; readonly why: string };

/** Returns its findings; `seconds` is about how long it may take for each of them. */
export type MicroBench = (seconds: number) => readonly Finding[] | Promise<readonly Finding[]>;

/** Returns the milliseconds of one call, over as many as fit into the time; the first ones warm up. */
export function timePerCall(seconds: number, work: () => void): number {
  const warm = performance.now() + Math.min(seconds * 200, 200);
  let calls = 0;
  while (performance.now() < warm) {
    work();
    calls++;
  }
  // Reading the clock costs more than what is measured may take.
  const chunk = Math.max(1, Math.floor(calls / 50));
  const started = performance.now();
  for (calls = 0; performance.now() - started < seconds * 1000;) {
    for (let i = 0; i < chunk; i++) work();
    calls += chunk;
  }
  return (performance.now() - started) / calls;
}

/** Results go here, so that no compiler leaves out the work they come from. */
export const sink: { value: unknown } = { value: undefined };
