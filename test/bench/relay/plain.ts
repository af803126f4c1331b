import { resolve } from 'node:path';
import { arch } from 'node:process';
import { setTimeout as wait } from 'node:timers/promises';
import type { Running } from '../../lab/namespaces.ts';
import { cpuSeconds } from '../process-usage.ts';
import { DATAGRAM_LENGTH, PEER_PORT } from './datagrams.ts';
import { ADDRESS, succeed, type RelayLab } from './lab.ts';

const PROGRAM = [process.execPath, 'dist/bench/relay.mjs'];
const NATIVE = resolve(`dist/native/culvert-${arch}.node`);

export interface PlainRate {
  /** Of what the datagrams carry through the relay. */
  readonly gigabitsPerSecond: number;
  /** Seconds of its CPU for each gigabit. */
  readonly relayCpu: number;
}

/**
 * What the relay carries at most of datagrams as long as full packets of a tunnel, over UDP: from a
 * client in `a` to its peer in `b`, or back. A rule where they arrive counts and drops them, so that no
 * receiver takes time from the relay.
 */
export async function plainRate(
  { lab, relay }: RelayLab,
  seconds: number,
  direction: 'from client' | 'to client',
): Promise<PlainRate> {
  const isBack = direction === 'to client';
  const [site, source] = isBack ? (['a', relay.port] as const) : (['b', undefined] as const);
  const match = source === undefined ? `udp dport ${PEER_PORT}` : `udp sport ${source}`;
  const rules = `table ip plain {
    counter arrived { }
    chain arrivals {
      type filter hook prerouting priority raw
      ${match} meta length >= ${DATAGRAM_LENGTH} counter name arrived drop
    }
  }`;
  await succeed(lab, site, ['nft', '-f', '-'], rules);
  const server = `${relay.address}:${relay.port}`;
  const peer = `${ADDRESS.b}:${PEER_PORT}`;
  const client = ['client', NATIVE, server, peer, isBack ? 'wait' : 'flood'];
  const running: Running[] = [lab.spawn('a', [...PROGRAM, ...client])];
  try {
    const [, relayed = ''] = (await running[0]?.waitFor(/^relayed (\S+)/, 10_000)) ?? [];
    if (isBack) running.push(lab.spawn('b', [...PROGRAM, 'peer', NATIVE, relayed]));
    await wait(START_MS);
    const before = { datagrams: await arrived(), cpu: cpuSeconds(relay.pid) };
    const started = performance.now();
    await wait(seconds * 1000);
    const datagrams = (await arrived()) - before.datagrams;
    const passed = (performance.now() - started) / 1000;
    const gigabits = (datagrams * DATAGRAM_LENGTH * 8) / 1e9;
    return {
      gigabitsPerSecond: gigabits / passed,
      relayCpu: (cpuSeconds(relay.pid) - before.cpu) / gigabits,
    };
  } finally {
    for (const one of running) await one.stop();
    await succeed(lab, site, ['nft', 'delete', 'table', 'ip', 'plain']);
  }

  async function arrived(): Promise<number> {
    const listed = await succeed(lab, site, ['nft', 'list', 'counter', 'ip', 'plain', 'arrived']);
    const [, packets] = /packets (\d+)/.exec(listed) ?? [];
    return Number(packets);
  }
}

/** Until the flood has begun. */
const START_MS = 500;
