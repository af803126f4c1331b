import t from 'tap';
import { eventually } from '../lab/daemon.ts';
import { Download } from '../lab/download.ts';
import { whyNoLab } from '../lab/namespaces.ts';
import { INTERNET, ResourceLab } from '../lab/resource-lab.ts';

const skip = whyNoLab();
const MB = 1e6;
/** What stays a gateway's own: its LAN, the tunnel's addresses, documentation. */
const SPECIAL = ['192.168.2.1', '10.1.2.3', '100.64.9.9', '169.254.1.1', '203.0.113.1'];
/** Networks that the client sends there as well. */
const NETWORKS = ['10.5.0.0/16', 'fd05::/64'];
const SPECIAL_IPV6 = ['fd02::1', '2001:db8::1'];

await t.test('the internet through a gateway', { skip }, async (t) => {
  const scene = await ResourceLab.create(t, 'rsi');
  const { lab, a, gateway } = scene;
  await scene.startEcho('internet');
  scene.configureResource({ id: 'world', type: 'internet' }, { behindGateway: NETWORKS });
  /** Which router the server on the Internet sees. */
  const seen = async (from: string, address: string = INTERNET.ipv4): Promise<string> => {
    const [who = ''] = (await scene.whoAmI(from, address)).split(' ');
    const router = [a, gateway].find(({ public: { ipv4, ipv6 } }) => [ipv4, ipv6].includes(who));
    return router?.name ?? who;
  };
  const rules = async (): Promise<string> => {
    return (await lab.ip('a', 'rule')) + (await lab.ip('a', '-6 rule'));
  };
  t.equal(await seen('lan-a'), 'a', 'before');
  const before = await rules();
  await scene.start();

  await t.test('leads hosts of the LAN there, and nobody else', async (t) => {
    t.equal(await seen('lan-a'), 'gateway');
    t.equal(await seen('lan-a', INTERNET.ipv6), 'gateway');
    t.equal(await seen('a'), 'a', 'the router goes its own way');
    t.equal(await seen('a', INTERNET.ipv6), 'a');
    t.equal(await seen('lan-gateway'), 'gateway');
  });

  await t.test('carries a large file once, and not the datagrams that carry it', async (t) => {
    const sent = async () => (await gateway.daemon.status()).peers[0]?.txBytes ?? 0;
    const earlier = await sent();
    const download = await Download.start(lab, {
      server: 'internet',
      client: 'lan-a',
      address: INTERNET.ipv4,
      bytes: 20 * MB,
    });
    t.ok((await download.finish(30_000)).isIntact);
    const bytes = (await sent()) - earlier;
    t.ok(bytes > 20 * MB && bytes < 22 * MB, `${bytes} bytes in the tunnel`);
  });

  await t.test(
    'refuses special addresses at the client, before they enter the tunnel',
    async (t) => {
      const ping = async (address: string): Promise<string> => {
        return (await lab.exec('lan-a', ['ping', '-n', '-c1', '-W1', address])).stdout;
      };
      for (const address of [...SPECIAL, ...SPECIAL_IPV6]) {
        t.match(await ping(address), /From .* unreachable/i, address);
      }
      const { drops } = await a.daemon.status();
      t.ok((drops['special-address'] ?? 0) >= SPECIAL.length + SPECIAL_IPV6.length, drops);
    },
  );

  await t.test('refuses them at the gateway too', async (t) => {
    for (const address of ['10.5.0.1', 'fd05::1']) {
      const { stdout } = await lab.exec('a', ['ping', '-n', '-c1', '-W1', address]);
      t.match(stdout, /From .*(filtered|prohibited)/i, address);
    }
    t.match(await gateway.daemon.status(), { drops: { 'special-address': 2 } });
  });

  await t.test('comes back after the gateway was killed and started again', async (t) => {
    await gateway.daemon.kill();
    await gateway.daemon.start();
    const started = performance.now();
    const answered = await eventually(
      () => seen('lan-a'),
      (who) => who !== 'nothing',
      15_000,
    );
    t.equal(answered, 'gateway');
    t.comment(`after ${Math.round(performance.now() - started)} ms`);
  });

  await t.test('leaves the LAN as it was when the daemon is killed', async (t) => {
    await a.daemon.kill();
    t.equal(await seen('lan-a'), 'a');
    t.equal(await seen('lan-a', INTERNET.ipv6), 'a');
    await a.daemon.start();
    t.equal(await seen('lan-a'), 'gateway');
    await a.daemon.stop();
    t.equal(await rules(), before, 'what a crash leaves behind, the next run takes with it');
    t.equal(await seen('lan-a'), 'a');
  });
});
