import t, { type Test } from 'tap';
import type { FastPathKernel } from '../../../core/fastpath/kernel.ts';
import {
  FLOWS,
  FLOW_GENERATION,
  FLOW_SIZE,
  MOST_FLOWS,
  PEERS,
  PEER_PATH,
  PEER_SIZE,
  SESSIONS,
  SESSION_SEND_COUNTER,
} from '../../../core/fastpath/layout.ts';
import type { Flow, PacketPolicy } from '../../../core/fastpath/packet-path.ts';
import { SeededRandom } from '../wireguard/network.ts';
import {
  ACK,
  bytes,
  CWR,
  ECE,
  FIN,
  headersOf,
  joined,
  other,
  partialRead,
  payloadOf,
  plainRead,
  problemOf,
  PSH,
  superRead,
  SYN,
  tcp,
  udp,
  V6,
} from './packets.ts';
import {
  address,
  forwardAll,
  kernels,
  packetOf,
  plaintextOf,
  REMOTE,
  Station,
  type Datagram,
} from './station.ts';

const TIMESTAMPS = Uint8Array.of(1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8);
const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
t.comment(`SEED=${seed}`);

for (const [name, create] of Object.entries(kernels)) {
  await t.test(name, async (t) => {
    await splitting(t, create);
    await sending(t, create);
    await receiving(t, create);
    await coalescing(t, create);
    await flows(t, create);
    await hostility(t, create);
  });
}

type Create = () => FastPathKernel;

async function splitting(t: Test, create: Create): Promise<void> {
  for (const [family, addresses] of [['IPv4', {}] as const, ['IPv6', V6] as const]) {
    await t.test(`splits a TCP super-packet over ${family}`, async (t) => {
      const station = connected(create);
      const payload = bytes(3000);
      const flags = ACK | PSH | FIN | CWR | ECE;
      const whole = tcp({ ...addresses, payload, flags, options: TIMESTAMPS, id: 0xffff, tos: 2 });
      station.read(superRead(whole, 1300, 0x80));
      const sends = station.sends();
      t.equal(sends.length, 1, 'one send');
      const packets = (sends[0]?.datagrams ?? []).map(packetOf);
      t.same(packets.map(problemOf), [undefined, undefined, undefined]);
      t.equal(hex(joined(...packets.map(payloadOf))), hex(payload));
      t.same(packets.map(tcpHeader), [
        { sequence: 0xffff_f000, flags: ACK | CWR | ECE },
        { sequence: 0xffff_f514, flags: ACK | ECE },
        { sequence: 0xffff_fa28, flags: ACK | ECE | PSH | FIN },
      ]);
      if (family === 'IPv4') t.same(packets.map(identification), [0xffff, 0, 1]);
      t.same(
        sends[0]?.datagrams.map((datagram) => datagram.tos),
        [2, 2, 2],
        'outer ECN',
      );
    });

    await t.test(`splits a UDP super-packet over ${family}`, async (t) => {
      const station = connected(create);
      const payload = bytes(1001);
      station.read(superRead(udp({ ...addresses, payload, id: 9 }), 500));
      const packets = station.sent().map(packetOf);
      t.same(packets.map(problemOf), [undefined, undefined, undefined]);
      t.same(
        packets.map((packet) => payloadOf(packet).length),
        [500, 500, 1],
      );
      t.equal(hex(joined(...packets.map(payloadOf))), hex(payload));
    });

    await t.test(`completes checksums over ${family}`, async (t) => {
      const station = connected(create);
      const packets = [
        tcp({ ...addresses, payload: bytes(77) }),
        udp({ ...addresses, payload: bytes(78) }),
        // The sum of this one is 0xffff, so that its checksum would be 0.
        udpWithZeroChecksum(addresses),
      ];
      station.read(...packets.map(partialRead));
      t.same(station.sent().map(packetOf), packets);
    });
  }

  await t.test('splits at random sizes as a slow routine would', async (t) => {
    const random = new SeededRandom(seed);
    const station = connected(create);
    for (let round = 0; round < 40; round++) {
      const size = 100 + random.below(1200);
      const payload = bytes(1 + random.below(40_000), round);
      const options = TIMESTAMPS.slice(0, random.below(4) * 4);
      const addresses = random.below(2) === 0 ? {} : V6;
      station.read(superRead(tcp({ ...addresses, payload, options, id: round * 1000 }), size));
      const packets = station.sent().map(packetOf);
      t.equal(packets.length, Math.ceil(payload.length / size), `SEED=${seed} round ${round}`);
      t.same([...new Set(packets.map(problemOf))], [undefined], `SEED=${seed} round ${round}`);
      t.equal(hex(joined(...packets.map(payloadOf))), hex(payload));
    }
  });

  await t.test('numbers the messages and addresses them to the session', async (t) => {
    const station = connected(create);
    station.read(superRead(tcp({ payload: bytes(3000) }), 1000));
    station.read(plainRead(udp()));
    const headers = station.sent().map(({ payload }) => messageHeader(payload));
    const expected = [0n, 1n, 2n, 3n].map((counter) => ({ type: 4, receiver: 0, counter }));
    t.same(headers, expected);
    t.same(station.path.counters(0), {
      txBytes: 2 * (32 + 1040) + 32 + 1040 + (32 + 128),
      rxBytes: 0,
      txPackets: 4,
      rxPackets: 0,
    });
  });

  await t.test('pads with zeros to 16 bytes, but not above the MTU', async (t) => {
    const station = connected(create, { mtu: 1420 });
    const lengths = [28, 32, 33, 1408, 1409, 1420];
    station.read(...lengths.map((length) => plainRead(udp({ payload: bytes(length - 28) }))));
    const plaintexts = station.sent().map(plaintextOf);
    t.same(
      plaintexts.map((plaintext) => plaintext.length),
      [32, 32, 48, 1408, 1420, 1420],
    );
    for (const [i, plaintext] of plaintexts.entries()) {
      t.ok(plaintext.subarray(lengths[i]).every((byte) => byte === 0));
    }
  });

  await t.test('clamps the MSS of SYN packets, also at an odd offset', async (t) => {
    const station = connected(create);
    const aligned = Uint8Array.of(2, 4, 0x05, 0xb4, 1, 1, 1, 0);
    const odd = Uint8Array.of(1, 2, 4, 0x05, 0xb4, 0, 0, 0);
    const small = Uint8Array.of(2, 4, 0x02, 0x00);
    const none = new Uint8Array(0);
    const syn = { flags: SYN, payload: none };
    const packets = [
      tcp({ ...syn, options: aligned }),
      tcp({ ...syn, options: odd }),
      tcp({ ...syn, options: small }),
      tcp({ ...syn, ...V6, options: odd, flags: SYN | ACK }),
      tcp({ flags: ACK, payload: none, options: aligned }),
    ];
    for (const read of [plainRead, partialRead]) {
      station.read(...packets.map(read));
      const clamped = station.sent().map(packetOf);
      t.same(
        clamped.map(problemOf),
        packets.map(() => undefined),
      );
      t.same(
        clamped.map((packet) => payloadlessMss(packet)),
        [1368, 1368, 512, 1348, 1460],
      );
    }
  });
}

