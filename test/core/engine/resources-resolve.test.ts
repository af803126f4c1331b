import t from 'tap';
import { isResourceEvent, logResourceEvent } from '../../../openwrt/resource-log.ts';
import { nullLog } from '../../../core/sansio/log.ts';
import { ResourceSites } from '../../sim/resource-sites.ts';
import { CRM, CRM_NAME, first, MAY_USE_CRM, present, zoneOf } from './resource-fixtures.ts';

const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
t.comment(`SEED=${SEED}`);

function sitesWith(addresses: readonly string[]): ResourceSites {
  const sites = new ResourceSites(SEED, { resources: [CRM], authorizations: [MAY_USE_CRM] });
  sites.gateway.names.zone = zoneOf({ [CRM_NAME]: addresses });
  return sites;
}

/** The name gets other addresses, and a host asks for it again. */
function resolveAgain(sites: ResourceSites, addresses: readonly string[]): void {
  sites.gateway.names.zone = zoneOf({ [CRM_NAME]: addresses });
  sites.advance(3000);
  sites.lookUp(CRM_NAME);
  sites.advance(100);
}

await t.test('re-resolving never cuts an established connection', async (t) => {
  const sites = sitesWith(['10.9.0.5']);
  const proxy = first(sites.lookUp(CRM_NAME));
  const before = present(sites.deliver({ to: proxy, port: 4000 }));
  t.equal(before.destination, '10.9.0.5');
  resolveAgain(sites, ['10.9.0.6']);

  t.equal(sites.deliver({ to: proxy, port: 4000 })?.destination, '10.9.0.5', 'as it was opened');
  t.match(sites.answer(before), { source: proxy, destination: '192.168.1.10' }, 'answers too');
  t.equal(sites.deliver({ to: proxy, port: 4001 })?.destination, '10.9.0.6', 'a new flow');
});

await t.test('it does not either when the name is gone', async (t) => {
  const sites = sitesWith(['10.9.0.5']);
  const proxy = first(sites.lookUp(CRM_NAME));
  t.ok(sites.deliver({ to: proxy }));
  resolveAgain(sites, []);

  t.equal(sites.deliver({ to: proxy })?.destination, '10.9.0.5');
  t.equal(sites.deliver({ to: proxy, port: 4001 }), undefined);
  t.match(sites.seen('client'), [{ protocol: 'icmp', about: { destination: proxy } }]);
});

await t.test('addresses that are known outlive a lookup that fails', async (t) => {
  const sites = sitesWith(['10.9.0.5']);
  const proxy = first(sites.lookUp(CRM_NAME));
  sites.gateway.names.zone = () => 'servfail';
  sites.advance(3000);
  sites.lookUp(CRM_NAME);
  sites.advance(15_000);
  t.equal(sites.deliver({ to: proxy })?.destination, '10.9.0.5');
  t.equal(sites.told('client', 'resource-failed').length, 0);
});

await t.test('a re-resolution that changes nothing tells nothing', async (t) => {
  const sites = sitesWith(['10.9.0.5', '10.9.0.6']);
  const proxy = first(sites.lookUp(CRM_NAME));
  t.ok(sites.deliver({ to: proxy }));
  sites.told('gateway', 'address-changed');
  const asked = sites.gateway.names.asked.length;
  for (let i = 0; i < 5; i++) resolveAgain(sites, ['10.9.0.6', '10.9.0.5']);
  t.ok(sites.gateway.names.asked.length > asked, 'it was looked up again');
  t.same(sites.told('gateway', 'address-changed'), [], 'in another order it is the same');
  t.same(sites.gateway.events.filter(isResourceEvent), [], 'no line at all');
});

await t.test('an address that changes under open sessions is told once', async (t) => {
  const sites = sitesWith(['10.9.0.5']);
  const proxy = first(sites.lookUp(CRM_NAME));
  t.ok(sites.deliver({ to: proxy }));
  for (let i = 0; i < 3; i++) resolveAgain(sites, ['10.9.0.6']);
  const [event, ...more] = sites.told('gateway', 'address-changed');
  const change = { domain: CRM_NAME, proxyIp: proxy, oldIp: '10.9.0.5', newIp: '10.9.0.6' };
  t.match(event, { ...change, peer: 'client' });
  t.same(more, []);

  const lines: unknown[] = [];
  const log = { ...nullLog, debug: (_: string, fields?: object) => void lines.push(fields) };
  logResourceEvent(log, present(event));
  t.match(lines, [change]);
});

