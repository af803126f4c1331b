import t from 'tap';
import { errorsOf, minimal, parsed } from './document.ts';

const crm = { id: 'crm', type: 'dns', patterns: ['crm.corp.example'] };

await t.test('a device uses no names and maps nothing unless it is told to', async (t) => {
  const { site, nat, dns, resources, authorizations } = parsed(minimal());
  t.same(site, { lans: [] });
  t.same(nat, { masquerade: true, prefixMaps: [] });
  t.same(dns, {
    mode: 'off',
    listenPort: 53_053,
    upstreams: [],
    rules: [],
    proxies: {
      ipv4: { address: '100.96.0.0', length: 11 },
      ipv6: { address: 'fd3c:91d6:b4a2:8000::', length: 64 },
    },
  });
  t.same([resources, authorizations], [[], []]);
});

await t.test('servers are told apart however they are written', async (t) => {
  const { dns } = parsed({
    ...minimal(),
    dns: {
      mode: 'dnsmasq',
      upstreams: ['192.0.2.1', 'https://dns.example'],
      rules: [{ zones: ['Corp.Example.'], upstreams: ['tls://192.0.2.2'] }],
    },
  });
  t.same(dns.upstreams, [
    { id: '192.0.2.1:53', protocol: 'plain' },
    { id: 'https://dns.example:443/dns-query', protocol: 'https' },
  ]);
  t.same(dns.rules, [
    { zones: ['corp.example'], upstreams: [{ id: 'tls://192.0.2.2:853', protocol: 'tls' }] },
  ]);
  t.same(errorsWith({ dns: { upstreams: ['192.0.2.1', '192.0.2.1:53'] } }), [
    'dns.upstreams[1]: is the same as dns.upstreams[0]',
  ]);
  const rule = { zones: ['corp.example'], upstreams: ['192.0.2.1'] };
  t.same(errorsWith({ dns: { upstreams: ['192.0.2.1'], rules: [rule] } }), []);
  t.same(errorsWith({ dns: { rules: [rule, { ...rule, zones: ['a.b', 'CORP.example'] }] } }), [
    'dns.rules[1].zones[1]: is the same as dns.rules[0].zones[0]',
  ]);
});

await t.test('each wrong value is refused with its path', async (t) => {
  const cases: readonly (readonly [object, string])[] = [
    [{ site: { lan: 'br-lan' } }, 'site.lan: unknown key'],
    [{ site: { lans: 'br-lan' } }, 'site.lans: must be a list'],
    [{ site: { lans: ['br-lan', 'br-lan'] } }, 'site.lans[1]: is the same as site.lans[0]'],
    [
      { site: { lans: ['br-lan', 'culvert0'] } },
      'site.lans[1]: is the interface of the tunnel (interface.name): name those of the LAN',
    ],
    [
      {
        interface: { ...minimal().interface, name: 'wg7' },
        site: { lans: ['wg7', 'culvert0'] },
      },
      'site.lans[0]: is the interface of the tunnel (interface.name): name those of the LAN',
    ],
    [{ nat: { masquerade: 'no' } }, 'nat.masquerade: must be true or false'],
    [{ nat: { prefixMaps: [{ local: '10.0.0.0/8' }] } }, 'nat.prefixMaps[0].mapped: is missing'],
    [{ dns: { mode: 'on' } }, 'dns.mode: must be "off", "dnsmasq" or "redirect"'],
    [{ dns: { listenPort: 0 } }, 'dns.listenPort: must be a whole number from 1 to 65535'],
    [
      { dns: { listenPort: 53_535 } },
      'dns.listenPort: is the port at which peers ask for names: choose another one',
    ],
    [
      { dns: { upstreams: ['dns.example'] } },
      'dns.upstreams[0]: must be 192.0.2.1, 192.0.2.1:53, tls://host, tls://host:853 or https://host/path',
    ],
    [
      { dns: { rules: [{ zones: [], upstreams: ['192.0.2.1'] }] } },
      'dns.rules[0].zones: must name at least one zone',
    ],
    [
      { dns: { rules: [{ zones: ['a..b'], upstreams: ['192.0.2.1'] }] } },
      'dns.rules[0].zones[0]: must be a domain such as corp.example',
    ],
    [
      { dns: { proxies: { ipv4: '10.96.0.0/25' } } },
      'dns.proxies.ipv4: must be an IPv4 network with a length of at most 24',
    ],
    [
      { dns: { proxies: { ipv4: 'fd00::/16' } } },
      'dns.proxies.ipv4: must be an IPv4 network with a length of at most 24',
    ],
    [
      { dns: { proxies: { ipv6: 'fd00::/113' } } },
      'dns.proxies.ipv6: must be an IPv6 network with a length of at most 112',
    ],
    [
      { dns: { mode: 'redirect' } },
      'dns.mode: needs site.lans, the interfaces whose queries are redirected',
    ],
  ];
  for (const [parts, expected] of cases) {
    t.same(errorsWith(parts), [expected], JSON.stringify(parts));
  }
  t.same(errorsWith({ dns: { mode: 'redirect' }, site: { lans: ['br-lan'] } }), []);
  t.same(errorsWith({ dns: { mode: 'dnsmasq' } }), [], 'dnsmasq has its own interfaces');
});

