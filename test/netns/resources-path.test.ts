import t from 'tap';
import { whyNoLab } from '../lab/namespaces.ts';
import { HOSTS, ResourceLab, ROUTER } from '../lab/resource-lab.ts';

const skip = whyNoLab();
const NAME = 'app.site.example';
const SERVER = HOSTS[0]!;
const TUNNEL_MTU = 1408;
const SITE_MTU = 1300;

await t.test('what people try first works through a proxy', { skip }, async (t) => {
  const scene = await ResourceLab.create(t, 'rsp');
  const { lab, a } = scene;
  await scene.startResolver([`${NAME},${SERVER.ipv4},${SERVER.ipv6}`]);
  await scene.startEcho('lan-gateway');
  scene.configureResource({ id: 'app', type: 'dns', patterns: [NAME] });
  await scene.start();

  for (const [family, type, headers] of [
    ['ipv4', 'A', 20 + 8],
    ['ipv6', 'AAAA', 40 + 8],
  ] as const) {
    await t.test(family, async (t) => {
      const [proxy = ''] = await scene.lookUp(a, NAME, type);
      /** `size` with all headers. */
      const ping = async (size: number): Promise<string> => {
        const command = ['ping', '-n', '-M', 'do', '-c1', '-W2', '-s', String(size - headers)];
        return (await lab.exec('lan-a', [...command, proxy])).stdout;
      };
      const tracepath = async (): Promise<string> => {
        const options = { timeoutMs: 30_000 };
        return (await lab.exec('lan-a', ['tracepath', '-n', proxy], options)).stdout;
      };
      const isReached = (hops: number) => new RegExp(`${hops}: +${proxy}\\D.*reached`);

      t.match(await ping(84), `from ${proxy}: icmp_seq=1`, 'a ping');
      t.match(await scene.whoAmI('lan-a', proxy), / 10$/, 'an echo by UDP');

      const path = await tracepath();
      t.match(path, new RegExp(`1: +${ROUTER[family]} `), 'the first hop is the router');
      t.match(path, new RegExp(`2: +${proxy} `), 'the gateway shows itself as what it stands for');
      t.match(path, isReached(3));
      t.match(path, `Resume: pmtu ${TUNNEL_MTU}`);

      t.match(await ping(TUNNEL_MTU), 'icmp_seq=1', 'as much as the tunnel takes');
      t.notMatch(await ping(TUNNEL_MTU + 1), 'icmp_seq=1 ttl', 'and not more');

      const small = `${SERVER[family]} dev to-lan-gateway mtu ${SITE_MTU}`;
      await lab.ip('gateway', `route add ${small}`);
      t.match(await ping(TUNNEL_MTU), new RegExp(`From ${proxy}.*mtu\\D+${SITE_MTU}`));
      t.match(await ping(SITE_MTU), 'icmp_seq=1', 'what a narrow link in the site takes');
      t.match(await tracepath(), `Resume: pmtu ${SITE_MTU}`);
      await lab.ip('gateway', `route del ${small}`);
    });
  }
});
