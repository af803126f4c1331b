import t from 'tap';
import { CLIENT, ResourceSites, START_UNIX_MS } from '../../sim/resource-sites.ts';
import { ACK, FIN, SYN, tcp } from '../fastpath/packets.ts';
import { CRM, CRM_NAME, first, MAY_USE_CRM, present, zoneOf } from './resource-fixtures.ts';

const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
t.comment(`SEED=${SEED}`);

const RST = 0x04;
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const SERVER = '10.9.0.5';
const WIKI = { id: 'wiki', type: 'dns', patterns: ['wiki.corp.example'] };

function sitesWith(documents: Partial<ConstructorParameters<typeof ResourceSites>[1]> = {}) {
  const resources = [CRM, WIKI];
  const authorizations = [MAY_USE_CRM, { peer: 'client', resource: 'wiki' }];
  const sites = new ResourceSites(SEED, { resources, authorizations, ...documents });
  sites.gateway.names.zone = zoneOf({
    [CRM_NAME]: [SERVER, 'fd00:b::5'],
    'wiki.corp.example': ['10.9.0.6'],
  });
  return sites;
}

/** A TCP segment of a host to a server. */
function segment(destination: string, flags: number, port = 4000): Uint8Array {
  return tcp({ source: '192.168.1.10', destination, sourcePort: port, destinationPort: 80, flags });
}

function expiry(ms: number): string {
  return new Date(START_UNIX_MS + ms).toISOString();
}

/** Opens a TCP connection from a host to a server; returns the port that the server sees. */
function connect(sites: ResourceSites, proxy: string): number {
  sites.send('client', segment(proxy, SYN));
  const { sourcePort } = present(sites.seen('gateway').at(0));
  sites.send('gateway', replyOf(sourcePort, SYN | ACK));
  present(sites.seen('client').at(0));
  sites.send('client', segment(proxy, ACK));
  present(sites.seen('gateway').at(0));
  return sourcePort;
}

/** A segment of the server to who connected from the port. */
function replyOf(port: number, flags: number): Uint8Array {
  const ports = { sourcePort: 80, destinationPort: port };
  return tcp({ source: SERVER, destination: CLIENT.ipv4, ...ports, flags });
}

/** How many assigned names the client has told the gateway of, as the gateway has looked them up. */
function lookupsAt(sites: ResourceSites): number {
  return sites.gateway.names.asked.filter(({ type }) => type === 'A').length;
}

await t.test('authorizations survive a lost connection', async (t) => {
  const sites = sitesWith();
  const proxy = first(sites.lookUp(CRM_NAME));
  const port = connect(sites, proxy);
  const lookups = lookupsAt(sites);
  // Longer than every timeout of paths and keys, and of every session of UDP.
  sites.cut('gateway');
  for (let i = 0; i < 10; i++) {
    sites.send('client', segment(proxy, ACK));
    sites.advance(6 * MINUTE);
  }
  sites.received('client');
  sites.restore('gateway');
  sites.advance(2 * MINUTE);

  sites.send('client', segment(proxy, ACK));
  sites.advance(5000);
  t.match(sites.seen('gateway').at(0), { destination: SERVER, sourcePort: port });
  sites.send('gateway', replyOf(port, ACK));
  t.match(sites.seen('client').at(0), { source: proxy, destination: '192.168.1.10' });
  t.ok(sites.deliver({ to: proxy, port: 4001 }), 'and it begins anew');
  t.equal(lookupsAt(sites), lookups, 'nothing was asked for');
});

await t.test(
  'a lost connection may outlast the NAT sessions: proxies still lead where they did',
  async (t) => {
    const sites = sitesWith();
    const proxy = first(sites.lookUp(CRM_NAME));
    connect(sites, proxy);
    const lookups = lookupsAt(sites);
    sites.cut('client');
    sites.advance(3 * HOUR);
    t.same(sites.sessions('gateway'), [], 'no session is left');
    sites.restore('client');
    sites.advance(2 * MINUTE);
    sites.sendUdp({ to: proxy, port: 4001 });
    sites.advance(5000);
    t.equal(sites.seen('gateway').at(0)?.destination, SERVER);
    t.equal(lookupsAt(sites), lookups, 'nothing was asked for');
  },
);

