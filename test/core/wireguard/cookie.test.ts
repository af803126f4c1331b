import t from 'tap';
import { instantAt } from '../../../core/sansio/instant.ts';
import { CookieChecker, CookieJar } from '../../../core/wireguard/cookie.ts';
import { decodeMessage, encodeInitiation, macsOf } from '../../../core/wireguard/messages.ts';
import { LoadMeter, SourceRateLimiter } from '../../../core/wireguard/rate-limiter.ts';
import type { IpAddress } from '../../../core/net/ip-address.ts';
import {
  at,
  createPair,
  crypto,
  SeededRandom,
  TO_RIGHT,
  type Host,
  type Network,
} from './network.ts';

const HERE = at('192.0.2.1:1000');

await t.test('mac1 is a MAC of the message under a hash of the receiver key', async (t) => {
  const { checker, jar, publicKey } = parties();
  const message = initiation();
  jar.stamp(message, 5, instantAt(0));
  const label = new TextEncoder().encode('mac1----');
  const key = crypto.blake2s.hash(label, publicKey);
  t.same(macsOf(message).mac1, crypto.blake2s.mac(key, message.subarray(0, 116)));
  t.same(macsOf(message).mac2, new Uint8Array(16), 'without a cookie mac2 is zero');
  t.ok(checker.hasValidMac1(message));
  for (let i = 0; i < 132; i++) {
    const changed = message.slice();
    changed[i] = (changed[i] ?? 0) ^ 0x10;
    if (checker.hasValidMac1(changed)) t.fail(`byte ${i} is not covered`);
  }
});

await t.test('a cookie makes mac2 valid for its address and port', async (t) => {
  const { checker, jar } = parties();
  const now = instantAt(1000);
  const first = initiation();
  jar.stamp(first, 5, now);
  t.notOk(checker.hasValidMac2(first, HERE, now));
  t.ok(jar.handleReply(decode(checker.reply(first, 5, HERE, now)), now));

  const second = initiation();
  jar.stamp(second, 6, now);
  t.ok(checker.hasValidMac2(second, HERE, now));
  for (const other of ['192.0.2.1:1001', '192.0.2.2:1000', '[2001:db8::1]:1000']) {
    t.notOk(checker.hasValidMac2(second, at(other), now), other);
  }
});

await t.test('a cookie is used for 115 s and honoured for the 120 s of its secret', async (t) => {
  const { checker, jar } = parties();
  const born = 1000;
  const first = initiation();
  jar.stamp(first, 5, instantAt(born));
  jar.handleReply(decode(checker.reply(first, 5, HERE, instantAt(born))), instantAt(born));
  const stamped = (now: number) => {
    const message = initiation();
    jar.stamp(message, 6, instantAt(now));
    return message;
  };
  const last = stamped(born + 114_999);
  t.ok(checker.hasValidMac2(last, HERE, instantAt(born + 119_999)));
  t.same(macsOf(stamped(born + 115_000)).mac2, new Uint8Array(16));
  t.notOk(checker.hasValidMac2(last, HERE, instantAt(born + 120_000)), 'the secret was rotated');
});

await t.test('a cookie reply counts for the last message only, and once', async (t) => {
  const { checker, jar } = parties();
  const now = instantAt(0);
  const first = initiation();
  jar.stamp(first, 5, now);
  const reply = checker.reply(first, 5, HERE, now);
  for (let i = 4; i < reply.length; i++) {
    const changed = reply.slice();
    changed[i] = (changed[i] ?? 0) ^ 1;
    if (jar.handleReply(decode(changed), now)) t.fail(`byte ${i} is not covered`);
  }
  t.ok(jar.handleReply(decode(reply), now));
  t.notOk(jar.handleReply(decode(reply), now), 'repeated');
  const second = initiation();
  second[9] = 77;
  jar.stamp(second, 5, now);
  t.notOk(jar.handleReply(decode(reply), now), 'for an earlier message');
});

await t.test('more than 100 handshake messages a second are a load, for a second', async (t) => {
  const meter = new LoadMeter(instantAt(0));
  for (let i = 0; i < 100; i++) t.notOk(meter.count(instantAt(0)), `${i}`);
  t.ok(meter.count(instantAt(0)));
  t.ok(meter.count(instantAt(999)));
  t.notOk(meter.count(instantAt(1000)));
  for (let ms = 2000; ms < 12_000; ms += 10) {
    if (meter.count(instantAt(ms))) t.fail('100 a second are none');
  }
});

await t.test('each source has 20 a second with a burst of 5', async (t) => {
  const limiter = new SourceRateLimiter();
  const allowed = (source: string, ms: number) =>
    limiter.allows(source as IpAddress, instantAt(ms));
  const burst = () => Array.from({ length: 7 }, () => allowed('192.0.2.1', 0));
  t.same(burst(), [true, true, true, true, true, false, false]);
  t.ok(allowed('192.0.2.2', 0), 'another source');
  t.notOk(allowed('192.0.2.1', 49));
  t.ok(allowed('192.0.2.1', 51));
  t.notOk(allowed('192.0.2.1', 52));
  for (let i = 0; i < 5; i++) t.ok(allowed(`2001:db8::${i}`, 0));
  t.notOk(allowed('2001:db8::ffff', 0), 'a /64 is one source');
  t.ok(allowed('2001:db8:0:1::1', 0));
});

