import t from 'tap';
import { eventually } from '../lab/daemon.ts';
import { whyNoLab } from '../lab/namespaces.ts';
import { HOSTS, ResourceLab, ROUTER, type ResourceDocument } from '../lab/resource-lab.ts';

const skip = whyNoLab();
const NAME = 'app.site.example';
const SERVER = HOSTS[0]!;

await t.test('resources outlive what happens to routers', { skip }, async (t) => {
  const scene = await ResourceLab.create(t, 'rsg');
  const { lab, a, gateway } = scene;
  await scene.startResolver([`${NAME},${SERVER.ipv4},${SERVER.ipv6}`]);
  await scene.startEcho('lan-gateway');
  const resource: ResourceDocument = { id: 'app', type: 'dns', patterns: [NAME] };
  scene.configureResource(resource);
  await scene.start();
  const [ipv4 = ''] = await scene.lookUp(a, NAME);
  const [ipv6 = ''] = await scene.lookUp(a, NAME, 'AAAA');
  /** Whom the server sees. */
  const seen = async (proxy: string): Promise<string | undefined> => {
    return (await scene.whoAmI('lan-a', proxy)).split(' ')[0];
  };
  /** Milliseconds until a new connection comes through, without another lookup. */
  const heals = async (): Promise<number> => {
    const started = performance.now();
    await eventually(
      () => seen(ipv4),
      (who) => who !== 'nothing',
      15_000,
    );
    return Math.round(performance.now() - started);
  };
  await scene.startConversations('lan-gateway');

  await t.test('masquerades, and does so again after nft flush ruleset', async (t) => {
    t.equal(await seen(ipv4), ROUTER.ipv4);
    t.equal(await seen(ipv6), ROUTER.ipv6);
    await lab.exec('gateway', ['nft', 'flush', 'ruleset']);
    await eventually(
      () => seen(ipv4),
      (who) => who === ROUTER.ipv4,
      5000,
    );
    t.equal(await seen(ipv6), ROUTER.ipv6);
  });

  for (const [what, daemon, signal] of [
    ['the gateway restarts', gateway.daemon, 'SIGUSR2'],
    ['the gateway is killed', gateway.daemon, 'SIGKILL'],
    ['the client’s router restarts', a.daemon, 'SIGUSR2'],
    ['the client’s router is killed', a.daemon, 'SIGKILL'],
  ] as const) {
    await t.test(`what is established goes on when ${what}`, async (t) => {
      const conversation = await scene.converse('lan-a', ipv4);
      await daemon.kill(signal);
      await daemon.start();
      const ms = await heals();
      t.ok(ms < 5000, `a new connection after ${ms} ms`);
      const { isWhole, longestGapMs } = await conversation.end();
      t.ok(isWhole, `an established one stood still for ${longestGapMs} ms`);
    });
  }

  await t.test('does not masquerade where that is off', async (t) => {
    await lab.ip('lan-gateway', `route add ${a.ipv4} via ${ROUTER.ipv4}`);
    scene.configureResource(resource, { gateway: { nat: { masquerade: false } } });
    gateway.daemon.signal('SIGHUP');
    await eventually(
      () => seen(ipv4),
      (who) => who === a.ipv4,
      5000,
    );
    t.equal(await seen(ipv6), a.ipv6);
    const { stdout } = await lab.exec('gateway', ['nft', 'list', 'tables']);
    t.notMatch(stdout, 'culvert');
  });
});
