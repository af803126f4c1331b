import fc from 'fast-check';
import t from 'tap';
import { parseIpPrefix, type IpPrefix } from '../../../core/net/ip-prefix.ts';
import { parseSocketAddress } from '../../../core/net/socket-address.ts';
import { encodeHex } from '../../../core/sansio/hex.ts';
import {
  createUapiSplitter,
  formatUapiErrno,
  formatUapiState,
  parseUapiRequest,
} from '../../../core/wireguard/uapi.ts';

const KEY_A = 'e84b5a6d2717c1003a13b431570353dbaca9146cf150c5f8575680feba52027a';
const KEY_B = 'b85996fecc9c7f1fc6d2572a76eda11d59bcd20be8e543b15ce4bd85a8e75a33';
const KEY_C = '188515093e952f5f22e865cef3012e72f8b5f0b598ac0309d5dacce3b70fcf52';
const ZERO = '0'.repeat(64);

await t.test('the set of https://www.wireguard.com/xplatform/ is understood', async (t) => {
  const parsed = parseUapiRequest(
    [
      'set=1',
      `private_key=${KEY_A}`,
      'fwmark=0',
      'listen_port=12912',
      'replace_peers=true',
      `public_key=${KEY_B}`,
      `preshared_key=${KEY_C}`,
      'replace_allowed_ips=true',
      'allowed_ip=192.168.4.4/32',
      'endpoint=[abcd:23::33]:51820',
      `public_key=${KEY_C}`,
      'update_only=true',
      'replace_allowed_ips=true',
      'allowed_ip=192.168.4.6/32',
      'persistent_keepalive_interval=111',
      'endpoint=182.122.22.19:3233',
      `public_key=${KEY_A}`,
      'remove=true',
    ].join('\n'),
  );
  t.match(parsed, {
    ok: true,
    value: {
      type: 'set',
      listenPort: 12912,
      fwmark: 0,
      replacePeers: true,
      peers: [
        {
          remove: false,
          updateOnly: false,
          replaceAllowedIps: true,
          endpoint: '[abcd:23::33]:51820',
          persistentKeepalive: undefined,
          allowedIps: [{ action: 'add', prefix: { address: '192.168.4.4', length: 32 } }],
        },
        { updateOnly: true, persistentKeepalive: 111, endpoint: '182.122.22.19:3233' },
        { remove: true, allowedIps: [] },
      ],
    },
  });
  if (!parsed.ok || parsed.value.type !== 'set') throw new Error('not a set');
  t.equal(hexOf(parsed.value.privateKey), KEY_A);
  t.equal(hexOf(parsed.value.peers[0]?.publicKey), KEY_B);
  t.equal(hexOf(parsed.value.peers[0]?.presharedKey), KEY_C);
});

await t.test('what a set leaves out stays undefined, zero keys mean none', async (t) => {
  t.same(parseUapiRequest('get=1'), { ok: true, value: { type: 'get' } });
  t.same(parseUapiRequest('set=1'), {
    ok: true,
    value: {
      type: 'set',
      privateKey: undefined,
      listenPort: undefined,
      fwmark: undefined,
      replacePeers: false,
      peers: [],
    },
  });
  t.match(
    parseUapiRequest(`set=1\nprivate_key=${ZERO}\npublic_key=${KEY_A}\npreshared_key=${ZERO}`),
    { value: { privateKey: 'none', peers: [{ presharedKey: 'none' }] } },
  );
});

await t.test('a signed prefix is added or removed', async (t) => {
  const parsed = parseUapiRequest(
    `set=1\npublic_key=${KEY_A}\nallowed_ip=+10.0.0.7/8\nallowed_ip=-fd00::/8\nprotocol_version=1`,
  );
  t.match(parsed, {
    value: {
      peers: [
        {
          allowedIps: [
            { action: 'add', prefix: { address: '10.0.0.0', length: 8 } },
            { action: 'remove', prefix: { address: 'fd00::', length: 8 } },
          ],
        },
      ],
    },
  });
});

