import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import t from 'tap';
import type { WantedLink } from '../../core/plugin/links.ts';
import type { Native } from '../../core/plugin/native.ts';
import { createNetlink } from '../../plugins/netlink/index.ts';
import { prefixes } from '../contract/links.ts';
import { hostOf, inNamespace, loadSystemCalls, machine, run, turns } from './netlink-namespace.ts';

/*
 *   lan host   10.1.0.2 ---- lan   10.1.0.1 [ this process ] culvert0
 *   guest host 10.3.0.2 ---- guest 10.3.0.1 [              ] wan, the default route
 */
const WANTED: WantedLink = {
  name: 'culvert0',
  mtu: 1408,
  addresses: prefixes('100.64.0.1/32', 'fd00:64::1/128'),
  routes: prefixes('10.10.0.0/16', 'fd00:10::/48'),
  defaultFor: ['lan'],
};

/** On the Internet; behind a route of the main table by wan; behind one by the link. */
const INTERNET = ['198.51.100.1', '2001:db8:1::1'];
const ROUTED = ['192.0.2.1', '2001:db8:2::1'];
const SITE = ['10.10.0.1', 'fd00:10::1'];
const ALL = [...INTERNET, ...ROUTED, ...SITE];

/** Remembers where packets from and to went. */
const WATCH = `table inet watch {
  set forwarded4 { type ifname . ifname . ipv4_addr; size 64; flags dynamic; }
  set forwarded6 { type ifname . ifname . ipv6_addr; size 64; flags dynamic; }
  set sent4 { type ifname . ipv4_addr; size 64; flags dynamic; }
  set sent6 { type ifname . ipv6_addr; size 64; flags dynamic; }
  chain forward { type filter hook forward priority 0;
    meta nfproto ipv4 udp dport 9 add @forwarded4 { iifname . oifname . ip daddr }
    meta nfproto ipv6 udp dport 9 add @forwarded6 { iifname . oifname . ip6 daddr }
  }
  chain output { type filter hook output priority 0;
    meta nfproto ipv4 udp dport 9 add @sent4 { oifname . ip daddr }
    meta nfproto ipv6 udp dport 9 add @sent6 { oifname . ip6 daddr }
  }
}`;

/** Neighbours have to be found before the first packet leaves. */
const MOST_ATTEMPTS = 100;

const SETS = ['forwarded4', 'forwarded6', 'sent4', 'sent6'];

const SEND = `
  for (const host of process.argv.slice(1)) {
    const socket = require('dgram').createSocket(host.includes(':') ? 'udp6' : 'udp4');
    socket.send('to the discard port', 9, host, () => socket.close());
  }`;

if (await inNamespace(import.meta.url)) await test(await loadSystemCalls());

