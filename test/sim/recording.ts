import type { Engine } from '../../core/engine/engine.ts';
import type { InputRegion } from '../../core/fastpath/arena.ts';
import { SEND_LENGTH, SEND_OFFSET, SEND_SIZE } from '../../core/fastpath/layout.ts';

/** One call of a method of an engine: what went in, packets included, and what came out. */
interface Call {
  readonly method: string;
  readonly parameters: readonly unknown[];
  /** What the input region of the arena held, for a batch of packets. */
  readonly batch: Uint8Array | undefined;
  readonly output: string;
}

/** Returns the engine under a recorder that writes down every call. */
export function recordCalls(engine: Engine, calls: Call[]): Engine {
  return new Proxy(engine, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name, target);
      if (name === 'fleet') return recordWill(target, calls);
      if (typeof value !== 'function') return value;
      return (...parameters: unknown[]): unknown => {
        const method = String(name);
        const region = regionOf(target, method);
        const batch = region === undefined ? undefined : target.arena.buffer.slice(...region);
        const result: unknown = Reflect.apply(value, target, parameters);
        calls.push({
          method,
          parameters: structuredClone(parameters),
          batch: batch === undefined ? undefined : new Uint8Array(batch),
          output: outputOf(target, method, result),
        });
        return result;
      };
    },
  });
}

/** Makes the same calls on a fresh engine; returns where it first answers otherwise. */
export function replayCalls(engine: Engine, calls: readonly Call[]): Call | undefined {
  return calls.find(({ method, parameters, batch, output }) => {
    const region = regionOf(engine, method);
    if (region !== undefined && batch !== undefined) {
      new Uint8Array(engine.arena.buffer).set(batch, region[0]);
    }
    if (method === WILL) return outputOf(engine, method, engine.fleet?.will()) !== output;
    const called = Reflect.get(engine, method) as (...parameters: unknown[]) => unknown;
    return outputOf(engine, method, called.apply(engine, [...parameters])) !== output;
  });
}

/** Each will begins a new session of the device, and so changes what it says from there on. */
const WILL = 'will';

function recordWill(engine: Engine, calls: Call[]): Engine['fleet'] {
  const { fleet } = engine;
  return (
    fleet && {
      subscriptions: fleet.subscriptions,
      will: () => {
        const will = fleet.will();
        const output = outputOf(engine, WILL, will);
        calls.push({ method: WILL, parameters: [], batch: undefined, output });
        return will;
      },
    }
  );
}

function regionOf(engine: Engine, method: string): [number, number] | undefined {
  const { reads, datagrams } = engine.arena;
  if (method === 'handlePackets') return extentOf(reads);
  return method === 'handleDatagrams' ? extentOf(datagrams) : undefined;
}

function extentOf({ table, into, end }: InputRegion): [number, number] {
  return [Math.min(table, into), end];
}

/** What a call gave, with the datagrams that it left in the arena. */
function outputOf(engine: Engine, method: string, result: unknown): string {
  const text = JSON.stringify(result, (_key, value: unknown) =>
    value instanceof Uint8Array ? Buffer.from(value).toString('hex') : value,
  );
  if (method !== 'takeSends') return text;
  const { buffer, sends } = engine.arena;
  const view = new DataView(buffer);
  const sent = Array.from({ length: Number(result) }, (_, i) => {
    const record = sends + i * SEND_SIZE;
    const offset = view.getUint32(record + SEND_OFFSET, true);
    return Buffer.from(buffer, offset, view.getUint32(record + SEND_LENGTH, true)).toString('hex');
  });
  return [text, ...sent].join();
}

export type { Call };
