import t from 'tap';
import { instantAt, type Instant } from '../../../core/sansio/instant.ts';
import { nullLog } from '../../../core/sansio/log.ts';
import {
  Wireguard,
  type PeerSettings,
  type WireguardEvent,
} from '../../../core/wireguard/wireguard.ts';
import {
  at,
  createPair,
  crypto,
  Host,
  lossyLink,
  Network,
  SeededRandom,
  TO_LEFT,
  TO_RIGHT,
  UNIX_MS,
  withMac1,
  type Link,
} from './network.ts';

const NOBODY: Link = () => [];

await t.test('a rekey loses no packet in either direction', async (t) => {
  for (const spacing of [7, 250]) {
    const { network, left, right } = createPair();
    const count = Math.floor(400_000 / spacing / (spacing < 100 ? 20 : 1));
    left.send(TO_RIGHT, 'start', network.now);
    network.run(spacing < 100 ? 119_000 : 1000);
    for (let i = 0; i < count; i++) {
      left.send(TO_RIGHT, `${i}`, network.now);
      right.send(TO_LEFT, `${i}`, network.now);
      network.run(spacing);
    }
    network.run(1000);
    t.equal(right.delivered.length, count + 1);
    t.equal(left.delivered.length, count);
    t.ok(left.eventsOf('session-created').length >= 2);
  }
});

await t.test('a rekey loses no packet when the datagrams around it change places', async (t) => {
  for (let seed = 0; seed < 12; seed++) {
    const random = new SeededRandom(seed);
    const { network, left, right } = createPair({ link: () => [1 + random.below(80)] });
    left.send(TO_RIGHT, 'start', network.now);
    network.run(119_900);
    for (let i = 0; i < 120; i++) {
      left.send(TO_RIGHT, `${i}`, network.now);
      right.send(TO_LEFT, `${i}`, network.now);
      network.run(5);
    }
    network.run(1000);
    if (left.eventsOf('session-created').length < 2) t.fail(`seed ${seed}: no rekey`);
    if (right.delivered.length !== 121 || left.delivered.length !== 120) t.fail(`seed ${seed}`);
  }
});

await t.test('both sides initiating at once end with sessions that work', async (t) => {
  for (const link of [() => [20], () => [20, 20]] as Link[]) {
    const { network, left, right } = createPair({ link });
    left.send(TO_RIGHT, 'from the left', network.now);
    right.send(TO_LEFT, 'from the right', network.now);
    network.run(200);
    t.same(right.delivered, ['from the left']);
    t.same(left.delivered, ['from the right']);
    let sent = 0;
    for (; sent < 4000; sent++) {
      left.send(TO_RIGHT, `${sent}`, network.now);
      right.send(TO_LEFT, `${sent}`, network.now);
      network.run(100);
    }
    network.run(1000);
    t.equal(right.delivered.length, sent + 1, 'through the rekeys that follow');
    t.equal(left.delivered.length, sent + 1);
    const initiators = [left, right].map((host) => host.eventsOf('handshake-completed').at(-1));
    t.equal(new Set(initiators.map((event) => event?.role)).size, 2, 'one of them initiates');
  }
});

await t.test('sessions come up and stay up under loss, repetition and reordering', async (t) => {
  for (let seed = 0; seed < 10; seed++) {
    const random = new SeededRandom(seed + 100);
    const { network, left, right } = createPair({ seed, link: lossyLink(random, 0.3) });
    for (let i = 0; i < 250; i++) {
      if (random.below(2) === 0) left.send(TO_RIGHT, `${i}`, network.now);
      else right.send(TO_LEFT, `${i}`, network.now);
      network.run(random.below(1500));
    }
    for (const host of [left, right]) {
      if (host.delivered.length < 60) t.fail(`seed ${seed}: ${host.delivered.length} delivered`);
      if (new Set(host.delivered).size !== host.delivered.length) t.fail(`seed ${seed}: repeated`);
      if (host.sessions.size > 4) t.fail(`seed ${seed}: ${host.sessions.size} sessions`);
    }
    network.link = () => [20];
    network.run(20_000);
    left.send(TO_RIGHT, 'end', network.now);
    right.send(TO_LEFT, 'end', network.now);
    network.run(6000);
    const ends = [left, right].map((host) => host.delivered.at(-1));
    if (ends.some((end) => end !== 'end')) t.fail(`seed ${seed}: no session at the end`);
    network.run(600_000);
    if (left.sessions.size + right.sessions.size > 0) t.fail(`seed ${seed}: keys left over`);
  }
});