async function sending(t: Test, create: Create): Promise<void> {
  await t.test('joins packets of several reads into one send while they are equal', async (t) => {
    const station = connected(create);
    const small = plainRead(udp({ payload: bytes(20) }));
    const large = plainRead(udp({ payload: bytes(200) }));
    station.read(small, small, small, large, large, small, small);
    const lengths = station.sends().map((send) => send.datagrams.map((d) => d.payload.length));
    t.same(lengths, [[80, 80, 80], [272, 272, 80], [80]]);
  });

  await t.test('starts a send at 64 datagrams, another path and another ECN field', async (t) => {
    const policy: PacketPolicy = {
      ...forwardAll,
      outbound: (flow) => ({ type: 'forward', peer: flow.destinationPort === 1 ? 1 : 0 }),
    };
    const station = connected(create, { policy });
    station.connect(1);
    station.read(...Array.from({ length: 64 }, () => plainRead(udp())));
    station.read(plainRead(udp()), plainRead(udp({ tos: 3 })));
    station.read(plainRead(udp({ destinationPort: 1, tos: 3 })));
    const sends = station.sends();
    t.same(
      sends.map((send) => send.datagrams.length),
      [64, 1, 1, 1],
    );
    t.same(
      sends.map((send) => send.datagrams[0]?.tos),
      [0, 0, 3, 3],
    );
    const [first, , , last] = sends;
    t.equal(first?.path, PEERS + PEER_PATH);
    t.equal(last?.path, PEERS + PEER_SIZE + PEER_PATH);
  });

  await t.test('keeps a send within 65,000 bytes', async (t) => {
    const station = connected(create);
    const whole = superRead(tcp({ payload: bytes(60_000) }), 1368);
    station.read(whole, whole);
    const sends = station.sends();
    const lengths = sends.map((send) => send.datagrams.reduce((n, d) => n + d.payload.length, 0));
    t.ok(Math.max(...lengths) <= 65_000 && Math.max(...lengths) > 60_000, lengths.join());
    t.equal(sends.flatMap((send) => send.datagrams).length, 2 * Math.ceil(60_000 / 1368));
  });

  await t.test('wraps messages in channel data, and takes them out of it', async (t) => {
    const station = connected(create);
    station.connect(0, { channel: 0x4001 });
    const packet = udp();
    station.read(plainRead(packet), plainRead(packet));
    const sends = station.sends();
    t.equal(sends.length, 1);
    const [first] = sends[0]?.datagrams ?? [];
    t.same(first?.payload.subarray(0, 4), Uint8Array.of(0x40, 0x01, 0, 160));
    station.receive(sends.map((send) => send.datagrams));
    t.equal(station.writes().length, 1);
    const facts = station.path.pollFacts();
    t.equal(facts?.receivedData, true);
    t.equal(facts?.roamedTo, undefined, 'that is its path');
  });

  await t.test('says where the last message of a batch came from', async (t) => {
    const station = connected(create);
    station.read(...Array.from({ length: 4 }, () => plainRead(udp())));
    const [first, second, third, fourth] = station.sent();
    while (station.path.pollFacts() !== undefined) continue;
    const elsewhere = address('192.0.2.9:9');
    station.receive([[first!], [second!]], [elsewhere, REMOTE]);
    t.match(station.path.pollFacts(), { receivedData: true, roamedTo: undefined });
    station.receive([[third!], [fourth!]], [REMOTE, elsewhere]);
    t.match(station.path.pollFacts(), { receivedData: true, roamedTo: elsewhere });
  });

  await t.test('uses no counter from REJECT_AFTER_MESSAGES on', async (t) => {
    const station = connected(create);
    const counter = SESSIONS + SESSION_SEND_COUNTER;
    station.view.setBigUint64(counter, 2n ** 64n - 2n ** 13n - 1n - 2n, true);
    station.read(superRead(tcp({ payload: bytes(3000) }), 1000));
    t.same(station.sent(), [], 'three messages do not fit');
    t.equal(station.path.pollWanted(), 0);
    station.path.dropStaged(0);
    station.read(plainRead(udp()), plainRead(udp()), plainRead(udp()));
    const counters = station.sent().map(({ payload }) => messageHeader(payload).counter);
    t.same(counters, [2n ** 64n - 2n ** 13n - 3n, 2n ** 64n - 2n ** 13n - 2n]);
    t.equal(station.path.pollWanted(), 0);
  });
}

