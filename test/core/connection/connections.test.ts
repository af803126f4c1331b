import t from 'tap';
import { frame } from '../../../core/stun/stream-framing.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';
import { host, meet, pair, passive, prefix, stateOf } from './two-devices.ts';

/** All connections of a device: whose a datagram is, what may be tried, streams of strangers. */

const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
t.comment(`SEED=${seed}`);

/** The start of a STUN binding request without attributes. */
const HEADER = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];

await t.test('two devices find each other by what one of them is told', async (t) => {
  const { left, right } = meet(seed);
  t.match(left.connections.status(0), { state: 'connected', kind: 'direct' });
  t.match(right.connections.status(0), { state: 'connected', kind: 'direct' });
  t.same(left.paths, ['198.51.100.1:51820']);
});

await t.test('what is not STUN is left to WireGuard, with the way back', async (t) => {
  const { left } = pair(seed);
  const message = Uint8Array.of(1, 0, 0, 0, ...new Uint8Array(144));
  const datagram = left.receive(message, '203.0.113.9:1234');
  t.same(datagram?.payload, message);
  t.match(datagram?.route, { remote: '203.0.113.9:1234', source: { local: '192.0.2.1' } });
});

await t.test('checks that do not authenticate change nothing and are counted', async (t) => {
  const { left, right } = meet(seed);
  const before = JSON.stringify(left.connections.status(0));
  const check = right.capture();
  check[30]! ^= 1;
  left.receive(check, '203.0.113.66:666');
  left.receive(
    Uint8Array.from({ length: 20 }, (_, i) => HEADER[i] ?? 7),
    '203.0.113.66:666',
  );
  t.equal(JSON.stringify(left.connections.status(0)), before);
  t.same(left.sent(), []);
  t.ok(Object.values(left.connections.drops).some((count) => count > 0));
});

await t.test('10,000 random, cut, changed and copied datagrams change nothing', async (t) => {
  const { left, right } = meet(seed);
  const random = new SeededRandom(seed);
  const samples = [right.capture(), new Uint8Array(148), new Uint8Array(92)];
  const before = stateOf(left);
  for (let i = 0; i < 10_000; i++) {
    const sample = samples[i % samples.length] ?? new Uint8Array(0);
    const bytes = Uint8Array.from(sample.subarray(0, 1 + (random.next() % sample.length)));
    for (let n = random.next() % 4; n >= 0; n--) {
      bytes[random.next() % bytes.length] = random.next() & 0xff;
    }
    left.receive(bytes, `203.0.113.${random.next() % 256}:${1 + (random.next() % 65_535)}`);
  }
  t.equal(stateOf(left), before);
});

await t.test('a path through the tunnel is neither tried nor answered', async (t) => {
  const { left, right } = pair(seed);
  left.connections.setTunnelNetworks([prefix('198.51.100.0/24')]);
  left.learn(right);
  t.same(left.sent(), []);
  right.learn(left);
  t.same(left.sent(), []);
  t.ok((left.connections.drops['path-through-tunnel'] ?? 0) > 0);
});

await t.test('a peer cannot make us call ourselves, nobody or many', async (t) => {
  const { left } = pair(seed);
  left.connections.setStreams(undefined, undefined, left.now);
  const addresses = ['127.0.0.1:22', '0.0.0.0:80', '224.0.0.1:80', '255.255.255.255:9', '[::1]:22'];
  left.signal(
    [...addresses, '192.0.2.1:51820'].flatMap((address) => [host(address), passive(address)]),
  );
  left.run(5_000);
  t.same(left.sent(), []);
  t.same(left.dials, []);
});

await t.test(
  'streams are dialled a second after UDP has had its chance, few at a time',
  async (t) => {
    const { left } = pair(seed);
    left.signal(Array.from({ length: 20 }, (_, i) => passive(`198.51.100.1:${443 + i}`)));
    left.run(900);
    t.same(left.dials, []);
    left.run(4_000);
    t.ok(left.dials.length >= 1 && left.dials.length <= 4, `${left.dials.length} dials`);
  },
);

await t.test('a stream on which nobody shows who it is is closed after 10 s', async (t) => {
  const { right } = pair(seed, { listens: true });
  right.accept(1, '203.0.113.5:40000');
  right.run(9_900);
  t.same(right.hungUp, []);
  right.run(200);
  t.same(right.hungUp, [1]);
});

await t.test('a copy of a check opens no stream for good', async (t) => {
  const { left, right } = meet(seed, { listens: true });
  const copy = frame(left.capture());
  for (let i = 0; i < 256; i++) {
    right.accept(1 + 2 * i, `203.0.113.${i}:40000`);
    right.stream(1 + 2 * i, copy);
  }
  right.run(11_000);
  t.equal(new Set(right.hungUp).size, 256);
  t.match(right.connections.status(0), { state: 'connected', kind: 'direct' });
});

await t.test('a stranger holds no memory: a long frame ends its stream', async (t) => {
  const { right } = pair(seed, { listens: true });
  right.accept(1, '203.0.113.5:40000');
  right.stream(1, Uint8Array.of(0xff, 0xff, 0));
  t.same(right.hungUp, [1]);
});

await t.test('a stream is taken where UDP does not pass', async (t) => {
  const { left, right } = pair(seed, { listens: true, isUdpBlocked: true });
  left.learn(right);
  left.run(1_500);
  const [dial] = left.dials;
  t.match(dial?.target, {
    address: '198.51.100.1:443',
    protocol: 'tls',
    trust: { type: 'pinned' },
  });
  left.join(right, dial?.stream ?? 0, 1);
  left.run(2_000);
  t.match(left.connections.status(0), { state: 'connected', kind: 'stream' });
  t.match(right.connections.status(0), { state: 'connected', kind: 'stream' });
  t.same(right.hungUp, []);
  right.run(60_000);
  t.same(right.hungUp, [], 'it is no stranger');
});

await t.test(
  'a removed peer leaves nothing: no check, no stream, no deadline of its own',
  async (t) => {
    const { left } = meet(seed);
    left.connections.removePeer(0, left.now);
    left.run(60_000);
    t.same(left.sent(), []);
    t.equal(left.connections.status(0), undefined);
    t.equal(left.connections.pollTimeout(), undefined);
  },
);

await t.test(
  'the addresses of the machine change: the lost base goes, the new one is checked',
  async (t) => {
    const { left, right } = meet(seed);
    left.move('192.0.2.77');
    // Nothing is sent, so the other side sees it with its next keepalive.
    left.run(8_000);
    t.match(left.connections.status(0), { state: 'connected', local: '192.0.2.77:51820' });
    t.match(right.connections.status(0), { remote: '192.0.2.77:51820' });
  },
);
