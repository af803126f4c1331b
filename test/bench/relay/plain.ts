import { resolve } from 'node:path';
import { arch } from 'node:process';
import { setTimeout as wait } from 'node:timers/promises';
import type { Running } from '../../lab/namespaces.ts';
import { cpuSeconds } from '../process-usage.ts';
import { FULL_LENGTH, PEER_PORT } from './datagrams.ts';
import { ADDRESS, type RelayLab } from './lab.ts';

const PROGRAM = [process.execPath, 'dist/bench/relay.mjs'];
const NATIVE = resolve(`dist/native/culvert-${arch}.node`);
const CLIENT = [...PROGRAM, 'client', NATIVE];
const PEER = [...PROGRAM, 'peer', NATIVE];

export interface PlainRate {
  /** Of what the datagrams carry through the relay. */
  readonly gigabitsPerSecond: number;
  /** Seconds of its CPU for each gigabit. */
  readonly relayCpu: number;
}

/**
 * What the relay carries at most of datagrams as long as full packets of a tunnel, over UDP: from a
 * client in `a` to its peer in `b`, or back. Both sides send and receive in batches, as the daemon does.
 */
export async function plainRate(
  parts: RelayLab,
  seconds: number,
  direction: Direction,
): Promise<PlainRate> {
  const rates: PlainRate[] = [];
  for (const window of WINDOWS) rates.push(await rateWith(window, parts, seconds, direction));
  return rates.reduce((best, one) => (one.gigabitsPerSecond > best.gigabitsPerSecond ? one : best));
}

async function rateWith(
  window: number,
  { lab, relay }: RelayLab,
  seconds: number,
  direction: Direction,
): Promise<PlainRate> {
  const isBack = direction === 'to client';
  const server = `${relay.address}:${relay.port}`;
  const at = `${ADDRESS.b}:${PEER_PORT}`;
  const ends: Running[] = [];
  try {
    const client = lab.spawn('a', [...CLIENT, server, at, String(isBack ? 0 : window)]);
    ends.push(client);
    const [, relayed = ''] = await client.waitFor(/^relayed (\S+)/, 10_000);
    const peer = lab.spawn('b', [...PEER, relayed, String(isBack ? window : 0)]);
    ends.push(peer);
    const receiver = isBack ? client : peer;
    await peer.waitFor(/^ready/, 10_000);
    await wait(START_MS);
    const before = { cpu: cpuSeconds(relay.pid), datagrams: await count(receiver, 1) };
    const started = performance.now();
    await wait(seconds * 1000);
    const datagrams = (await count(receiver, 2)) - before.datagrams;
    const passed = (performance.now() - started) / 1000;
    const gigabits = (datagrams * FULL_LENGTH * 8) / 1e9;
    return {
      gigabitsPerSecond: gigabits / passed,
      relayCpu: (cpuSeconds(relay.pid) - before.cpu) / gigabits,
    };
  } finally {
    for (const one of ends) await one.stop();
  }
}

/** Asks for the time number `time` how many datagrams came so far. */
async function count(receiver: Running, time: number): Promise<number> {
  receiver.signal('SIGUSR2');
  const [, datagrams] = await receiver.waitFor(new RegExp(`^${time}: received (\\d+)`), 5000);
  return Number(datagrams);
}

export type Direction = 'from client' | 'to client';

/**
 * Datagrams on their way. Few leave the relay without work when a process has to wait for its turn; of many
 * it drops a part, whose sending cost time. Which is best depends on the machine.
 */
const WINDOWS = [300, 3000] as const;

/** Until the flood has found its speed. */
const START_MS = 500;
