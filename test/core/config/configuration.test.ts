import fc from 'fast-check';
import t from 'tap';
import {
  onThisDevice,
  parseBootstrap,
  type LocalInterface,
} from '../../../core/config/bootstrap.ts';
import { parseConfiguration } from '../../../core/config/configuration.ts';
import { diffConfiguration } from '../../../core/config/diff.ts';
import { formatEndpoint, parseEndpoint } from '../../../core/config/endpoint.ts';
import { formatConfigurationError } from '../../../core/config/error.ts';
import { formatIpPrefix } from '../../../core/net/ip-prefix.ts';
import { errorsOf, key, minimal, parsed } from './document.ts';

await t.test('a document says only what differs from the defaults', async (t) => {
  const configuration = parsed(minimal());
  t.match(configuration.interface, { name: 'culvert0', mtu: 1408, listenPort: 51820 });
  t.equal(
    formatIpPrefix(configuration.interface.addresses[0]!),
    '100.64.0.1/24',
    'keeps host bits',
  );
  t.same(configuration.log, { level: 'info' });
  t.match(configuration.peers[0], { id: 'b', kind: 'wireguard', keepalive: 0 });
  t.same(configuration.peers[0]!.publicKey, new Uint8Array(32).fill(1));
  t.notOk('endpoint' in configuration.peers[0]!, 'what is absent has no key');
});

await t.test('values become the types of the core', async (t) => {
  const peer = { ...minimal().peers[0], endpoint: '[2001:DB8::1]:51820', presharedKey: key(9) };
  const [first] = parsed({ ...minimal(), peers: [peer] }).peers;
  t.same(first!.endpoint, { host: '2001:db8::1', port: 51820 });
  t.same(first!.presharedKey, new Uint8Array(32).fill(9));
});

await t.test('each wrong value is refused with its path', async (t) => {
  const cases: readonly (readonly [string, (doc: any) => void, string])[] = [
    ['schema', (d) => (d.schema = 2), 'schema: must be 1'],
    ['no schema', (d) => delete d.schema, 'schema: is missing'],
    ['no peers', (d) => delete d.peers, 'peers: is missing'],
    ['no interface', (d) => delete d.interface, 'interface: is missing'],
    [
      'no address',
      (d) => (d.interface.addresses = []),
      'interface.addresses: must name at least one address',
    ],
    ['unknown key', (d) => (d.extra = 1), 'extra: unknown key'],
    ['unknown key below', (d) => (d.peers[0].keepAlive = 1), 'peers[0].keepAlive: unknown key'],
    ['inherited name', (d) => (d.interface.constructor = 1), 'interface.constructor: unknown key'],
    [
      'prototype',
      (d) => Object.defineProperty(d, '__proto__', { value: {}, enumerable: true }),
      '__proto__: unknown key',
    ],
    [
      'MTU low',
      (d) => (d.interface.mtu = 1279),
      'interface.mtu: must be a whole number from 1280 to 65440',
    ],
    [
      'MTU high',
      (d) => (d.interface.mtu = 65_441),
      'interface.mtu: must be a whole number from 1280 to 65440',
    ],
    ['MTU text', (d) => (d.interface.mtu = '1408'), 'interface.mtu: must be a number'],
    ['MTU null', (d) => (d.interface.mtu = null), 'interface.mtu: must be a number'],
    [
      'port',
      (d) => (d.interface.listenPort = 0),
      'interface.listenPort: must be a whole number from 1 to 65535',
    ],
    [
      'name',
      (d) => (d.interface.name = 'a/b'),
      'interface.name: must be 1 to 15 letters, digits, ".", "_" or "-", the first a letter or digit',
    ],
    [
      'address',
      (d) => (d.interface.addresses[0] = '100.64.0.256/24'),
      'interface.addresses[0]: must be an address with its length, such as 100.64.0.1/32',
    ],
    [
      'host bits',
      (d) => (d.peers[0].allowedIps[0] = '10.2.0.1/16'),
      'peers[0].allowedIps[0]: has bits behind its length: write 10.2.0.0/16',
    ],
    [
      'prefix',
      (d) => (d.peers[0].allowedIps[0] = '010.0.0.0/8'),
      'peers[0].allowedIps[0]: must be a prefix such as 192.0.2.0/24 or 2001:db8::/32',
    ],
    [
      'prefix type',
      (d) => (d.peers[0].allowedIps = '10.0.0.0/8'),
      'peers[0].allowedIps: must be a list',
    ],
    [
      'short key',
      (d) => (d.peers[0].publicKey = 'AAAA'),
      'peers[0].publicKey: must be a key: 32 bytes in base64',
    ],
    [
      'zero key',
      (d) => (d.peers[0].publicKey = key(0)),
      'peers[0].publicKey: must not be a key of zeros',
    ],
    [
      'endpoint',
      (d) => (d.peers[0].endpoint = '2001:db8::1:51820'),
      'peers[0].endpoint: must be address:port, [address]:port or name:port',
    ],
    [
      'streams of no port',
      (d) => (d.streams = { listenPort: 8443, publicPort: 0 }),
      'streams.publicPort: must be a whole number from 1 to 65535',
    ],
    [
      'a public port of no streams',
      (d) => (d.streams = { publicPort: 443 }),
      'streams.publicPort: needs streams.listenPort, the port at which streams arrive that come to this one',
    ],
    [
      'a relay with two logins',
      (d) => (d.relays = [{ url: 'turn:192.0.2.1', username: 'u', secret: 's' }]),
      'relays[0]: has a login and a secret: give one or the other',
    ],
    [
      'kind',
      (d) => (d.peers[0].kind = 'openvpn'),
      'peers[0].kind: must be "culvert" or "wireguard"',
    ],
    [
      'control character',
      (d) => (d.peers[0].name = 'a\nb'),
      'peers[0].name: must not hold control characters',
    ],
    [
      'peer id',
      (d) => (d.peers[0].id = 'a/b'),
      'peers[0].id: must be 1 to 64 letters, digits, ".", "_" or "-", the first a letter or digit',
    ],
  ];
  for (const [name, change, expected] of cases) {
    const document: unknown = minimal();
    change(document);
    t.same(errorsOf(document), [expected], name);
  }
});

