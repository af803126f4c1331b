import t from 'tap';
import { ResourceSites } from '../../sim/resource-sites.ts';
import { tcp } from '../fastpath/packets.ts';
import { icmpError } from '../nat/icmp-packets.ts';
import { CRM, CRM_NAME, first, MAY_USE_CRM, present, zoneOf } from './resource-fixtures.ts';

const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
t.comment(`SEED=${SEED}`);

const HOST = '192.168.1.10';

function sitesWith(resources: readonly object[], authorizations: readonly object[]) {
  const sites = new ResourceSites(SEED, { resources, authorizations });
  sites.gateway.names.zone = zoneOf({ [CRM_NAME]: ['10.9.0.5', 'fd00:b::5'] });
  return sites;
}

/* What the engine cannot hold must not be held and released for ever: each of these once hung it. */

await t.test('a host says that nobody waits for an answer any more, and goes on', async (t) => {
  const sites = sitesWith([CRM], [MAY_USE_CRM]);
  const proxy = first(sites.lookUp(CRM_NAME));
  const answered = present(sites.answer(present(sites.deliver({ to: proxy }))));
  const fields = { source: HOST, destination: proxy, type: 3, code: 3, rest: 0 };
  sites.send('client', icmpError(fields, answered.bytes));
  t.same(sites.seen('gateway'), [], 'errors about answers go nowhere');
  t.ok(sites.deliver({ to: proxy }));
});

await t.test('a fragment goes the way of the resource for which it can be held', async (t) => {
  const web = { ...CRM, id: 'web', filters: [{ protocol: 'tcp', ports: ['80'] }] };
  const sites = sitesWith([web, CRM], [MAY_USE_CRM, { peer: 'client', resource: 'web' }]);
  const proxy = first(sites.lookUp(CRM_NAME));
  sites.reconfigure({ authorizations: [{ peer: 'client', resource: 'web' }] });
  sites.cut('gateway');
  sites.reconfigure({ resources: [web, { ...CRM, id: 'all' }] });
  const fragment = tcp({ source: HOST, destination: proxy, destinationPort: 80 });
  // More fragments: the ports of this one are not looked at, so that the filter does not permit it.
  const view = new DataView(fragment.buffer, fragment.byteOffset);
  const before = view.getUint16(6);
  view.setUint16(6, 0x2000);
  view.setUint16(10, adjusted(view.getUint16(10), before, 0x2000));
  sites.send('client', fragment);
  const { setups } = sites.client.engine.resources.resources().used.at(-1) ?? {};
  t.match(setups, { pending: 1 }, 'held for the resource without filters');
});

/** RFC 1624, equation 3. */
function adjusted(checksum: number, before: number, after: number): number {
  const sum = (~checksum & 0xffff) + (~before & 0xffff) + after;
  return ~((sum & 0xffff) + (sum >>> 16)) & 0xffff;
}
