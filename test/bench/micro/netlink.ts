import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseIpPrefix, type IpPrefix } from '../../../core/net/ip-prefix.ts';
import { Plugins } from '../../../core/plugin/host.ts';
import { links } from '../../../core/plugin/links.ts';
import { nullLog } from '../../../core/sansio/log.ts';
import { createNetlink, ROUTE_PROTOCOL } from '../../../plugins/netlink/index.ts';
import { createNative, createNodeClock } from '../../../plugins/platform-node/index.ts';
import { less } from '../samples.ts';
import { NATIVE_FILE, type Finding } from './micro-bench.ts';

const add = less('add 10,000 routes', 'ms');
const read = less('read 10,000 routes', 'ms');
const remove = less('remove 10,000 routes', 'ms');

export const netlinkMetrics = [add, read, remove];

const ROUTES = 10_000;
const DEVICE = 'bench0';

/** Our netlink against `ip -batch`, to be run in a network namespace of its own. */
export async function netlink(): Promise<Finding[]> {
  ip('link', 'add', DEVICE, 'type', 'veth', 'peer', 'name', 'bench1');
  ip('link', 'set', 'bench1', 'up');
  ip('link', 'set', DEVICE, 'up');
  const prefixes = Array.from({ length: ROUTES }, (_, i) => `10.${i >> 8}.${i & 255}.0/24`);
  return [...byIp(prefixes), ...(await byCulvert(prefixes))];
}

function byIp(prefixes: readonly string[]): Finding[] {
  const directory = mkdtempSync(join(tmpdir(), 'culvert-bench-'));
  const batch = (command: string): number => {
    const file = join(directory, command);
    const route = (prefix: string) =>
      `route ${command} ${prefix} dev ${DEVICE} proto ${ROUTE_PROTOCOL}`;
    writeFileSync(file, `${prefixes.map(route).join('\n')}\n`);
    return timed(() => ip('-batch', file));
  };
  const subject = 'ip -batch';
  try {
    return [
      { subject, metric: add, value: batch('add') },
      { subject, metric: read, value: timed(() => ip('-j', 'route', 'show', 'dev', DEVICE)) },
      { subject, metric: remove, value: batch('delete') },
    ];
  } finally {
    rmSync(directory, { recursive: true });
  }
}

async function byCulvert(prefixes: readonly string[]): Promise<Finding[]> {
  const plugins = new Plugins(nullLog, createNodeClock());
  plugins.start([createNative({ path: NATIVE_FILE }), createNetlink()]);
  const api = plugins.find(links);
  if (api === undefined) throw new Error(plugins.skipped.map(({ why }) => why).join(', '));
  const wanted = {
    name: DEVICE,
    mtu: 1500,
    addresses: [],
    routes: prefixes.map(prefixOf),
    defaultFor: [],
  };
  const apply = (): void => {
    const applied = api.apply(wanted);
    if (!applied.ok) throw new Error(JSON.stringify(applied.failures[0] ?? applied.why));
  };
  const subject = 'culvert';
  try {
    return [
      { subject, metric: add, value: timed(apply) },
      // What is there already is read and compared.
      { subject, metric: read, value: timed(apply) },
      { subject, metric: remove, value: timed(() => api.clear(DEVICE)) },
    ];
  } finally {
    await plugins.stop();
  }
}

function prefixOf(text: string): IpPrefix {
  const parsed = parseIpPrefix(text);
  if (!parsed.ok) throw new Error(text);
  return parsed.value;
}

function timed(work: () => void): number {
  const started = performance.now();
  work();
  return performance.now() - started;
}

function ip(...parameters: readonly string[]): void {
  execFileSync('ip', parameters, { stdio: ['ignore', 'pipe', 'inherit'], maxBuffer: 2 ** 27 });
}