await t.test('repeating every datagram changes no final state', async (t) => {
  const results = [1, 3].map((copies) => {
    const { network, left, right } = createPair({ link: () => Array(copies).fill(20) as number[] });
    for (let i = 0; i < 300; i++) {
      left.send(TO_RIGHT, `${i}`, network.now);
      if (i % 3 === 0) right.send(TO_LEFT, `${i}`, network.now);
      network.run(1000);
    }
    return [left, right].map((host) => ({
      delivered: host.delivered,
      events: host.events,
      sessions: [...host.sessions.keys()],
      status: host.wireguard.peerStatus(host === left ? TO_RIGHT : TO_LEFT),
      timeout: host.wireguard.pollTimeout(),
    }));
  });
  t.same(results[1], results[0]);
});

await t.test('a peer is followed to where its authentic messages come from', async (t) => {
  const { network, left, right } = createPair();
  left.send(TO_RIGHT, 'one', network.now);
  network.run(1000);
  const moves = right.eventsOf('endpoint-changed').length;
  left.address = at('203.0.113.5:4444');
  left.send(TO_RIGHT, 'two', network.now);
  network.run(1000);
  t.equal(right.wireguard.peerStatus(TO_LEFT)?.endpoint, left.address, 'by a packet');
  t.equal(right.eventsOf('endpoint-changed').length, moves + 1);
  right.send(TO_LEFT, 'reply', network.now);
  network.run(5000);
  t.same(left.delivered, ['reply']);

  right.address = at('[2001:db8::77]:1');
  right.wireguard.requestHandshake(TO_LEFT, network.now);
  right.settle(network.now);
  network.run(20);
  t.equal(left.wireguard.peerStatus(TO_RIGHT)?.endpoint, right.address, 'by an initiation');
  left.address = at('203.0.113.6:4444');
  network.run(6000);
  left.wireguard.requestHandshake(TO_RIGHT, network.now);
  left.settle(network.now);
  network.run(20);
  right.address = at('[2001:db8::78]:1');
  for (const { datagram } of right.sent.slice(-1)) {
    left.receive({ ...datagram, from: right.address }, network.now);
  }
  t.equal(left.wireguard.peerStatus(TO_RIGHT)?.endpoint, right.address, 'by a response');
});

await t.test('settings given again undo no roaming, other settings apply', async (t) => {
  const { network, left, right } = createPair();
  const first = right.address;
  left.send(TO_RIGHT, 'one', network.now);
  network.run(1000);
  right.address = at('203.0.113.5:4444');
  right.send(TO_LEFT, 'two', network.now);
  network.run(1000);
  left.setPeer(TO_RIGHT, right, network.now, { endpoint: first, persistentKeepalive: 25 });
  t.equal(left.wireguard.peerStatus(TO_RIGHT)?.endpoint, right.address);
  t.equal(left.sessions.size, 1, 'the session stays');
  left.setPeer(TO_RIGHT, right, network.now, { endpoint: at('203.0.113.9:1') });
  t.equal(left.wireguard.peerStatus(TO_RIGHT)?.endpoint, '203.0.113.9:1');
  left.wireguard.setEndpoint(TO_RIGHT, undefined, network.now);
  t.equal(left.wireguard.peerStatus(TO_RIGHT)?.endpoint, undefined);
});

await t.test('an attempt goes on at once at another endpoint', async (t) => {
  const { network, left, right } = createPair({ left: { endpoint: at('203.0.113.9:1') } });
  left.send(TO_RIGHT, 'one', network.now);
  network.run(1000);
  left.wireguard.setEndpoint(TO_RIGHT, right.address, network.now);
  left.settle(network.now);
  network.run(100);
  t.same(right.delivered, ['one']);
  left.wireguard.setEndpoint(TO_RIGHT, at('203.0.113.9:1'), network.now);
  left.settle(network.now);
  network.run(100);
  t.equal(left.sentTimes(1).length, 2, 'without an attempt nothing is sent');
});

