import t from 'tap';
import { CLIENT, CLIENT2, GATEWAY, ResourceSites } from '../../sim/resource-sites.ts';
import { tcp, udp } from '../fastpath/packets.ts';
import { echo } from '../nat/icmp-packets.ts';
import { makeHostile } from './hostile-client.ts';
import { CRM, CRM_NAME, first, MAY_USE_CRM, present, zoneOf } from './resource-fixtures.ts';

const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
t.comment(`SEED=${SEED}`);

type Documents = Partial<ConstructorParameters<typeof ResourceSites>[1]>;
type Options = ConstructorParameters<typeof ResourceSites>[2];

const LAN = { id: 'lan', type: 'cidr', prefixes: ['10.9.0.0/24', 'fd00:b::/64'] };
const MAY_USE_LAN = { peer: 'client', resource: 'lan' };

function sitesWith(documents: Documents = {}, options?: Options) {
  const all = { resources: [CRM, LAN], authorizations: [MAY_USE_CRM, MAY_USE_LAN], ...documents };
  const sites = new ResourceSites(SEED, all, options);
  sites.gateway.names.zone = zoneOf({ [CRM_NAME]: ['10.9.0.5', 'fd00:b::5'] });
  return sites;
}

await t.test('sources of the LAN are translated to the address of their router', async (t) => {
  const sites = sitesWith();
  const proxy = first(sites.lookUp(CRM_NAME));
  const one = present(sites.deliver({ to: proxy, host: '192.168.1.10' }));
  const two = present(sites.deliver({ to: proxy, host: '192.168.1.11' }));
  t.match([one.source, two.source], [CLIENT.ipv4, CLIENT.ipv4]);
  t.not(one.sourcePort, two.sourcePort, 'two hosts have the same port, and keep apart');
  t.equal(sites.answer(two)?.destination, '192.168.1.11');
  t.equal(sites.answer(one)?.destination, '192.168.1.10');

  const routed = present(sites.deliver({ to: '10.9.0.7' }));
  t.match(routed, { source: CLIENT.ipv4, destination: '10.9.0.7' }, 'towards networks too');
  t.match(sites.answer(routed), { source: '10.9.0.7', destination: '192.168.1.10' });
  const routed6 = present(sites.deliver({ to: 'fd00:b::7' }));
  t.match(routed6, { source: CLIENT.ipv6, destination: 'fd00:b::7' });
  t.match(sites.answer(routed6), { source: 'fd00:b::7', destination: 'fd00:a::10' });
});

await t.test('sources that are not of the peer are dropped', async (t) => {
  const sites = sitesWith();
  makeHostile(sites);
  for (const host of ['192.168.1.10', CLIENT2.ipv4, GATEWAY.ipv4, '10.9.0.1', '8.8.8.8']) {
    t.equal(sites.deliver({ host, to: '10.9.0.7' }), undefined, host);
  }
  t.equal(sites.deliver({ host: CLIENT2.ipv6, to: 'fd00:b::7' }), undefined);
  t.ok(sites.deliver({ host: CLIENT.ipv4, to: '10.9.0.7' }), 'its own are not');
  t.ok(sites.deliver({ host: CLIENT.ipv6, to: 'fd00:b::7' }));
  t.equal(sites.gateway.engine.status().drops['source-not-allowed'], 6);
  t.equal(sites.sessions('gateway').length, 2);
});

await t.test('an authorization may be for some sources of a peer alone', async (t) => {
  const sites = sitesWith({
    authorizations: [{ ...MAY_USE_LAN, sources: ['192.168.1.0/28'] }],
    behindClient: ['192.168.1.0/24'],
  });
  makeHostile(sites);
  t.ok(sites.deliver({ host: '192.168.1.10', to: '10.9.0.7' }));
  t.equal(sites.deliver({ host: '192.168.1.20', to: '10.9.0.7' }), undefined);
  t.match(sites.seen('client').at(-1), { icmp: '3/13', destination: '192.168.1.20' });
});

await t.test('two clients may use the same proxy for different servers', async (t) => {
  const wiki = { id: 'wiki', type: 'dns', patterns: ['wiki.corp.example'] };
  const sites = sitesWith(
    {
      resources: [CRM, wiki],
      authorizations: [MAY_USE_CRM, { peer: 'client2', resource: 'wiki' }],
    },
    { routers: ['client', 'client2', 'gateway'] },
  );
  sites.gateway.names.zone = zoneOf({
    [CRM_NAME]: ['10.9.0.5'],
    'wiki.corp.example': ['10.9.0.6'],
  });
  const proxy = first(sites.lookUp(CRM_NAME));
  t.equal(first(sites.lookUp('wiki.corp.example', 'A', 'client2')), proxy, 'the same');
  const one = present(sites.deliver({ to: proxy }));
  const two = present(sites.deliver({ to: proxy, from: 'client2' }));
  t.match(one, { source: CLIENT.ipv4, destination: '10.9.0.5' });
  t.match(two, { source: CLIENT2.ipv4, destination: '10.9.0.6' });
  t.ok(sites.answer(two, [7], { at: 'client2' }));
  t.same(sites.received('client'), [], 'one hears nothing of what the other is answered');
  t.ok(sites.answer(one));
  t.same(sites.received('client2'), []);
});