await t.test('what expired while the connection was lost is refused', async (t) => {
  const expiresAt = expiry(10 * MINUTE);
  const sites = sitesWith({
    authorizations: [
      { ...MAY_USE_CRM, expiresAt },
      { peer: 'client', resource: 'wiki' },
    ],
  });
  const crm = first(sites.lookUp(CRM_NAME));
  const wiki = first(sites.lookUp('wiki.corp.example'));
  const crm6 = first(sites.lookUp(CRM_NAME, 'AAAA'));
  t.ok(sites.deliver({ to: crm }));
  t.ok(sites.deliver({ to: crm6 }));
  t.ok(sites.deliver({ to: wiki }));
  sites.cut('client');
  sites.advance(20 * MINUTE);
  sites.restore('client');
  sites.advance(2 * MINUTE);

  t.ok(sites.deliver({ to: wiki }), 'the other is not');
  sites.received('client');
  for (const [proxy, icmp] of [
    [crm, '3/13'],
    [crm6, '1/1'],
  ] as const) {
    // The first may be taken for a sign that the gateway has begun anew.
    for (let i = 0; i < 3; i++) {
      sites.sendUdp({ to: proxy });
      sites.advance(3000);
    }
    t.same(sites.received('gateway'), []);
    t.equal(sites.seen('client').at(-1)?.icmp, icmp, `as ICMP ${icmp}`);
  }
  t.match(sites.told('gateway', 'authorization-ended'), [{ resource: 'crm', why: 'expired' }]);
});

await t.test('an authorization ends by its expiry, also under open connections', async (t) => {
  const sites = sitesWith({
    authorizations: [
      { ...MAY_USE_CRM, expiresAt: expiry(10 * MINUTE) },
      { peer: 'client', resource: 'wiki' },
    ],
  });
  const proxy = first(sites.lookUp(CRM_NAME));
  const arrived = present(sites.deliver({ to: proxy }));
  sites.advance(9.9 * MINUTE);
  t.ok(sites.deliver({ to: proxy }));
  sites.advance(0.1 * MINUTE);
  t.equal(sites.deliver({ to: proxy }), undefined);
  t.equal(sites.answer(arrived), undefined, 'answers do not pass either');
});

await t.test(
  'the calendar decides about expiry, whatever the clock was set to meanwhile',
  async (t) => {
    const sites = sitesWith({
      authorizations: [
        { ...MAY_USE_CRM, expiresAt: expiry(HOUR) },
        { peer: 'client', resource: 'wiki' },
      ],
    });
    const proxy = first(sites.lookUp(CRM_NAME));
    const arrived = present(sites.deliver({ to: proxy }));
    for (const step of [0.9 * HOUR, -24 * HOUR, 0]) {
      sites.setClock('gateway', step);
      t.ok(sites.deliver({ to: proxy }), `${step / HOUR} h is not past it`);
      t.ok(sites.answer(arrived));
    }
    sites.setClock('gateway', HOUR);
    t.equal(sites.deliver({ to: proxy }), undefined);
    sites.setClock('gateway', 0);
    t.equal(sites.deliver({ to: proxy }), undefined, 'what has ended does not begin again');
  },
);

await t.test('a newer desired state that omits an authorization ends it', async (t) => {
  const sites = sitesWith();
  const crm = first(sites.lookUp(CRM_NAME));
  const wiki = first(sites.lookUp('wiki.corp.example'));
  const toCrm = present(sites.deliver({ to: crm }));
  const toWiki = present(sites.deliver({ to: wiki }));
  sites.reconfigure({ authorizations: [{ peer: 'client', resource: 'wiki' }] });
  t.match(sites.told('gateway', 'authorization-ended'), [
    { peer: 'client', resource: 'crm', why: 'omitted' },
  ]);
  t.equal(sites.deliver({ to: crm }), undefined);
  t.equal(sites.answer(toCrm), undefined);
  t.ok(sites.answer(toWiki), 'the other goes on');
  t.ok(sites.deliver({ to: wiki }));
  t.same(sites.told('client', 'peer-left'), []);
});

await t.test('an authorization that comes back must be asked for again, and works', async (t) => {
  const sites = sitesWith();
  const proxy = first(sites.lookUp(CRM_NAME));
  t.ok(sites.deliver({ to: proxy }));
  sites.reconfigure({ authorizations: [{ peer: 'client', resource: 'wiki' }] });
  t.equal(sites.deliver({ to: proxy }), undefined);
  sites.reconfigure({ authorizations: [MAY_USE_CRM, { peer: 'client', resource: 'wiki' }] });
  sites.advance(3000);
  sites.lookUp(CRM_NAME);
  t.ok(sites.deliver({ to: proxy }));
});

await t.test('a resource that is no name any more ends what names of it lead to', async (t) => {
  const sites = sitesWith();
  const proxy = first(sites.lookUp(CRM_NAME));
  const arrived = present(sites.deliver({ to: proxy }));
  // The gateway alone hears of it: the client goes on as before.
  sites.gateway.configure({
    ...sites.documentOf('gateway'),
    resources: [{ ...CRM, patterns: ['other.corp.example'] }, WIKI],
  });
  sites.advance(1);
  t.equal(sites.deliver({ to: proxy }), undefined);
  t.equal(sites.deliver({ to: proxy, port: 4001 }), undefined);
  t.equal(sites.answer(arrived), undefined);
});