await t.test('endpoints that change all the time cause no flood of initiations', async (t) => {
  const { network, left } = createPair({ link: NOBODY });
  left.send(TO_RIGHT, 'one', network.now);
  for (let i = 0; i < 1000; i++) {
    left.wireguard.setEndpoint(TO_RIGHT, at(`203.0.113.9:${i + 1}`), network.now);
    left.settle(network.now);
    network.run(1);
  }
  t.ok(left.sentTimes(1).length <= 51, `${left.sentTimes(1).length}`);
});

await t.test('without an endpoint nothing is sent and nothing is waited for', async (t) => {
  const network = new Network();
  const left = network.addHost('192.0.2.1:1', 1);
  const right = network.addHost('192.0.2.2:1', 2);
  left.setPeer(TO_RIGHT, right, network.now);
  left.send(TO_RIGHT, 'one', network.now);
  left.wireguard.requestHandshake(TO_RIGHT, network.now);
  t.equal(left.sent.length, 0);
  t.equal(left.wireguard.pollTimeout(), undefined);
});

await t.test('what waits for an endpoint goes as soon as there is one', async (t) => {
  const give: Record<string, (left: Host, right: Host, now: Instant) => void> = {
    resolved: (left, right, now) => left.wireguard.setEndpoint(TO_RIGHT, right.address, now),
    configured: (left, right, now) =>
      left.setPeer(TO_RIGHT, right, now, { endpoint: right.address }),
  };
  for (const [how, giveEndpoint] of Object.entries(give)) {
    const { network, left, right } = createPairWithoutEndpoint();
    left.send(TO_RIGHT, 'one', network.now);
    network.run(1000);
    giveEndpoint(left, right, network.now);
    left.settle(network.now);
    network.run(100);
    t.same(right.delivered, ['one'], how);
  }
});

await t.test('a persistent keepalive that waits for an endpoint does so too', async (t) => {
  const { network, left, right } = createPairWithoutEndpoint({ persistentKeepalive: 25 });
  network.run(1000);
  left.wireguard.setEndpoint(TO_RIGHT, right.address, network.now);
  left.settle(network.now);
  network.run(100);
  t.equal(left.sessions.size, 1);
});

await t.test('a peer that came by itself meanwhile is not asked again', async (t) => {
  const { network, left, right } = createPairWithoutEndpoint();
  left.send(TO_RIGHT, 'one', network.now);
  right.send(TO_LEFT, 'two', network.now);
  network.run(1000);
  t.same(right.delivered, ['one']);
  left.wireguard.setEndpoint(TO_RIGHT, at('203.0.113.9:1'), network.now);
  left.settle(network.now);
  t.equal(left.sentTimes(1).length, 0);
});

await t.test('a preshared key that differs is named, and ends nothing early', async (t) => {
  const psk = (value: number) => ({ presharedKey: new Uint8Array(32).fill(value) });
  const { network, left, right } = createPair({
    left: { ...psk(1), rekeyAttemptTime: 15_000 },
    right: psk(2),
  });
  left.send(TO_RIGHT, 'one', network.now);
  network.run(14_999);
  t.equal(left.eventsOf('handshake-failed').length, 0);
  t.ok(left.wireguard.drops['response-not-authentic'] >= 2);
  t.equal(left.sentTimes(1).length, right.sentTimes(2).length);
  network.run(1);
  t.match(left.eventsOf('handshake-failed'), [{ cause: 'preshared-key-differs' }]);
  left.setPeer(TO_RIGHT, right, network.now, psk(2));
  left.send(TO_RIGHT, 'two', network.now);
  network.run(6000);
  t.same(right.delivered, ['two'], 'a changed key applies to the next handshake');
});

