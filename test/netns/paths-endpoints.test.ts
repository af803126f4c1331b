import { setTimeout as wait } from 'node:timers/promises';
import t from 'tap';
import { SITE_NAMES, whyNoInternet, type SiteName } from '../lab/internet.ts';
import { OutageClock } from '../lab/outage.ts';
import { otherOf, PathSites } from '../lab/path-sites.ts';

/** Peers with configured endpoints, as plain WireGuard has them, behind NATs that forward a port. */
const skip = whyNoInternet();
const MB = 1e6;
const TUNNEL_MTU = 1408;
const SYN = 'tcp[tcpflags] & tcp-syn != 0';

await t.test('a tunnel to configured endpoints', { skip }, async (t) => {
  const sites = await PathSites.create(t, 'path-ep', {
    nats: { a: 'portRestricted', b: 'fullCone' },
  });
  const { internet } = sites;
  await sites.start((site: SiteName) => {
    const endpoint = `${internet.publicAddressOf(otherOf(site))}:51820`;
    const only = { relays: undefined, streams: undefined };
    return sites.configurationOf(site, only, { kind: 'wireguard', endpoint });
  });
  await sites.meet(20_000);

  await t.test('carries a download through troubles of the line', async (t) => {
    const download = await sites.download({ bytes: 30 * MB, bytesPerSecond: 10 * MB });
    await download.reaches(5 * MB, 20_000);
    await internet.cut('a');
    await wait(3000);
    await internet.restore('a');
    await download.reaches(15 * MB, 20_000);
    await internet.loss('a', 20);
    await wait(2000);
    await internet.loss('a', 0);
    const { isIntact, seconds, longestGapMs } = await download.finish(60_000);
    t.ok(isIntact, 'not a byte is wrong');
    t.comment(`${seconds.toFixed(1)} s, longest gap ${longestGapMs.toFixed(0)} ms`);
  });

  await t.test('comes back at once when a public address changes', async (t) => {
    const clock = await OutageClock.start(internet.lab, 'host-a', internet.lanOf('b').host);
    const outage = await clock.during(() => internet.changeWan('a'), 20_000);
    t.ok(outage < 3000, `${outage.toFixed(0)} ms`);
    await clock.end();
  });

  await t.test('crosses a path of 1280 bytes', async (t) => {
    const { lab } = internet;
    const syns = (['host-a', 'host-b'] as const).map((host) =>
      lab.spawn(host, ['tcpdump', '-nn', '-l', '-c1', '-i', 'any', '-Q', 'in', SYN]),
    );
    await Promise.all(syns.map((running) => running.waitFor(/listening on/, 10_000)));
    for (const site of SITE_NAMES) {
      await internet.lowMtu(site, 1280);
      const download = await sites.download({ bytes: 5 * MB });
      t.ok((await download.finish(60_000)).isIntact, `before site ${site}`);
      await internet.lowMtu(site, 1500);
    }
    for (const running of syns) {
      const [, size] = await running.waitFor(/\[mss (\d+)/, 5000);
      t.equal(size, String(TUNNEL_MTU - 40), 'MSS is clamped');
    }
    const large = ['ping', '-M', 'do', '-c1', '-W2', '-s', '1400', internet.lanOf('b').host];
    const { stdout } = await lab.exec('host-a', large);
    t.match(stdout, `mtu = ${TUNNEL_MTU}`, 'what must not be fragmented is told its size');
  });
});