async function receiving(t: Test, create: Create): Promise<void> {
  await t.test('takes the padding away', async (t) => {
    const station = connected(create);
    const packets = [udp({ payload: bytes(1) }), udp({ ...V6, payload: bytes(2) })];
    station.read(...packets.map(plainRead));
    station.receive(station.sends().map((send) => send.datagrams));
    t.same(station.written(), packets);
  });

  await t.test('remembers counters as the Linux kernel does (selftest/counter.c)', async (t) => {
    const limit = 8128 + 1;
    const reject = 2 ** 13 + 1;
    const cases: (readonly [counter: bigint, isFresh: boolean])[][] = [
      [
        [0n, true],
        [1n, true],
        [1n, false],
        [9n, true],
        [8n, true],
        [7n, true],
        [7n, false],
        [BigInt(limit), true],
        [BigInt(limit - 1), true],
        [BigInt(limit - 1), false],
        [BigInt(limit - 2), true],
        [2n, true],
        [2n, false],
        [BigInt(limit + 16), true],
        [3n, false],
        [BigInt(limit + 16), false],
        [BigInt(limit * 4), true],
        [BigInt(limit * 4 - (limit - 1)), true],
        [10n, false],
        [BigInt(limit * 4 - limit), false],
        [BigInt(limit * 4 - (limit + 1)), false],
        [BigInt(limit * 4 - (limit - 2)), true],
        [BigInt(limit * 4 + 1 - limit), false],
        [0n, false],
        [2n ** 64n - BigInt(reject), false],
        [2n ** 64n - BigInt(reject) - 1n, true],
        [2n ** 64n - BigInt(reject), false],
        [2n ** 64n - BigInt(reject) - 1n, false],
        [2n ** 64n - BigInt(reject) - 2n, true],
        [2n ** 64n - BigInt(reject) + 1n, false],
        [2n ** 64n - 1n, false],
        [0n, false],
      ],
      Array.from({ length: limit }, (_, i) => [BigInt(i + 1), true] as const),
      Array.from({ length: limit - 1 }, (_, i) => [BigInt(limit - 1 - i), true] as const),
      [
        [BigInt(limit - 1), true],
        [0n, true],
        [BigInt(limit), true],
        [0n, false],
        [1n, true],
      ],
    ];
    for (const [number, steps] of cases.entries()) {
      const station = connected(create);
      const [template] = keepalives(station);
      const wrong = steps.filter(([counter, isFresh]) => {
        const before = station.path.counters(0).rxPackets;
        station.receive([[resealed(station, template, counter)]]);
        return station.path.counters(0).rxPackets - before !== (isFresh ? 1 : 0);
      });
      t.same(wrong, [], `sequence ${number}`);
    }
  });

  await t.test('drops what is forged, replayed or for an unknown session', async (t) => {
    const station = connected(create);
    station.read(plainRead(udp()));
    const payload = station.sent()[0]!.payload;
    const forged = payload.with(20, payload[20]! ^ 1);
    const trains = [payload, forged, payload.with(5, 9), payload.with(7, 0xff), payload];
    station.receive(trains.map((payload) => [{ payload, tos: 0 }]));
    t.equal(station.written().length, 1);
    t.same(station.path.drops, { 'unknown-session': 2, 'not-authentic': 1, replayed: 1 });
  });

  await t.test('combines ECN fields after RFC 6040 §4.2', async (t) => {
    const [notEct, ect1, ect0, ce] = [0, 1, 2, 3];
    const table = [
      { inner: notEct, outer: [notEct, notEct, notEct, undefined] },
      { inner: ect1, outer: [ect1, ect1, ect1, ce] },
      { inner: ect0, outer: [ect0, ect1, ect0, ce] },
      { inner: ce, outer: [ce, ce, ce, ce] },
    ];
    for (const addresses of [{}, V6]) {
      const station = connected(create);
      for (const { inner, outer } of table) {
        for (const [tos, expected] of outer.entries()) {
          station.read(plainRead(udp({ ...addresses, tos: 0xb8 | inner })));
          station.receive([station.sent().map((datagram) => ({ ...datagram, tos }))]);
          const [packet] = station.written();
          const title = `inner ${inner}, outer ${tos}`;
          if (packet === undefined) {
            t.equal(expected, undefined, title);
          } else {
            t.equal(trafficClass(packet), 0xb8 | (expected ?? -1), title);
            t.equal(problemOf(packet), undefined, title);
          }
        }
      }
      t.same(station.path.drops, { 'congestion-mark-lost': 1 });
    }
  });
}