await t.test('an address that changes without open sessions is told to nobody', async (t) => {
  const sites = sitesWith(['10.9.0.5']);
  const proxy = first(sites.lookUp(CRM_NAME));
  resolveAgain(sites, ['10.9.0.6']);
  t.same(sites.told('gateway', 'address-changed'), []);
  t.equal(sites.deliver({ to: proxy })?.destination, '10.9.0.6');
});

await t.test('every query of the LAN has the gateway resolve the name again', async (t) => {
  const sites = sitesWith(['10.9.0.5']);
  for (let i = 0; i < 3; i++) resolveAgain(sites, ['10.9.0.5']);
  t.equal(sites.gateway.names.asked.filter(({ type }) => type === 'A').length, 3);
});

await t.test('two resources that resolve to the same address stay apart', async (t) => {
  const wiki = { id: 'wiki', type: 'dns', patterns: ['wiki.corp.example'] };
  const filters = [{ protocol: 'udp', ports: ['80'] }];
  const sites = new ResourceSites(SEED, {
    resources: [CRM, { ...wiki, filters }],
    authorizations: [MAY_USE_CRM, { peer: 'client', resource: 'wiki' }],
  });
  const both = { [CRM_NAME]: ['10.9.0.5'], 'wiki.corp.example': ['10.9.0.5'] };
  sites.gateway.names.zone = zoneOf(both);
  const crm = first(sites.lookUp(CRM_NAME));
  const other = first(sites.lookUp('wiki.corp.example'));
  t.not(crm, other);

  const toCrm = present(sites.deliver({ to: crm, port: 4000 }));
  const toWiki = present(sites.deliver({ to: other, port: 4000 }));
  t.match([toCrm.destination, toWiki.destination], ['10.9.0.5', '10.9.0.5']);
  t.not(toCrm.sourcePort, toWiki.sourcePort, 'the server tells them apart');
  t.equal(sites.answer(toWiki)?.source, other);
  t.equal(sites.answer(toCrm)?.source, crm);
  t.ok(sites.deliver({ to: crm, toPort: 8080 }), 'what one permits');
  t.equal(sites.deliver({ to: other, toPort: 8080 }), undefined, 'the other need not');

  sites.reconfigure({ authorizations: [MAY_USE_CRM] });
  t.equal(sites.answer(toWiki), undefined, 'one ends');
  t.equal(sites.answer(toCrm)?.source, crm, 'the other does not');
});

await t.test('held packets arrive once the gateway has answered', async (t) => {
  const sites = sitesWith([]);
  sites.gateway.names.zone = () => 'silence';
  const proxy = first(sites.lookUp(CRM_NAME));
  for (const port of [4000, 4001, 4002]) sites.sendUdp({ to: proxy, port });
  t.same(sites.received('gateway'), []);
  sites.gateway.names.zone = zoneOf({ [CRM_NAME]: ['10.9.0.5'] });
  sites.advance(12_000);
  t.same(
    sites.seen('gateway').map(({ destination, sourcePort }) => [destination, sourcePort]),
    [4000, 4001, 4002].map((port) => ['10.9.0.5', port]),
    'in their order',
  );
});

await t.test('a name that the site does not know is told to who uses it', async (t) => {
  const sites = sitesWith([]);
  const proxy = first(sites.lookUp(CRM_NAME));
  sites.sendUdp({ to: proxy });
  t.same(sites.received('gateway'), []);
  t.match(sites.seen('client'), [{ protocol: 'icmp', about: { destination: proxy } }]);
});

await t.test('proxies of both families lead to addresses of their own', async (t) => {
  const sites = sitesWith(['10.9.0.5', 'fd00:b::5']);
  const [proxy4, proxy6] = [first(sites.lookUp(CRM_NAME)), first(sites.lookUp(CRM_NAME, 'AAAA'))];
  t.equal(sites.deliver({ to: proxy4 })?.destination, '10.9.0.5');
  const arrived = present(sites.deliver({ to: proxy6 }));
  t.match(arrived, { source: 'fd00::1', destination: 'fd00:b::5' });
  t.match(sites.answer(arrived), { source: proxy6, destination: 'fd00:a::10' });
  resolveAgain(sites, ['10.9.0.5', 'fd00:b::6']);
  t.equal(sites.deliver({ to: proxy6 })?.destination, 'fd00:b::5', 'as it was opened');
  t.equal(sites.deliver({ to: proxy6, port: 4001 })?.destination, 'fd00:b::6');
  t.match(sites.told('gateway', 'address-changed'), [{ oldIp: 'fd00:b::5', newIp: 'fd00:b::6' }]);
});
