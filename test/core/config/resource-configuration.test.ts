import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import t from 'tap';
import { parseConfiguration } from '../../../core/config/configuration.ts';
import { errorsOf, key, minimal, parsed } from './document.ts';

/** Two gateways elsewhere, and a peer that is not Culvert. */
const peers = [
  { id: 'berne', kind: 'culvert', publicKey: key(1), allowedIps: ['100.64.0.2/32', '10.2.0.0/16'] },
  { id: 'basle', kind: 'culvert', publicKey: key(2), allowedIps: ['100.64.0.3/32'] },
  { id: 'phone', kind: 'wireguard', publicKey: key(3), allowedIps: ['100.64.0.4/32'] },
];
const crm = { id: 'crm', type: 'dns', patterns: ['crm.corp.example'] };
const printers = { id: 'printers', type: 'cidr', prefixes: ['192.168.7.0/24'] };
const internet = { id: 'internet', type: 'internet' };

await t.test('resources become what the core looks names and addresses up in', async (t) => {
  const { resources } = withResources(
    {
      ...crm,
      patterns: ['*.CORP.example.', '**.lab.example'],
      ipStack: 'ipv4-only',
      gateways: ['basle', 'berne'],
      filters: [{ protocol: 'tcp', ports: ['443', '8000-8100'] }, { protocol: 'icmp' }],
    },
    { ...printers, name: 'All printers' },
    { id: 'nas', type: 'ip', address: '2001:DB8:0::7', filters: [{ protocol: 'udp' }] },
    internet,
  );
  const none = { filters: [], gateways: [] };
  t.same(resources, [
    {
      id: 'crm',
      type: 'dns',
      patterns: ['*.corp.example', '**.lab.example'],
      ipStack: 'ipv4-only',
      gateways: ['basle', 'berne'],
      filters: [
        {
          protocol: 'tcp',
          ports: [
            { first: 443, last: 443 },
            { first: 8000, last: 8100 },
          ],
        },
        { protocol: 'icmp' },
      ],
    },
    {
      ...none,
      id: 'printers',
      type: 'cidr',
      name: 'All printers',
      prefixes: [{ address: '192.168.7.0', length: 24 }],
    },
    {
      ...none,
      id: 'nas',
      type: 'ip',
      address: '2001:db8::7',
      filters: [{ protocol: 'udp', ports: [] }],
    },
    { ...none, id: 'internet', type: 'internet' },
  ]);
});

await t.test('authorizations become those of the core, with the end in milliseconds', async (t) => {
  const { authorizations } = parsed({
    ...minimal(),
    peers,
    resources: [crm],
    authorizations: [
      { peer: 'basle', resource: 'crm' },
      {
        peer: 'berne',
        resource: 'crm',
        sources: ['10.2.3.0/24'],
        filters: [{ protocol: 'icmp' }],
        expiresAt: '2027-01-31T19:00:00+01:00',
      },
    ],
  });
  t.same(authorizations, [
    { peer: 'basle', resource: 'crm', filters: [] },
    {
      peer: 'berne',
      resource: 'crm',
      sources: [{ address: '10.2.3.0', length: 24 }],
      filters: [{ protocol: 'icmp' }],
      expiresAt: Date.UTC(2027, 0, 31, 18),
    },
  ]);
});

