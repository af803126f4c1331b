import t from 'tap';
import { createPair, TO_LEFT, TO_RIGHT, type Link } from './network.ts';

/*
 * The times of the whitepaper §6, in milliseconds. They are written out here and not imported, so that
 * the code is held against the paper and not against itself.
 */
const LATENCY = 20;
const NOBODY: Link = () => [];

await t.test('a packet without a session starts a handshake and arrives after it', async (t) => {
  const { network, left, right } = createPair();
  left.send(TO_RIGHT, 'hello', network.now);
  network.run(1000);
  t.same(right.delivered, ['hello']);
  t.equal(left.sentTimes(1).length, 1);
  t.equal(right.sentTimes(2).length, 1);
  t.equal(left.eventsOf('handshake-completed')[0]?.role, 'initiator');
  t.equal(right.eventsOf('handshake-completed')[0]?.role, 'responder');
  t.equal(left.wireguard.peerStatus(TO_RIGHT)?.lastHandshakeUnixMs, 1_790_000_000_040);
});

await t.test('the responder sends only after the first message of the initiator', async (t) => {
  const { network, left, right } = createPair();
  left.wireguard.requestHandshake(TO_RIGHT, network.now);
  network.run(LATENCY * 2);
  right.send(TO_LEFT, 'early', network.now);
  t.same(right.sentTimes(4), []);
  network.run(LATENCY);
  t.equal(right.timesOf('session-activated')[0], 1000 + 3 * LATENCY);
  network.run(LATENCY);
  t.same(left.delivered, ['early']);
  t.equal(left.sentTimes(4).length, 1, 'the empty message that confirms');
});

await t.test('an unanswered initiation is repeated every 5 s and up to 333 ms', async (t) => {
  const { network, left } = createPair({ link: NOBODY });
  left.send(TO_RIGHT, 'hello', network.now);
  network.run(200_000);
  const times = left.sentTimes(1);
  const gaps = times.slice(1).map((time, i) => time - (times[i] ?? 0));
  t.ok(times.length >= 17 && times.length <= 18, `${times.length} initiations in 90 s`);
  t.ok(gaps.every((gap) => gap >= 5000 && gap <= 5333));
  t.ok(new Set(gaps).size > 10, 'with jitter');
  const ephemerals = left.sent.map(({ datagram }) => String(datagram.payload.subarray(8, 40)));
  t.equal(new Set(ephemerals).size, times.length, 'each with a key of its own');
});

await t.test('an attempt ends when its time is over, to the millisecond', async (t) => {
  for (const rekeyAttemptTime of [15_000, 90_000]) {
    const { network, left } = createPair({ link: NOBODY, left: { rekeyAttemptTime } });
    left.send(TO_RIGHT, 'hello', network.now);
    network.run(300_000);
    t.same(left.timesOf('handshake-failed'), [1000 + rekeyAttemptTime]);
    t.same(left.eventsOf('handshake-failed'), [
      { type: 'handshake-failed', peer: TO_RIGHT, cause: 'no-response' },
    ]);
    t.equal(left.wireguard.pollTimeout(), undefined, 'then nothing is waited for');
    t.match(left.wireguard.peerStatus(TO_RIGHT), { isHandshaking: false });
    left.send(TO_RIGHT, 'again', network.now);
    network.run(300_000);
    t.equal(left.timesOf('handshake-failed').length, 2, 'the next packet starts another');
  }
});

await t.test('a response just in time makes a session', async (t) => {
  const { network, left, right } = createPair({
    link: (_, now) => (now > 1000 + 14_000 ? [1] : []),
    left: { rekeyAttemptTime: 15_600 },
  });
  left.send(TO_RIGHT, 'hello', network.now);
  network.run(30_000);
  t.same(right.delivered, ['hello']);
  t.same(left.timesOf('handshake-failed'), []);
});

await t.test('traffic does not prolong an attempt, nor does it start a second one', async (t) => {
  const { network, left } = createPair({ link: NOBODY, left: { rekeyAttemptTime: 15_000 } });
  for (let i = 0; i < 149; i++) {
    left.send(TO_RIGHT, 'hello', network.now);
    network.run(100);
  }
  t.equal(left.sentTimes(1).length, 3);
  network.run(200);
  t.same(left.timesOf('handshake-failed'), [16_000]);
});

