import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import t from 'tap';
import type { FlowVerdict, PacketPolicy } from '../../../core/fastpath/packet-path.ts';
import {
  DATAGRAMS,
  DATAGRAM_LENGTH,
  DATAGRAM_OFFSET,
  DATAGRAM_SEGMENT,
  DATAGRAM_SIZE,
  SENDS,
  SEND_LENGTH,
  SEND_OFFSET,
  SEND_SEGMENT,
  SEND_SIZE,
} from '../../../core/fastpath/layout.ts';
import { LIMITS } from '../../../core/config/defaults.ts';
import { createPortableCipher } from '../../../core/fastpath/portable-cipher.ts';
import { MOST_STAGED_BYTES, MOST_STAGED_PER_PEER } from '../../../core/fastpath/staging.ts';
import { createTwinKernel } from '../../../core/fastpath/twin/kernel.ts';
import { parseIpAddress, type IpAddress } from '../../../core/net/ip-address.ts';
import { readIcmpError } from '../../../core/packet/icmp.ts';
import { IpPacket } from '../../../core/packet/ip-packet.ts';
import { BugError } from '../../../core/sansio/outcome.ts';
import { createNobleCrypto } from '../../../plugins/crypto-noble/index.ts';
import { SeededRandom } from '../wireguard/network.ts';
import { bytes, joined, payloadOf, plainRead, superRead, tcp, udp, V6 } from './packets.ts';
import {
  address,
  createWasm,
  FD,
  forwardAll,
  NOW,
  packetOf,
  REMOTE,
  Station,
  type Datagram,
} from './station.ts';

const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
t.comment(`SEED=${seed}`);

/** The destination port is the peer. */
const byPort: PacketPolicy = {
  ...forwardAll,
  outbound: (flow): FlowVerdict => ({ type: 'forward', peer: flow.destinationPort }),
};

const refuseAll: PacketPolicy = {
  outbound: () => ({ type: 'drop', reason: 'no-route', icmp: 'host-unreachable' }),
  inbound: () => ({ type: 'drop', reason: 'filtered', icmp: 'administratively-prohibited' }),
};

await t.test('packets wait for a session, and leave in order when it is there', async (t) => {
  const station = new Station();
  station.path.setPath(0, { fd: FD, remote: REMOTE });
  const large = tcp({ payload: bytes(3000) });
  station.read(plainRead(udp({ id: 1 })), superRead(large, 1000), plainRead(udp({ id: 2 })));
  t.same(station.sent(), []);
  t.equal(station.path.pollWanted(), 0);
  t.equal(station.path.pollWanted(), undefined, 'asked for once');
  station.connect(0);
  const packets = station.sent().map(packetOf);
  t.equal(packets.length, 5);
  t.same(packets[0], udp({ id: 1 }));
  t.same(packets[4], udp({ id: 2 }));
  t.same(joined(...packets.slice(1, 4).map(payloadOf)), payloadOf(large));
  t.match(station.path.pollFacts(), { peer: 0, sentData: true, sendCounter: 5 });
});

await t.test('packets wait for a path too', async (t) => {
  const station = new Station();
  station.connect(0);
  station.path.setPath(0, undefined);
  station.read(plainRead(udp()));
  t.same(station.sent(), []);
  station.path.setPath(0, { fd: FD, remote: REMOTE });
  t.same(station.sent().map(packetOf), [udp()]);
});

await t.test('the oldest give way when too many wait', async (t) => {
  const station = new Station();
  for (let id = 0; id < MOST_STAGED_PER_PEER + 2; id++) station.read(plainRead(udp({ id })));
  station.connect(0);
  const packets = station.sent().map(packetOf);
  t.equal(packets.length, MOST_STAGED_PER_PEER);
  t.same(packets[0], udp({ id: 2 }));
  t.same(station.path.drops, { 'stage-full': 2 });
});

