import t, { type Test } from 'tap';
import { Download } from '../lab/download.ts';
import { whyNoLab } from '../lab/namespaces.ts';
import { HOSTS, LAN, ResourceLab, type ResourceDocument } from '../lab/resource-lab.ts';

const skip = whyNoLab();
const MB = 1e6;
const NAME = 'app.site.example';
/** What each site knows the other one by. */
const OF_A = { ipv4: '10.71.0.0/24', ipv6: 'fd71::/64' };
const OF_GATEWAY = { ipv4: '10.72.0.0/24', ipv6: 'fd72::/64' };

await t.test('two sites with the same network reach each other', { skip }, async (t) => {
  const scene = await ResourceLab.create(t, 'rso');
  const { lab, a, gateway } = scene;
  await scene.startResolver([`${NAME},${HOSTS[1]!.ipv4},${HOSTS[1]!.ipv6}`]);
  await Promise.all(['lan-a', 'lan-gateway'].map((lan) => scene.startEcho(lan)));
  /** `resources` are served by the gateway to the client. */
  const configure = (resources: readonly ResourceDocument[]): void => {
    const named = resources.filter(({ type }) => type === 'dns');
    const used = named.map((resource) => ({ ...resource, gateways: ['gateway'] }));
    const authorizations = resources.map(({ id }) => ({ peer: 'a', resource: id }));
    const [behindA, behindGateway] = [Object.values(OF_A), Object.values(OF_GATEWAY)];
    a.daemon.configure(
      scene.clientDocument(a, { nat: mappedTo(OF_A), resources: used }, behindGateway),
    );
    const own = { nat: mappedTo(OF_GATEWAY), resources, authorizations };
    gateway.daemon.configure(scene.gatewayDocument(own, [a], behindA));
  };
  const seen = async (from: string, address: string): Promise<string | undefined> => {
    return (await scene.whoAmI(from, address)).split(' ')[0];
  };
  const downloaded = async (client: string, server: string, address: string): Promise<boolean> => {
    const download = await Download.start(lab, { client, server, address, bytes: 20 * MB });
    return (await download.finish(30_000)).isIntact;
  };
  const works = async (t: Test): Promise<void> => {
    t.equal(await seen('lan-a', '10.72.0.11'), '10.71.0.10');
    t.equal(await seen('lan-gateway', '10.71.0.11'), '10.72.0.10');
    t.match(await seen('lan-a', 'fd72::11'), /^fd71::/);
    t.match(await seen('lan-gateway', 'fd71::11'), /^fd72::/);
    for (const [from, address] of [
      ['lan-a', '10.72.0.12'],
      ['lan-gateway', '10.71.0.12'],
      ['lan-a', 'fd72::12'],
      ['lan-gateway', 'fd71::12'],
    ] as const) {
      const { stdout } = await lab.exec(from, ['tracepath', '-n', address], { timeoutMs: 30_000 });
      t.match(stdout, new RegExp(`3: +${address} .*reached`), `ICMP errors from ${address}`);
    }
    const transfers = [
      downloaded('lan-a', 'lan-gateway', '10.72.0.10'),
      downloaded('lan-gateway', 'lan-a', '10.71.0.10'),
    ];
    t.same(await Promise.all(transfers), [true, true], 'large transfers both ways at once');
  };

  await t.test('by addresses of a range of their own', async (t) => {
    configure([]);
    await scene.start();
    await works(t);
  });

  await t.test('and by name, where the client is authorized for network and name', async (t) => {
    configure([
      { id: 'network', type: 'cidr', prefixes: [LAN.ipv4, LAN.ipv6] },
      { id: 'app', type: 'dns', patterns: [NAME] },
    ]);
    await Promise.all([a, gateway].map(({ daemon }) => daemon.stop()));
    await scene.start();
    const [proxy = ''] = await scene.lookUp(a, NAME);
    t.equal(await seen('lan-a', proxy), '192.168.1.1', 'in the name of the gateway');
    await works(t);
  });
});

function mappedTo({ ipv4, ipv6 }: typeof LAN): object {
  return {
    prefixMaps: [
      { local: LAN.ipv4, mapped: ipv4 },
      { local: LAN.ipv6, mapped: ipv6 },
    ],
  };
}
