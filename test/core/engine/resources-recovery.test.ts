import t from 'tap';
import { CLIENT, GATEWAY, ResourceSites } from '../../sim/resource-sites.ts';
import { ACK, tcp } from '../fastpath/packets.ts';
import {
  CRM,
  CRM_NAME,
  first,
  MAY_USE_CRM,
  present,
  rcodeOf,
  zoneOf,
} from './resource-fixtures.ts';

const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
t.comment(`SEED=${SEED}`);

type Options = ConstructorParameters<typeof ResourceSites>[2];
const FAMILIES = [
  ['A', '10.9.0.5'],
  ['AAAA', 'fd00:b::5'],
] as const;

function sitesWith(options?: Options) {
  const documents = { resources: [CRM], authorizations: [MAY_USE_CRM] };
  const sites = new ResourceSites(SEED, documents, options);
  for (const router of sites.routers) {
    sites.site(router).names.zone = zoneOf({ [CRM_NAME]: ['10.9.0.5', 'fd00:b::5'] });
  }
  return sites;
}

for (const [type, server] of FAMILIES) {
  await t.test(`a killed gateway that comes back heals by itself (${type})`, async (t) => {
    const sites = sitesWith();
    const proxy = first(sites.lookUp(CRM_NAME, type));
    t.equal(sites.deliver({ to: proxy })?.destination, server);
    sites.restart('gateway');
    const before = sites.time.now;
    // The application tries again each second, from the same socket, and looks nothing up.
    let arrived;
    while (arrived === undefined && sites.time.now - before < 60_000) {
      arrived = sites.deliver({ to: proxy });
      sites.advance(1000);
    }
    t.equal(arrived?.destination, server);
    t.ok(sites.time.now - before < 20_000, `after ${sites.time.now - before} ms`);
    t.match(sites.answer(present(arrived)), { source: proxy });
  });
}

await t.test('so does one that says that it restarts, before the first packet', async (t) => {
  const sites = sitesWith();
  const proxy = first(sites.lookUp(CRM_NAME));
  t.ok(sites.deliver({ to: proxy }));
  sites.restart('gateway', 'restarting');
  t.match(sites.told('client', 'peer-left'), [{ peer: 'gateway', reason: 'restarting' }]);
  sites.advance(10_000);
  sites.received('client');
  t.equal(sites.deliver({ to: proxy })?.destination, '10.9.0.5', 'it was asked already');
  t.same(sites.received('client'), [], 'and nobody was told that anything is unreachable');
});

await t.test('an open connection goes on after a restart of the gateway', async (t) => {
  for (const how of ['killed', 'restarting', 'leaving'] as const) {
    const sites = sitesWith();
    const proxy = first(sites.lookUp(CRM_NAME));
    const segment = tcp({ source: '192.168.1.10', destination: proxy, flags: ACK });
    sites.send('client', segment);
    const before = present(sites.seen('gateway').at(0));
    sites.restart('gateway', how);
    sites.advance(10_000);
    for (let i = 0; i < 5; i++) {
      sites.send('client', segment);
      sites.advance(2000);
    }
    t.match(
      sites.seen('gateway').at(-1),
      { destination: before.destination, sourcePort: before.sourcePort },
      how,
    );
  }
});

for (const router of ['gateway', 'client'] as const) {
  await t.test(
    `a connection in which the server alone speaks survives that the ${router} restarts`,
    async (t) => {
      const sites = sitesWith();
      // Names get other addresses all the time; the connection keeps its own.
      const proxy = first(sites.lookUp(CRM_NAME));
      const request = present(sites.deliver({ to: proxy }));
      t.match(sites.answer(request), { source: proxy });
      sites.gateway.names.zone = zoneOf({ [CRM_NAME]: ['10.9.0.6'] });
      sites.restart(router, 'restarting');
      let answer;
      const before = sites.time.now;
      while (answer === undefined && sites.time.now - before < 30_000) {
        answer = sites.answer(request);
        sites.advance(1000);
      }
      t.match(answer, { source: proxy }, `after ${sites.time.now - before} ms`);
    },
  );
}

await t.test('what was open before a restart long ago is not taken up again', async (t) => {
  const sites = sitesWith();
  const proxy = first(sites.lookUp(CRM_NAME));
  t.ok(sites.answer(present(sites.deliver({ to: proxy }))));
  t.equal(sites.sessions('gateway').length, 1);
  sites.stop('gateway', 'restarting');
  sites.advance(6 * 60_000);
  sites.start('gateway');
  t.same(sites.sessions('gateway'), []);
});

await t.test('nor what a daemon that left had open', async (t) => {
  const sites = sitesWith();
  const proxy = first(sites.lookUp(CRM_NAME));
  t.ok(sites.answer(present(sites.deliver({ to: proxy }))));
  sites.restart('gateway', 'leaving');
  t.same(sites.sessions('gateway'), []);
});