await t.test('the end of the last authorization gives the peer a goodbye', async (t) => {
  const sites = sitesWith({ authorizations: [MAY_USE_CRM] });
  const proxy = first(sites.lookUp(CRM_NAME));
  t.ok(sites.deliver({ to: proxy }));
  sites.reconfigure({ authorizations: [] });
  t.match(sites.told('client', 'peer-left'), [{ peer: 'gateway', reason: 'revoked' }]);
});

await t.test('so does its expiry', async (t) => {
  const expiresAt = expiry(10 * MINUTE);
  const sites = sitesWith({ authorizations: [{ ...MAY_USE_CRM, expiresAt }] });
  const proxy = first(sites.lookUp(CRM_NAME));
  sites.advance(9.9 * MINUTE);
  t.ok(sites.deliver({ to: proxy }));
  t.same(sites.told('client', 'peer-left'), []);
  sites.advance(0.2 * MINUTE);
  t.match(sites.told('client', 'peer-left'), [{ peer: 'gateway', reason: 'revoked' }]);
});

await t.test(
  'a goodbye ends the connection and its NAT sessions, and no authorization',
  async (t) => {
    const sites = sitesWith();
    const proxy = first(sites.lookUp(CRM_NAME));
    connect(sites, proxy);
    sites.stop('client', 'leaving');
    t.same(sites.sessions('gateway'), []);
    t.same(sites.told('gateway', 'authorization-ended'), []);
    sites.start('client');
    sites.advance(5000);
    t.equal(first(sites.lookUp(CRM_NAME)), proxy);
    t.ok(sites.deliver({ to: proxy }));
  },
);

await t.test('one of a peer that restarts keeps its sessions', async (t) => {
  const sites = sitesWith();
  const proxy = first(sites.lookUp(CRM_NAME));
  const port = connect(sites, proxy);
  sites.restart('client', 'restarting');
  t.equal(sites.sessions('gateway').length, 1);
  sites.advance(5000);
  sites.send('client', segment(proxy, ACK));
  sites.advance(5000);
  t.match(sites.seen('gateway').at(0), { destination: SERVER, sourcePort: port }, 'requests');
  sites.send('gateway', replyOf(port, ACK));
  t.match(sites.seen('client').at(0), { source: proxy, destination: '192.168.1.10' }, 'answers');
});

await t.test('the loss of a path ends no session', async (t) => {
  const sites = sitesWith();
  const proxy = first(sites.lookUp(CRM_NAME));
  const port = connect(sites, proxy);
  sites.cut('client');
  for (let i = 0; i < 10; i++) {
    sites.send('client', segment(proxy, ACK));
    sites.advance(5000);
  }
  t.ok(sites.told('client', 'path-lost').length > 0);
  t.equal(sites.sessions('gateway').length, 1);
  t.equal(sites.sessions('client').length, 1);
  sites.restore('client');
  sites.advance(MINUTE);
  sites.received('client');
  sites.send('gateway', replyOf(port, ACK));
  sites.advance(1000);
  t.match(sites.seen('client').at(0), { source: proxy });
});

await t.test(
  'neither do a configuration that says the same, and a peer that is elsewhere',
  async (t) => {
    const sites = sitesWith();
    const proxy = first(sites.lookUp(CRM_NAME));
    const port = connect(sites, proxy);
    sites.reconfigure({});
    sites.reconfigure({
      gateway: { log: { level: 'debug' } },
      client: { site: { lans: ['br-lan'] }, dns: { mode: 'redirect' }, log: { level: 'debug' } },
    });
    sites.move('client', '192.0.2.77');
    sites.advance(5000);
    t.equal(sites.sessions('gateway').length, 1);
    sites.send('client', segment(proxy, ACK));
    sites.advance(5000);
    t.match(sites.seen('gateway').at(0), { destination: SERVER, sourcePort: port });
    sites.send('gateway', replyOf(port, ACK));
    t.match(sites.seen('client').at(0), { source: proxy });
    t.same(sites.told('gateway', 'authorization-ended'), []);
  },
);

await t.test('both FINs end a session, and its stragglers go nowhere', async (t) => {
  const sites = sitesWith();
  const proxy = first(sites.lookUp(CRM_NAME));
  const port = connect(sites, proxy);
  sites.send('client', segment(proxy, FIN | ACK));
  sites.send('gateway', replyOf(port, FIN | ACK));
  t.equal(sites.seen('client').length, 1);
  sites.advance(6000);
  t.same(sites.sessions('gateway'), []);
  sites.send('gateway', replyOf(port, ACK));
  t.same(sites.received('client'), []);
});

await t.test('a RST ends a session at once', async (t) => {
  const sites = sitesWith();
  const proxy = first(sites.lookUp(CRM_NAME));
  const port = connect(sites, proxy);
  sites.send('gateway', replyOf(port, RST));
  t.equal(sites.seen('client').length, 1, 'the RST itself arrives');
  t.same(sites.sessions('gateway'), []);
  t.same(sites.sessions('client'), []);
  sites.send('gateway', replyOf(port, ACK));
  t.same(sites.received('client'), []);
});