await t.test('no error message repeats a secret', async (t) => {
  const secret = 'c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0ISE=';
  for (const field of [
    'presharedKey',
    'keepalive',
    'kind',
    'endpoint',
    'id',
    'name',
    'allowedIps',
    'privateKey',
  ]) {
    const document: any = minimal();
    document.peers[0][field] = field === 'presharedKey' ? `${secret}!` : `${secret}\n`;
    const errors = errorsOf(document);
    t.equal(errors.length, 1, field);
    t.notMatch(errors[0], secret.slice(0, 8), field);
  }
});

await t.test('peers that could not stand beside each other are refused', async (t) => {
  const one = minimal().peers[0]!;
  const other = { ...one, id: 'c', publicKey: key(2), allowedIps: ['10.9.0.0/16'] };
  const twice = (change: object): string[] =>
    errorsOf({
      ...minimal(),
      peers: [
        { ...one, name: 'Site B' },
        { ...other, ...change },
      ],
    });
  t.same(twice({}), []);
  t.same(twice({ id: 'b' }), ['peers[1].id: is the same as peers[0].id']);
  t.same(twice({ name: 'Site B' }), ['peers[1].name: is the same as peers[0].name']);
  t.same(twice({ publicKey: key(1) }), ['peers[1].publicKey: is the same as peers[0].publicKey']);
  t.same(twice({ allowedIps: ['10.2.0.0/16'] }), [
    'peers[1].allowedIps[0]: is the same as peers[0].allowedIps[0]',
  ]);
  t.same(
    twice({ allowedIps: ['10.2.1.0/24'] }),
    [],
    'a longer prefix inside is a route of its own',
  );
});

await t.test('what is no document at all is refused', async (t) => {
  for (const value of [undefined, null, 1, 'x', [], true]) {
    t.notOk(parseConfiguration(value).ok, JSON.stringify(value) ?? 'undefined');
  }
  const errors = errorsOf({ ...minimal(), peers: Array.from({ length: 2049 }, () => ({})) });
  t.equal(errors.length, 32, 'errors are limited');
  t.match(errors.at(-1), /^\d+ more errors$/);
});

await t.test('any JSON parses or is refused, and never throws', async () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 4 })), (change) => {
      const result = parseConfiguration({ ...minimal(), ...change });
      return result.ok || result.errors.every((error) => error.message.length > 0);
    }),
  );
});