await t.test('each wrong value of a resource is refused with its path', async (t) => {
  const TYPES = '"dns", "cidr", "ip" or "internet"';
  const PORTS = 'must be a port or a range of ports, such as "443" or "8000-8100"';
  const cases: readonly (readonly [unknown, string])[] = [
    [null, 'resources[0]: must be an object'],
    ['crm', 'resources[0]: must be an object'],
    [{ id: 'crm' }, 'resources[0].type: is missing'],
    [{ ...crm, type: 'dnss' }, `resources[0].type: must be ${TYPES}`],
    [{ ...crm, type: 7 }, `resources[0].type: must be ${TYPES}`],
    [{ type: 'internet' }, 'resources[0].id: is missing'],
    [{ ...crm, prefixes: [] }, 'resources[0].prefixes: unknown key'],
    [{ ...internet, adress: '192.0.2.1' }, 'resources[0].adress: unknown key'],
    [{ id: 'nas', type: 'ip' }, 'resources[0].address: is missing'],
    [
      { id: 'nas', type: 'ip', address: '192.0.2.0/24' },
      'resources[0].address: must be an address such as 192.0.2.1 or 2001:db8::1',
    ],
    [{ ...crm, patterns: [] }, 'resources[0].patterns: must name at least one name'],
    [
      { ...crm, patterns: ['ok.example', '*'] },
      'resources[0].patterns[1]: must hold at least one label without a wildcard',
    ],
    [
      { ...crm, patterns: ['bücher.example'] },
      'resources[0].patterns[0]: may hold letters, digits, "-", "_", "?" and "*" (write others in Punycode)',
    ],
    [
      { ...crm, patterns: Array.from({ length: 65 }, (_, i) => `n${i}.example`) },
      'resources[0].patterns: must hold at most 64 entries',
    ],
    [
      { ...crm, ipStack: 'ipv4' },
      'resources[0].ipStack: must be "dual", "ipv4-only" or "ipv6-only"',
    ],
    [
      { ...printers, prefixes: ['192.168.7.1/24'] },
      'resources[0].prefixes[0]: has bits behind its length: write 192.168.7.0/24',
    ],
    [
      { ...crm, filters: [{ protocol: 'sctp' }] },
      'resources[0].filters[0].protocol: must be "icmp", "tcp" or "udp"',
    ],
    [{ ...crm, filters: [{ ports: ['1'] }] }, 'resources[0].filters[0].protocol: is missing'],
    [
      { ...crm, filters: [{ protocol: 'icmp', ports: [] }] },
      'resources[0].filters[0].ports: unknown key',
    ],
    ...['0', '80-', '81-80', '65536', '1-65536', ' 1', '1e3'].map(
      (range) =>
        [
          { ...crm, filters: [{ protocol: 'tcp', ports: [range] }] },
          `resources[0].filters[0].ports[0]: ${PORTS}`,
        ] as const,
    ),
    [
      { ...crm, filters: [{ protocol: 'tcp', ports: [443] }] },
      'resources[0].filters[0].ports[0]: must be text',
    ],
  ];
  for (const [resource, expected] of cases) {
    t.same(errorsWith({ resources: [resource] }), [expected], JSON.stringify(resource));
  }
});

await t.test('an id stands for one resource', async (t) => {
  t.same(errorsWith({ resources: [crm, { ...printers, id: 'crm' }] }), [
    'resources[1].id: is the same as resources[0].id',
  ]);
});

await t.test('gateways are peers that speak the peering protocol, each named once', async (t) => {
  const served = (...gateways: string[]) => errorsWith({ resources: [{ ...crm, gateways }] });
  t.same(served('berne', 'basle'), []);
  t.same(served('nobody'), ['resources[0].gateways[0]: must be the id of a peer']);
  t.same(served('berne', 'phone'), ['resources[0].gateways[1]: must be a peer of kind culvert']);
  t.same(served('berne', 'berne'), [
    'resources[0].gateways[1]: is the same as resources[0].gateways[0]',
  ]);
});

await t.test('the Internet through gateways is for the LAN, and there is one of it', async (t) => {
  const used = { ...internet, gateways: ['berne'] };
  t.same(errorsWith({ resources: [used], site: { lans: ['br-lan'] } }), []);
  t.same(errorsWith({ resources: [internet] }), [], 'a gateway needs no LAN for it');
  t.same(errorsWith({ resources: [used] }), [
    'resources[0]: needs site.lans, the interfaces whose traffic it takes through gateways',
  ]);
  const two = [used, { ...used, id: 'other' }];
  t.same(errorsWith({ resources: two, site: { lans: ['br-lan'] } }), [
    'resources[1].type: is "internet" as resources[0].type is: only one of them can have the default route',
  ]);
});

await t.test('authorizations are for peers and resources that are here', async (t) => {
  const authorized = (...authorizations: object[]): string[] =>
    errorsWith({ resources: [crm, { ...printers, gateways: ['berne'] }], authorizations });
  const one = { peer: 'berne', resource: 'crm' };
  t.same(authorized(one, { ...one, peer: 'basle' }), []);
  t.same(authorized({ ...one, peer: 'nobody', sources: ['10.0.0.0/8'] }), [
    'authorizations[0].peer: must be the id of a peer',
  ]);
  t.same(authorized({ ...one, peer: 'phone' }), [
    'authorizations[0].peer: must be a peer of kind culvert',
  ]);
  for (const resource of ['nothing', 'printers']) {
    t.same(authorized({ ...one, resource }), [
      'authorizations[0].resource: must be the id of a resource that this device serves: one without gateways',
    ]);
  }
  t.same(authorized(one, { ...one, filters: [{ protocol: 'icmp' }] }), [
    'authorizations[1]: is for the same peer and resource as authorizations[0]',
  ]);
  t.same(authorized({ ...one, expiresAt: '2027-02-29T00:00:00Z' }), [
    'authorizations[0].expiresAt: must be a time such as 2027-01-31T18:00:00Z',
  ]);
});