await t.test('proxies are the same after a restart of the client', async (t) => {
  const wide = { ...CRM, patterns: ['**.corp.example'] };
  const sites = sitesWith();
  sites.reconfigure({ resources: [wide] });
  const names = ['a', 'b', 'c', 'd', 'e'].map((host) => `${host}.corp.example`);
  const proxies = new Map(names.map((name) => [name, sites.lookUp(name)]));
  sites.advance(6000);
  sites.restart('client');
  for (const name of names.toReversed()) t.same(sites.lookUp(name), proxies.get(name), name);

  const late = sites.lookUp('late.corp.example');
  sites.restart('client', 'leaving');
  t.same(
    sites.lookUp('other.corp.example').filter((ip) => late.includes(ip)),
    [],
  );
  t.same(sites.lookUp('late.corp.example'), late, 'written before it went');
});

await t.test(
  'packets to a proxy that a host remembers are held until the client is up',
  async (t) => {
    const sites = sitesWith();
    const proxy = first(sites.lookUp(CRM_NAME));
    t.ok(sites.deliver({ to: proxy }));
    sites.advance(6000);
    sites.restart('client');
    sites.sendUdp({ to: proxy });
    sites.advance(5000);
    t.equal(sites.seen('gateway').at(0)?.destination, '10.9.0.5');
  },
);

await t.test('that all proxies are taken is told, and names without flows make room', async (t) => {
  const sites = sitesWith();
  const small = { ipv4: '100.96.0.0/24', ipv6: 'fd3c:91d6:b4a2:8000::/112' };
  const dns = { mode: 'redirect', proxies: small };
  const wide = { ...CRM, patterns: ['**.corp.example'] };
  sites.reconfigure({
    resources: [wide],
    client: { dns },
    gateway: { dns: { proxies: small } },
  });
  sites.gateway.names.zone = zoneOf({ 'h0.corp.example': ['10.9.0.5'] });
  const inUse = first(sites.lookUp('h0.corp.example'));
  t.ok(sites.deliver({ to: inUse }));
  let names = 0;
  while (sites.lookUp(`h${names}.corp.example`).length > 0 && names < 1000) names++;
  t.ok(names >= 60 && names <= 64, `${names} names of four addresses each`);
  t.match(sites.told('client', 'proxies-exhausted'), [{ capacity: names, removed: 1 }]);
  t.equal(sites.lookUp('late.corp.example').length, 4, 'who asks again gets some');
  t.equal(first(sites.lookUp('h0.corp.example')), inUse, 'a name with a flow keeps its own');
  const h1 = sites.ask('A', 'h1.corp.example');
  t.equal(rcodeOf(h1), 'SERVFAIL', 'and for one that has none, no other server is asked');
  t.same(sites.client.names.asked, []);
});

await t.test(
  'who sends to a gateway that has left is told at once, and it is found when it is back',
  async (t) => {
    const sites = sitesWith();
    const proxy = first(sites.lookUp(CRM_NAME));
    t.ok(sites.deliver({ to: proxy }));
    sites.stop('gateway', 'leaving');
    sites.advance(1000);
    sites.received('client');
    sites.sendUdp({ to: proxy, port: 4001 });
    t.match(errorsAt(sites), [{ type: 3, code: 1 }], 'host unreachable');
    sites.start('gateway');
    const before = sites.time.now;
    let arrived;
    for (let port = 5000; arrived === undefined && sites.time.now - before < 60_000; port++) {
      arrived = sites.deliver({ to: proxy, port });
      sites.advance(1000);
    }
    t.ok(arrived && sites.time.now - before < 10_000, `after ${sites.time.now - before} ms`);
  },
);

await t.test('what a gateway forbids is told at once, also where it is asked again', async (t) => {
  const sites = sitesWith();
  const proxy = first(sites.lookUp(CRM_NAME));
  t.ok(sites.deliver({ to: proxy }));
  const tcpOnly = { ...CRM, filters: [{ protocol: 'tcp' }] };
  const documents = sites.documentOf('gateway');
  sites.gateway.configure({ ...documents, resources: [tcpOnly] });
  sites.advance(5000);
  sites.received('client');
  sites.sendUdp({ to: proxy, port: 4001 });
  t.match(errorsAt(sites), [{ type: 3, code: 13 }], 'administratively prohibited');
});

/** The ICMP errors that hosts of the client got. */
function errorsAt(sites: ResourceSites) {
  return sites
    .received('client')
    .filter((packet) => packet[9] === 1)
    .map((packet) => ({ type: packet[20], code: packet[21] }));
}

