import { IDLE_AFTER, type Connection } from '../../../core/connection/connection.ts';
import { Bench } from '../../core/connection/bench.ts';

const PAIRS_OF_CONNECTIONS = 100;

/** Longer than a connection without packets takes to idle. */
const QUIET_MS = 5 * IDLE_AFTER;

/**
 * Returns the kilobytes that the state of one connection takes beside its WireGuard peer: it has two paths
 * that work, and idles.
 */
export function idleConnectionKilobytes(): number {
  idleConnections(0); // code is loaded
  const before = heldBytes();
  const pairs = Array.from({ length: PAIRS_OF_CONNECTIONS }, (_, i) => idleConnections(i));
  const bytes = heldBytes() - before;
  const all = pairs.flat();
  const other = all.find(({ state }) => state !== 'idle');
  if (other !== undefined) throw new Error(`it does not idle, but is ${other.state}`);
  return bytes / 1024 / all.length;
}

/** Both sides of one connection. What it ran in is forgotten. */
function idleConnections(seed: number): readonly Connection[] {
  const bench = new Bench({ seed });
  bench.introduce();
  bench.left.startTraffic(500);
  bench.right.startTraffic(500);
  bench.run(20_000);
  bench.left.stopTraffic();
  bench.right.stopTraffic();
  bench.run(QUIET_MS);
  return [bench.left.connection, bench.right.connection];
}

function heldBytes(): number {
  for (let i = 0; i < 3; i++) globalThis.gc?.();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}