await t.test('a diff names the steps in an order that can be applied', async (t) => {
  const previous = parsed({
    ...minimal(),
    peers: [peer('keep', 1), peer('gone', 2), peer('rekeyed', 3), peer('moved', 4)],
  });
  const next = parsed({
    schema: 1,
    interface: { addresses: ['100.64.0.1/24'], mtu: 1420 },
    peers: [
      peer('come', 9),
      { ...peer('moved', 4), endpoint: '192.0.2.1:1', allowedIps: ['10.4.0.0/24', '10.44.0.0/24'] },
      peer('rekeyed', 33),
      peer('keep', 1),
    ],
    log: { level: 'debug' },
  });
  const changes = diffConfiguration(previous, next).map((change) => {
    const id = 'peer' in change ? change.peer.id : '';
    const fields = 'fields' in change ? change.fields.join(' ') : '';
    return [change.type, id, fields].filter((text) => text !== '').join(' ');
  });
  t.same(changes, [
    'peer-removed gone',
    'peer-removed rekeyed',
    'interface-changed mtu',
    'peer-changed moved endpoint allowedIps',
    'peer-added come',
    'peer-added rekeyed',
    'log-changed',
  ]);
  t.same(diffConfiguration(next, next), []);
});

await t.test('the order of a document changes nothing', async (t) => {
  const peers = [peer('a', 1), { ...peer('b', 2), allowedIps: ['10.2.0.0/24', '10.3.0.0/24'] }];
  const turned = [{ ...peers[1]!, allowedIps: ['10.3.0.0/24', '10.2.0.0/24'] }, peers[0]!];
  const [one, other] = [parsed({ ...minimal(), peers }), parsed({ ...minimal(), peers: turned })];
  t.same(diffConfiguration(one, other), []);
});

await t.test('endpoints are addresses or host names with a port', async (t) => {
  const good = ['192.0.2.1:1', '[2001:db8::1]:65535', 'gw.example.net:51820', 'a:80', 'x-1.y.:9'];
  for (const text of good) {
    const endpoint = parseEndpoint(text);
    t.ok(endpoint.ok && formatEndpoint(endpoint.value) === text, text);
  }
  const bad = [
    '',
    ':1',
    'a',
    'a:0',
    'a:65536',
    'a:01',
    '1.2.3:1',
    '1.2.3.4.5:1',
    '[a]:1',
    '[192.0.2.1]:1',
    'a b:1',
    '-a:1',
    'a..b:1',
    '256.1.1.1:1',
    '::1:1',
    `${'a'.repeat(64)}:1`,
  ];
  for (const text of bad) t.notOk(parseEndpoint(text).ok, text);
});

await t.test('a bootstrap names the fleet, the brokers and the keys to believe', async (t) => {
  const bootstrap = {
    fleet: 'acme',
    device: 'r1',
    brokers: ['mqtts://broker.example.net', 'mqtt://[::1]:1883'],
    operatorKeys: [key(5)],
  };
  const refusals = (change: object): string[] => {
    const result = parseBootstrap({ ...bootstrap, ...change });
    return result.ok ? [] : result.errors.map(formatConfigurationError);
  };
  t.same(refusals({}), []);
  t.same(refusals({ operatorKeys: [] }), ['operatorKeys: must name at least one key']);
  t.same(refusals({ brokers: ['http://x'] }), [
    'brokers[0]: must be mqtt://host:port or mqtts://host:port',
  ]);
  t.same(refusals({ brokers: ['mqtt://user:pw@x'] }), [
    'brokers[0]: must be mqtt://host:port or mqtts://host:port',
  ]);
  t.same(refusals({ ca: 'ca.pem' }), ['ca: must be an absolute path']);
  t.same(refusals({ device: '_enroll' }).length, 1, 'names with a leading underscore are reserved');
  t.same(refusals({ certificate: '/c.pem' }), [
    'privateKey: is missing: a certificate and its private key go together',
  ]);
  t.same(refusals({ Token: 'x' }), ['Token: unknown key']);
  t.same(refusals({ interface: { name: 'wan-tunnel', listenPort: 4500 } }), []);
  t.same(refusals({ interface: {} }), []);
  t.same(refusals({ interface: { listenPort: 0 } }), [
    'interface.listenPort: must be a whole number from 1 to 65535',
  ]);
  t.same(refusals({ interface: { mtu: 1300 } }), ['interface.mtu: unknown key']);
});

await t.test('a device has its own name of the interface and port where it says so', async (t) => {
  const configuration = parsed({
    ...minimal(),
    interface: { addresses: ['100.64.0.1/24'], mtu: 1300, listenPort: 4500 },
  });
  const own = (local: LocalInterface) => onThisDevice(configuration, local).interface;
  t.same(own({}), configuration.interface);
  t.same(own({ listenPort: 500 }), { ...configuration.interface, listenPort: 500 });
  t.same(own({ name: 'tun7' }), { ...configuration.interface, name: 'tun7' });
  t.equal(onThisDevice(configuration, { name: 'tun7' }).peers, configuration.peers);
});

function peer(id: string, seed: number) {
  return { id, publicKey: key(seed), allowedIps: [`10.${seed}.0.0/24`] };
}