await t.test('filters of a resource and of an authorization hold in both directions', async (t) => {
  const filters = [{ protocol: 'udp', ports: ['80-90'] }, { protocol: 'icmp' }];
  const narrow = [{ protocol: 'udp', ports: ['80'] }, { protocol: 'icmp' }];
  const sites = sitesWith({
    resources: [{ ...CRM, filters }, LAN],
    authorizations: [{ ...MAY_USE_CRM, filters: narrow }],
  });
  const proxy = first(sites.lookUp(CRM_NAME));
  const arrived = present(sites.deliver({ to: proxy, toPort: 80 }));
  t.equal(sites.deliver({ to: proxy, toPort: 91 }), undefined, 'the resource has no such port');
  t.equal(sites.seen('client').at(-1)?.icmp, '3/13');
  t.equal(sites.deliver({ to: proxy, toPort: 90, port: 4009 }), undefined, 'not authorized');
  const host = { source: '192.168.1.10', destination: proxy };
  sites.send('client', tcp({ ...host, destinationPort: 80 }));
  t.same(sites.received('gateway'), []);
  sites.send('client', echo(host.source, proxy, 77));
  t.match(sites.seen('gateway'), [{ protocol: 'icmp', icmp: '8/0', destination: '10.9.0.5' }]);

  t.ok(sites.answer(arrived), 'answers');
  t.equal(sites.answer({ ...arrived, destinationPort: 91 }), undefined, 'from another port');
  t.equal(sites.answer({ ...arrived, sourcePort: 9 }), undefined, 'to another port');
  t.equal(sites.answer({ ...arrived, destination: '10.9.0.6' }), undefined, 'of another server');
  t.equal(sites.answer({ ...arrived, source: CLIENT2.ipv4 }), undefined, 'to nobody');
  sites.reconfigure({
    resources: [{ ...CRM, filters: [{ protocol: 'tcp', ports: [] }] }, LAN],
    authorizations: [MAY_USE_CRM],
  });
  t.equal(sites.answer(arrived), undefined, 'once the filter is another one');
});

await t.test('a refused packet is answered that it is prohibited, in both families', async (t) => {
  const sites = sitesWith({ resources: [LAN], authorizations: [] });
  for (const [to, icmp] of [
    ['10.9.0.7', '3/13'],
    ['fd00:b::7', '1/1'],
  ] as const) {
    t.equal(sites.deliver({ to }), undefined);
    t.match(sites.seen('client').at(-1), { icmp, about: { destination: to } });
  }
  t.same(sites.sessions('gateway'), []);
  t.equal(sites.gateway.engine.status().drops['no-authorization'], 2, 'the reason is counted');
});

await t.test('a gateway lets nothing else in, but answers of what its own LAN asked', async (t) => {
  const sites = sitesWith({ behindClient: ['192.168.1.0/24'], authorizations: [MAY_USE_CRM] });
  makeHostile(sites);
  const host = '192.168.1.10';
  for (const to of ['10.9.0.7', '10.8.0.1', CLIENT2.ipv4]) {
    t.equal(sites.deliver({ host, to }), undefined, to);
  }
  const asked = { source: '10.9.0.7', destination: host, sourcePort: 5353, destinationPort: 53 };
  sites.send('gateway', udp(asked));
  t.match(sites.seen('client').at(-1), asked);
  const answer = { host, port: 53, to: '10.9.0.7', toPort: 5353 };
  t.match(sites.deliver(answer), { source: host, destination: '10.9.0.7' });
  t.equal(sites.deliver({ ...answer, toPort: 5354 }), undefined, 'to another port');
  t.equal(sites.deliver({ ...answer, host: '192.168.1.11' }), undefined, 'of another host');
  sites.advance(3 * 60_000);
  t.equal(sites.deliver(answer), undefined, 'long after');
});

await t.test('what a peer sends to the gateway itself is for its own firewall', async (t) => {
  const sites = sitesWith();
  const arrived = present(sites.deliver({ host: CLIENT.ipv4, to: GATEWAY.ipv4 }));
  t.match(arrived, { source: CLIENT.ipv4, destination: GATEWAY.ipv4 });
  t.equal(sites.deliver({ to: GATEWAY.ipv4 }), undefined, 'hosts behind it are nobody there');
});
