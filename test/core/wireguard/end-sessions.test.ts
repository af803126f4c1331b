import t from 'tap';
import { createPair, TO_LEFT, TO_RIGHT, type Host, type Link, type Network } from './network.ts';

const NOBODY: Link = () => [];

await t.test('ended sessions are gone at once, with all that they waited for', async (t) => {
  const { network, left } = createPair({ left: { persistentKeepalive: 25 } });
  left.send(TO_RIGHT, 'one', network.now);
  network.run(1000);
  left.send(TO_RIGHT, 'two', network.now);
  end(left, TO_RIGHT, network);
  t.equal(left.sessions.size, 0);
  t.match(left.wireguard.peerStatus(TO_RIGHT), { hasSession: false, isHandshaking: false });
  t.equal(left.wireguard.pollTimeout(), undefined, 'nothing is waited for');
  const count = left.sent.length;
  network.run(600_000);
  t.equal(left.sent.length, count);
  t.same(left.eventsOf('handshake-failed'), []);
});

await t.test('a rekey under way ends too, without being called a failure', async (t) => {
  const { network, left } = createPair();
  left.send(TO_RIGHT, 'one', network.now);
  network.run(10_000);
  network.link = NOBODY;
  left.wireguard.requestHandshake(TO_RIGHT, network.now);
  left.settle(network.now);
  network.run(100);
  t.match(left.wireguard.peerStatus(TO_RIGHT), { hasSession: true, isHandshaking: true });
  end(left, TO_RIGHT, network);
  const count = left.sent.length;
  network.run(200_000);
  t.equal(left.sent.length, count);
  t.equal(left.eventsOf('handshake-failed').length, 0);
  t.equal(left.wireguard.pollTimeout(), undefined);
});

await t.test('an attempt that waits for an endpoint is forgotten', async (t) => {
  const { network, left, right } = createPair();
  left.wireguard.setEndpoint(TO_RIGHT, undefined, network.now);
  left.send(TO_RIGHT, 'one', network.now);
  end(left, TO_RIGHT, network);
  left.wireguard.setEndpoint(TO_RIGHT, right.address, network.now);
  left.settle(network.now);
  network.run(10_000);
  t.equal(left.sent.length, 0);
});

await t.test('what is under way in the old sessions arrives nowhere', async (t) => {
  const { network, left, right } = createPair();
  left.send(TO_RIGHT, 'one', network.now);
  network.run(1000);
  right.send(TO_LEFT, 'late', network.now);
  end(left, TO_RIGHT, network);
  network.run(1000);
  t.same(left.delivered, []);
});

for (const side of ['the side that ended them', 'the other side'] as const) {
  await t.test(`the next handshake waits for nothing: ${side}`, async (t) => {
    const { network, left, right } = createPair();
    left.send(TO_RIGHT, 'one', network.now);
    network.run(100);
    end(left, TO_RIGHT, network);
    end(right, TO_LEFT, network);
    const [sender, receiver, peer] =
      side === 'the other side' ? [right, left, TO_LEFT] : [left, right, TO_RIGHT];
    sender.send(peer, 'two', network.now);
    network.run(100);
    t.equal(receiver.delivered.at(-1), 'two');
    t.ok(sender.wireguard.peerStatus(peer)?.hasSession);
  });
}

await t.test('the persistent keepalive goes on with the next session', async (t) => {
  const { network, left, right } = createPair({ left: { persistentKeepalive: 25 } });
  network.run(1000);
  end(left, TO_RIGHT, network);
  network.run(100_000);
  const count = left.sent.length;
  end(right, TO_LEFT, network);
  right.send(TO_LEFT, 'back', network.now);
  network.run(60_000);
  t.same(left.delivered, ['back']);
  t.ok(left.sent.length >= count + 3, 'a response and two keepalives');
});

await t.test('a replayed initiation stays refused', async (t) => {
  const { network, left, right } = createPair();
  left.send(TO_RIGHT, 'one', network.now);
  network.run(1000);
  const initiation = left.sent[0]!.datagram;
  t.equal(initiation.payload[0], 1);
  end(right, TO_LEFT, network);
  right.receive(initiation, network.now);
  t.equal(right.wireguard.drops['initiation-replayed'], 1);
  t.equal(right.sessions.size, 0);
});

await t.test('the sessions of other peers go on; one that is unknown is no matter', async (t) => {
  const { network, left, right } = createPair();
  const other = network.addHost('203.0.113.3:1', 55);
  other.setPeer(0, left, network.now, { endpoint: left.address });
  left.setPeer(1, other, network.now, { endpoint: other.address });
  left.send(1, 'one', network.now);
  left.send(TO_RIGHT, 'one', network.now);
  network.run(100);
  end(left, TO_RIGHT, network);
  end(left, 4000, network);
  left.send(1, 'two', network.now);
  network.run(100);
  t.same(other.delivered, ['one', 'two']);
  t.same(right.delivered, ['one']);
  t.equal(other.sentTimes(2).length, 1);
});

function end(host: Host, peer: number, network: Network): void {
  host.wireguard.endSessions(peer, network.now);
  host.settle(network.now);
}