await t.test('the sources counted at once are bounded, and forgotten when idle', async (t) => {
  const limiter = new SourceRateLimiter();
  const source = (i: number) => `10.0.${i >> 8}.${i & 255}` as IpAddress;
  let allowed = 0;
  for (let i = 0; i < 5000; i++) allowed += Number(limiter.allows(source(i), instantAt(0)));
  t.equal(allowed, 1024);
  t.equal(limiter.size, 1024);
  t.ok(limiter.allows(source(4999), instantAt(51)));
  t.equal(limiter.size, 1);
});

await t.test('under load a handshake takes a cookie, and then succeeds', async (t) => {
  const { network, left, right } = createPair();
  const flooder = network.addHost('198.51.100.1:1', 50);
  flooder.setPeer(1, right, network.now);
  flood(flooder, right, network, 101);
  left.send(TO_RIGHT, 'hello', network.now);
  network.run(3000);
  t.equal(right.wireguard.drops['unknown-peer'], 100);
  t.ok(right.wireguard.drops['cookie-demanded'] >= 2);
  t.equal(right.sentTimes(3).length, right.wireguard.drops['cookie-demanded']);
  t.same(right.delivered, []);
  flood(flooder, right, network, 101);
  network.run(2000 - 200);
  flood(flooder, right, network, 101);
  network.run(1000);
  t.same(right.delivered, ['hello'], 'the repeated initiation carries the cookie');
  t.equal(left.sentTimes(1).length, 2);
});

await t.test('a cookie reply leaves from where its message arrived', async (t) => {
  const { network, left, right } = createPair();
  const flooder = network.addHost('198.51.100.1:1', 50);
  flooder.setPeer(1, right, network.now);
  flood(flooder, right, network, 101);
  left.send(TO_RIGHT, 'hello', network.now);
  const { payload } = left.sent[0]!.datagram;
  const path = { local: '2001:db8::22' as IpAddress };
  right.wireguard.handleDatagram({ payload, from: left.address, path }, network.now);
  t.match(right.wireguard.pollTransmit(), { peer: undefined, to: left.address, source: path });
});

await t.test('a peer that only ever gets cookies is reported as such', async (t) => {
  const { network, left, right } = createPair({ left: { rekeyAttemptTime: 15_000 } });
  const flooder = network.addHost('198.51.100.1:1', 50);
  flooder.setPeer(1, right, network.now);
  network.link = ({ payload }) => (payload[0] === 1 || payload[0] === 3 ? [20] : []);
  flood(flooder, right, network, 101);
  left.send(TO_RIGHT, 'hello', network.now);
  network.run(20_000);
  t.match(left.eventsOf('handshake-failed'), [{ cause: 'cookies-only' }]);
});

await t.test('with valid cookies a source is still limited while we are under load', async (t) => {
  const { network, left, right } = createPair();
  const flooder = network.addHost('198.51.100.1:1', 50);
  flooder.setPeer(1, right, network.now);
  flood(flooder, right, network, 101);
  left.send(TO_RIGHT, 'hello', network.now);
  network.run(100);
  network.link = () => [];
  network.run(5400);
  const [, second] = left.sent.filter(({ datagram }) => datagram.payload[0] === 1);
  flood(flooder, right, network, 110);
  for (let i = 0; i < 8; i++) right.receive(second!.datagram, network.now);
  t.equal(right.wireguard.drops['source-rate-limited'], 3);
  t.equal(right.wireguard.drops['initiation-replayed'], 4);
});

/** Sends messages with a valid mac1 that name no peer. */
function flood(from: Host, to: Host, network: Network, count: number): void {
  if (from.sent.length === 0) {
    from.wireguard.setEndpoint(1, to.address, network.now);
    from.wireguard.requestHandshake(1, network.now);
    from.settle(network.now);
    from.takeDatagrams();
    from.wireguard.removePeer(1, network.now);
  }
  for (let i = 0; i < count; i++) to.receive(from.sent[0]!.datagram, network.now);
}

function parties() {
  const random = new SeededRandom(8);
  const privateKey = new Uint8Array(32);
  random.fill(privateKey);
  const publicKey = crypto.x25519.publicKey(privateKey);
  const checker = new CookieChecker(crypto, random, publicKey);
  return { checker, jar: new CookieJar(crypto, publicKey), publicKey };
}

function initiation(): Uint8Array {
  return encodeInitiation({
    sender: 5,
    ephemeral: new Uint8Array(32).fill(1),
    sealedStatic: new Uint8Array(48).fill(2),
    sealedTimestamp: new Uint8Array(28).fill(3),
  });
}

function decode(bytes: Uint8Array) {
  const message = decodeMessage(bytes);
  if (!message.ok || message.value.type !== 'cookie-reply') throw new Error('not a cookie reply');
  return message.value;
}