await t.test(
  'no more bytes wait than the limit, and a large backlog leaves in several batches',
  async (t) => {
    const station = new Station();
    const large = superRead(tcp({ payload: bytes(60_000) }), 1000);
    for (let n = 0; n < 100; n++) station.read(large);
    const kept = Math.floor(MOST_STAGED_BYTES / large.length);
    t.same(station.path.drops, { 'stage-full': 100 - kept });
    station.connect(0);
    t.equal(station.sent().length, kept * 60);
    t.same(station.path.drops, { 'stage-full': 100 - kept }, 'none is lost on the way');
  },
);

await t.test('a peer that hoards makes room for the others', async (t) => {
  const station = new Station({ policy: byPort });
  const large = superRead(udp({ destinationPort: 1, payload: bytes(60_000) }), 1000);
  for (let n = 0; n < 100; n++) station.read(large);
  const dropped = station.path.drops['stage-full'] ?? 0;
  station.read(
    plainRead(udp({ destinationPort: 2, id: 1 })),
    plainRead(udp({ destinationPort: 2 })),
  );
  t.ok((station.path.drops['stage-full'] ?? 0) <= dropped + 1);
  station.connect(2);
  t.same(station.sent().map(packetOf)[0], udp({ destinationPort: 2, id: 1 }), 'both are there');
  station.connect(1);
  t.equal(station.sent().length, 60 * (100 - (station.path.drops['stage-full'] ?? 0)));
});

await t.test('what is read while a backlog leaves comes after it', async (t) => {
  const station = new Station({ policy: byPort });
  const large = superRead(udp({ destinationPort: 1, payload: bytes(60_000) }), 1000);
  for (let n = 0; n < 50; n++) station.read(large);
  station.connect(1);
  station.connect(2);
  t.ok(station.path.takeSends() > 0, 'a first part');
  station.read(
    plainRead(udp({ destinationPort: 1, id: 9 })),
    plainRead(udp({ destinationPort: 2, id: 9 })),
  );
  const left = station.sent().map(packetOf);
  t.same(left[0], udp({ destinationPort: 2, id: 9 }), 'another peer does not wait for it');
  t.same(left.at(-1), udp({ destinationPort: 1, id: 9 }));
  station.read(plainRead(udp({ destinationPort: 1 })));
  t.equal(station.sent().length, 1, 'and nothing waits any more');
});

await t.test('what waits is dropped with the handshake or the peer', async (t) => {
  const station = new Station();
  station.read(plainRead(udp()), plainRead(udp()));
  station.path.dropStaged(0);
  station.read(plainRead(udp()));
  station.path.removePeer(0);
  t.equal(station.path.pollWanted(), undefined);
  station.connect(0);
  t.same(station.sent(), []);
  t.same(station.path.drops, { undelivered: 3 });
});

await t.test('a keepalive is an empty message, unless data leave with it', async (t) => {
  const station = new Station();
  station.connect(0);
  station.path.keepalive(0);
  t.same(
    station.sent().map(({ payload }) => payload.length),
    [32],
  );
  t.match(station.path.pollFacts(), { sentKeepalive: true, sentData: false, sendCounter: 1 });
  station.read(plainRead(udp()));
  station.path.keepalive(0);
  t.equal(station.sent().length, 1, 'the packet alone');
  station.path.pollFacts();
  station.path.keepalive(0);
  station.receive([station.sent()]);
  t.match(station.path.pollFacts(), {
    receivedKeepalive: true,
    receivedData: false,
    receivedOn: 0,
  });
  t.same(station.written(), []);
});

await t.test('keepalives and packets of one turn share the arena', async (t) => {
  const station = new Station({ policy: byPort });
  for (const peer of [0, 1, 2]) station.connect(peer);
  station.path.keepalive(1);
  station.read(plainRead(udp({ destinationPort: 0 })));
  station.path.keepalive(2);
  const lengths = station.sent().map(({ payload }) => payload.length);
  t.same(lengths, [32, 160, 32]);
});

