import fc from 'fast-check';
import t from 'tap';
import {
  MAX_SIGNAL_BYTES,
  MAX_SIGNAL_CANDIDATES,
  openSignal,
  sealSignal,
  type Signal,
} from '../../../core/fleet/signal.ts';
import { formatTopic, parseTopic, topicFilter } from '../../../core/fleet/topics.ts';
import type { Candidate } from '../../../core/ice/candidate.ts';
import type { SocketAddress } from '../../../core/net/socket-address.ts';
import { encodeBase64 } from '../../../core/sansio/base64.ts';
import { decodeUtf8, encodeUtf8 } from '../../../core/sansio/utf8.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';
import { crypto, device, devicePublicKey, fleet, nameOf } from './fleet-scene.ts';

const TOPIC = 'culvert/1/acme/r2/signal/r1';
const KEY = new Uint8Array(32).fill(5);
const random = new SeededRandom(1);

const HOST: Candidate = {
  type: 'host',
  transport: 'udp',
  foundation: 'a1',
  priority: 2_130_706_431,
  address: '192.0.2.1:51820' as SocketAddress,
};
const REFLEXIVE: Candidate = {
  type: 'srflx',
  transport: 'udp',
  foundation: 'b2',
  priority: 1_694_498_815,
  address: '198.51.100.7:40000' as SocketAddress,
  related: '192.0.2.1:51820' as SocketAddress,
};
const STREAM: Candidate = {
  type: 'host',
  transport: 'tcp',
  tcpType: 'passive',
  protocol: 'wss',
  foundation: 'c3',
  priority: 5,
  address: '[2001:db8::1]:443' as SocketAddress,
};
const SIGNAL: Signal = {
  from: device,
  to: nameOf('r2'),
  boot: 7,
  seq: 3,
  candidates: [HOST, REFLEXIVE, STREAM],
  deviceKey: devicePublicKey,
};

await t.test('what one device seals, its peer opens', (t) => {
  const opened = openSignal(sealed(SIGNAL), TOPIC, KEY, crypto);
  t.same(opened, { ok: true, value: SIGNAL });
  t.end();
});

await t.test('the JSON inside is as documented', (t) => {
  const bytes = sealed(SIGNAL);
  const additionalData = encodeUtf8(TOPIC);
  const { xchacha20poly1305 } = crypto;
  const json = xchacha20poly1305.open(
    KEY,
    bytes.subarray(0, 24),
    bytes.subarray(24),
    additionalData,
  );
  t.same(JSON.parse(decodeUtf8(json!)!), {
    from: 'r1',
    to: 'r2',
    boot: 7,
    seq: 3,
    candidates: [
      'candidate:a1 1 UDP 2130706431 192.0.2.1 51820 typ host',
      'candidate:b2 1 UDP 1694498815 198.51.100.7 40000 typ srflx raddr 192.0.2.1 rport 51820',
      'candidate:c3 1 TCP 5 2001:db8::1 443 typ host tcptype passive protocol wss',
    ],
    deviceKey: encodeBase64(devicePublicKey),
  });
  t.end();
});

await t.test('no two signals look alike', (t) => {
  t.notSame(sealed(SIGNAL), sealed(SIGNAL));
  t.end();
});

await t.test('under another key or topic, or with any byte changed, it is not authentic', (t) => {
  const bytes = sealed(SIGNAL);
  const why = (sealedBytes: Uint8Array, topic = TOPIC, key = KEY) => {
    const opened = openSignal(sealedBytes, topic, key, crypto);
    return opened.ok ? undefined : opened.why;
  };
  t.equal(why(bytes, TOPIC, new Uint8Array(32)), 'not-authentic');
  t.equal(why(bytes, 'culvert/1/acme/r3/signal/r1'), 'not-authentic');
  t.equal(why(bytes, 'culvert/1/other/r2/signal/r1'), 'not-authentic');
  for (let at = 0; at < bytes.length; at++) {
    const changed = bytes.map((byte, i) => (i === at ? byte ^ 1 : byte));
    if (why(changed) !== 'not-authentic') t.fail(`byte ${at}`);
  }
  for (let length = 0; length < bytes.length; length++) {
    const expected = length < 40 ? 'malformed' : 'not-authentic';
    if (why(bytes.subarray(0, length)) !== expected) t.fail(`length ${length}`);
  }
  t.end();
});

