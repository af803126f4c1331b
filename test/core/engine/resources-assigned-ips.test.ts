import t from 'tap';
import type { IpAddress } from '../../../core/net/ip-address.ts';
import { CLIENT, ResourceSites } from '../../sim/resource-sites.ts';
import { forge, makeHostile, statuses } from './hostile-client.ts';
import { CRM, CRM_NAME, first, MAY_USE_CRM, zoneOf } from './resource-fixtures.ts';

const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
t.comment(`SEED=${SEED}`);

const PROXIES = ['100.96.0.1', '100.96.0.2', '100.96.0.3', '100.96.0.4'];
const PROXIES6 = [1, 2, 3, 4].map((host) => `fd3c:91d6:b4a2:8000::${host}`);

/** A gateway, and a client that asks it for what it likes. */
function hostileSites(): ResourceSites {
  const secret = { id: 'secret', type: 'dns', patterns: ['secret.corp.example'] };
  const sites = new ResourceSites(SEED, {
    resources: [CRM, secret],
    authorizations: [MAY_USE_CRM],
  });
  sites.gateway.names.zone = zoneOf({
    [CRM_NAME]: ['10.9.0.5'],
    'other.example': ['10.9.0.9'],
    'secret.corp.example': ['10.9.0.9'],
  });
  makeHostile(sites);
  return sites;
}

function assign(
  sites: ResourceSites,
  proxyIps: readonly string[],
  { resource = 'crm', domain = CRM_NAME } = {},
): readonly string[] {
  const ips = proxyIps as readonly IpAddress[];
  forge(sites, { type: 'assigned-ips', resource, domain, proxyIps: ips });
  return statuses(sites);
}

/** What the gateway holds for the client. */
function names(sites: ResourceSites): number {
  const { served } = sites.gateway.engine.resources.resources('crm');
  return served.reduce((count, { names = [] }) => count + names.length, 0);
}

await t.test('four proxies of each family are taken', async (t) => {
  const sites = hostileSites();
  t.same(assign(sites, [...PROXIES, ...PROXIES6]), ['active']);
  t.equal(names(sites), 1);
  t.equal(sites.deliver({ host: CLIENT.ipv4, to: first(PROXIES) })?.destination, '10.9.0.5');
});

const REFUSED = ['refused'];
/** What is no message at all gets no answer. */
const IGNORED: readonly string[] = [];
const SECRET = { resource: 'secret', domain: 'secret.corp.example' };

for (const [why, proxies, asked, said] of [
  ['outside the range of proxies', ['10.9.0.1'], {}, REFUSED],
  ['in the range of tunnels', ['100.64.0.9'], {}, REFUSED],
  ['one of them outside the range', ['100.96.0.1', '100.128.0.1'], {}, REFUSED],
  ['outside the range of IPv6', ['fd3c:91d6:b4a2:8001::1'], {}, REFUSED],
  ['too many', [...PROXIES, '100.96.0.5'], {}, IGNORED],
  ['too many of IPv6', [...PROXIES6, 'fd3c:91d6:b4a2:8000::5'], {}, IGNORED],
  ['a domain outside the pattern', PROXIES, { domain: 'other.example' }, REFUSED],
  ['a domain below the pattern', PROXIES, { domain: `a.${CRM_NAME}` }, REFUSED],
  ['a resource that it may not use', PROXIES, SECRET, REFUSED],
  ['a resource that is not there', PROXIES, { resource: 'nothing' }, REFUSED],
] as const) {
  await t.test(`assigned-ips are refused, without state: ${why}`, async (t) => {
    const sites = hostileSites();
    t.same(assign(sites, proxies, asked), said);
    t.equal(names(sites), 0);
    t.same(sites.gateway.names.asked, [], 'nobody was asked');
    const [to] = proxies;
    const host = to.includes(':') ? CLIENT.ipv6 : CLIENT.ipv4;
    t.equal(sites.deliver({ host, to }), undefined);
    t.same(sites.sessions('gateway'), []);
  });
}

await t.test('assigned-ips that come too often are not read', async (t) => {
  const sites = hostileSites();
  const wide = { id: 'crm', type: 'dns', patterns: ['**.corp.example'] };
  sites.gateway.configure({
    ...sites.documentOf('gateway'),
    resources: [wide],
    authorizations: [MAY_USE_CRM],
  });
  for (let i = 0; i < 100; i++) {
    const proxyIps = [`100.96.1.${i}` as IpAddress];
    forge(sites, { type: 'assigned-ips', resource: 'crm', domain: `h${i}.corp.example`, proxyIps });
  }
  const asked = sites.gateway.names.asked.filter(({ type }) => type === 'A').length;
  // 20 at once, and 20 a second in these two seconds.
  t.ok(asked <= 62, `${asked} of 100 were looked up`);
  t.ok(asked >= 20);
});

await t.test('one lookup of a name is under way, however often it is asked for', async (t) => {
  const sites = hostileSites();
  sites.gateway.names.zone = () => 'silence';
  for (let i = 0; i < 10; i++) t.same(assign(sites, PROXIES), []);
  t.equal(sites.gateway.names.asked.filter(({ type }) => type === 'A').length, 1);
});