await t.test(
  'a new session is sent with once it is activated, and the old one still received',
  async (t) => {
    const station = new Station();
    station.connect(0);
    station.read(plainRead(udp()));
    const old = station.sent();
    const keys = () => ({ sendKey: bytes(32, 9), receiveKey: bytes(32, 9) });
    station.path.installSession({ peer: 0, localIndex: 1, remoteIndex: 1, ...keys() });
    station.read(plainRead(udp()));
    t.equal(receiverOf(station.sent()[0]), 0);
    station.path.activateSession(0, 1);
    station.read(plainRead(udp()));
    const fresh = station.sent();
    t.equal(receiverOf(fresh[0]), 1);
    while (station.path.pollFacts() !== undefined) continue;
    station.receive([old, fresh]);
    const received = [1, 2, 3].map(() => station.path.pollFacts()?.receivedOn);
    t.same(received, [0, 1, undefined]);
    station.path.dropSession(0, 0);
    station.receive([old]);
    t.same(station.path.drops, { 'unknown-session': 1 });
    station.path.dropSession(0, 1);
    station.read(plainRead(udp()));
    t.equal(station.path.pollWanted(), 0, 'without a session packets wait');
  },
);

await t.test('keys are wiped: the given ones at once, ours with the session', async (t) => {
  const station = new Station();
  const sendKey = bytes(32, 5);
  const receiveKey = bytes(32, 6);
  station.path.installSession({ peer: 3, localIndex: 0x302, remoteIndex: 1, sendKey, receiveKey });
  t.same([sendKey, receiveKey], [new Uint8Array(32), new Uint8Array(32)]);
  const memory = Buffer.from(station.kernel.memory);
  const holds = (key: Uint8Array): boolean => memory.includes(Buffer.from(key));
  t.ok(holds(bytes(32, 5)) && holds(bytes(32, 6)));
  station.path.dropSession(3, 0x302);
  t.notOk(holds(bytes(32, 5)) || holds(bytes(32, 6)));
});

await t.test('a peer that moved is reported, authentic messages alone count', async (t) => {
  const station = new Station();
  station.connect(0);
  station.read(plainRead(udp()), plainRead(udp()));
  const [first, second] = station.sent();
  station.path.pollFacts();
  const elsewhere = address('[2001:db8::7]:99');
  station.receive([[tampered(first)]], elsewhere);
  t.equal(station.path.pollFacts(), undefined);
  station.receive([[first!]], elsewhere);
  t.match(station.path.pollFacts(), { roamedTo: elsewhere, roamedPath: { fd: FD } });
  station.receive([[first!]], address('192.0.2.66:6'));
  t.equal(station.path.pollFacts(), undefined, 'nor do replayed ones');
  station.path.setPath(0, { fd: FD, remote: elsewhere });
  station.receive([[second!]], elsewhere);
  t.equal(station.path.pollFacts()?.roamedTo, undefined);
});

await t.test('a refused packet is answered with ICMP in the name of its destination', async (t) => {
  const station = new Station({ policy: refuseAll });
  station.path.setAddresses([ip('100.64.0.1'), ip('fd77::1')]);
  station.connect(0);
  station.read(plainRead(tcp()), plainRead(tcp(V6)));
  const answers = station.written().map(icmp);
  t.match(answers, [
    { source: '10.0.1.1', destination: '10.0.0.1', error: { type: 'host-unreachable' } },
    { source: 'fd00:1::1', destination: 'fd00::1', error: { type: 'host-unreachable' } },
  ]);
  t.same(station.path.drops, { 'no-route': 2 });
});

await t.test('a refused packet of a peer is answered through the tunnel', async (t) => {
  const sender = new Station();
  sender.connect(0);
  sender.read(plainRead(udp()));
  const station = new Station({ policy: refuseAll });
  station.connect(0);
  const expected = { destination: '10.0.0.1', error: { type: 'administratively-prohibited' } };
  station.receive([sender.sent()]);
  t.same(station.written(), []);
  const [answer] = station.sent().map(packetOf);
  t.match(icmp(answer), { ...expected, source: '10.0.1.1' }, 'without an address of ours');
  station.path.setAddresses([ip('100.64.0.1'), ip('fd77::1')]);
  sender.read(plainRead(udp()));
  station.receive([sender.sent()]);
  const [second] = station.sent().map(packetOf);
  t.match(icmp(second), { ...expected, source: '100.64.0.1' }, 'with one');
});