await t.test('a request with anything wrong in it is refused as a whole', async (t) => {
  const peer = `set=1\npublic_key=${KEY_A}\n`;
  const refused: Record<string, 'protocol' | 'invalid'> = {
    '': 'protocol',
    get: 'protocol',
    'get=2': 'protocol',
    'get=1\nset=1': 'invalid',
    'set=1\n': 'protocol',
    'set=1\nlisten_port': 'protocol',
    'set=1\nlisten_port=': 'invalid',
    'set=1\nlisten_port=65536': 'invalid',
    'set=1\nlisten_port=-1': 'invalid',
    'set=1\nlisten_port=0x10': 'invalid',
    'set=1\nlisten_port=1\r': 'invalid',
    'set=1\nfwmark=4294967296': 'invalid',
    'set=1\nfwmark=99999999999999999999': 'invalid',
    'set=1\nreplace_peers=false': 'invalid',
    'set=1\nprivate_key=00': 'invalid',
    [`set=1\nprivate_key=${KEY_A.replace('e', 'g')}`]: 'invalid',
    'set=1\nendpoint=192.0.2.1:1': 'invalid',
    'set=1\njc=1': 'invalid',
    'set=1\npublic_key=': 'invalid',
    [`set=1\npublic_key=${KEY_A}00`]: 'invalid',
    [`${peer}listen_port=1`]: 'invalid',
    [`${peer}remove=1`]: 'invalid',
    [`${peer}update_only=no`]: 'invalid',
    [`${peer}endpoint=example.net:51820`]: 'invalid',
    [`${peer}endpoint=192.0.2.1`]: 'invalid',
    [`${peer}persistent_keepalive_interval=off`]: 'invalid',
    [`${peer}replace_allowed_ips=`]: 'invalid',
    [`${peer}allowed_ip=10.0.0.1`]: 'invalid',
    [`${peer}allowed_ip=10.0.0.1/33`]: 'invalid',
    [`${peer}allowed_ip=+-10.0.0.1/8`]: 'invalid',
    [`${peer}protocol_version=2`]: 'invalid',
    [`${peer}preshared_key=`]: 'invalid',
  };
  for (const [text, why] of Object.entries(refused)) {
    t.same(parseUapiRequest(text), { ok: false, why }, JSON.stringify(text.replace(KEY_A, 'K')));
  }
});

await t.test('a state is written as wg reads it', async (t) => {
  const endpoint = parseSocketAddress('[2001:db8::1]:51820');
  if (!endpoint.ok) throw new Error('endpoint');
  const text = formatUapiState({
    privateKey: new Uint8Array(32).fill(1),
    listenPort: 51820,
    fwmark: 0,
    peers: [
      {
        publicKey: new Uint8Array(32).fill(2),
        presharedKey: undefined,
        endpoint: endpoint.value,
        persistentKeepalive: 25,
        allowedIps: [prefix('10.0.0.0/8'), prefix('fd00::/8')],
        lastHandshakeUnixMs: 1_700_000_000_123,
        rxBytes: 2 ** 40,
        txBytes: 7,
      },
    ],
  });
  t.equal(
    text,
    [
      `private_key=${'01'.repeat(32)}`,
      'listen_port=51820',
      `public_key=${'02'.repeat(32)}`,
      `preshared_key=${ZERO}`,
      'protocol_version=1',
      'endpoint=[2001:db8::1]:51820',
      'last_handshake_time_sec=1700000000',
      'last_handshake_time_nsec=123000000',
      'tx_bytes=7',
      'rx_bytes=1099511627776',
      'persistent_keepalive_interval=25',
      'allowed_ip=10.0.0.0/8',
      'allowed_ip=fd00::/8',
      'errno=0',
      '',
      '',
    ].join('\n'),
  );
  t.equal(
    formatUapiState({ privateKey: undefined, listenPort: 0, fwmark: 0, peers: [] }),
    'errno=0\n\n',
  );
  t.equal(formatUapiErrno(22), 'errno=-22\n\n');
});

await t.test('requests are found in the stream however it is cut', async (t) => {
  const stream = `get=1\n\nset=1\nlisten_port=1\n\nset=1\nlist`;
  fc.assert(
    fc.property(fc.array(fc.nat(stream.length)), (cuts) => {
      const splitter = createUapiSplitter();
      const at = [0, ...cuts.sort((a, b) => a - b), stream.length];
      const requests: string[] = [];
      for (let i = 1; i < at.length; i++) {
        const pushed = splitter.push(stream.slice(at[i - 1], at[i]));
        if (pushed.ok) requests.push(...pushed.value);
      }
      return requests.join('|') === 'get=1|set=1\nlisten_port=1';
    }),
  );
  t.pass();
});

await t.test('a stream without blank lines ends at the limit', async (t) => {
  const splitter = createUapiSplitter(10);
  t.same(splitter.push('0123456789'), { ok: true, value: [] });
  t.same(splitter.push('x'), { ok: false, why: 'too-large' });
  t.same(createUapiSplitter(10).push('0123456789x\n\n'), { ok: false, why: 'too-large' });
  t.same(createUapiSplitter(10).push('get=1\n\nget=1\n\n'), {
    ok: true,
    value: ['get=1', 'get=1'],
  });
});

await t.test('arbitrary lines never throw', async (t) => {
  const key = fc.constantFrom('private_key', 'public_key', 'endpoint', 'allowed_ip', 'remove', '');
  const value = fc.oneof(fc.constantFrom(KEY_A, 'true', '10.0.0.0/8', '[::1]:1'), fc.string());
  const line = fc.tuple(key, value).map((pair) => pair.join('='));
  fc.assert(
    fc.property(fc.array(fc.oneof(line, fc.string())), (lines) => {
      parseUapiRequest(['set=1', ...lines].join('\n'));
    }),
  );
  t.pass();
});

function hexOf(key: Uint8Array | 'none' | undefined): string {
  return key instanceof Uint8Array ? encodeHex(key) : String(key);
}

function prefix(text: string): IpPrefix {
  const parsed = parseIpPrefix(text);
  if (!parsed.ok) throw new Error(text);
  return parsed.value;
}