await t.test('a forged response does not keep the true one from making a session', async (t) => {
  const { network, left, right } = createPair();
  network.link = (datagram) => {
    if (datagram.payload[0] === 2) {
      const stranger = new Host('203.0.113.1:1', 77, network.now);
      const forged = datagram.payload.slice();
      forged.fill(7, 12, 60);
      t.ok(stranger.publicKey);
      left.receive({ ...datagram, payload: withMac1(forged, left.publicKey) }, network.now);
    }
    return [20];
  };
  left.send(TO_RIGHT, 'one', network.now);
  network.run(1000);
  t.equal(left.wireguard.drops['response-not-authentic'], 1);
  t.same(right.delivered, ['one']);
  t.same(left.eventsOf('handshake-failed'), []);
});

await t.test('an initiation is refused when it is replayed, older or too soon', async (t) => {
  const { network, left, right } = createPair({ link: NOBODY });
  const { drops } = right.wireguard;
  const initiate = () => {
    left.wireguard.requestHandshake(TO_RIGHT, network.now);
    left.settle(network.now);
    return left.sent.at(-1)!.datagram;
  };
  const first = initiate();
  network.run(5400);
  const second = left.sent.at(-1)!.datagram;
  right.receive(second, network.now);
  t.equal(right.sentTimes(2).length, 1);
  right.receive(second, network.now);
  right.receive(first, network.now);
  t.equal(drops['initiation-replayed'], 2);
  t.equal(right.sentTimes(2).length, 1);

  network.run(10_600);
  const [, , third, fourth] = left.sent.map(({ datagram }) => datagram);
  right.receive(third!, network.now);
  right.receive(fourth!, network.now);
  t.equal(drops['initiation-too-soon'], 1, 'two within 20 ms');
  network.run(20);
  right.receive(fourth!, network.now);
  t.equal(right.sentTimes(2).length, 3, 'it was not taken for seen');
});

await t.test(
  'a wall clock that steps back does not make our initiations look replayed',
  async (t) => {
    const { network, left, right } = createPair();
    left.send(TO_RIGHT, 'one', network.now);
    network.run(10_000);
    left.wireguard.handleWallClock(UNIX_MS - 86_400_000, network.now);
    left.wireguard.requestHandshake(TO_RIGHT, network.now);
    left.settle(network.now);
    network.run(1000);
    t.equal(right.wireguard.drops['initiation-replayed'], 0);
    t.equal(right.eventsOf('handshake-completed').length, 2);
    t.equal(left.wireguard.peerStatus(TO_RIGHT)?.lastHandshakeUnixMs, UNIX_MS - 86_400_000 + 40);
  },
);

await t.test('a stranger is not answered', async (t) => {
  const { network, left, right } = createPair();
  const stranger = network.addHost('203.0.113.1:1', 99);
  stranger.setPeer(1, right, network.now, { endpoint: right.address });
  stranger.send(1, 'hello', network.now);
  network.run(100);
  t.equal(right.wireguard.drops['unknown-peer'], 1);
  t.equal(right.sent.length, 0);
  const wrongKey = network.addHost('203.0.113.2:1', 98);
  wrongKey.setPeer(1, left, network.now, { endpoint: right.address });
  wrongKey.send(1, 'hello', network.now);
  network.run(100);
  t.equal(right.wireguard.drops['invalid-mac1'], 1);
});

await t.test('public keys that cannot be a peer are refused and change nothing', async (t) => {
  const { network, left, right } = createPair();
  const { wireguard } = left;
  const settings = { persistentKeepalive: 25, rekeyAttemptTime: 90_000, endpoint: right.address };
  const set = (peer: number, publicKey: Uint8Array) =>
    wireguard.setPeer(peer, { ...settings, publicKey }, network.now);
  t.match(set(TO_RIGHT, left.publicKey), { ok: false, why: 'own-public-key' });
  t.match(set(TO_RIGHT, new Uint8Array(32)), { ok: false, why: 'invalid-public-key' });
  t.match(set(1, right.publicKey), { ok: false, why: 'public-key-in-use' });
  t.throws(() => set(4096, right.publicKey), { name: 'BugError' });
  left.send(TO_RIGHT, 'one', network.now);
  network.run(100);
  t.same(right.delivered, ['one']);
});

