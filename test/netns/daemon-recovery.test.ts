import { existsSync } from 'node:fs';
import t, { type Test } from 'tap';
import { eventually } from '../lab/daemon.ts';
import { whyNoLab, type Running } from '../lab/namespaces.ts';
import { TwoSites } from '../lab/two-sites.ts';
import { SeededRandom } from '../sim/seeded-random.ts';

/** Ends of the daemon, wanted or not, and other programs at what is its own. */
const skip = whyNoLab();
const KILLS = 5;

await t.test('SIGTERM leaves nothing behind', { skip }, async (t) => {
  const { sites, running } = await start(t, 'dmn-term');
  const pings = await sites.startPings('a', sites.b.ipv4);
  const files = [sites.a.daemon.socket, uapiSocket(sites)];
  t.ok(files.every(existsSync), 'both sockets are there');
  const asked = performance.now();
  running.signal('SIGTERM');
  t.equal(await running.ended, 0);
  const tookMs = performance.now() - asked;
  t.ok(tookMs < 2000, `it took ${tookMs.toFixed(0)} ms`);
  await pings.end();
  await isGone(t, sites);
  t.notOk(files.some(existsSync), 'the sockets are gone');
  t.notOk(
    running.lines.some((line) => /"severity":"(warn|error)"/.test(line)),
    'nothing went wrong on the way',
  );
});

await t.test('SIGINT ends it as well', { skip }, async (t) => {
  const { sites, running } = await start(t, 'dmn-int');
  running.signal('SIGINT');
  t.equal(await running.ended, 0);
  await isGone(t, sites);
});

await t.test(`it recovers from ${KILLS} kills at any moment under traffic`, { skip }, async (t) => {
  const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
  t.comment(`SEED=${seed}`);
  const random = new SeededRandom(seed);
  const { sites, running: first } = await start(t, 'dmn-kill');
  const { a, b, lab } = sites;
  for (let kill = 1; kill <= KILLS; kill++) {
    // Some kills meet a running tunnel, others a daemon that is about to start.
    const running = kill === 1 ? first : a.daemon.spawn();
    const traffic = lab.spawn('a', ['ping', '-n', '-i', '0.01', '-s', '1200', b.ipv4]);
    const delayMs = Math.floor(random.fraction() * 800);
    await new Promise((resolve) => setTimeout(resolve, delayMs));
    running.signal('SIGKILL');
    await running.ended;
    await traffic.stop();
    t.comment(`kill ${kill} after ${delayMs} ms`);
    t.notMatch(await lab.ip('a', 'link show'), a.device, 'the kernel removed the interface');
  }
  const running = await a.daemon.start();
  await sites.ping(t, 'a', b.ipv4);
  await sites.ping(t, 'b', a.ipv6);
  t.match((await lab.exec('a', ['wg', 'show', a.device])).stdout, b.publicKey, 'wg reaches it');
  t.notOk(running.lines.some((line) => /"severity":"(warn|error)"/.test(line)));
  t.equal(await a.daemon.stop(), 0);
  await isGone(t, sites);
});

await t.test('what another program takes away comes back', { skip }, async (t) => {
  const { sites, running } = await start(t, 'dmn-away');
  const { a, b, lab } = sites;
  await sites.ping(t, 'a', b.ipv4);
  const before = await a.daemon.status();
  const harms = [
    `address del ${a.ipv4}/32 dev ${a.device}`,
    `address del ${a.ipv6}/128 dev ${a.device}`,
    `address flush dev ${a.device}`,
    `route del ${b.ipv4} dev ${a.device}`,
    `-6 route del ${b.ipv6} dev ${a.device}`,
    `link set ${a.device} mtu 1300`,
    `link set ${a.device} down`,
    `address add 192.0.2.1/32 dev ${a.device}`,
    `link del ${a.device}`,
  ];
  const wanted = await sight(sites);
  for (const harm of harms) {
    await t.test(`ip ${harm.replaceAll(a.device, 'culvert0')}`, async (t) => {
      const lines = running.lines.length;
      await lab.ip('a', harm);
      t.equal(
        await eventually(
          () => sight(sites),
          (seen) => seen === wanted,
          10_000,
        ),
        wanted,
      );
      await sites.ping(t, 'a', b.ipv4);
      await sites.ping(t, 'b', a.ipv6);
      const told = running.lines.slice(lines).filter((line) => !line.includes('removed'));
      t.same(told, [], 'without a word');
    });
  }
  await t.test('five times in a row, without a wait', async (t) => {
    for (let round = 0; round < 5; round++) {
      await lab.ip('a', `link set ${a.device} down`);
      await eventually(
        () => sight(sites),
        (seen) => seen === wanted,
        10_000,
      );
      await lab.ip('a', `link del ${a.device}`);
      await eventually(
        () => sight(sites),
        (seen) => seen === wanted,
        10_000,
      );
    }
    await sites.ping(t, 'a', b.ipv4);
  });
  const { peers, lastError } = await a.daemon.status();
  t.equal(lastError, undefined);
  t.equal(
    peers[0]?.lastHandshakeUnixMs,
    before.peers[0]?.lastHandshakeUnixMs,
    'the session outlived it all',
  );
});