const TWO: Options = { routers: ['client', 'gateway', 'gateway2'] };

await t.test('a goodbye of a gateway moves to the next one', async (t) => {
  const sites = sitesWith(TWO);
  const proxy = first(sites.lookUp(CRM_NAME));
  t.ok(sites.deliver({ to: proxy }), 'the preferred one');
  t.same(sites.received('gateway2'), []);
  sites.stop('gateway', 'leaving');
  t.equal(sites.deliver({ to: proxy }, 'gateway2')?.destination, '10.9.0.5', 'the same flow');
  const arrived = present(sites.deliver({ to: proxy, port: 4001 }, 'gateway2'));
  t.match(sites.answer(arrived, [2], { from: 'gateway2' }), { source: proxy });
  t.same(sites.told('client', 'resource-failed'), []);

  sites.start('gateway');
  sites.advance(30_000);
  t.ok(sites.deliver({ to: proxy, port: 4002 }), 'new flows go to the preferred one again');
  t.ok(sites.deliver({ to: proxy, port: 4001 }, 'gateway2'), 'what is open stays');
});

await t.test('so does the loss of the path to one, though its session would live on', async (t) => {
  const sites = sitesWith(TWO);
  const proxy = first(sites.lookUp(CRM_NAME));
  t.ok(sites.deliver({ to: proxy }));
  sites.cut('gateway');
  const before = sites.time.now;
  let arrived;
  while (arrived === undefined && sites.time.now - before < 60_000) {
    sites.advance(200);
    arrived = sites.deliver({ to: proxy, port: 4001 }, 'gateway2');
  }
  t.ok(arrived);
  t.ok(sites.time.now - before < 15_000, `after ${sites.time.now - before} ms`);
});

await t.test(
  'questions for SRV and TXT go to the site, and for authorized names alone',
  async (t) => {
    const wiki = { id: 'wiki', type: 'dns', patterns: ['wiki.corp.example'] };
    const sites = sitesWith();
    sites.reconfigure({ resources: [CRM, wiki], authorizations: [MAY_USE_CRM] });
    sites.gateway.names.zone = ({ name, type }) =>
      type === 'TXT' ? [{ type: 'TXT', name, ttl: 60, data: ['from the site'] }] : [];
    const answer = sites.ask('TXT', CRM_NAME);
    t.match(answer?.answers, [{ type: 'TXT', data: [Buffer.from('from the site')] }]);
    sites.ask('SRV', `_ldap._tcp.${CRM_NAME}`);
    t.match(sites.gateway.names.asked, [
      { type: 'TXT', name: CRM_NAME },
      { type: 'SRV', name: `_ldap._tcp.${CRM_NAME}` },
    ]);
    const before = sites.gateway.names.asked.length;
    sites.ask('TXT', 'wiki.corp.example');
    sites.advance(10_000);
    t.equal(sites.gateway.names.asked.length, before, 'the site is not asked');
    const places = new Set(sites.client.names.asked.map(({ upstream }) => upstream));
    t.same([...places], [`${GATEWAY.ipv4}:53535`], 'nobody else was ever asked');
  },
);

await t.test(
  'a peer is not told of names that it may not use, whoever it says it is',
  async (t) => {
    const sites = sitesWith();
    sites.gateway.names.zone = ({ name }) => [{ type: 'TXT', name, ttl: 60, data: ['secret'] }];
    for (const from of [`${CLIENT.ipv4}:4000`, '192.168.1.10:4000', '100.64.0.77:4000']) {
      const to = `${GATEWAY.ipv4}:53535`;
      const id = sites.gateway.names.ask('TXT', 'elsewhere.example', { from, to });
      sites.advance(10);
      t.equal(rcodeOf(sites.gateway.names.answers.get(id)), 'REFUSED', from);
    }
    t.same(sites.gateway.names.asked, []);
  },
);

await t.test('every other type of a private name is empty, and no server is asked', async (t) => {
  const sites = sitesWith();
  for (const type of ['MX', 'NS', 'CAA', 'HTTPS', 'SOA', 'CNAME', 'DS', 'NAPTR', 'UNKNOWN_4711']) {
    const answer = sites.ask(type, 'CRM.corp.Example');
    t.equal(rcodeOf(answer), 'NOERROR', type);
    t.same(answer?.answers, [], type);
  }
  t.equal(sites.lookUp(CRM_NAME).length, 4, 'one type does not break another');
  t.equal(sites.lookUp(CRM_NAME, 'AAAA').length, 4);
  t.same(sites.client.names.asked, [], 'nothing left the router');
  sites.ask('MX', 'public.example');
  t.match(sites.client.names.asked, [{ type: 'MX', name: 'public.example' }], 'ordinary names do');
});
