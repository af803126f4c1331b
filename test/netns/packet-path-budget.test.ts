import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { whyNoLab, type Running } from '../lab/namespaces.ts';
import { TwoSites } from '../lab/two-sites.ts';

/*
 * What full load may cost apart from time: collections of the old space, and system calls. Both would
 * grow with every object or call per packet.
 */

const skip = whyNoLab();

const WARM_UP_SECONDS = 15;
const LOAD_SECONDS = 60;
/** A call per packet would be 740 on each side. */
const MOST_CALLS_PER_MB = 80;

await t.test(
  'a minute of full load makes no collection of the old space',
  { skip, timeout: 150_000 },
  async (t) => {
    const sites = await TwoSites.create(t, 'bud-gc');
    sites.a.daemon.nodeFlags = sites.b.daemon.nodeFlags = ['--trace-gc'];
    const [a, b] = await startBoth(sites);
    await load(sites, WARM_UP_SECONDS);
    const warm = [a, b].map(({ lines }) => lines.length);
    const bits = await load(sites, LOAD_SECONDS);
    for (const [i, { lines }] of [a, b].entries()) {
      const collections = lines.slice(warm[i]).filter((line) => line.includes('Mark-Compact'));
      t.same(collections, [], `site ${i === 0 ? 'a' : 'b'}, ${(bits / 1e9).toFixed(2)} Gbit/s`);
    }
  },
);

await t.test('a megabyte costs few system calls on either side', { skip }, async (t) => {
  const sites = await TwoSites.create(t, 'bud-calls');
  const [a, b] = await startBoth(sites);
  const traces = [a, b].map(({ pid }, i) => {
    const file = join(sites.directory, `calls-${i}`);
    return {
      file,
      strace: sites.lab.spawn('a', ['strace', '-c', '-f', '-o', file, '-p', `${pid}`]),
    };
  });
  await Promise.all(traces.map(({ strace }) => strace.waitFor(/attached/, 10_000)));
  const megabytes = 200;
  await transfer(sites, ['-n', `${megabytes}M`]);
  for (const { file, strace } of traces) {
    strace.signal('SIGINT');
    await strace.ended;
    const calls = countCalls(readFileSync(file, 'utf8'));
    const perMegabyte = calls.total / megabytes;
    t.comment(`${perMegabyte.toFixed(1)} calls a MB: ${calls.most}`);
    t.ok(calls.total > megabytes, 'strace saw them');
    t.ok(perMegabyte < MOST_CALLS_PER_MB, `${perMegabyte.toFixed(1)} calls a MB`);
  }
});

async function startBoth(sites: TwoSites): Promise<readonly [Running, Running]> {
  const running = [sites.a, sites.b].map(async (site) => {
    site.daemon.configure(sites.configurationOf(site));
    return site.daemon.start();
  });
  const [a, b] = await Promise.all(running);
  if (a === undefined || b === undefined) throw new Error('did not start');
  await sites.lab.exec('a', ['ping', '-c', '1', '-W', '5', sites.b.ipv4]);
  return [a, b];
}

/** Fills the tunnel with one TCP stream; returns bits per second. */
async function load(sites: TwoSites, seconds: number): Promise<number> {
  return transfer(sites, ['-t', String(seconds)], (seconds + 20) * 1000);
}

async function transfer(sites: TwoSites, options: readonly string[], timeoutMs = 60_000) {
  const server = sites.lab.spawn('b', ['iperf3', '-s', '-1', '--forceflush']);
  await server.waitFor(/Server listening/, 5000);
  const command = ['iperf3', '-c', sites.b.ipv4, '-J', ...options];
  const { stdout, code } = await sites.lab.exec('a', command, { timeoutMs });
  if (code !== 0) throw new Error(`iperf3 ended with ${code}: ${stdout.slice(-500)}`);
  const { end } = JSON.parse(stdout) as { end: { sum_received: { bits_per_second: number } } };
  return end.sum_received.bits_per_second;
}

/** Reads the table of `strace -c`: time, seconds, µs a call, calls, (errors,) name. */
function countCalls(table: string): { readonly total: number; readonly most: string } {
  const rows = [...table.matchAll(/^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$/gm)]
    .map(([, calls, name]) => ({ calls: Number(calls), name: name ?? '' }))
    .filter(({ name }) => name !== 'total')
    .sort((x, y) => y.calls - x.calls);
  const most = rows.slice(0, 5).map(({ calls, name }) => `${name} ${calls}`);
  return { total: rows.reduce((sum, { calls }) => sum + calls, 0), most: most.join(', ') };
}