await t.test('prefix maps are 1:1, and no address has two of them', async (t) => {
  const mapped = (...maps: (readonly [string, string])[]): string[] =>
    errorsWith({ nat: { prefixMaps: maps.map(([local, to]) => ({ local, mapped: to })) } });
  t.same(mapped(['192.168.1.0/24', '10.200.1.0/24'], ['192.168.2.0/24', '10.200.2.0/24']), []);
  t.same(mapped(['fd00:1::/64', 'fd00:2::/64']), []);
  const size = 'nat.prefixMaps[0].mapped: must be of the same family and length as local';
  t.same(mapped(['192.168.1.0/24', '10.200.0.0/16']), [size]);
  t.same(mapped(['192.168.0.0/16', 'fd00::/16']), [size]);
  t.same(mapped(['192.168.0.0/16', '10.1.0.0/16'], ['192.168.1.0/24', '10.2.0.0/24']), [
    'nat.prefixMaps[1].local: overlaps nat.prefixMaps[0].local',
  ]);
  t.same(mapped(['192.168.0.0/16', '10.1.0.0/16'], ['192.169.0.0/24', '10.1.0.0/24']), [
    'nat.prefixMaps[1].mapped: overlaps nat.prefixMaps[0].mapped',
  ]);
  t.same(mapped(['192.168.1.0/24', '192.168.2.0/24'], ['192.168.2.0/24', '10.2.0.0/24']), [
    'nat.prefixMaps[0].mapped: overlaps nat.prefixMaps[1].local',
  ]);
});

await t.test(
  'a range of proxies that overlaps is refused, with a free one in its place',
  async (t) => {
    const names = { resources: [crm] };
    const take = (range: string): string => `take ${range} at both ends, which is free at this one`;
    const wide = { addresses: ['100.64.0.1/10'] };
    t.same(errorsWith({ ...names, interface: wide }), [
      `dns.proxies.ipv4: overlaps interface.addresses[0]: ${take('10.96.0.0/12')}`,
    ]);
    const peers = [{ ...minimal().peers[0], allowedIps: ['0.0.0.0/0', '::/0', '10.96.7.0/24'] }];
    t.same(errorsWith({ ...names, peers }), [], 'a default route has the addresses that are left');
    const everything = { id: 'all', type: 'cidr', prefixes: ['0.0.0.0/0', '::/0'] };
    t.same(errorsWith({ resources: [crm, everything] }), [], 'and so has such a resource');
    t.same(errorsWith({ ...names, peers, interface: wide }), [
      `dns.proxies.ipv4: overlaps interface.addresses[0]: ${take('10.160.0.0/12')}`,
    ]);
    t.same(errorsWith({ ...names, peers, dns: { proxies: { ipv4: '10.96.0.0/16' } } }), [
      `dns.proxies.ipv4: overlaps peers[0].allowedIps[2]: ${take('100.96.0.0/11')}`,
    ]);
    const targets = [
      { id: 'cgnat', type: 'cidr', prefixes: ['192.0.2.0/24', '100.100.0.0/16'] },
      { id: 'modem', type: 'ip', address: 'fd3c:91d6:b4a2:8000::1' },
    ];
    t.same(errorsWith({ resources: [crm, ...targets] }), [
      `dns.proxies.ipv4: overlaps resources[1].prefixes[1]: ${take('10.96.0.0/12')}`,
      'dns.proxies.ipv6: overlaps resources[2].address: take a /64 of a random unique local network (RFC 4193), the same at both ends',
    ]);
    const prefixMaps = [{ local: '192.168.1.0/24', mapped: '100.100.1.0/24' }];
    t.same(errorsWith({ ...names, nat: { prefixMaps } }), [
      `dns.proxies.ipv4: overlaps nat.prefixMaps[0].mapped: ${take('10.96.0.0/12')}`,
    ]);
    const all = { ...minimal().peers[0], allowedIps: ['0.0.0.0/1', '128.0.0.0/1'] };
    t.same(errorsWith({ ...names, peers: [all] }), [
      'dns.proxies.ipv4: overlaps peers[0].allowedIps[0]: take another network, the same at both ends',
    ]);
  },
);

await t.test('where no names are used a range of proxies is in nobody’s way', async (t) => {
  const wide = { interface: { addresses: ['100.64.0.1/10'] } };
  t.same(errorsWith(wide), []);
  t.equal(errorsWith({ ...wide, dns: { mode: 'dnsmasq' } }).length, 1);
});

function errorsWith(parts: object): string[] {
  return errorsOf({ ...minimal(), ...parts });
}

await t.test('a resource is named by the addresses that its own site has', async (t) => {
  const maps = { prefixMaps: [{ local: '192.168.1.0/24', mapped: '10.201.1.0/24' }] };
  const served = (prefix: string) =>
    errorsOf({
      ...minimal(),
      nat: maps,
      resources: [{ id: 'lan', type: 'cidr', prefixes: [prefix] }],
    });
  t.match(served('10.201.1.0/24'), [/^resources\[0\]\.prefixes\[0\]: .*prefixMaps\[0\]\.local by/]);
  t.same(served('192.168.1.0/24'), []);
  t.same(served('10.0.0.0/8'), [], 'a wide one may hold others');
});