await t.test('ICMP answers are limited in rate', async (t) => {
  const station = new Station({ policy: refuseAll });
  for (let n = 0; n < 4; n++) station.read(...Array.from({ length: 60 }, () => plainRead(udp())));
  t.equal(station.written().length, 50);
  t.same(station.path.drops, { 'no-route': 240 });
});

await t.test('a packet above the MTU is answered, if it may not be fragmented', async (t) => {
  const station = new Station();
  station.connect(0);
  const payload = bytes(1400);
  station.read(
    plainRead(udp({ payload })),
    plainRead(udp({ ...V6, payload })),
    plainRead(udp({ payload, df: false })),
    superRead(tcp({ payload: bytes(5000) }), 1400),
  );
  t.same(station.sent(), []);
  const answers = station.written().map((packet) => icmp(packet)?.error);
  const tooBig = { type: 'packet-too-big', mtu: 1408 };
  t.same(answers, [tooBig, tooBig, tooBig]);
  t.same(station.path.drops, { oversized: 4 });
  station.path.setMtu(1500);
  station.read(plainRead(udp({ payload })));
  t.equal(station.sent().length, 1);
});

await t.test('packets for the daemon are kept for it, and it sends its own', async (t) => {
  const policy: PacketPolicy = {
    outbound: () => ({ type: 'drop', reason: 'not-from-here' }),
    inbound: () => ({ type: 'local' }),
  };
  const station = new Station({ policy });
  station.connect(5);
  const packet = udp({ destinationPort: 2680 });
  station.path.sendPacket(5, packet);
  station.receive([station.sent()]);
  t.same(station.written(), []);
  t.same(station.path.pollLocal(), { peer: 5, packet });
  t.equal(station.path.pollLocal(), undefined);
  station.read(plainRead(packet));
  t.same(station.path.drops, { 'not-from-here': 1 });
  station.path.writePacket(packet);
  t.same(station.written(), [packet]);
});

await t.test('what waits to be polled has a limit', async (t) => {
  const station = new Station({ policy: { ...forwardAll, inbound: () => ({ type: 'local' }) } });
  station.connect(0);
  for (let n = 0; n < 300; n++) station.path.writePacket(udp());
  for (let n = 0; n < 200; n++) {
    station.receive(Array.from({ length: 8 }, () => [{ payload: bytes(20), tos: 0 }]));
    station.path.sendPacket(0, udp());
    station.path.sendPacket(0, udp());
    station.receive([station.sent()]);
  }
  t.same(station.path.drops, { 'queue-full': 300 - 256 + (1600 - 1024) + (400 - 256) });
});

await t.test('a datagram may come by another way than a batch', async (t) => {
  const station = new Station();
  const path = { fd: -1, remote: address('198.51.100.1:443') };
  station.connect(0, path);
  station.read(plainRead(udp()));
  station.path.inboundDatagrams([station.sent()[0]!.payload], 0, path, NOW);
  t.same(station.written(), [udp()]);
  t.equal(station.path.pollFacts()?.roamedTo, undefined);
});

await t.test('a removed peer leaves nothing behind', async (t) => {
  const station = new Station();
  station.connect(0);
  station.read(plainRead(udp()));
  const sent = station.sent();
  station.path.removePeer(0);
  t.equal(station.path.pollFacts(), undefined);
  station.receive([sent]);
  t.same(station.path.drops, { 'unknown-session': 1 });
  t.equal(station.path.counters(0).txBytes, 0);
  station.connect(0);
  station.read(plainRead(udp()));
  t.equal(station.sent().length, 1);
  t.match(station.path.pollFacts(), { peer: 0, sentData: true });
  t.equal(station.path.pollFacts(), undefined, 'listed once');
});

await t.test('thousands of peers are reported once each', async (t) => {
  const station = new Station();
  for (let peer = 0; peer < 4096; peer++) station.connect(peer);
  let sent = 0;
  for (let peer = 0; peer < 4096; peer++) {
    station.path.keepalive(peer);
    if (peer % 1000 === 999) sent += station.sent().length;
  }
  sent += station.sent().length;
  t.equal(sent, 4096);
  const polled = new Set<number>();
  for (let facts = station.path.pollFacts(); facts; facts = station.path.pollFacts()) {
    polled.add(facts.peer);
  }
  t.equal(polled.size, 4096);
});

