import t from 'tap';
import type { ResourcesStatus } from '../../../core/engine/resource-status.ts';
import { deviceStateOf } from '../../../core/engine/status.ts';
import {
  ResourceSites,
  START_UNIX_MS,
  type ResourceDocuments,
  type Router,
} from '../../sim/resource-sites.ts';

const SECOND = 1000;
const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
t.comment(`SEED=${SEED}`);

const CRM = {
  id: 'crm',
  name: 'Customers',
  type: 'dns',
  patterns: ['crm.corp.example', '*.app.example'],
  filters: [{ protocol: 'udp' }, { protocol: 'tcp', ports: ['443', '8000-8100'] }],
};
const PRINTERS = { id: 'printers', type: 'cidr', prefixes: ['192.168.7.0/24'] };
const CLIENT_MAY = { peer: 'client', resource: 'crm' };

await t.test('of a resource that a peer serves it is told what it is and by whom', async (t) => {
  const sites = await sitesOf();
  sites.lookUp('crm.corp.example');
  t.match(used(sites), {
    id: 'crm',
    name: 'Customers',
    type: 'dns',
    targets: CRM.patterns,
    filters: ['udp', 'tcp 443, 8000-8100'],
    state: 'usable',
    why: undefined,
    gateways: [{ id: 'gateway', state: 'connected', isReachable: true, isInUse: true }],
    setups: { pending: 0, confirmed: 1, recreating: 0, failed: 0 },
    names: undefined,
  });
});

await t.test('names are told of the resource that is asked for, on both sides', async (t) => {
  const sites = await sitesOf();
  const proxies = sites.lookUp('crm.corp.example');
  const named = sites.client.engine.resources.resources('crm').used[0]?.names;
  t.match(named, [{ domain: 'crm.corp.example', gateway: 'gateway', state: 'confirmed' }]);
  t.same(named?.[0]?.proxies.slice(0, 4), proxies);
  t.match(sites.gateway.engine.resources.resources('crm').served, [
    {
      id: 'crm',
      nameCount: 1,
      names: [{ domain: 'crm.corp.example', peer: 'client', addresses: ['192.168.1.5'] }],
    },
    { id: 'printers', nameCount: 0, names: undefined },
  ]);
  t.match(served(sites, 'crm'), { nameCount: 1, names: undefined });
});

await t.test('what cannot be used has a cause', async (t) => {
  const off = await sitesOf({ client: { dns: { mode: 'off' } } });
  t.match(used(off), { state: 'unusable', why: 'dns-off' });
  t.match(used(off, 'printers'), { state: 'usable' }, 'a network has no names');

  const taken = await sitesOf();
  const failures = [{ address: '127.0.0.1:53053', why: 'port-taken' }] as never;
  taken.client.names.interceptionFailure = { why: 'no-answer', detail: 'nobody answers' };
  taken.client.input({ type: 'dns-listening', failures });
  await settle(taken);
  t.match(used(taken), { state: 'unusable', why: 'dns-failed' });
  const { resources } = taken.client.engine;
  t.match(resources.dns(1), { state: 'failed', why: 'port-taken', detail: '127.0.0.1:53053' });

  const refused = await sitesOf({ authorizations: [] });
  t.match(used(refused), { state: 'usable' }, 'nobody asked yet');
  refused.lookUp('crm.corp.example');
  t.match(used(refused), { state: 'unusable', why: 'refused', setups: { failed: 1 } });

  const lost = await sitesOf();
  lost.stop('gateway', 'leaving');
  lost.advance(SECOND);
  t.match(used(lost), {
    state: 'unusable',
    why: 'no-gateway',
    gateways: [{ isReachable: false, isInUse: true, cause: 'said goodbye: leaving' }],
  });
});

await t.test('a gateway whose listener opened at last intercepts nothing', async (t) => {
  const sites = await sitesOf();
  const failures = [{ address: '100.64.0.2:53535', why: 'port-taken' }] as never;
  sites.gateway.input({ type: 'dns-listening', failures });
  const { resources } = sites.gateway.engine;
  t.match(resources.dns(1), { state: 'failed', detail: '100.64.0.2:53535' });
  t.same(sites.told('gateway', 'dns-not-listening'), [], 'an address may become ready in a moment');
  for (let times = 0; times < 3; times++) {
    sites.advance(60 * SECOND);
    sites.gateway.input({ type: 'dns-listening', failures });
  }
  t.equal(sites.told('gateway', 'dns-not-listening').length, 1, 'told once');
  sites.gateway.input({ type: 'dns-listening', failures: [] });
  await settle(sites);
  t.match(resources.dns(1), { mode: 'off', state: 'off', why: undefined });
  t.same(sites.told('gateway', 'dns-intercepting'), []);
});

await t.test('a name that cannot be had says nothing of its resource', async (t) => {
  const sites = await sitesOf();
  sites.gateway.names.zone = () => 'servfail';
  sites.lookUp('gone.app.example');
  sites.advance(10 * SECOND);
  t.match(used(sites), { state: 'usable', setups: { failed: 1 } });
});

await t.test('of a resource of ours it is told who may use it, and for how long', async (t) => {
  const expiresUnixMs = START_UNIX_MS + 60 * SECOND;
  const expiresAt = new Date(expiresUnixMs).toISOString();
  const filters = [{ protocol: 'icmp' }];
  const authorizations = [{ ...CLIENT_MAY, filters, sources: ['100.64.0.1/32'], expiresAt }];
  const sites = await sitesOf({ authorizations });
  t.match(served(sites, 'crm'), {
    state: 'usable',
    authorizations: [
      {
        peer: 'client',
        peerState: 'connected',
        sources: ['100.64.0.1/32'],
        filters: ['icmp'],
        expiresUnixMs,
      },
    ],
  });
  t.match(served(sites, 'printers'), { state: 'unusable', why: 'nobody-authorized' });
  sites.advance(60 * SECOND);
  t.match(served(sites, 'crm'), { why: 'nobody-authorized', authorizations: [] });
});