await t.test(
  'the initiator rekeys with the first message after 120 s and up to 333 ms',
  async (t) => {
    const { network, left, right } = createPair();
    left.send(TO_RIGHT, 'first', network.now);
    network.run(2 * LATENCY);
    network.run(119_999);
    left.send(TO_RIGHT, 'early', network.now);
    network.run(0);
    t.equal(left.sentTimes(1).length, 1);
    network.run(334);
    left.send(TO_RIGHT, 'late', network.now);
    network.run(1000);
    t.equal(left.sentTimes(1).length, 2);
    t.equal(left.eventsOf('session-activated').length, 2);
    t.equal(right.eventsOf('session-activated').length, 2);
    t.same(right.delivered, ['first', 'early', 'late']);
  },
);

await t.test('the responder leaves rekeying to the initiator', async (t) => {
  const { network, left, right } = createPair();
  left.send(TO_RIGHT, 'first', network.now);
  network.run(125_000);
  right.send(TO_LEFT, 'late', network.now);
  network.run(1000);
  t.equal(right.sentTimes(1).length, 0);
  t.equal(left.sentTimes(1).length, 1);
  network.link = ({ payload }) => (payload[0] === 1 ? [] : [LATENCY]);
  network.run(42_000);
  left.send(TO_RIGHT, 'after 165 s', network.now);
  network.run(1000);
  t.same(right.delivered, ['first', 'after 165 s']);
  t.equal(right.sentTimes(1).length, 0, 'nor when it receives');
});

await t.test('an initiator that only receives rekeys after 165 s', async (t) => {
  const { network, left, right } = createPair();
  left.send(TO_RIGHT, 'first', network.now);
  network.run(2 * LATENCY);
  network.run(108_000);
  right.send(TO_LEFT, 'early', network.now);
  network.run(164_999 - 108_000 - LATENCY);
  t.equal(left.sentTimes(4).length, 3, 'the last one is empty and leaves before 120 s');
  t.equal(left.sentTimes(1).length, 1);
  network.link = (datagram) => (datagram.payload[0] === 1 ? [] : [LATENCY]);
  right.send(TO_LEFT, 'one', network.now);
  network.run(LATENCY);
  t.equal(left.sentTimes(1).length, 1, 'at 164.999 s');
  right.send(TO_LEFT, 'two', network.now);
  right.send(TO_LEFT, 'three', network.now);
  network.run(LATENCY + 1);
  t.equal(left.sentTimes(1).length, 2, 'after 165 s');
});

await t.test('after 2^60 messages either side rekeys', async (t) => {
  const { network, left, right } = createPair();
  left.send(TO_RIGHT, 'first', network.now);
  network.run(10_000);
  const facts = {
    peer: TO_LEFT,
    sentData: true,
    sentKeepalive: false,
    receivedData: false,
    receivedKeepalive: false,
  };
  right.wireguard.handleTransport({ ...facts, sendCounter: 2 ** 60 }, network.now);
  network.run(100);
  t.equal(right.sentTimes(1).length, 0);
  right.wireguard.handleTransport({ ...facts, sendCounter: 2 ** 60 + 2 ** 10 }, network.now);
  network.run(100);
  t.equal(right.sentTimes(1).length, 1);
  t.equal(right.eventsOf('session-activated').length, 2);
});

await t.test('a session ends after 180 s on both sides', async (t) => {
  const { network, left, right } = createPair();
  left.send(TO_RIGHT, 'first', network.now);
  network.run(600_000);
  t.same(left.timesOf('session-dropped'), [1000 + 2 * LATENCY + 180_000]);
  t.same(right.timesOf('session-dropped'), [1000 + LATENCY + 180_000]);
  t.equal(left.sessions.size + right.sessions.size, 0, 'no key outlives 540 s');
  t.equal(left.wireguard.pollTimeout(), undefined, 'an idle peer waits for nothing');
  t.equal(right.wireguard.pollTimeout(), undefined);
  right.send(TO_LEFT, 'back', network.now);
  network.run(1000);
  t.same(left.delivered, ['back']);
});

await t.test('received data is confirmed by an empty message after 10 s, once', async (t) => {
  const { network, left, right } = createPair();
  left.send(TO_RIGHT, 'one', network.now);
  network.run(5000);
  left.send(TO_RIGHT, 'two', network.now);
  const first = 1000 + 3 * LATENCY;
  network.run(100_000);
  t.same(right.sentTimes(4), [first + 10_000]);
  t.equal(left.sentTimes(4).length, 3, 'an empty message is not answered');
});