await t.test('a caller that is wrong hears of it', async (t) => {
  const { path } = new Station();
  const keys = { sendKey: bytes(32), receiveKey: bytes(32) };
  t.throws(() => path.setPath(4096, undefined), BugError);
  t.throws(
    () => path.installSession({ peer: 1, localIndex: 0, remoteIndex: 0, ...keys }),
    BugError,
  );
  t.throws(
    () =>
      path.installSession({ peer: 0, localIndex: 0, remoteIndex: 0, ...keys, sendKey: bytes(31) }),
    BugError,
  );
  t.throws(() => path.setMtu(100), BugError);
  t.doesNotThrow(() => path.setMtu(LIMITS.mtu), 'whatever a configuration may ask for is possible');
  t.throws(() => path.setPath(0, { fd: 1, remote: REMOTE, channel: 0x5000 }), BugError);
});

await t.test(
  'two stations carry packets over a bad network, WebAssembly to TypeScript',
  async (t) => {
    const random = new SeededRandom(seed);
    const crypto = createNobleCrypto();
    const wasm = createWasm('simd');
    const twin = createTwinKernel();
    const portable = createPortableCipher(crypto.name, crypto.chacha20poly1305, twin.memory);
    const a = new Station(wasm);
    const b = new Station({ kernel: twin, cipher: portable });
    join(a, b);
    let sent = 0;
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      const stream = bytes(300_000, 3);
      const arrived = new Uint8Array(stream.length);
      for (let done = 0; done < stream.length;) {
        const length = Math.min(stream.length - done, 1 + random.below(30_000));
        const payload = stream.slice(done, done + length);
        const packet = tcp({ sequence: done, payload, id: done % 60_000 });
        from.read(superRead(packet, 200 + random.below(1000)), plainRead(udp()));
        done += length;
        const datagrams = from.sent();
        sent += datagrams.length;
        const packets = inBatches(shuffled(random, datagrams), 8).flatMap((trains) => {
          to.receive(trains);
          return to.written();
        });
        for (const packet of packets) {
          const view = new DataView(packet.buffer, packet.byteOffset);
          if (packet[9] === 6) arrived.set(payloadOf(packet), view.getUint32(24));
        }
      }
      t.ok(Buffer.from(arrived).equals(stream), `SEED=${seed}: the stream arrived`);
    }
    const received = a.path.counters(0).rxPackets + b.path.counters(0).rxPackets;
    t.equal(received, sent, 'each message counts once');
    const { drops } = a.path;
    t.ok((drops['replayed'] ?? 0) > 0 && (drops['not-authentic'] ?? 0) > 0, `SEED=${seed}`);
  },
);

/** Address and port in each direction, for a session. */
const rewriteAll: PacketPolicy = {
  outbound: () => ({
    type: 'forward',
    peer: 0,
    rewrite: { session: 7, source: Uint8Array.of(100, 64, 0, 2), sourcePort: 9 },
  }),
  inbound: (peer) => ({
    type: 'forward',
    peer,
    rewrite: { session: 8, destination: Uint8Array.of(10, 0, 0, 7), isReply: true },
  }),
};