await t.test('another public key makes another peer, a removed one is forgotten', async (t) => {
  const { network, left, right } = createPair();
  left.send(TO_RIGHT, 'one', network.now);
  network.run(100);
  const other = network.addHost('203.0.113.3:1', 55);
  other.setPeer(0, left, network.now, { endpoint: left.address });
  left.setPeer(TO_RIGHT, other, network.now, { endpoint: other.address });
  t.equal(left.eventsOf('session-dropped').length, 1);
  left.send(TO_RIGHT, 'two', network.now);
  right.send(TO_LEFT, 'from the former peer', network.now);
  network.run(100);
  t.same(other.delivered, ['two']);
  t.same(left.delivered, []);

  left.wireguard.removePeer(TO_RIGHT, network.now);
  left.settle(network.now);
  t.equal(left.sessions.size, 0);
  t.equal(left.wireguard.peerStatus(TO_RIGHT), undefined);
  t.equal(left.wireguard.pollTimeout(), undefined);
  t.ok(left.wireguard.setPeer(3, peerSettings(other), network.now).ok, 'its key is free again');
});

await t.test('another private key ends all sessions and makes another identity', async (t) => {
  const { network, left, right } = createPair();
  left.send(TO_RIGHT, 'one', network.now);
  network.run(100);
  const privateKey = new Uint8Array(32).fill(42);
  left.wireguard.setPrivateKey(privateKey, network.now);
  left.settle(network.now);
  t.equal(left.sessions.size, 0);
  left.send(TO_RIGHT, 'two', network.now);
  network.run(6000);
  t.ok(right.wireguard.drops['unknown-peer'] >= 1);
  const publicKey = crypto.x25519.publicKey(privateKey);
  right.setPeer(TO_LEFT, { publicKey }, network.now);
  network.run(6000);
  t.same(right.delivered, ['one', 'two']);
});

await t.test('after another private key a handshake waits for nothing', async (t) => {
  const { network, left, right } = createPair();
  left.send(TO_RIGHT, 'one', network.now);
  network.run(100);
  const privateKey = new Uint8Array(32).fill(42);
  right.setPeer(TO_LEFT, { publicKey: crypto.x25519.publicKey(privateKey) }, network.now);
  left.wireguard.setPrivateKey(privateKey, network.now);
  left.settle(network.now);
  left.send(TO_RIGHT, 'two', network.now);
  network.run(100);
  t.same(right.delivered, ['one', 'two']);
});

await t.test('the same private key again changes nothing', async (t) => {
  const { network, left, right } = createPair();
  left.send(TO_RIGHT, 'one', network.now);
  network.run(100);
  const before = left.sessions.size;
  left.wireguard.setPrivateKey(left.privateKey.slice(), network.now);
  left.settle(network.now);
  t.equal(left.sessions.size, before);
  t.equal(left.eventsOf('session-dropped').length, 0);
  left.send(TO_RIGHT, 'two', network.now);
  network.run(100);
  t.same(right.delivered, ['one', 'two']);
});

await t.test('a private key that is the key of a peer silences that peer', async (t) => {
  const { network, left } = createPair();
  const privateKey = new Uint8Array(32).fill(43);
  const settings = { persistentKeepalive: 25, rekeyAttemptTime: 90_000 };
  const publicKey = crypto.x25519.publicKey(privateKey);
  const endpoint = at('203.0.113.3:1');
  t.ok(left.wireguard.setPeer(1, { ...settings, publicKey, endpoint }, network.now).ok);
  left.wireguard.setPrivateKey(privateKey, network.now);
  left.settle(network.now);
  const count = left.sent.length;
  network.run(100_000);
  t.equal(left.sent.length, count);
});

