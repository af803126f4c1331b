import t from 'tap';
import { localNames, UpstreamRules } from '../../../core/dns/upstream-rules.ts';
import { nameOf, prefixOf } from './messages.ts';

await t.test('the router answers for its domain, its networks and bare names', async (t) => {
  const networks = [prefixOf('192.168.1.0/24'), prefixOf('10.7.0.0/23'), prefixOf('fd00:1::/60')];
  const rules = new UpstreamRules([localNames([nameOf('lan')], networks, 'router')], 'others');
  const router = [
    'lan',
    'nas.lan',
    'a.b.LAN',
    'printer',
    '7.1.168.192.in-addr.arpa',
    '1.168.192.in-addr.arpa',
    'lb._dns-sd._udp.0.1.168.192.in-addr.arpa',
    '1.0.7.10.in-addr.arpa',
    '1.1.7.10.in-addr.arpa',
    `1.${'0.'.repeat(23)}1.0.0.0.0.0.d.f.ip6.arpa`,
  ];
  const others = [
    '.',
    'www.example',
    'xlan.example',
    'lan.example',
    '7.2.168.192.in-addr.arpa',
    '168.192.in-addr.arpa',
    '1.2.7.10.in-addr.arpa',
    '1.1.100.in-addr.arpa',
  ];
  for (const name of router) t.equal(rules.groupOf(nameOf(name)), 'router', name);
  for (const name of others) t.equal(rules.groupOf(nameOf(name)), 'others', name);
});

await t.test('the longest zone decides', async (t) => {
  const rules = new UpstreamRules(
    [
      { zones: [nameOf('example')], group: 'a' },
      { zones: [nameOf('corp.example'), nameOf('corp.net')], group: 'b' },
      { zones: [nameOf('www.corp.example')], group: 'c' },
    ],
    'others',
  );
  const groups = {
    example: 'a',
    'www.example': 'a',
    'xcorp.example': 'a',
    'corp.example': 'b',
    'a.corp.example': 'b',
    'corp.net': 'b',
    'www.corp.example': 'c',
    'a.www.corp.example': 'c',
    net: 'others',
  };
  for (const [name, group] of Object.entries(groups)) {
    t.equal(rules.groupOf(nameOf(name)), group, name);
  }
});

await t.test('without rules everything belongs to the others', async (t) => {
  const rules = new UpstreamRules([], 'others');
  for (const name of ['.', 'nas', 'www.example']) t.equal(rules.groupOf(nameOf(name)), 'others');
});
