import t from 'tap';
import { diffConfiguration } from '../../../core/config/diff.ts';
import { key, minimal, parsed } from './document.ts';

const document = {
  ...minimal(),
  peers: [
    { id: 'berne', kind: 'culvert', publicKey: key(1), allowedIps: ['10.2.0.0/16'] },
    { id: 'basle', kind: 'culvert', publicKey: key(2), allowedIps: ['10.3.0.0/16'] },
  ],
  resources: [
    { id: 'crm', type: 'dns', patterns: ['crm.example', 'crm2.example'] },
    { id: 'nas', type: 'ip', address: '192.168.1.7', gateways: ['berne', 'basle'] },
  ],
  authorizations: [
    { peer: 'berne', resource: 'crm', sources: ['10.2.1.0/24', '10.2.2.0/24'] },
    { peer: 'basle', resource: 'crm' },
  ],
  site: { lans: ['br-lan', 'br-guest'] },
  nat: { prefixMaps: [{ local: '192.168.1.0/24', mapped: '10.200.1.0/24' }] },
  dns: { mode: 'dnsmasq', upstreams: ['192.0.2.1', '192.0.2.2'] },
};
const [crm, nas] = document.resources;
const [first, second] = document.authorizations;

await t.test('a diff names each part that has another value', async (t) => {
  t.same(changed({}), []);
  t.same(changed({ resources: [crm, { ...nas, address: '192.168.1.8' }] }), ['resources-changed']);
  t.same(changed({ authorizations: [first] }), ['authorizations-changed']);
  t.same(changed({ authorizations: [first, { ...second, expiresAt: '2027-01-31T18:00:00Z' }] }), [
    'authorizations-changed',
  ]);
  t.same(changed({ site: { lans: ['br-lan'] } }), ['site-changed']);
  t.same(changed({ nat: { ...document.nat, masquerade: false } }), ['nat-changed']);
  t.same(changed({ dns: { ...document.dns, mode: 'off' } }), ['dns-changed']);
  t.same(changed({ dns: {}, resources: [], authorizations: [] }), [
    'resources-changed',
    'authorizations-changed',
    'dns-changed',
  ]);
});

await t.test('a step brings the new value of its part', async (t) => {
  const next = parsed({ ...document, site: { lans: ['lan1'] } });
  t.same(diffConfiguration(parsed(document), next), [
    { type: 'site-changed', site: { lans: ['lan1'] } },
  ]);
});

await t.test('order counts where it says which comes first, and nowhere else', async (t) => {
  t.same(changed({ site: { lans: ['br-guest', 'br-lan'] } }), []);
  t.same(changed({ authorizations: [second, first] }), []);
  t.same(changed({ resources: [{ ...crm, patterns: ['crm2.example', 'crm.example'] }, nas] }), []);
  t.same(changed({ resources: [crm, { ...nas, gateways: ['basle', 'berne'] }] }), [
    'resources-changed',
  ]);
  t.same(changed({ resources: [nas, crm] }), ['resources-changed'], 'of those with one name');
  t.same(changed({ dns: { ...document.dns, upstreams: ['192.0.2.2', '192.0.2.1'] } }), [
    'dns-changed',
  ]);
});

function changed(parts: object): string[] {
  const next = parsed({ ...document, ...parts });
  return diffConfiguration(parsed(document), next).map(({ type }) => type);
}