for (const [title, policy] of [
  ['a steady stream', forwardAll],
  ['a stream that is rewritten', rewriteAll],
] as const) {
  await t.test(`${title} allocates nothing per packet`, async (t) => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const { kernel, cipher } = createWasm('simd');
    const station = new Station({ kernel, cipher, policy });
    station.connect(0);
    const segment = { payload: bytes(60_000) };
    const reads = [0, 1, 2, 3].map((i) =>
      superRead(tcp({ ...segment, sequence: i * 60_000 }), 1360),
    );
    const batch = (): number => {
      station.read(...reads);
      const sends = station.path.takeSends();
      loopBack(station, sends);
      station.path.inbound(sends, FD, NOW);
      const writes = station.path.takeWrites();
      while (station.path.pollFacts() !== undefined) continue;
      while (station.path.pollFlowFacts() !== undefined) continue;
      return writes;
    };
    const writes = Array.from({ length: 200 }, batch);
    t.same(new Set(writes), new Set([4]), 'each super-packet comes out whole');
    const packets = station.path.counters(0).rxPackets;
    let least = Infinity;
    for (let trial = 0; trial < 5; trial++) {
      collect();
      const before = process.memoryUsage().heapUsed;
      const first = station.path.counters(0).rxPackets;
      for (let n = 0; n < 50; n++) batch();
      const grown = process.memoryUsage().heapUsed - before;
      least = Math.min(least, Math.max(0, grown) / (station.path.counters(0).rxPackets - first));
    }
    t.ok(packets > 30_000);
    t.ok(least < 12, `${least.toFixed(1)} bytes a packet, facts and test included`);
  });
}

function ip(text: string): IpAddress {
  const parsed = parseIpAddress(text);
  if (!parsed.ok) throw new Error(text);
  return parsed.value;
}

/** What an ICMP error packet says. */
function icmp(packet: Uint8Array | undefined) {
  const read = new IpPacket();
  if (packet === undefined || read.read(packet, 0, packet.length) !== undefined) return undefined;
  const { source, destination } = read;
  return { source, destination, error: readIcmpError(read)?.error };
}

function receiverOf(datagram: Datagram | undefined): number | undefined {
  const payload = datagram?.payload;
  return payload && new DataView(payload.buffer, payload.byteOffset).getUint32(4, true);
}

function tampered(datagram: Datagram | undefined): Datagram {
  const payload = datagram?.payload ?? new Uint8Array(0);
  return { payload: payload.with(30, payload[30]! ^ 1), tos: 0 };
}

/** Sessions of peer 0 in both directions, with other keys and indices on each side. */
function join(a: Station, b: Station): void {
  const sides = [
    { station: a, localIndex: 2, remoteIndex: 3, send: 1, receive: 2 },
    { station: b, localIndex: 3, remoteIndex: 2, send: 2, receive: 1 },
  ];
  for (const { station, localIndex, remoteIndex, send, receive } of sides) {
    const keys = { sendKey: bytes(32, send), receiveKey: bytes(32, receive) };
    station.path.installSession({ peer: 0, localIndex, remoteIndex, ...keys });
    station.path.setPath(0, { fd: FD, remote: REMOTE });
    station.path.activateSession(0, localIndex);
  }
}

/** Every datagram at least once, some twice, some damaged besides, in trains in another order. */
function shuffled(random: SeededRandom, datagrams: readonly Datagram[]): Datagram[][] {
  const trains = datagrams.map((datagram) => [datagram]);
  for (const datagram of datagrams) {
    if (random.below(10) === 0) trains.push([datagram]);
    if (random.below(10) === 0) trains.push([tampered(datagram)]);
  }
  for (let i = trains.length - 1; i > 0; i--) {
    const j = Math.max(0, i - random.below(6));
    [trains[i], trains[j]] = [trains[j]!, trains[i]!];
  }
  return trains;
}

function inBatches<T>(items: readonly T[], size: number): T[][] {
  const count = Math.ceil(items.length / size);
  return Array.from({ length: count }, (_, i) => items.slice(i * size, (i + 1) * size));
}

/** Turns the send records into datagram records, in place: what was sent is received. */
function loopBack(station: Station, sends: number): void {
  const { view } = station;
  for (let i = 0; i < sends; i++) {
    const send = SENDS + i * SEND_SIZE;
    const datagram = DATAGRAMS + i * DATAGRAM_SIZE;
    view.setUint32(datagram + DATAGRAM_OFFSET, view.getUint32(send + SEND_OFFSET, true), true);
    view.setUint32(datagram + DATAGRAM_LENGTH, view.getUint32(send + SEND_LENGTH, true), true);
    view.setUint32(datagram + DATAGRAM_SEGMENT, view.getUint32(send + SEND_SEGMENT, true), true);
  }
}
