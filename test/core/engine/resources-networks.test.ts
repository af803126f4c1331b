import t from 'tap';
import { PEERING_PORT } from '../../../core/peering/message.ts';
import { CLIENT, GATEWAY, ResourceSites } from '../../sim/resource-sites.ts';
import { echo, icmpError, ipProblem } from '../nat/icmp-packets.ts';
import { CRM, CRM_NAME, first, present, zoneOf } from './resource-fixtures.ts';

const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
t.comment(`SEED=${SEED}`);

type Documents = ConstructorParameters<typeof ResourceSites>[1];

function sitesWith(documents: Documents): ResourceSites {
  const sites = new ResourceSites(SEED, documents);
  sites.gateway.names.zone = zoneOf({ [CRM_NAME]: ['192.168.1.5', 'fd00:b::5'] });
  return sites;
}

function servedToClient(...resources: readonly Readonly<Record<string, unknown>>[]): Documents {
  const authorizations = resources.map(({ id }) => ({ peer: 'client', resource: id }));
  return { resources, authorizations };
}

await t.test('networks and single addresses of a site are reached by those who may', async (t) => {
  const lan = { id: 'lan', type: 'cidr', prefixes: ['10.9.0.0/24', 'fd00:b::/64'] };
  const host = { id: 'host', type: 'ip', address: '10.8.0.1' };
  const host6 = { id: 'host6', type: 'ip', address: 'fd00:c::1' };
  const sites = sitesWith(servedToClient(lan, host, host6));
  for (const to of ['10.9.0.1', '10.9.0.254', '10.8.0.1', 'fd00:b::1', 'fd00:c::1']) {
    const arrived = present(sites.deliver({ to }));
    t.equal(arrived.destination, to);
    t.match(sites.answer(arrived), { source: to });
  }
  for (const to of ['10.9.1.1', '10.8.0.2', 'fd00:c::2']) {
    t.equal(sites.deliver({ to }), undefined, to);
    t.match(sites.seen('client').at(-1), { about: { destination: to } });
  }
});

await t.test('the internet is reached through a gateway, and nothing special', async (t) => {
  const sites = sitesWith(servedToClient({ id: 'all', type: 'internet' }));
  for (const to of ['8.8.8.8', '1.1.1.1', '2606:4700::1111']) {
    const arrived = present(sites.deliver({ to }));
    t.match(arrived, { destination: to, source: to.includes(':') ? CLIENT.ipv6 : CLIENT.ipv4 });
    t.match(sites.answer(arrived), { source: to });
  }
  const special = ['10.0.0.1', '172.16.0.1', '192.168.1.5', '127.0.0.1', '169.254.1.1'];
  for (const to of [...special, '100.64.7.7', '192.0.2.9', '240.0.0.1', 'fd00::99', 'fe80::1']) {
    t.equal(sites.deliver({ to }), undefined, to);
    t.same(sites.sessions('gateway').length, 3);
  }
});

await t.test('a gateway refuses special addresses of the internet itself too', async (t) => {
  const internet = { id: 'all', type: 'internet' };
  const sites = sitesWith(servedToClient(internet));
  // The client takes them for a network behind the gateway.
  sites.client.configure({
    ...sites.documentOf('client'),
    resources: [
      { id: 'all', type: 'cidr', prefixes: ['0.0.0.0/3', 'fd00:b::/32'], gateways: ['gateway'] },
    ],
  });
  sites.advance(1);
  t.ok(sites.deliver({ to: '8.8.8.8' }));
  for (const to of ['10.0.0.1', 'fd00:b::1']) {
    t.equal(sites.deliver({ to }), undefined);
    t.match(sites.seen('client').at(-1), { icmp: to.includes(':') ? '1/1' : '3/13' });
  }
});