await t.test('random, cut and changed datagrams never throw and change nothing', async (t) => {
  const { network, left, right } = createPair();
  left.send(TO_RIGHT, 'one', network.now);
  network.run(6000);
  left.wireguard.requestHandshake(TO_RIGHT, network.now);
  left.settle(network.now);
  network.run(30);
  t.match(left.wireguard.peerStatus(TO_RIGHT), { isHandshaking: true }, 'a response is under way');
  const random = new SeededRandom(12);
  const genuine = [...left.sent, ...right.sent].map(({ datagram }) => datagram.payload);
  t.equal(genuine.filter((payload) => payload[0] === 2).length, 2);
  for (const host of [left, right]) {
    const before = stateOf(host);
    const hostile = (payload: Uint8Array) =>
      host.wireguard.handleDatagram({ payload, from: at('203.0.113.66:6') }, network.now);
    for (let i = 0; i < 600; i++) {
      const payload = new Uint8Array(random.below(200));
      random.fill(payload);
      if (i % 2 === 0) payload.set([1 + ((i % 8) >> 1), 0, 0, 0].slice(0, payload.length));
      hostile(payload);
    }
    for (const payload of genuine) {
      for (let length = 0; length < payload.length; length++) hostile(payload.slice(0, length));
      // Without load mac2 is not looked at: a change there is none.
      const isHandshake = payload[0] === 1 || payload[0] === 2;
      const covered = isHandshake ? payload.length - 16 : payload.length;
      for (let i = 0; i < 60; i++) {
        const changed = payload.slice();
        const index = random.below(covered);
        changed[index] = (changed[index] ?? 0) ^ (1 << random.below(8));
        hostile(changed);
        // The sender index is under mac1 alone, which anyone who knows the public key can make.
        const isSealed = index >= 8 && index < payload.length - 32;
        if (isHandshake && isSealed && i < 12) hostile(withMac1(changed, host.publicKey));
      }
    }
    t.same(stateOf(host), before);
    t.ok(host.wireguard.drops.malformed > 300);
    t.ok(host.wireguard.drops['invalid-mac1'] > 50);
  }
});

await t.test('extra timeouts every 100 ms change nothing, as no timer needs them', async (t) => {
  const traces = [undefined, 100].map((tick) => {
    const { network, left, right } = createPair({ left: { persistentKeepalive: 25 } });
    for (let i = 0; i < 20; i++) {
      left.send(TO_RIGHT, `${i}`, network.now);
      if (i === 7) network.link = NOBODY;
      if (i === 12) network.link = () => [30];
      network.run(i * 1700, tick === undefined ? {} : { tick });
    }
    return [left, right].map((host) => [host.events, host.sent.map(({ at }) => at)]);
  });
  t.same(traces[1], traces[0]);
});

await t.test(
  'an early timeout does nothing, a deadline is kept and never in the past',
  async (t) => {
    const { network, left } = createPair({ link: NOBODY });
    left.wireguard.requestHandshake(TO_RIGHT, network.now);
    t.match(left.wireguard.pollTimeout(), { at: network.now, reason: 'queued output' });
    left.settle(network.now);
    const due = left.wireguard.pollTimeout();
    t.equal(due?.reason, 'retransmit-handshake');
    left.handleTimeout(instantAt(Number(due?.at) - 0.001));
    t.equal(left.sent.length, 1);
    t.same(left.wireguard.pollTimeout(), due);
    left.handleTimeout(due!.at);
    t.equal(left.sent.length, 2);
    left.handleTimeout(due!.at);
    t.equal(left.sent.length, 2);
    t.ok(Number(left.wireguard.pollTimeout()?.at) > due!.at);
  },
);

await t.test(
  'inputs are borrowed: what the caller does with them later has no effect',
  async (t) => {
    const { network, left, right } = createPair();
    const presharedKey = new Uint8Array(32).fill(5);
    const publicKey = right.publicKey.slice();
    left.setPeer(TO_RIGHT, { publicKey }, network.now, { presharedKey });
    right.setPeer(TO_LEFT, left, network.now, { presharedKey });
    presharedKey.fill(0);
    publicKey.fill(0);
    network.link = (datagram) => {
      queueMicrotask(() => datagram.payload.fill(0));
      return [20];
    };
    left.send(TO_RIGHT, 'one', network.now);
    network.run(100);
    t.same(right.delivered, ['one']);
  },
);