await t.test(
  'what cannot be is named, the rest runs, and it is made up for',
  { skip },
  async (t) => {
    const sites = await TwoSites.create(t, 'dmn-short', { lans: true });
    const { a, b, lab } = sites;
    for (const site of [a, b]) site.daemon.configure(sites.configurationOf(site));
    const [network = ''] = b.lan.networks;
    await lab.exec('a', ['sysctl', '-w', 'net.ipv6.conf.default.disable_ipv6=1']);
    await lab.ip('a', `route add ${network} via 10.9.0.2`);
    const running = a.daemon.spawn();
    await b.daemon.start();
    const [line] = await running.waitFor(/.*configuration failed.*/, 15_000);
    t.match(JSON.parse(line), { severity: 'warn', running: true });
    await sites.ping(t, 'a', b.ipv4);
    const { lastError, phase } = await a.daemon.status();
    t.equal(phase, 'running');
    t.match(lastError, `address ${a.ipv6}/128: IPv6 is disabled on ${a.device}`);
    t.match(lastError, `route ${network}: a route of another program is in its place`);

    const lines = running.lines.length;
    await lab.ip('a', 'address add 192.0.2.7/32 dev lo');
    await lab.ip('a', `route del ${network} via 10.9.0.2`);
    await eventually(
      () => lab.ip('a', `route show ${network}`),
      (route) => route.includes(a.device),
      10_000,
    );
    await sites.ping(t, 'host-a', b.lan.ipv4);
    await lab.exec('a', ['sysctl', '-w', `net.ipv6.conf.${a.device}.disable_ipv6=0`]);
    await lab.ip('a', 'address add 192.0.2.8/32 dev lo');
    await running.waitFor(/configuration applied/, 10_000);
    t.equal((await a.daemon.status()).lastError, undefined);
    await sites.ping(t, 'a', b.ipv6);
    t.ok(running.lines.length - lines <= 3, 'each change is told once');
  },
);

await t.test('a name taken while the interface is gone is waited for', { skip }, async (t) => {
  const { sites, running } = await start(t, 'dmn-usurp');
  const { a, b, lab } = sites;
  await sites.ping(t, 'a', b.ipv4);
  const wanted = await sight(sites);
  running.signal('SIGSTOP');
  await lab.ip('a', `link del ${a.device}`);
  await lab.ip('a', `link add ${a.device} type veth peer name usurper`);
  running.signal('SIGCONT');
  await running.waitFor(/removed and cannot be made again yet/, 10_000);
  await lab.ip('a', `link del ${a.device}`);
  t.equal(
    await eventually(
      () => sight(sites),
      (seen) => seen === wanted,
      10_000,
    ),
    wanted,
  );
  await sites.ping(t, 'a', b.ipv4);
});

async function start(t: Test, prefix: string): Promise<{ sites: TwoSites; running: Running }> {
  const sites = await TwoSites.create(t, prefix);
  const { a, b } = sites;
  for (const site of [a, b]) site.daemon.configure(sites.configurationOf(site));
  const [running] = await Promise.all([a.daemon.start(), b.daemon.start()]);
  return { sites, running };
}

/** What `a` has in the kernel, but for the number of the interface and what the kernel adds. */
async function sight({ lab, a }: TwoSites): Promise<string> {
  const { stdout } = await lab.exec('a', [
    'sh',
    '-c',
    `ip -o address show ${a.device}; ip -4 route; ip -6 route; ip link show ${a.device}`,
  ]);
  return stdout
    .split('\n')
    .filter((line) => !/fe80::|link\/none/.test(line))
    .map((line) =>
      line
        .replace(/^\d+: /, '')
        .replace(/ pref medium| metric \d+/g, '')
        .trim(),
    )
    .join('\n');
}

async function isGone(t: Test, { lab, a, b }: TwoSites): Promise<void> {
  t.notMatch(await lab.ip('a', 'link show'), a.device, 'no interface');
  t.notMatch(await lab.ip('a', 'route show table all'), b.ipv4, 'no route');
  t.notMatch(await lab.ip('a', '-6 route show table all'), b.ipv6, 'no IPv6 route');
  const { stdout } = await lab.exec('a', ['ss', '-lunx']);
  t.notMatch(stdout, /51820|culvert/, 'no socket');
}

function uapiSocket({ a }: TwoSites): string {
  return `/var/run/wireguard/${a.device}.sock`;
}
