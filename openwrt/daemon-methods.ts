import type { FlowRecord } from '../core/engine/flow-records.ts';
import type { ResourceReader } from '../core/engine/resource-status.ts';
import type { Clock } from '../core/plugin/clock.ts';
import { LocalApiError, type LocalApiMethod } from '../plugins/local-api/index.ts';

/** An answer has no more sessions, names or records than this: some hundred kilobytes. */
export const MOST_TOLD = 1000;

/** What the method `flows` answers. */
export interface FlowsAnswer {
  /** When the daemon began: with another one, sequences count from 1 again. Milliseconds since 1970. */
  readonly run: number;
  readonly records: readonly FlowRecord[];
}

/** The methods of the local API that tell of resources, names and flows. */
export function resourceMethods(
  reader: ResourceReader,
  clock: Pick<Clock, 'now' | 'unixMs'>,
): Readonly<Record<'resources' | 'dns' | 'nat' | 'flows', LocalApiMethod>> {
  const run = clock.unixMs();
  return {
    resources: (params) => reader.resources(textOf(params, 'resource')),
    dns: (params) => reader.dns(numberOf(params, 'most', MOST_TOLD, MOST_TOLD)),
    nat: (params) => reader.nat(numberOf(params, 'most', MOST_TOLD, MOST_TOLD), clock.now()),
    flows: (params): FlowsAnswer => {
      const after = numberOf(params, 'after', 0, Number.MAX_SAFE_INTEGER - 1);
      const most = numberOf(params, 'most', MOST_TOLD, MOST_TOLD);
      return { run, records: reader.flows(after, most) };
    },
  };
}

function textOf(params: unknown, name: string): string | undefined {
  const value = valueOf(params, name);
  if (value === undefined || typeof value === 'string') return value;
  throw new LocalApiError(`"${name}" must be a text`);
}

function numberOf(params: unknown, name: string, absent: number, largest: number): number {
  const value = valueOf(params, name);
  if (value === undefined) return absent;
  const isWhole = typeof value === 'number' && Number.isInteger(value) && value >= 0;
  if (!isWhole) throw new LocalApiError(`"${name}" must be a whole number`);
  return Math.min(value, largest);
}

function valueOf(params: unknown, name: string): unknown {
  if (typeof params !== 'object' || params === null) return undefined;
  return Object.hasOwn(params, name) ? (params as Record<string, unknown>)[name] : undefined;
}