await t.test('sources of an authorization are addresses that its peer may have', async (t) => {
  const allowedIps = ['10.2.0.0/16', '10.2.3.0/24', 'fd00:2::/32'];
  const from = (...sources: string[]): string[] =>
    errorsWith({
      peers: [{ ...peers[0], allowedIps }],
      resources: [crm],
      authorizations: [{ peer: 'berne', resource: 'crm', sources }],
    });
  t.same(from('10.2.0.0/16', '10.2.3.0/24', '10.2.2.0/23'), []);
  t.same(from('10.2.3.4/32', 'fd00:2:1::/48'), []);
  const outside = (i: number): string =>
    `authorizations[0].sources[${i}]: must lie in one of the allowedIps of the peer`;
  t.same(from('10.2.3.0/24', '10.3.0.0/24', '10.0.0.0/8', 'fd00:3::/48'), [1, 2, 3].map(outside));
});

await t.test('any resource parses or is refused, and never throws', async () => {
  const types = fc.constantFrom('dns', 'cidr', 'ip', 'internet');
  const anything = fc.oneof(fc.jsonValue({ maxDepth: 3 }), fc.array(fc.string()));
  const resource = fc.record(
    {
      id: fc.oneof(fc.constantFrom('a', 'b'), anything),
      type: fc.oneof(types, anything),
      patterns: anything,
      prefixes: anything,
      address: fc.oneof(fc.ipV4(), fc.ipV6(), anything),
      filters: fc.oneof(
        fc.array(fc.record({ protocol: fc.constantFrom('tcp', 'icmp'), ports: anything })),
        anything,
      ),
      gateways: fc.oneof(fc.array(fc.constantFrom('berne', 'phone', 'x')), anything),
    },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(fc.array(resource), fc.array(anything), (resources, authorizations) => {
      const result = parseConfiguration({ ...minimal(), peers, resources, authorizations });
      return result.ok || result.errors.every((error) => error.message.length > 0);
    }),
  );
});

await t.test(
  'ten thousand resources with their authorizations parse within a second',
  async (t) => {
    const resources = Array.from({ length: 10_000 }, (_, i) =>
      i % 2 === 0
        ? { id: `r${i}`, type: 'dns', patterns: [`*.r${i}.corp.example`] }
        : {
            id: `r${i}`,
            type: 'cidr',
            prefixes: [`10.${i >> 8}.${i & 255}.0/24`, `fd00:${i}::/32`],
          },
    );
    const authorizations = resources.map(({ id }) => ({
      peer: 'berne',
      resource: id,
      sources: ['100.64.0.2/32'],
    }));
    const document = { ...minimal(), peers, resources, authorizations };
    // The fastest of some: other tests run beside this one.
    const took = Array.from({ length: 5 }, () => {
      const start = performance.now();
      parsed(document);
      return performance.now() - start;
    });
    t.ok(Math.min(...took) < 1000, `${took.map(Math.round).join(', ')} ms`);
  },
);

await t.test('the examples of the README parse', async (t) => {
  const readme = readFileSync(new URL('../../../README.md', import.meta.url), 'utf8');
  const examples = [...readme.matchAll(/```json\n(.*?)```/gs)]
    .map(([, text = '']) => text)
    .filter((text) => text.includes('"schema": 1'));
  t.ok(examples.length >= 4, `${examples.length} examples`);
  for (const text of examples) {
    let keys = 0;
    t.same(
      errorsOf(JSON.parse(text.replace(/<the public tunnel key[^>]*>/g, () => key(++keys)))),
      [],
    );
  }
});

function withResources(...resources: object[]) {
  return parsed({ ...minimal(), peers, resources, site: { lans: ['br-lan'] } });
}

function errorsWith(parts: object): string[] {
  return errorsOf({ ...minimal(), peers, ...parts });
}
