import t from 'tap';
import { SITE_NAMES, whyNoInternet } from '../lab/internet.ts';
import { PathSites } from '../lab/path-sites.ts';

const skip = whyNoInternet();
const MB = 1e6;
const TUNNEL_MTU = 1408;
const SYN = 'tcp[tcpflags] & tcp-syn != 0';

await t.test('a path of 1280 bytes carries the tunnel', { skip }, async (t) => {
  const sites = await PathSites.create(t, 'path-mtu', {
    nats: { a: 'portRestricted', b: 'portRestricted' },
  });
  const { internet } = sites;
  const { lab } = internet;
  await sites.start();
  await sites.meet(30_000);
  await sites.usesPath(/^direct/, 10_000);

  for (const [kind, prepare] of [
    ['direct', async () => undefined],
    ['relayed', () => internet.blockDirect()],
  ] as const) {
    await t.test(kind, async (t) => {
      await prepare();
      await sites.usesPath(new RegExp(`^${kind}`), 30_000);
      for (const site of SITE_NAMES) {
        await internet.lowMtu(site, 1280);
        const download = await sites.download({ bytes: 5 * MB });
        t.ok((await download.finish(60_000)).isIntact, `before site ${site}`);
        await internet.lowMtu(site, 1500);
      }
    });
  }

  await t.test('a packet that is too big and must not be fragmented is answered', async (t) => {
    const large = ['ping', '-M', 'do', '-c1', '-W2', '-s', '1400', internet.lanOf('b').host];
    const { stdout } = await lab.exec('host-a', large);
    t.match(stdout, `mtu = ${TUNNEL_MTU}`, 'what must not be fragmented is told its size');
  });

  await t.test('the MSS is clamped in both directions', async (t) => {
    const syns = (['host-a', 'host-b'] as const).map((host) =>
      lab.spawn(host, ['tcpdump', '-nn', '-l', '-c1', '-i', 'any', '-Q', 'in', SYN]),
    );
    await Promise.all(syns.map((running) => running.waitFor(/listening on/, 10_000)));
    await (await sites.download({ bytes: MB })).finish(30_000);
    for (const running of syns) {
      const [, size] = await running.waitFor(/\[mss (\d+)/, 5000);
      t.equal(size, String(TUNNEL_MTU - 40));
    }
  });
});
