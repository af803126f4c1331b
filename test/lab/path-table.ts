import type { Test } from 'tap';
import { formatTable } from '../../openwrt/table.ts';

export interface PathRow {
  /** What stands before each site. */
  readonly a: string;
  readonly b: string;
  /** Which path, as the daemon names it; `none` where there is none. */
  readonly path: string;
  /** From the start of both daemons to the first answer through the tunnel. */
  readonly seconds: number;
}

/** Says in the output of a test which path was found between which NATs, and how long it took. */
export function printPaths(t: Test, rows: readonly PathRow[]): void {
  const head = ['SITE A', 'SITE B', 'PATH', 'SECONDS'];
  const cells = rows.map(({ a, b, path, seconds }) => [a, b, path, seconds.toFixed(2)]);
  for (const line of formatTable([head, ...cells]).split('\n')) t.comment(line);
}