async function coalescing(t: Test, create: Create): Promise<void> {
  for (const [family, addresses] of [['IPv4', {}] as const, ['IPv6', V6] as const]) {
    await t.test(`joins again what was split, over ${family}`, async (t) => {
      const random = new SeededRandom(seed);
      for (let round = 0; round < 20; round++) {
        const station = connected(create);
        const options = TIMESTAMPS.slice(0, random.below(4) * 4);
        const size = 300 + random.below(1000);
        const payload = bytes(1 + random.below(Math.min(62_000, size * 60)), round);
        const whole =
          round % 2 === 0
            ? superRead(tcp({ ...addresses, options, payload, flags: ACK | PSH, df: false }), size)
            : superRead(udp({ ...addresses, payload, df: false }), size);
        station.read(whole);
        station.receive(station.sends().map((send) => send.datagrams));
        const writes = station.writes();
        t.equal(writes.length, 1, `SEED=${seed} round ${round}`);
        const isSplit = payload.length > size;
        const { vnet, packet } = writes[0] ?? {};
        const expected = isSplit ? whole.subarray(10) : undefined;
        if (expected === undefined) t.equal(problemOf(packet ?? new Uint8Array()), undefined);
        else t.equal(hex(packet), hex(expected), `SEED=${seed} round ${round}`);
        t.equal(vnet?.gso, isSplit ? whole[1] : 0);
        t.equal(vnet?.size, isSplit ? size : 0);
        t.equal(vnet?.flags, isSplit ? 1 : 0);
      }
    });
  }

  await t.test('joins interleaved flows, each in order', async (t) => {
    const station = connected(create);
    const stream = (port: number): Uint8Array[] =>
      [0, 1, 2].map((i) =>
        tcp({ sourcePort: port, sequence: i * 100, id: i, payload: bytes(100, port + i) }),
      );
    const [a, b] = [stream(1), stream(2)];
    const mixed = a.flatMap((packet, i) => [packet, b[i] ?? packet]);
    station.read(...mixed.map(plainRead));
    station.receive(station.sends().map((send) => send.datagrams));
    const payloads = station.written().map(payloadOf);
    t.same(payloads, [joined(...a.map(payloadOf)), joined(...b.map(payloadOf))]);
  });

  const first = { sequence: 0, id: 5, payload: bytes(100) };
  const second = { sequence: 100, id: 6, payload: bytes(100) };
  const apart: Record<string, [Uint8Array, Uint8Array]> = {
    'a gap in the sequence': [tcp(first), tcp({ ...second, sequence: 101 })],
    'another acknowledgement': [tcp(first), tcp({ ...second, acknowledgement: 8 })],
    'another window': [tcp(first), tcp({ ...second, window: 1 })],
    'options that differ': [
      tcp({ ...first, options: TIMESTAMPS }),
      tcp({ ...second, options: TIMESTAMPS.with(11, 9) }),
    ],
    'options that one lacks': [tcp(first), tcp({ ...second, options: TIMESTAMPS })],
    'a FIN': [tcp(first), tcp({ ...second, flags: ACK | FIN })],
    'a PSH before': [tcp({ ...first, flags: ACK | PSH }), tcp(second)],
    'a larger segment': [tcp(first), tcp({ ...second, payload: bytes(101) })],
    'no payload': [tcp(first), tcp({ ...second, payload: new Uint8Array(0) })],
    'another time to live': [tcp(first), tcp({ ...second, ttl: 63 })],
    'another type of service': [tcp(first), tcp({ ...second, tos: 4 })],
    'an identification out of order': [
      tcp({ ...first, df: false }),
      tcp({ ...second, df: false, id: 5 }),
    ],
    'another hop limit': [tcp({ ...V6, ...first }), tcp({ ...V6, ...second, ttl: 63 })],
    'another traffic class': [tcp({ ...V6, ...first }), tcp({ ...V6, ...second, tos: 4 })],
    'a checksum that is wrong': [tcp(first), corrupted(tcp(second))],
    'a datagram after a shorter one': [
      udp({ id: 1, payload: bytes(10) }),
      udp({ id: 2, payload: bytes(20) }),
    ],
    'another flow': [udp({ sourcePort: 1 }), udp({ sourcePort: 2 })],
    fragments: [fragment(udp()), fragment(udp())],
  };
  await t.test('leaves apart', async (t) => {
    for (const [why, packets] of Object.entries(apart)) {
      const station = connected(create);
      station.read(...packets.map(plainRead));
      station.receive(station.sends().map((send) => send.datagrams));
      t.same(station.written(), packets, why);
    }
  });

  await t.test('joins nothing that the device does not split', async (t) => {
    const station = connected(create);
    const packets = [tcp(first), tcp(second), udp({ id: 1 }), udp({ id: 2 })];
    station.path.setOffloads({ tcp: false, udp: false });
    station.read(...packets.map(plainRead));
    station.receive(station.sends().map((send) => send.datagrams));
    t.same(station.written(), packets);
  });

  await t.test(
    'drops a packet in the middle of a train and joins no packets across it',
    async (t) => {
      const policy: PacketPolicy = {
        ...forwardAll,
        inbound: (peer, flow) =>
          flow.destinationPort === 666
            ? { type: 'drop', reason: 'filtered' }
            : { type: 'forward', peer },
      };
      const station = connected(create, { policy });
      const bad = tcp({ ...second, destinationPort: 666 });
      station.read(...[tcp(first), bad, tcp(second)].map(plainRead));
      station.receive(station.sends().map((send) => send.datagrams));
      t.same(station.written().map(payloadOf), [joined(first.payload, second.payload)]);
      t.same(station.path.drops, { filtered: 1 });
    },
  );
}