await t.test('no host of the LAN speaks with the daemon of a gateway', async (t) => {
  const around = { id: 'around', type: 'cidr', prefixes: ['100.64.0.0/16', 'fd00::/64'] };
  const sites = sitesWith(servedToClient(around));
  sites.gateway.events.length = 0;
  for (const to of [GATEWAY.ipv4, GATEWAY.ipv6]) {
    const before = sites.client.engine.status().drops['peering-from-lan'] ?? 0;
    const payload = [...new Uint8Array(60)];
    t.equal(sites.deliver({ to, toPort: PEERING_PORT, port: PEERING_PORT, payload }), undefined);
    t.ok(sites.deliver({ to, toPort: 80 }), 'with another program of it they do');
    // The session that this has opened is no way in.
    t.equal(sites.deliver({ to, toPort: PEERING_PORT, payload }), undefined);
    const own = to.includes(':') ? CLIENT.ipv6 : CLIENT.ipv4;
    t.equal(sites.deliver({ host: own, to, toPort: PEERING_PORT, port: PEERING_PORT }), undefined);
    t.equal(sites.client.engine.status().drops['peering-from-lan'], before + 3);
  }
  const drops = sites.gateway.engine.status().drops;
  t.same(
    Object.keys(drops).filter((reason) => reason.startsWith('peering')),
    [],
  );
});

await t.test(
  'a name that resolves to the gateway in the tunnel leads to no daemon either',
  async (t) => {
    const sites = sitesWith(servedToClient(CRM));
    sites.gateway.names.zone = zoneOf({ [CRM_NAME]: [GATEWAY.ipv4] });
    const to = first(sites.lookUp(CRM_NAME));
    sites.sendUdp({ to, toPort: PEERING_PORT });
    t.notOk(sites.gateway.engine.status().drops['peering-malformed']);
  },
);

/** Both sites have the network 192.168.1.0/24, and know each other's by another one. */
function overlapping(served: boolean): ResourceSites {
  const lan = { id: 'lan', type: 'cidr', prefixes: ['192.168.1.0/24'] };
  const sites = sitesWith({
    ...(served ? servedToClient(CRM, lan) : { resources: [], authorizations: [] }),
    behindClient: ['10.101.0.0/24'],
    behindGateway: ['10.102.0.0/24'],
    client: {
      site: { lans: ['br-lan'] },
      dns: { mode: 'redirect' },
      nat: { prefixMaps: [{ local: '192.168.1.0/24', mapped: '10.101.0.0/24' }] },
      ...(served ? { resources: [{ ...CRM, gateways: ['gateway'] }] } : {}),
    },
    gateway: { nat: { prefixMaps: [{ local: '192.168.1.0/24', mapped: '10.102.0.0/24' }] } },
  });
  return sites;
}

for (const served of [false, true]) {
  const how = served ? 'where it serves resources' : 'where all that is routed passes';
  await t.test(
    `hosts of equal networks reach each other by mapped addresses, ${how}`,
    async (t) => {
      const sites = overlapping(served);
      const arrived = present(sites.deliver({ host: '192.168.1.10', to: '10.102.0.20' }));
      t.match(arrived, { source: '10.101.0.10', destination: '192.168.1.20' });
      t.match(sites.answer(arrived), { source: '10.102.0.20', destination: '192.168.1.10' });

      sites.send('client', echo('192.168.1.10', '10.102.0.20', 7));
      const asked = present(sites.seen('gateway').at(0));
      t.match(asked, { icmp: '8/0', source: '10.101.0.10', destination: '192.168.1.20' });
      sites.send('gateway', echo('192.168.1.20', '10.101.0.10', 7, { isReply: true }));
      t.match(sites.seen('client'), [
        { icmp: '0/0', source: '10.102.0.20', destination: '192.168.1.10' },
      ]);
    },
  );

  await t.test(`ICMP errors are about the packets that hosts know, ${how}`, async (t) => {
    const sites = overlapping(served);
    const arrived = present(sites.deliver({ host: '192.168.1.10', to: '10.102.0.20' }));
    const error = { type: 3, code: 3, rest: 0 };
    const way = { source: '192.168.1.20', destination: '10.101.0.10' };
    sites.send('gateway', icmpError({ ...error, ...way }, arrived.bytes));
    const told = present(sites.seen('client').at(0));
    t.match(told, {
      icmp: '3/3',
      source: '10.102.0.20',
      destination: '192.168.1.10',
      about: { source: '192.168.1.10', destination: '10.102.0.20' },
    });
    t.equal(ipProblem(told.bytes), undefined);
  });
}

