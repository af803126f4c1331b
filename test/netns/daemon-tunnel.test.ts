import { readFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import { whyNoLab, type Lab, type Running } from '../lab/namespaces.ts';
import { TwoSites } from '../lab/two-sites.ts';

const skip = whyNoLab();
/** IP and ICMP headers in front of the payload of a ping. */
const HEADERS = { ipv4: 20 + 8, ipv6: 40 + 8 };

/** By the flags of TCP; pcap finds them in IPv4 only by itself. */
const SYN = 'tcp[tcpflags] & tcp-syn != 0 or (ip6 proto 6 and ip6[53] & 0x02 != 0)';
const SYN_ACK = 'tcp[tcpflags] & 0x12 = 0x12 or (ip6 proto 6 and ip6[53] & 0x12 = 0x12)';
const MSS = /\bmss (\d+)/;

for (const outer of ['ipv4', 'ipv6'] as const) {
  await t.test(`two sites reach each other over ${outer}`, { skip }, async (t) => {
    const sites = await TwoSites.create(t, `dmn-${outer}`, { outer, lans: true });
    const { lab, a, b } = sites;
    await sites.start();

    await t.test('inside the tunnel, in both families', async (t) => {
      await sites.ping(t, 'a', b.ipv4);
      await sites.ping(t, 'a', b.ipv6);
      await sites.ping(t, 'b', a.ipv4);
      const { peers } = await a.daemon.status();
      t.match(peers, [{ id: 'site-b', state: 'connected', endpoint: b.endpoints[outer] }]);
    });

    await t.test('from host to host of the LANs behind them, through allowedIps', async (t) => {
      await sites.ping(t, 'host-a', b.lan.ipv4);
      await sites.ping(t, 'host-b', a.lan.ipv6);
    });

    // Before any host has learned the MTU of the path.
    await t.test('TCP agrees on segments that fit, in both families and ways', async (t) => {
      t.same(await segmentSizes(lab, b.lan.ipv4), { offered: 1408 - 40, answered: 1408 - 40 });
      t.same(await segmentSizes(lab, b.lan.ipv6), { offered: 1408 - 60, answered: 1408 - 60 });
    });

    await t.test('a packet of 1408 bytes passes, a larger one is told the MTU', async (t) => {
      await packetsUpTo(t, sites, 1408);
    });

    await t.test('and still do where the path takes 1280 bytes only', async (t) => {
      await lab.ip('a', 'link set to-b mtu 1280');
      await lab.ip('b', 'link set to-a mtu 1280');
      await packetsUpTo(t, sites, 1408);
    });
  });
}

await t.test('an interface with an MTU of 1280', { skip }, async (t) => {
  const sites = await TwoSites.create(t, 'dmn-mtu', { lans: true });
  const { lab, a, b } = sites;
  for (const site of [a, b]) {
    site.daemon.configure(sites.configurationOf(site, { mtu: 1280 }));
    await site.daemon.start();
  }
  await sites.ping(t, 'a', b.ipv6);
  t.same(await segmentSizes(lab, b.lan.ipv4), { offered: 1280 - 40, answered: 1280 - 40 });
  await packetsUpTo(t, sites, 1280);
  t.match(await lab.ip('a', `link show ${a.device}`), 'mtu 1280');
});

await t.test('the daemon starts fast and stays small', { skip }, async (t) => {
  const sites = await TwoSites.create(t, 'dmn-start');
  const { lab, a, b } = sites;
  b.daemon.configure(sites.configurationOf(b));
  a.daemon.configure(sites.configurationOf(a, {}, { keepalive: 25 }));
  await b.daemon.start();
  const started = performance.now();
  const running = a.daemon.spawn();
  await running.waitFor(/"peer connected"/, 20_000);
  const tookMs = performance.now() - started;
  t.comment(`from start to the first handshake: ${tookMs.toFixed(0)} ms`);
  t.ok(tookMs < 2000 * slowness(), 'the first handshake came soon');

  const bare = lab.spawn('a', [process.execPath, '-e', 'console.log(0);setInterval(()=>{},1e9)']);
  await bare.waitFor(/0/, 10_000);
  t.comment(`idle RSS: ${rss(running)} MB, bare node: ${rss(bare)} MB`);
});

/** Whatever fits into the MTU passes without fragments, and one byte more is refused with the MTU. */
async function packetsUpTo(t: Test, sites: TwoSites, mtu: number): Promise<void> {
  const { lab, b } = sites;
  for (const [family, target] of [
    ['ipv4', b.lan.ipv4],
    ['ipv6', b.lan.ipv6],
  ] as const) {
    const ping = async (length: number) => {
      const size = String(length - HEADERS[family]);
      const command = ['ping', '-n', '-M', 'do', '-c', '1', '-W', '5', '-s', size, target];
      return lab.exec('host-a', command, { timeoutMs: 20_000 });
    };
    const fits = await ping(mtu);
    t.equal(fits.code, 0, `${mtu} bytes over ${family} pass${fits.code === 0 ? '' : fits.stdout}`);
    // The first refusal comes from the router; later ones from what the host remembers.
    const tooLarge = await ping(mtu + 1);
    t.not(tooLarge.code, 0);
    const told = tooLarge.stdout + tooLarge.stderr;
    t.match(told, new RegExp(`mtu ?[=:] ?${mtu}`), `${mtu + 1} bytes over ${family} are refused`);
  }
}

/** Bytes of a segment as the two hosts of a connection from `host-a` to `address` hear of them. */
async function segmentSizes(lab: Lab, address: string) {
  const server = lab.spawn('host-b', ['iperf3', '-s', '-1', '--forceflush']);
  await server.waitFor(/Server listening/, 10_000);
  const offered = await sniff(lab, 'host-b', 'to-b', SYN);
  const answered = await sniff(lab, 'host-a', 'to-a', SYN_ACK);
  const client = lab.exec('host-a', ['iperf3', '-c', address, '-n', '100K'], { timeoutMs: 30_000 });
  const sizes = await Promise.all([offered, answered].map((dump) => dump.waitFor(MSS, 20_000)));
  await client;
  const [first, second] = sizes.map(([, size]) => Number(size));
  return { offered: first, answered: second };
}

/** Prints the first packet that the filter takes. */
async function sniff(lab: Lab, host: string, device: string, filter: string): Promise<Running> {
  const dump = lab.spawn(host, ['tcpdump', '-i', device, '-n', '-l', '-c1', filter]);
  await dump.waitFor(/listening on/, 10_000);
  return dump;
}

/** Megabytes. */
function rss({ pid }: Running): string {
  const [, kilobytes] = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return (Number(kilobytes) / 1024).toFixed(1);
}

/** How much more work waits than the machine has processors. */
function slowness(): number {
  const [load = '1'] = readFileSync('/proc/loadavg', 'utf8').split(' ');
  return Math.max(1, Number(load));
}
