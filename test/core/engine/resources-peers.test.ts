import t from 'tap';
import { PEERING_PORT } from '../../../core/peering/message.ts';
import { GATEWAY, ResourceSites } from '../../sim/resource-sites.ts';
import { CRM, CRM_NAME, first, MAY_USE_CRM, zoneOf } from './resource-fixtures.ts';

const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
t.comment(`SEED=${SEED}`);

await t.test('a peer that takes the place of another inherits nothing of it', async (t) => {
  const documents = { resources: [CRM], authorizations: [MAY_USE_CRM] };
  const sites = new ResourceSites(SEED, documents, { routers: ['client', 'gateway', 'gateway2'] });
  for (const gateway of [sites.gateway, sites.site('gateway2')]) {
    gateway.names.zone = zoneOf({ [CRM_NAME]: ['10.9.0.5'] });
  }
  const useOnly = (id: string) => {
    const document = sites.documentOf('client') as { readonly peers: readonly { id: string }[] };
    sites.client.configure({
      ...document,
      peers: document.peers.filter((peer) => peer.id === id),
      resources: [{ ...CRM, gateways: [id] }],
    });
    sites.advance(2000);
  };
  useOnly('gateway');
  const proxy = first(sites.lookUp(CRM_NAME));
  t.ok(sites.deliver({ to: proxy }));
  t.match(sites.sessions('client'), [{ peer: 'gateway' }]);

  useOnly('gateway2');
  t.same(sites.sessions('client'), []);
  t.same(sites.client.engine.resources.resources().used[0]?.setups.confirmed, 0);
  sites.lookUp(CRM_NAME);
  t.ok(sites.deliver({ to: proxy }, 'gateway2'));
  t.match(sites.sessions('client'), [{ peer: 'gateway2' }]);
});

await t.test('a resource that is used no longer takes its sessions with it', async (t) => {
  const sites = new ResourceSites(SEED, { resources: [CRM], authorizations: [MAY_USE_CRM] });
  sites.gateway.names.zone = zoneOf({ [CRM_NAME]: ['10.9.0.5'] });
  const proxy = first(sites.lookUp(CRM_NAME));
  const request = sites.deliver({ to: proxy });
  t.equal(sites.sessions('client').length, 1);
  const document = sites.documentOf('client');
  sites.client.configure({ ...document, resources: [] });
  sites.advance(1);
  t.same(sites.sessions('client'), []);
  t.equal(request && sites.answer(request), undefined, 'and its answers are let in no more');
});

await t.test('a host that sends from the port of daemons keeps none of their words', async (t) => {
  const around = { id: 'around', type: 'cidr', prefixes: ['100.64.0.0/24'] };
  const sites = new ResourceSites(SEED, {
    resources: [CRM, around],
    authorizations: [MAY_USE_CRM, { peer: 'client', resource: 'around' }],
  });
  sites.gateway.names.zone = zoneOf({ [CRM_NAME]: ['10.9.0.5'] });
  sites.sendUdp({ port: PEERING_PORT, to: GATEWAY.ipv4, toPort: 9000 });
  t.match(sites.sessions('client'), [{ translatedSource: { port: PEERING_PORT + 1 } }]);
  const proxy = first(sites.lookUp(CRM_NAME));
  t.ok(sites.deliver({ to: proxy }), 'what the gateway says of a name is heard');
  t.same(sites.received('client'), [], 'by nobody else');
});