await t.test('errors go the other way, about what the other site has asked', async (t) => {
  const sites = overlapping(false);
  const way = { source: '192.168.1.20', destination: '10.101.0.10', sourcePort: 9 };
  const asked = present(sites.answer({ ...arrivedFrom(way) }));
  t.match(asked, { source: '10.102.0.20', destination: '192.168.1.10' });
  const error = { type: 3, code: 3, rest: 0 };
  const back = { source: '192.168.1.10', destination: '10.102.0.20' };
  sites.received('gateway');
  sites.send('client', icmpError({ ...error, ...back }, asked.bytes));
  t.match(sites.seen('gateway'), [
    {
      icmp: '3/3',
      source: '10.101.0.10',
      destination: '192.168.1.20',
      about: { source: '192.168.1.20', destination: '10.101.0.10' },
    },
  ]);
});

await t.test('names lead into a network that the client has too', async (t) => {
  const sites = overlapping(true);
  const proxy = first(sites.lookUp(CRM_NAME));
  const arrived = present(sites.deliver({ host: '192.168.1.10', to: proxy }));
  t.match(arrived, { source: CLIENT.ipv4, destination: '192.168.1.5' });
  t.match(sites.answer(arrived), { source: proxy, destination: '192.168.1.10' });
});

await t.test('an error about a packet to a name comes from the proxy', async (t) => {
  const sites = sitesWith(servedToClient(CRM));
  for (const [type, error, server, host] of [
    ['A', { type: 3, code: 4, rest: 1280 }, '192.168.1.5', '192.168.1.10'],
    ['AAAA', { type: 2, code: 0, rest: 1280 }, 'fd00:b::5', 'fd00:a::10'],
  ] as const) {
    const proxy = first(sites.lookUp(CRM_NAME, type));
    const arrived = present(sites.deliver({ to: proxy }));
    const router = server.includes(':') ? 'fd00:b::fe' : '192.168.1.254';
    const fields = { ...error, source: router, destination: arrived.source };
    sites.received('client');
    sites.send('gateway', icmpError(fields, arrived.bytes));
    const told = present(sites.seen('client').at(0));
    t.match(told, {
      icmp: `${error.type}/${error.code}`,
      source: proxy,
      destination: host,
      about: { source: host, sourcePort: 4000, destination: proxy },
    });
    t.equal(ipProblem(told.bytes), undefined);
  }
});

await t.test('two resources of one name are told apart by what they permit', async (t) => {
  const web = {
    id: 'web',
    type: 'dns',
    patterns: ['crm.corp.example'],
    filters: [{ protocol: 'udp', ports: ['80'] }],
  };
  const rest = {
    id: 'rest',
    type: 'dns',
    patterns: ['*.corp.example'],
    filters: [{ protocol: 'udp', ports: ['90'] }],
  };
  const sites = sitesWith(servedToClient(web, rest));
  const proxy = first(sites.lookUp(CRM_NAME));
  for (let i = 0; i < 5; i++) {
    t.ok(sites.deliver({ to: proxy, toPort: 80, port: 4000 + i }), 'web');
    t.ok(sites.deliver({ to: proxy, toPort: 90, port: 5000 + i }), 'rest');
    sites.advance(3000);
  }
  t.same(sites.received('client'), []);
  t.equal(sites.deliver({ to: proxy, toPort: 70 }), undefined, 'neither');
});

function arrivedFrom({
  source,
  destination,
  sourcePort,
}: {
  source: string;
  destination: string;
  sourcePort: number;
}) {
  const unknown = { protocol: 'udp', flags: 0, icmp: '', about: undefined, payload: [] } as const;
  return {
    ...unknown,
    source: destination,
    destination: source,
    sourcePort: 53,
    destinationPort: sourcePort,
    bytes: new Uint8Array(0),
  };
}