async function flows(t: Test, create: Create): Promise<void> {
  await t.test('asks once about each flow of each direction', async (t) => {
    const asked: Flow[] = [];
    const policy: PacketPolicy = {
      outbound: (flow) => (asked.push(flow), { type: 'forward', peer: 0 }),
      inbound: (peer, flow) => (asked.push(flow), { type: 'forward', peer }),
    };
    const station = connected(create, { policy });
    const reads = [tcp(), tcp({ id: 3 }), udp(), tcp(V6), other(1, ping(77))].map(plainRead);
    station.read(...reads, ...reads);
    t.equal(asked.length, 4);
    t.match(asked[0], {
      family: 4,
      protocol: 6,
      source: Uint8Array.of(10, 0, 0, 1),
      destination: Uint8Array.of(10, 0, 1, 1),
      sourcePort: 40_000,
      destinationPort: 443,
      isFragment: false,
    });
    t.match(asked[2], { family: 6, protocol: 6, sourcePort: 40_000, destinationPort: 443 });
    t.equal(asked[2]?.source.length, 16);
    t.match(asked[3], { protocol: 1, sourcePort: 77, destinationPort: 8 << 8 });
    station.receive(station.sends().map((send) => send.datagrams));
    t.equal(asked.length, 8, 'inbound flows are others');
    station.path.invalidateFlows();
    station.read(...reads);
    t.equal(asked.length, 12, 'asked again');
  });

  await t.test('gives all fragments of a packet one flow without ports', async (t) => {
    const asked: Flow[] = [];
    const station = connected(create, { policy: recording(asked) });
    const first = fragment(tcp());
    station.read(plainRead(first), plainRead(laterFragment(tcp(), 20)), plainRead(tcp()));
    t.same(
      asked.map(({ isFragment, sourcePort }) => ({ isFragment, sourcePort })),
      [
        { isFragment: true, sourcePort: 0 },
        { isFragment: false, sourcePort: 40_000 },
      ],
    );
  });

  await t.test('shows the ports of UDP in the first of its fragments alone', async (t) => {
    const first = { isFragment: true, protocol: 17, sourcePort: 5000, destinationPort: 6000 };
    const later = { isFragment: true, protocol: 17, sourcePort: 0, destinationPort: 0 };
    for (const reads of [
      [fragment(udp()), laterFragment(udp(), 20), laterFragment(udp(), 1)],
      [0x0001, 20 << 3, (1 << 3) | 1].map((position) => ipv6Fragment(udp(V6), position)),
    ]) {
      const asked: Flow[] = [];
      const station = connected(create, { policy: recording(asked) });
      station.read(...reads.map(plainRead));
      t.match(asked, [first, later]);
      t.equal(asked.length, 2);
    }
  });

  await t.test('takes a first fragment that hides its ports for malformed', async (t) => {
    const asked: Flow[] = [];
    const station = connected(create, { policy: recording(asked) });
    const tiny = ipv6Fragment(udp(V6).subarray(0, 42), 1);
    station.read(plainRead(tiny));
    t.equal(asked.length, 0);
    t.same(station.path.drops, { 'malformed-packet': 1 });
  });

  await t.test('shows what follows the fragment header, whatever comes behind', async (t) => {
    const asked: Flow[] = [];
    const station = connected(create, { policy: recording(asked) });
    const options = Uint8Array.of(17, 0, 1, 4, 0, 0, 0, 0);
    const packet = joined(udp(V6).subarray(0, 40), options, udp(V6).subarray(40)).with(6, 60);
    station.read(plainRead(ipv6Fragment(packet, 1)));
    t.match(asked, [{ isFragment: true, protocol: 60, destinationPort: 0 }]);
  });

  await t.test('finds the ports behind IPv6 extension headers', async (t) => {
    const asked: Flow[] = [];
    const policy: PacketPolicy = {
      ...forwardAll,
      outbound: (flow) => (asked.push(flow), { type: 'forward', peer: 0 }),
    };
    const station = connected(create, { policy });
    const inner = udp(V6);
    const header = inner.slice(0, 40);
    header[6] = 0;
    const extensions = joined(
      Uint8Array.of(60, 0, 1, 4, 0, 0, 0, 0),
      Uint8Array.of(17, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
    );
    const packet = joined(header, extensions, inner.subarray(40));
    new DataView(packet.buffer).setUint16(4, packet.length - 40);
    station.read(plainRead(packet));
    t.match(asked, [{ protocol: 17, sourcePort: 5000, destinationPort: 6000, isFragment: false }]);
  });

  await t.test('stays right when there are more flows than rows', async (t) => {
    let asked = 0;
    const policy: PacketPolicy = {
      ...forwardAll,
      outbound: (flow) => (asked++, { type: 'forward', peer: flow.sourcePort & 1 }),
    };
    const station = connected(create, { policy });
    station.connect(1);
    let wrong = 0;
    const count = MOST_FLOWS * 2;
    for (let flow = 0; flow < count; flow += 64) {
      const ports = Array.from({ length: 64 }, (_, i) => flow + i);
      station.read(...ports.map((port) => plainRead(smallUdp(port))));
      for (const { payload } of station.sent()) {
        const port = (payload[16 + 20] ?? 0) * 256 + (payload[16 + 21] ?? 0);
        if (messageHeader(payload).receiver !== (port & 1) << 8) wrong++;
      }
    }
    t.equal(wrong, 0);
    t.equal(asked, count);
    let used = 0;
    for (let row = 0; row < MOST_FLOWS; row++) {
      if (station.u32(FLOWS + row * FLOW_SIZE + FLOW_GENERATION) !== 0) used++;
    }
    t.ok(used > MOST_FLOWS * 0.9, `flows spread over the table: ${used} rows used`);
    t.equal(station.path.counters(0).txPackets + station.path.counters(1).txPackets, count);
  });
}

async function hostility(t: Test, create: Create): Promise<void> {
  await t.test('counts packets that are cut off anywhere', async (t) => {
    const station = connected(create);
    const extended = tcp({ ...V6, options: TIMESTAMPS });
    extended[6] = 44;
    for (const packet of [tcp(), tcp(V6), udp(), extended]) {
      for (let length = 0; length < packet.length; length++) {
        station.read(plainRead(packet).subarray(0, 10 + length));
      }
    }
    const total = [tcp(), tcp(V6), udp(), extended].reduce((sum, { length }) => sum + length, 0);
    t.same(station.sent(), []);
    t.same(station.path.drops, { 'malformed-packet': total });
  });

  await t.test('counts virtio-net headers that contradict the packet', async (t) => {
    const station = connected(create);
    const large = superRead(tcp({ payload: bytes(3000) }), 1000);
    const wrong: Uint8Array[] = [
      large.with(1, 3), // UFO
      large.with(1, 4), // TCPv6
      large.with(1, 5), // UDP
      large.with(0, 0), // no checksum to complete
      large.with(4, 0).with(5, 0), // segments of nothing
      large.with(6, 21),
      large.with(8, 6),
      large.with(10 + 20 + 12, 0x40), // TCP header of 16 bytes
      superRead(udp(), 100).with(1, 1),
      superRead(tcp({ ...V6, payload: bytes(3000) }), 1000).with(1, 1),
      partialRead(udp()).with(6, 19),
      partialRead(udp()).with(8, 200),
      partialRead(udp()).with(7, 0xff),
      new Uint8Array(0),
      new Uint8Array(9),
    ];
    station.read(...wrong);
    t.same(station.sent(), []);
    t.same(station.path.drops, { 'malformed-packet': wrong.length });
  });

  await t.test('takes random reads and datagrams without a throw', async (t) => {
    const random = new SeededRandom(seed);
    const station = connected(create);
    const good = [superRead(tcp({ payload: bytes(5000) }), 700), partialRead(udp(V6))];
    for (let round = 0; round < 400; round++) {
      const reads = Array.from({ length: 8 }, () => mutated(random, good));
      station.read(...reads);
      const datagrams = station.sent();
      const bad = datagrams.map(({ payload, tos }) => ({
        payload: mutated(random, [payload]),
        tos,
      }));
      const noise = new Uint8Array(random.below(100));
      random.fill(noise);
      station.receive([...bad.slice(0, 6).map((one) => [one]), [{ payload: noise, tos: 3 }]]);
      station.writes();
      while (station.path.pollDatagram() !== undefined) continue;
    }
    t.ok((station.path.drops['malformed-packet'] ?? 0) > 0, `SEED=${seed}`);
    t.ok((station.path.drops['not-authentic'] ?? 0) > 0, `SEED=${seed}`);
  });

  await t.test('survives a batch of more segments than there is room for', async (t) => {
    const station = connected(create);
    const tiny = superRead(tcp({ payload: bytes(60_000) }), 8);
    station.read(tiny, plainRead(udp()));
    t.equal(station.sent().length, 1, 'only the small packet');
    t.same(station.path.drops, { 'arena-full': 1 });
  });

  await t.test('lists what is no transport message for the daemon', async (t) => {
    const station = connected(create);
    const stun = bytes(28).with(0, 0);
    const initiation = new Uint8Array(148).with(0, 1);
    const short = new Uint8Array(31).with(0, 4);
    station.receive([
      [{ payload: stun, tos: 0 }],
      [{ payload: initiation, tos: 0 }],
      [{ payload: short, tos: 0 }],
    ]);
    const polled = [0, 1, 2].map(() => station.path.pollDatagram());
    t.same(
      polled.map((datagram) => datagram?.payload),
      [stun, initiation, short],
    );
    t.match(polled[0], { from: '192.0.2.1:51820', path: { fd: 7, remote: '192.0.2.1:51820' } });
    t.equal(station.path.pollDatagram(), undefined);
  });

  await t.test('takes no session of a peer that does not exist', async (t) => {
    const station = connected(create);
    const payload = new Uint8Array(64).with(0, 4).fill(0xff, 4, 8);
    station.receive([[{ payload, tos: 0 }]], address('198.51.100.9:9'));
    t.same(station.path.drops, { 'unknown-session': 1 });
  });
}

function connected(
  create: Create,
  options: { readonly policy?: PacketPolicy; readonly mtu?: number } = {},
): Station {
  const station = new Station({ kernel: create(), ...options });
  station.connect(0);
  while (station.path.pollFacts() !== undefined) continue;
  return station;
}

function keepalives(station: Station): Datagram[] {
  station.path.keepalive(0);
  return station.sent();
}

/** The empty message with another counter and the right tag for it. */
function resealed(station: Station, template: Datagram | undefined, counter: bigint): Datagram {
  const at = SESSIONS + SESSION_SEND_COUNTER;
  if (template === undefined || counter >= 2n ** 64n - 2n ** 13n - 1n) {
    // No honest sender makes it: the tag is that of a transparent cipher.
    return forgedKeepalive(counter);
  }
  station.view.setBigUint64(at, counter, true);
  while (station.path.pollFacts() !== undefined) continue;
  return keepalives(station)[0] ?? template;
}

function forgedKeepalive(counter: bigint): Datagram {
  const payload = new Uint8Array(32).with(0, 4);
  const view = new DataView(payload.buffer);
  view.setBigUint64(8, counter, true);
  let hash = 0x811c9dc5;
  for (const byte of joined(bytes(32, 0), payload.subarray(8, 16))) {
    hash = Math.imul(hash ^ byte, 0x01000193);
  }
  view.setUint32(16, hash >>> 0, true);
  return { payload, tos: 0 };
}

function messageHeader(payload: Uint8Array): { type: number; receiver: number; counter: bigint } {
  const view = new DataView(payload.buffer, payload.byteOffset);
  return {
    type: view.getUint32(0, true),
    receiver: view.getUint32(4, true),
    counter: view.getBigUint64(8, true),
  };
}

function tcpHeader(packet: Uint8Array): { sequence: number; flags: number } {
  const { transport } = headersOf(packet);
  const view = new DataView(packet.buffer, packet.byteOffset + transport);
  return { sequence: view.getUint32(4), flags: view.getUint8(13) };
}

function identification(packet: Uint8Array): number {
  return (packet[4] ?? 0) * 256 + (packet[5] ?? 0);
}

function trafficClass(packet: Uint8Array): number {
  const [first = 0, second = 0] = packet;
  return first >> 4 === 4 ? second : ((first & 15) << 4) | (second >> 4);
}

function payloadlessMss(packet: Uint8Array): number {
  const { transport } = headersOf(packet);
  const at = transport + 20 + (packet[transport + 20] === 1 ? 1 : 0) + 2;
  return (packet[at] ?? 0) * 256 + (packet[at + 1] ?? 0);
}

/** A payload equal to the checksum that the packet has without it makes the sum 0xffff. */
function udpWithZeroChecksum(addresses: { source?: string; destination?: string }): Uint8Array {
  const without = udp({ ...addresses, payload: new Uint8Array(2) });
  const { transport } = headersOf(without);
  const packet = udp({ ...addresses, payload: without.slice(transport + 6, transport + 8) });
  if (packet[transport + 6] !== 0xff || packet[transport + 7] !== 0xff) throw new Error('not zero');
  return packet;
}

function smallUdp(port: number): Uint8Array {
  const host = `10.1.${port >> 16}.1`;
  return udp({ source: host, sourcePort: port & 0xffff, payload: new Uint8Array(1) });
}

function ping(id: number): Uint8Array {
  return Uint8Array.of(8, 0, 0, 0, id >> 8, id & 0xff, 0, 1, 1, 2, 3, 4);
}

function corrupted(packet: Uint8Array): Uint8Array {
  return packet.with(packet.length - 1, (packet.at(-1) ?? 0) ^ 0xff);
}

function recording(asked: Flow[]): PacketPolicy {
  return { ...forwardAll, outbound: (flow) => (asked.push(flow), { type: 'forward', peer: 0 }) };
}

/** The packet with a fragment header behind its IPv6 header: position is offset << 3 | more. */
function ipv6Fragment(packet: Uint8Array, position: number): Uint8Array {
  const header = Uint8Array.of(packet[6] ?? 0, 0, position >> 8, position, 0, 0, 0, 9);
  const fragment = joined(packet.subarray(0, 40).with(6, 44), header, packet.subarray(40));
  new DataView(fragment.buffer).setUint16(4, fragment.length - 40);
  return fragment;
}

/** The packet as the last fragment of one; the offset counts units of 8 bytes. */
function laterFragment(packet: Uint8Array, offset: number): Uint8Array {
  const last = packet.slice();
  last[6] = offset >> 8;
  last[7] = offset;
  return last;
}

/** The packet as the first fragment of one. */
function fragment(packet: Uint8Array): Uint8Array {
  const first = packet.slice();
  first[6] = 0x20;
  const view = new DataView(first.buffer);
  // DF goes, MF comes: the sum of the header changes by 0x2000.
  const checksum = view.getUint16(10) + 0x2000;
  view.setUint16(10, checksum > 0xffff ? checksum - 0xffff : checksum);
  return first;
}

function hex(data: Uint8Array | undefined): string {
  return Buffer.from(data ?? []).toString('hex');
}

function mutated(random: SeededRandom, from: readonly Uint8Array[]): Uint8Array {
  const copy = (from[random.below(from.length)] ?? new Uint8Array()).slice();
  if (copy.length === 0) return copy;
  for (let n = random.below(4); n > 0; n--)
    copy[random.below(Math.min(copy.length, 80))] = random.word();
  return random.below(4) === 0 ? copy.subarray(0, random.below(copy.length)) : copy;
}