async function test(calls: Native): Promise<void> {
  writeFileSync('/proc/sys/net/ipv4/ip_forward', '1');
  writeFileSync('/proc/sys/net/ipv6/conf/all/forwarding', '1');
  const lan = await machine(
    'lan',
    ['10.1.0.1/24', 'fd00:1::1/64'],
    ['10.1.0.2/24', 'fd00:1::2/64'],
    '10.1.0.1',
    'fd00:1::1',
  );
  const guest = await machine(
    'guest',
    ['10.3.0.1/24', 'fd00:3::1/64'],
    ['10.3.0.2/24', 'fd00:3::2/64'],
    '10.3.0.1',
    'fd00:3::1',
  );
  for (const link of ['wan', 'culvert0']) run('ip', 'tuntap', 'add', link, 'mode', 'tun');
  run('ip', 'address', 'add', '192.0.2.254/32', 'dev', 'wan');
  run('ip', 'address', 'add', '2001:db8:2::254/128', 'dev', 'wan', 'nodad');
  run('ip', 'link', 'set', 'wan', 'up');
  for (const route of ['default', '192.0.2.0/24']) run('ip', 'route', 'add', route, 'dev', 'wan');
  for (const route of ['default', '2001:db8:2::/48']) {
    run('ip', '-6', 'route', 'add', route, 'dev', 'wan');
  }
  run('nft', WATCH);
  const plugin = createNetlink().create(hostOf(calls));
  if ('skip' in plugin) throw new Error(plugin.skip);
  const links = plugin.api;

  /** Sends from a host to all; returns by which link each went, as `lan culvert0 198.51.100.1`. */
  const send = async (host: { readonly enter: readonly string[] } | undefined) => {
    const node = [process.execPath, '-e', SEND, ...ALL];
    for (const set of SETS) run('nft', 'flush', 'set', 'inet', 'watch', set);
    const [program, ...words] = host === undefined ? node : ['nsenter', ...host.enter, ...node];
    execFileSync(program!, words, { env: { ...process.env, NODE_OPTIONS: '' } });
    const sets = SETS.filter((set) => set.startsWith('sent') === (host === undefined));
    for (let attempt = 1; ; attempt++) {
      const went = sets.flatMap(elements).sort();
      if (went.length === ALL.length || attempt === MOST_ATTEMPTS) return went;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  const through = (link: string, by: (host: string) => string) =>
    ALL.map((host) => `${link}${by(host)} ${host}`).sort();
  const usual = (host: string) => (SITE.includes(host) ? 'culvert0' : 'wan');
  const led = (host: string) => (ROUTED.includes(host) ? 'wan' : 'culvert0');

  await t.test('leads what no specific route takes into the link', async (t) => {
    t.match(links.apply(WANTED), { ok: true, failures: [] });
    t.strictSame(await send(lan), through('lan ', led));
  });

  await t.test('leads in neither other links nor its own traffic', async (t) => {
    t.strictSame(await send(guest), through('guest ', usual));
    t.strictSame(await send(undefined), through('', usual));
  });

  await t.test('stands in the words of ip rule and ip route', async (t) => {
    for (const family of ['-4', '-6']) {
      const rules = run('ip', '-N', family, 'rule').split('\n');
      t.strictSame(
        rules.filter((rule) => rule.includes(' proto 213')).map((rule) => rule.trim()),
        [
          '32680:\tfrom all iif lan lookup 254 suppress_prefixlength 0 proto 213',
          '32681:\tfrom all iif lan lookup 2680 proto 213',
        ],
      );
      const table = run('ip', '-N', family, 'route', 'show', 'table', '2680');
      t.match(table, /^default dev culvert0 proto 213 [^\n]*\n$/);
    }
  });

  await t.test('puts back the rules and routes that another removes', async (t) => {
    const end = links.monitor(() => links.apply(WANTED));
    for (const family of ['-4', '-6']) {
      run('ip', family, 'rule', 'del', 'pref', '32681');
      run('ip', family, 'route', 'flush', 'table', '2680');
    }
    t.strictSame(await send(lan), through('lan ', usual));
    await turns();
    t.strictSame(await send(lan), through('lan ', led));
    t.strictSame(links.apply(WANTED), { ok: true, value: { changes: 0 }, failures: [] });
    end();
  });

  await t.test('keeps the way while it is left to others, and leads one more', async (t) => {
    t.match(links.apply({ ...WANTED, defaultFor: ['lan', 'guest'] }), { value: { changes: 4 } });
    t.strictSame(await send(guest), through('guest ', led));
    t.match(links.apply(WANTED), { value: { changes: 4 } });
    t.strictSame(await send(guest), through('guest ', usual));
  });

  await t.test('falls back to the usual way when the interface goes', async (t) => {
    run('ip', 'link', 'set', 'culvert0', 'down');
    t.strictSame(
      await send(lan),
      through('lan ', () => 'wan'),
    );
    t.match(links.apply(WANTED), { ok: true });
    t.strictSame(await send(lan), through('lan ', led));
  });

  await t.test('leaves nothing behind', async (t) => {
    links.clear('culvert0');
    for (const family of ['-4', '-6']) {
      t.notMatch(run('ip', family, 'rule'), /proto 213/);
      t.equal(run('ip', family, 'route', 'show', 'table', 'all', 'proto', '213'), '');
    }
    t.strictSame(
      await send(lan),
      through('lan ', () => 'wan'),
    );
  });

  await plugin.stop();
  lan.stop();
  guest.stop();
}

function elements(set: string): readonly string[] {
  const { nftables } = JSON.parse(run('nft', '-j', 'list', 'set', 'inet', 'watch', set)) as {
    nftables: { set?: { elem?: { concat: string[] }[] } }[];
  };
  return nftables.flatMap(({ set: listed }) =>
    (listed?.elem ?? []).map(({ concat }) => concat.join(' ')),
  );
}
