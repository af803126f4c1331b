import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import t from 'tap';
import type { WantedLink } from '../../core/plugin/links.ts';
import type { Native } from '../../core/plugin/native.ts';
import { createNetlink } from '../../plugins/netlink/index.ts';
import { Monitor } from '../../plugins/netlink/monitor.ts';
import { OURS, prefixes } from '../contract/links.ts';
import { hostOf, inNamespace, ipJson, loadSystemCalls, run, turns } from './netlink-namespace.ts';

const LINK = 'culvert0';

if (await inNamespace(import.meta.url)) await test(await loadSystemCalls());

async function test(calls: Native): Promise<void> {
  const { clock, log } = hostOf(calls);
  const host = hostOf(calls);
  const wanted: WantedLink = {
    name: LINK,
    mtu: 1408,
    addresses: prefixes('100.64.0.1/32', 'fd00:1::1/128'),
    routes: prefixes('10.10.0.0/16', 'fd00:2::/48'),
    defaultFor: [],
  };

  await t.test('recovers from more changes than the kernel keeps for it', async (t) => {
    const monitor = new Monitor(calls, clock, log, 1);
    let told = 0;
    const end = monitor.subscribe(() => told++);
    const routes = Array.from({ length: 500 }, (_, i) => `10.200.${i >> 8}.${i & 255}/32`);
    batch(routes.map((route) => `route add blackhole ${route}`));
    await turns();
    t.ok(monitor.stats.overruns > 0, 'the kernel dropped some');
    t.ok(told > 0, 'and it was told nevertheless');
    const { overruns } = monitor.stats;
    for (let burst = 0; burst < 3; burst++) {
      batch(routes.map((route) => `route replace blackhole ${route} metric ${burst + 1}`));
      await turns();
    }
    t.ok(monitor.stats.overruns > overruns, 'each time');
    const before = told;
    run('ip', 'route', 'del', 'blackhole', '10.200.0.0/32');
    await turns();
    t.ok(told > before, 'and hears the next one');
    end();
    run('ip', 'route', 'flush', 'table', 'all', 'type', 'blackhole');
  });

  await t.test('tells of many changes at most once a turn', async (t) => {
    const monitor = new Monitor(calls, clock, log, 4 << 20);
    const seen: number[] = [];
    const end = monitor.subscribe(() => seen.push(monitor.stats.notifications));
    batch(Array.from({ length: 200 }, (_, i) => `route add blackhole 10.201.0.${i}/32`));
    await turns();
    t.equal(monitor.stats.overruns, 0);
    t.ok(monitor.stats.notifications >= 200);
    t.ok(seen.length > 0 && seen.length < 16, `told ${seen.length} times`);
    end();
    run('ip', 'route', 'flush', 'table', 'all', 'type', 'blackhole');
  });

  await t.test('restores routes that another program flushes', async (t) => {
    const links = open(t);
    links.apply(wanted);
    await turns();
    links.monitor(() => links.apply(wanted));
    run('ip', 'route', 'flush', 'dev', LINK);
    run('ip', '-6', 'route', 'flush', 'dev', LINK, 'proto', String(OURS));
    await turns();
    t.match(links.apply(wanted), { ok: true, value: { changes: 0 } });
    t.equal(ipJson('route', 'show', '10.10.0.0/16').length, 1);
    t.equal(ipJson('-6', 'route', 'show', 'fd00:2::/48').length, 1);
  });

  await t.test('says that the place of a route is taken, and by nothing of ours', async (t) => {
    const links = open(t);
    run('ip', 'route', 'add', '10.10.0.0/16', 'dev', 'lo', 'proto', '187');
    const outcome = links.apply(wanted);
    t.match(outcome, { ok: false, why: 'refused' });
    t.strictSame(outcome.failures, [
      {
        object: 'route 10.10.0.0/16',
        code: 'EEXIST',
        message: 'a route of another program is in its place',
      },
    ]);
    t.match(ipJson('route', 'show', '10.10.0.0/16'), [{ dev: 'lo' }]);
    run('ip', 'route', 'del', '10.10.0.0/16');
    t.match(links.apply(wanted), { ok: true, value: { changes: 1 } });
  });

  await t.test('says that IPv6 is off on the whole machine', async (t) => {
    writeFileSync('/proc/sys/net/ipv6/conf/all/disable_ipv6', '1');
    writeFileSync('/proc/sys/net/ipv6/conf/default/disable_ipv6', '1');
    const outcome = open(t).apply(wanted);
    t.strictSame(
      outcome.failures.map(({ object, message }) => `${object}: ${message}`),
      [
        `address fd00:1::1/128: IPv6 is disabled on ${LINK}`,
        `route fd00:2::/48: IPv6 is disabled on ${LINK}`,
      ],
    );
    writeFileSync('/proc/sys/net/ipv6/conf/all/disable_ipv6', '0');
    writeFileSync('/proc/sys/net/ipv6/conf/default/disable_ipv6', '0');
  });

  await t.test('gets IPv6 back when the MTU allows it again', async (t) => {
    const links = open(t);
    links.apply(wanted);
    const { failures } = links.apply({ ...wanted, mtu: 1200 });
    t.strictSame(
      failures.map(({ object, message }) => `${object}: ${message}`),
      [
        'address fd00:1::1/128: IPv6 needs an MTU of 1280',
        'route fd00:2::/48: IPv6 needs an MTU of 1280',
      ],
    );
    t.match(links.apply(wanted), { ok: true, failures: [] });
    t.equal(ipJson('-6', 'route', 'show', 'fd00:2::/48').length, 1);
  });

  await t.test('says when it is not permitted', async (t) => {
    const links = open(t);
    process.seteuid?.('nobody');
    const outcome = links.apply(wanted);
    process.seteuid?.(0);
    t.match(outcome, { ok: false, why: 'not-permitted', failures: [{ code: 'EPERM' }] });
  });

  await t.test('keeps its routes in a table of their own', async (t) => {
    const links = open(t, { routeTable: 2680, routeProtocol: 190 });
    t.ok(links.apply(wanted).ok);
    const rows = ipJson('route', 'show', 'table', '2680');
    t.match(rows, [{ dst: '10.10.0.0/16', protocol: '190' }]);
    t.match(links.apply(wanted), { value: { changes: 0 } });
    const main = createNetlink({ routeProtocol: 190 }).create(host);
    t.ok(!('skip' in main));
    if ('skip' in main) return;
    t.ok(main.api.apply(wanted).ok);
    t.equal(run('ip', 'route', 'show', 'table', '2680'), '', 'and finds them there when it moves');
    await main.stop();
  });

  await t.test('handles ten thousand routes', async (t) => {
    const links = open(t);
    const routes = prefixes(
      ...Array.from({ length: 10_000 }, (_, i) => `10.${i >> 8}.${i & 255}.0/24`),
    );
    let told = 0;
    links.apply({ ...wanted, routes: [] });
    await turns();
    links.monitor(() => told++);
    const timed = (what: string, run: () => unknown) => {
      const start = performance.now();
      const before = process.cpuUsage();
      const outcome = run();
      const { user, system } = process.cpuUsage(before);
      const took = Math.round(performance.now() - start);
      t.comment(`${what}: ${took} ms (user ${user / 1000}, system ${system / 1000})`);
      return outcome;
    };
    t.match(
      timed('add 10,000 routes', () => links.apply({ ...wanted, routes })),
      { ok: true, value: { changes: 10_000 } },
    );
    t.match(
      timed('find 10,000 routes in place', () => links.apply({ ...wanted, routes })),
      { ok: true, value: { changes: 0 } },
    );
    t.equal(ipJson('route', 'show', 'proto', String(OURS)).length, 10_000);
    t.match(
      timed('remove 10,000 routes', () => links.apply({ ...wanted, routes: [] })),
      { ok: true, value: { changes: 10_000 } },
    );
    await turns();
    t.equal(told, 0, 'its own changes did not overrun the monitor');
  });

  /** Opens links under test on an interface that goes with the subtest. */
  function open(t: { teardown(run: () => void): unknown }, options = {}) {
    run('ip', 'tuntap', 'add', LINK, 'mode', 'tun');
    const plugin = createNetlink(options).create(host);
    if ('skip' in plugin) throw new Error(plugin.skip);
    t.teardown(() => {
      void plugin.stop();
      run('ip', 'link', 'del', LINK);
    });
    return plugin.api;
  }
}

/** Runs `ip` once for all the lines. */
function batch(lines: readonly string[]): void {
  execFileSync('ip', ['-batch', '-'], { input: `${lines.join('\n')}\n` });
}