await t.test('a thousand peers cost nothing while they are idle', async (t) => {
  const counting = countingCrypto();
  const random = new SeededRandom(5);
  const privateKey = new Uint8Array(32).fill(1);
  const now = instantAt(0);
  const wireguard = new Wireguard(
    { crypto: counting.crypto, random, log: nullLog, privateKey, unixMs: UNIX_MS },
    now,
  );
  const endpoint = at('203.0.113.1:1');
  const settings = { persistentKeepalive: 0, rekeyAttemptTime: 15_000, endpoint };
  for (let peer = 0; peer < 1000; peer++) {
    const publicKey = new Uint8Array(32);
    random.fill(publicKey);
    wireguard.setPeer(peer, { ...settings, publicKey }, now);
  }
  t.equal(counting.countSharedSecrets(), 1000, 'one key agreement a peer, once');
  drain(wireguard);
  t.equal(wireguard.pollTimeout(), undefined);

  for (let peer = 0; peer < 1000; peer++) wireguard.requestHandshake(peer, instantAt(peer));
  t.equal(counting.countSharedSecrets(), 2000, 'and one an initiation');
  t.equal(drain(wireguard).transmits, 1000);
  let wakeUps = 0;
  let initiations = 1000;
  for (;;) {
    const due = wireguard.pollTimeout();
    if (due === undefined) break;
    wireguard.handleTimeout(due.at);
    initiations += drain(wireguard).transmits;
    if (++wakeUps > 10_000) throw new Error('spins');
  }
  t.equal(initiations, 3000);
  t.ok(wakeUps <= 3000, 'a wake-up for each repetition and failure, no more');
});

await t.test('4096 peers have indices of their own', async (t) => {
  const network = new Network();
  const left = network.addHost('192.0.2.1:1', 1);
  for (const peer of [0, 1, 4095]) {
    const other = network.addHost(`198.51.100.${peer % 250}:1`, 200 + peer);
    left.setPeer(peer, other, network.now, { endpoint: other.address });
    other.setPeer(0, left, network.now, { endpoint: left.address });
    left.send(peer, `for ${peer}`, network.now);
    network.run(100);
    t.same(other.delivered, [`for ${peer}`]);
    const [created] = left.eventsOf('session-created').slice(-1);
    t.equal((created?.localIndex ?? 0) >>> 8, peer);
  }
});

function peerSettings(host: Host) {
  return { publicKey: host.publicKey, persistentKeepalive: 0, rekeyAttemptTime: 90_000 };
}

/** All but the suspicion, which a forged response may change. */
function stateOf(host: Host): unknown {
  const peers = [TO_LEFT, TO_RIGHT].map((peer) => {
    const status = host.wireguard.peerStatus(peer);
    return status && { ...status, suspicion: undefined };
  });
  return { peers, timeout: host.wireguard.pollTimeout(), output: drain(host.wireguard) };
}

function drain(wireguard: Wireguard): { transmits: number; events: WireguardEvent[] } {
  let transmits = 0;
  while (wireguard.pollTransmit() !== undefined) transmits++;
  const events: WireguardEvent[] = [];
  for (;;) {
    const event = wireguard.pollEvent();
    if (event === undefined) return { transmits, events };
    events.push(event);
  }
}

function countingCrypto() {
  let sharedSecrets = 0;
  const x25519 = {
    publicKey: (key: Uint8Array) => key.slice(),
    sharedSecret: (_: Uint8Array, publicKey: Uint8Array) => {
      sharedSecrets++;
      return publicKey.slice();
    },
  };
  return {
    crypto: { ...crypto, x25519 },
    countSharedSecrets: () => sharedSecrets,
  };
}

/** A pair of which the left does not know where the right is. */
function createPairWithoutEndpoint(settings: Partial<PeerSettings> = {}): {
  network: Network;
  left: Host;
  right: Host;
} {
  const network = new Network();
  const left = network.addHost('192.0.2.1:51820', 1);
  const right = network.addHost('192.0.2.2:51820', 2);
  left.setPeer(TO_RIGHT, right, network.now, settings);
  right.setPeer(TO_LEFT, left, network.now, { endpoint: left.address });
  return { network, left, right };
}