await t.test('data on the way back makes the empty message superfluous', async (t) => {
  const { network, left, right } = createPair();
  left.send(TO_RIGHT, 'one', network.now);
  network.run(9000);
  right.send(TO_LEFT, 'reply', network.now);
  network.run(9000);
  t.equal(right.sentTimes(4).length, 1);
  t.equal(left.sentTimes(1).length, 1);
});

await t.test('data that nothing comes back for starts a handshake after 15 s', async (t) => {
  const { network, left, right } = createPair();
  left.send(TO_RIGHT, 'one', network.now);
  network.run(9000);
  right.send(TO_LEFT, 'reply', network.now);
  network.run(20_000);
  network.link = NOBODY;
  const sentAt = network.now;
  left.send(TO_RIGHT, 'two', network.now);
  network.run(3000);
  left.send(TO_RIGHT, 'three', network.now);
  network.run(14_000);
  const [, second = 0] = left.sentTimes(1);
  t.ok(second - sentAt >= 15_000 && second - sentAt <= 15_333, `${second - sentAt}`);
});

await t.test('a persistent keepalive ends every silence of its interval', async (t) => {
  const { network, left, right } = createPair({ left: { persistentKeepalive: 25 } });
  network.run(100);
  t.equal(left.eventsOf('handshake-completed').length, 1, 'switching it on makes a session');
  network.run(70_000);
  const times = left.sentTimes(4);
  const gaps = times.slice(1).map((time, i) => time - (times[i] ?? 0));
  t.same(gaps, [25_000, 25_000]);
  t.equal(right.sentTimes(4).length, 0);
  network.run(600_000);
  t.ok(left.eventsOf('handshake-completed').length >= 5, 'also over the lives of sessions');
  const lastSent = left.sentTimes(4).at(-1) ?? 0;
  t.ok(network.now - lastSent <= 25_000);

  const { publicKey } = right;
  const settings = { publicKey, persistentKeepalive: 0, rekeyAttemptTime: 90_000 };
  left.wireguard.setPeer(TO_RIGHT, settings, network.now);
  const count = left.sentTimes(4).length;
  network.run(400_000);
  t.equal(left.sentTimes(4).length, count, 'off again');
});

await t.test('any authentic traffic puts a persistent keepalive off', async (t) => {
  const { network, left, right } = createPair({ left: { persistentKeepalive: 25 } });
  network.run(20_000);
  const sentBefore = left.sentTimes(4).length;
  right.send(TO_LEFT, 'data', network.now);
  const receivedAt = network.now + LATENCY;
  network.run(9000);
  left.send(TO_RIGHT, 'data', network.now);
  network.run(24_999);
  t.equal(left.sentTimes(4).length, sentBefore + 1);
  t.ok(network.now > receivedAt + 25_000);
});

await t.test('no two handshakes of one side begin within 5 s', async (t) => {
  const { network, left, right } = createPair();
  for (let i = 0; i < 200; i++) {
    left.wireguard.requestHandshake(TO_RIGHT, network.now);
    left.settle(network.now);
    if (i % 7 === 0) left.send(TO_RIGHT, `${i}`, network.now);
    network.run(100);
  }
  const times = left.sentTimes(1);
  t.ok(times.length >= 4);
  t.ok(times.slice(1).every((time, i) => time - (times[i] ?? 0) >= 5000));
  t.equal(right.delivered.length, 29);
  right.wireguard.requestHandshake(TO_LEFT, network.now);
  right.settle(network.now);
  const answered = right.sentTimes(2).at(-1) ?? 0;
  network.run(6000);
  t.ok((right.sentTimes(1)[0] ?? 0) >= answered + 5000, 'a response counts as well');
});

await t.test('after a sleep of three hours each timer fires once', async (t) => {
  const { network, left } = createPair({ left: { persistentKeepalive: 25 } });
  left.send(TO_RIGHT, 'one', network.now);
  network.run(1000);
  left.send(TO_RIGHT, 'two', network.now);
  const count = left.sent.length;
  network.link = NOBODY;
  const woken = (network.now + 3 * 3600_000) as typeof network.now;
  left.handleTimeout(woken);
  t.same(
    left.sent.slice(count).map(({ datagram }) => datagram.payload[0]),
    [1],
    'one initiation for all of them',
  );
  t.equal(left.sessions.size, 0);
  t.ok((left.wireguard.pollTimeout()?.at ?? 0) > woken);
});