await t.test('an authentic signal with a wrong member is malformed', (t) => {
  const good = { ...jsonOf(SIGNAL), unknown: 'of a later version' };
  t.ok(openJson(JSON.stringify(good)).ok);
  const changes: readonly Readonly<Record<string, unknown>>[] = [
    { from: undefined },
    { from: 1 },
    { from: 'a/b' },
    { to: '' },
    { to: ['r2'] },
    { boot: -1 },
    { boot: 1.5 },
    { boot: '7' },
    { boot: 2 ** 53 },
    { seq: null },
    { seq: {} },
    { candidates: undefined },
    { candidates: 'candidate:a1 1 UDP 1 192.0.2.1 1 typ host' },
    { candidates: Array<string>(MAX_SIGNAL_CANDIDATES + 1).fill('') },
    { deviceKey: 3 },
    { deviceKey: 'AAAA' },
    { deviceKey: `${good.deviceKey} ` },
  ];
  for (const change of changes) {
    const text = JSON.stringify({ ...good, ...change });
    t.same(openJson(text), { ok: false, why: 'malformed' }, JSON.stringify(change).slice(0, 80));
  }
  for (const text of ['', 'null', '[]', '7', '"x"', '{', `${JSON.stringify(good)}x`]) {
    t.same(openJson(text), { ok: false, why: 'malformed' }, JSON.stringify(text.slice(0, 80)));
  }
  t.end();
});

await t.test('a candidate that does not parse is left out, and the others stay', (t) => {
  const { candidates } = jsonOf(SIGNAL);
  const strange = ['', 7, null, 'candidate:', { a: 1 }, ...candidates];
  const opened = openJson(JSON.stringify({ ...jsonOf(SIGNAL), candidates: strange }));
  t.same(opened.ok && opened.value.candidates, SIGNAL.candidates);
  t.end();
});

await t.test('of too many candidates the first are told, and they fit', (t) => {
  const candidates = Array.from({ length: MAX_SIGNAL_CANDIDATES + 9 }, (_, i) => ({
    ...STREAM,
    foundation: 'f'.repeat(32),
    priority: 2 ** 31 - 1 - i,
    address: `[2001:db8:1111:2222:3333:4444:5555:6666]:${i + 10_000}` as SocketAddress,
  }));
  const from = nameOf('x'.repeat(64));
  const bytes = sealed({ ...SIGNAL, from, candidates });
  t.ok(bytes.length <= MAX_SIGNAL_BYTES, `${bytes.length}`);
  const opened = openSignal(bytes, TOPIC, KEY, crypto);
  t.same(opened.ok && opened.value.candidates, candidates.slice(0, MAX_SIGNAL_CANDIDATES));
  t.end();
});

await t.test('what is too large is not even decrypted', (t) => {
  const open = () => {
    throw new Error('opened');
  };
  const never = { ...crypto, xchacha20poly1305: { ...crypto.xchacha20poly1305, open } };
  const large = new Uint8Array(MAX_SIGNAL_BYTES + 1);
  t.same(openSignal(large, TOPIC, KEY, never), { ok: false, why: 'malformed' });
  t.end();
});

await t.test('no bytes and no JSON make opening throw', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      return !openSignal(bytes, TOPIC, KEY, crypto).ok;
    }),
  );
  fc.assert(
    fc.property(fc.json(), fc.jsonValue(), (text, value) => {
      openJson(text);
      openJson(JSON.stringify({ ...jsonOf(SIGNAL), candidates: value }));
      return true;
    }),
  );
  t.pass();
  t.end();
});

await t.test('the topic of a signal names whom it is for and whom it is from', (t) => {
  const topic = { fleet, device: nameOf('r2'), kind: 'signal', from: device } as const;
  t.equal(formatTopic(topic), TOPIC);
  t.same(parseTopic(TOPIC), topic);
  t.equal(topicFilter(fleet, device, 'signal'), 'culvert/1/acme/r1/signal/+');
  const bad = ['', '/r1/x', '/', '/+', '/#', '/_enroll', '/a b', `/${'x'.repeat(65)}`];
  for (const rest of bad) t.equal(parseTopic(`culvert/1/acme/r2/signal${rest}`), undefined, rest);
  t.equal(parseTopic('culvert/1/acme/r2/state/r1'), undefined);
  t.equal(parseTopic('culvert/1/acme/r2/signals/r1'), undefined);
  t.end();
});

function sealed(signal: Signal): Uint8Array {
  return sealSignal(signal, TOPIC, KEY, { crypto, random });
}

function jsonOf({ from, to, boot, seq, deviceKey }: Signal) {
  return {
    from,
    to,
    boot,
    seq,
    candidates: [
      'candidate:a1 1 UDP 2130706431 192.0.2.1 51820 typ host',
      'candidate:b2 1 UDP 1694498815 198.51.100.7 40000 typ srflx raddr 192.0.2.1 rport 51820',
      'candidate:c3 1 TCP 5 2001:db8::1 443 typ host tcptype passive protocol wss',
    ],
    deviceKey: encodeBase64(deviceKey),
  };
}

function openJson(text: string) {
  const nonce = new Uint8Array(24).fill(9);
  const body = crypto.xchacha20poly1305.seal(KEY, nonce, encodeUtf8(text), encodeUtf8(TOPIC));
  return openSignal(Uint8Array.of(...nonce, ...body), TOPIC, KEY, crypto);
}