await t.test('a packet filter that failed concerns what we serve', async (t) => {
  const sites = await sitesOf();
  const failures = [{ object: 'table', message: 'no' }] as never;
  sites.gateway.input({ type: 'ruleset-applied', failures });
  t.match(served(sites, 'crm'), { state: 'unusable', why: 'not-masqueraded' });
});

await t.test('queries are counted by outcome, servers measured, names limited', async (t) => {
  const sites = await sitesOf();
  for (const name of ['crm.corp.example', 'a.app.example', 'b.app.example']) sites.lookUp(name);
  sites.ask('MX', 'crm.corp.example');
  sites.lookUp('www.example.net');
  const dns = sites.client.engine.resources.dns(2);
  t.match(dns, { mode: 'redirect', state: 'intercepting' });
  t.match(dns.queries, { proxies: 3, 'no-data': 1, forward: 1, 'forwarded-queries': 1 });
  const server = dns.upstreams.find(({ id }) => id === '192.0.2.53:53');
  t.match(server, { state: 'alive', answers: 1, latencyMs: Number });
  t.equal(dns.proxies.used, 3);
  t.same(
    dns.proxies.names.map(({ name, proxies }) => [name, proxies.length]),
    [
      ['crm.corp.example', 8],
      ['a.app.example', 8],
    ],
  );
});

await t.test('sessions are told on both sides, the latest first, with their number', async (t) => {
  const sites = await sitesOf();
  const [proxy = ''] = sites.lookUp('crm.corp.example');
  sites.sendUdp({ to: proxy, port: 4000 });
  sites.advance(5 * SECOND);
  sites.sendUdp({ to: proxy, port: 4001 });
  const about = { resource: 'crm', domain: 'crm.corp.example', protocol: 'udp' };
  const { total, sessions } = nat(sites, 'client', 1);
  t.equal(total, 2);
  t.match(sessions, [
    {
      ...about,
      role: 'client',
      peer: 'gateway',
      source: { address: '192.168.1.10', port: 4001 },
      destination: { address: proxy, port: 80 },
      translatedSource: { address: '100.64.0.1' },
    },
  ]);
  t.equal(sessions.length, 1);
  t.match(nat(sites, 'gateway', 10).sessions, [
    { ...about, role: 'gateway', translatedDestination: { address: '192.168.1.5', port: 80 } },
    { ...about, source: { address: '100.64.0.1', port: 4000 } },
  ]);
});

await t.test('flows are told when they begin and when they end, and not twice', async (t) => {
  const sites = await sitesOf();
  const [proxy = ''] = sites.lookUp('crm.corp.example');
  const arrived = sites.deliver({ to: proxy });
  if (arrived === undefined) throw new Error('nothing arrived');
  sites.answer(arrived);
  const { resources } = sites.client.engine;
  t.match(resources.flows(0, 10), [{ sequence: 1, event: 'open', path: 'direct' }]);
  sites.advance(180 * SECOND);
  const [end, ...more] = resources.flows(1, 10);
  t.match(end, {
    sequence: 2,
    event: 'close',
    domain: 'crm.corp.example',
    sentPackets: 1,
    receivedPackets: 1,
  });
  t.same(more, []);
  t.same(resources.flows(2, 10), []);
});

await t.test('the status and the fleet have the numbers', async (t) => {
  const sites = await sitesOf();
  const [proxy = ''] = sites.lookUp('crm.corp.example');
  sites.sendUdp({ to: proxy });
  t.same(sites.client.engine.status().resources, {
    used: 2,
    usable: 2,
    served: 0,
    sessions: 1,
    dns: { mode: 'redirect', state: 'intercepting', why: undefined },
  });
  t.same(deviceStateOf(sites.client.engine.status(), START_UNIX_MS).resources, {
    used: 2,
    usable: 2,
    served: 0,
    dns: 'intercepting',
  });
  sites.configure({ resources: [], authorizations: [] });
  const status = sites.client.engine.status();
  t.equal(status.resources, undefined);
  t.notOk('resources' in deviceStateOf(status, START_UNIX_MS));
});

async function sitesOf(documents: Partial<ResourceDocuments> = {}): Promise<ResourceSites> {
  const sites = new ResourceSites(SEED, {
    resources: [CRM, PRINTERS],
    authorizations: [CLIENT_MAY],
    ...documents,
  });
  sites.gateway.names.zone = ({ type, name }) =>
    type === 'A' ? [{ type: 'A', name, ttl: 60, data: '192.168.1.5' }] : [];
  await settle(sites);
  return sites;
}

/** Listeners open, and queries are intercepted, in promises. */
async function settle(sites: ResourceSites): Promise<void> {
  for (let i = 0; i < 2; i++) {
    await new Promise((resolve) => setImmediate(resolve));
    sites.advance(1);
  }
}

function used(sites: ResourceSites, id = 'crm'): ResourcesStatus['used'][number] | undefined {
  return sites.client.engine.resources.resources().used.find((it) => it.id === id);
}

function served(sites: ResourceSites, id: string): ResourcesStatus['served'][number] | undefined {
  return sites.gateway.engine.resources.resources().served.find((it) => it.id === id);
}

function nat(sites: ResourceSites, router: Router, most: number) {
  return sites.site(router).engine.resources.nat(most, sites.time.now);
}
