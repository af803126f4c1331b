import t from 'tap';
import { nameServersOf } from '../../../core/engine/name-servers.ts';
import type { DomainName } from '../../../core/dns/name.ts';
import type { SocketAddress } from '../../../core/net/socket-address.ts';
import { configuration } from '../../sim/site.ts';

const ROUTER = '127.0.0.1:53' as SocketAddress;
const PROVIDER = '198.51.100.53:53' as SocketAddress;
const SYSTEM = { nameservers: [ROUTER], providerNameservers: [PROVIDER], hosts: new Map() };
const DOCUMENT = {
  interface: { addresses: ['100.64.0.1/32'] },
  peers: [],
  site: { lans: ['br-lan'] },
};

/** Whom the LAN's question for a name goes to, and whom our own about the site. */
function askedFor(name: string, dns: object, system = SYSTEM) {
  const parsed = configuration({ ...DOCUMENT, dns });
  const { groups, rules, siteRules } = nameServersOf(parsed, system, [], new Map());
  const idsOf = (group: string) => groups.get(group)?.upstreams.map(({ id }) => id);
  return {
    lan: idsOf(rules.groupOf(name as DomainName)),
    site: idsOf(siteRules.groupOf(name as DomainName)),
  };
}

await t.test(
  'the resolver of the router is asked for all, where it sends us nothing',
  async (t) => {
    for (const mode of ['off', 'redirect']) {
      t.same(askedFor('www.example', { mode }), { lan: [ROUTER], site: [ROUTER] }, mode);
    }
  },
);

await t.test(
  'what dnsmasq sends us does not go back to it, and names of our site do',
  async (t) => {
    t.same(askedFor('crm.corp.example', { mode: 'dnsmasq' }), { lan: [PROVIDER], site: [ROUTER] });
  },
);

await t.test('names that the router alone knows never go to configured servers', async (t) => {
  const dns = { mode: 'redirect', upstreams: ['192.0.2.1'] };
  for (const name of ['printer.lan', 'printer', '9.1.168.192.in-addr.arpa', 'nas.home.arpa']) {
    t.same(askedFor(name, dns).lan, [ROUTER], name);
  }
  for (const name of ['www.example', '1.113.0.203.in-addr.arpa']) {
    t.same(askedFor(name, dns).lan, ['192.0.2.1:53'], name);
  }
  const ruled = { ...dns, rules: [{ zones: ['lan'], upstreams: ['192.0.2.7'] }] };
  t.same(askedFor('printer.lan', ruled).lan, ['192.0.2.7:53'], 'but for what a rule says');
});

await t.test('we are never our own server', async (t) => {
  const nameservers = ['192.168.1.1:53053' as SocketAddress, PROVIDER];
  const asked = askedFor('www.example', { mode: 'redirect' }, { ...SYSTEM, nameservers });
  t.same(asked.lan, [PROVIDER]);
});
