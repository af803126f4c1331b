import fc from 'fast-check';
import t from 'tap';
import type { Flow, PacketPolicy } from '../../../core/fastpath/flow.ts';
import { parseIpAddress, type IpAddress } from '../../../core/net/ip-address.ts';
import { guardInbound, guardOutbound, isPeering } from '../../../core/peering/guard.ts';
import { encodePeering } from '../../../core/peering/message.ts';
import { Peering } from '../../../core/peering/peering.ts';
import { joined, other, plainRead, superRead, udp } from '../fastpath/packets.ts';
import { kernels, NOW, packetOf, Station } from '../fastpath/station.ts';

/*
 * A station whose peer 0 runs Culvert and has the addresses of THEIRS; ours are in OURS. What is sent to
 * it from the TUN is what a LAN host behind a router that masquerades can send.
 */
const OURS = { 4: '10.0.0.1', 6: 'fd00::1' } as const;
const THEIRS = { 4: '10.0.1.1', 6: 'fd00:1::1' } as const;
/** Behind peer 1, which is plain WireGuard. */
const PLAIN = '10.0.2.1';
const FAMILIES = [4, 6] as const;
const GOODBYE = encodePeering({ type: 'goodbye', reason: 'leaving' });
type Family = (typeof FAMILIES)[number];

for (const [name, create] of Object.entries(kernels)) {
  await t.test(name, async (t) => {
    await t.test('a LAN host cannot speak with the daemon of a peer', async (t) => {
      for (const family of FAMILIES) {
        const { station } = createStation(create());
        const large = forged(family, { payload: new Uint8Array(4000) });
        station.read(plainRead(forged(family)), superRead(large, 1000));
        t.equal(station.sent().length, 0);
        t.same(station.path.drops, { 'peering-from-lan': 2 });
      }
    });

    await t.test('other ports, other addresses and plain peers are free', async (t) => {
      const { station } = createStation(create());
      station.read(
        plainRead(forged(4, { destinationPort: 53 })),
        plainRead(forged(4, { sourcePort: 2680, destinationPort: 53 })),
        plainRead(forged(4, { destination: '10.0.1.9' })),
        plainRead(forged(4, { destination: PLAIN })),
        plainRead(other(6, tcpHeader(2680), { source: OURS[4], destination: THEIRS[4] })),
      );
      t.equal(station.sent().length, 5);
      t.same(station.path.drops, {});
    });

    await t.test('behind a peer of unknown address the port is closed', async (t) => {
      const { station, peering } = createStation(create());
      peering.setPeer(0, [ip(THEIRS[6])]);
      station.read(
        plainRead(forged(4)),
        plainRead(forged(4, { destination: '10.0.1.9' })),
        plainRead(forged(6, { destination: 'fd00:1::9' })),
        plainRead(forged(4, { destination: PLAIN })),
      );
      t.equal(station.sent().length, 2);
      t.same(station.path.drops, { 'peering-from-lan': 2 });
    });

    await t.test('fragments of other datagrams pass, all of them', async (t) => {
      for (const family of FAMILIES) {
        const { station } = createStation(create());
        const packet = forged(family, { destinationPort: 53, payload: new Uint8Array(2000) });
        const fragments = cut(packet, [125]);
        station.read(...fragments.map(plainRead));
        t.same(station.sent().map(packetOf), fragments);
      }
    });

    await t.test('no fragmentation carries a forged message into the tunnel', async (t) => {
      const { station } = createStation(create());
      fc.assert(
        fc.property(attacks(), ({ family, extensions, cuts, order }) => {
          const packet = withExtensions(forged(family), extensions);
          const fragments = cut(packet, cuts);
          const sent = order.map((index) => fragments[index % fragments.length]!);
          station.read(...[...sent, ...fragments].map(plainRead));
          const arrived = station.sent().map(packetOf);
          const [port] = reassembled(family, arrived) ?? [];
          return port !== 2680;
        }),
        { numRuns: 300 },
      );
      t.pass();
    });

    await t.test('what a peer says to our daemon reaches it and not the TUN', async (t) => {
      for (const family of FAMILIES) {
        const { station, peering } = createStation(create());
        const packet = forged(family, { source: THEIRS[family], destination: OURS[family] });
        const [fragment] = cut(packet, [2]);
        const toLan = forged(family, {
          source: THEIRS[family],
          destination: family === 4 ? '10.0.0.77' : 'fd00::77',
        });
        for (const sent of [packet, fragment!, toLan]) station.path.sendPacket(0, sent);
        station.receive(station.sent().map((datagram) => [datagram]));
        t.same(station.written(), [toLan], 'a service of the LAN may have that port');
        const local = [station.path.pollLocal(), station.path.pollLocal()];
        t.match(local, [{ peer: 0 }, { peer: 0 }]);
        const reads = local.map((each) => peering.read(0, each!.packet, NOW));
        t.match(reads, [
          { ok: true, value: { type: 'goodbye', reason: 'leaving' } },
          { ok: false, why: 'fragment' },
        ]);
      }
    });
  });
}

await t.test('a packet is suspicious when nobody knows where its ports are', async (t) => {
  const address = new Uint8Array(16);
  const flow: Flow = {
    family: 6,
    protocol: 17,
    source: address,
    destination: address,
    sourcePort: 0,
    destinationPort: 0,
    isFragment: true,
  };
  t.notOk(isPeering(flow), 'a later one of UDP');
  t.ok(isPeering({ ...flow, destinationPort: 2680 }), 'a first one');
  t.ok(isPeering({ ...flow, protocol: 60 }));
  t.notOk(isPeering({ ...flow, protocol: 60, family: 4 }));
  t.notOk(isPeering({ ...flow, protocol: 6, destinationPort: 2680 }));
});

function createStation(kernel: Parameters<typeof stationOf>[0]): {
  readonly station: Station;
  readonly peering: Peering;
} {
  const peering = new Peering();
  peering.setOwnAddresses([ip(OURS[4]), ip(OURS[6])]);
  peering.setPeer(0, [ip(THEIRS[4]), ip(THEIRS[6])]);
  const station = stationOf(kernel, {
    outbound(flow) {
      const peer = flow.destination[2] === 2 ? 1 : 0;
      return guardOutbound(peering, peer, flow) ?? { type: 'forward', peer };
    },
    inbound: (peer, flow) => guardInbound(peering, flow) ?? { type: 'forward', peer },
  });
  return { station, peering };
}

function stationOf(kernel: Station['kernel'], policy: PacketPolicy): Station {
  const station = new Station({ kernel, policy });
  station.connect(0);
  station.connect(1);
  return station;
}

function forged(family: Family, fields: Parameters<typeof udp>[0] = {}): Uint8Array {
  return udp({
    source: OURS[family],
    destination: THEIRS[family],
    destinationPort: 2680,
    df: false,
    payload: GOODBYE,
    ...fields,
  });
}

/** How someone cuts a datagram: where, behind which extension headers, and which pieces come early or twice. */
function attacks() {
  const units = fc.integer({ min: 1, max: 6 });
  const order = fc.array(fc.nat(6), { maxLength: 4 });
  const extensions = fc.array(fc.constantFrom(0, 43, 44, 51, 60, 135, 139, 140), { maxLength: 3 });
  const cuts = fc.uniqueArray(units, { minLength: 1, maxLength: 4 });
  return fc.oneof(
    fc.record({ family: fc.constant(4 as const), extensions: fc.constant([]), cuts, order }),
    fc.record({ family: fc.constant(6 as const), extensions, cuts, order }),
  );
}

/** Puts extension headers of 8 bytes (RFC 8200 §4) before what an IPv6 packet carries. */
function withExtensions(packet: Uint8Array, types: readonly number[]): Uint8Array {
  const protocol = packet[6] ?? 0;
  const headers = types.map((_, i) => Uint8Array.of(types[i + 1] ?? protocol, 0, 0, 0, 0, 0, 0, 1));
  if (types.length === 0) return packet;
  const start = packet.slice(0, 40).with(6, types[0] ?? 0);
  const extended = joined(start, ...headers, packet.subarray(40));
  new DataView(extended.buffer).setUint16(4, extended.length - 40);
  return extended;
}

/** Cuts a packet into fragments; `cuts` count units of 8 bytes. */
function cut(packet: Uint8Array, cuts: readonly number[]): readonly Uint8Array[] {
  const family = (packet[0] ?? 0) >> 4;
  const header = packet.subarray(0, family === 4 ? 20 : 40);
  const body = packet.subarray(header.length);
  const inside = [...cuts].sort((a, b) => a - b).filter((at) => at * 8 < body.length);
  const starts = [0, ...inside];
  return starts.map((start, i) => {
    const end = starts[i + 1];
    const piece = body.subarray(start * 8, end === undefined ? body.length : end * 8);
    const more = end === undefined ? 0 : 1;
    if (family === 6) {
      const position = (start << 3) | more;
      const shim = Uint8Array.of(header[6] ?? 0, 0, position >> 8, position, 0, 0, 0, 9);
      const fragment = joined(header.with(6, 44), shim, piece);
      new DataView(fragment.buffer).setUint16(4, fragment.length - 40);
      return fragment;
    }
    const fragment = joined(header, piece);
    const view = new DataView(fragment.buffer);
    view.setUint16(2, fragment.length);
    view.setUint16(6, (more << 13) | start);
    return fragment;
  });
}

/**
 * Puts together what arrived as a careless host would: any piece may write anywhere, all extension headers
 * are passed over. Returns the ports of the UDP datagram, destination first, if all of it is there.
 */
function reassembled(family: Family, packets: readonly Uint8Array[]): number[] | undefined {
  const body = new Map<number, number>();
  let length = Infinity;
  let next = 17;
  for (const packet of packets) {
    const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
    const position = family === 4 ? view.getUint16(6) : view.getUint16(42);
    const offset = family === 4 ? (position & 0x1fff) * 8 : position & 0xfff8;
    const isLast = (position & (family === 4 ? 0x2000 : 1)) === 0;
    const start = family === 4 ? 20 : 48;
    const end = family === 4 ? view.getUint16(2) : 40 + view.getUint16(4);
    for (let at = start; at < end; at++) body.set(offset + at - start, packet[at] ?? 0);
    if (isLast) length = offset + end - start;
    if (family === 6 && offset === 0) next = packet[40] ?? 0;
  }
  if (Array.from(body.keys()).filter((at) => at < length).length !== length) return undefined;
  let at = 0;
  while (next !== 17) {
    next = body.get(at) ?? 17;
    at += 8;
  }
  const u16 = (from: number) => ((body.get(from) ?? 0) << 8) | (body.get(from + 1) ?? 0);
  return [u16(at + 2), u16(at)];
}

function tcpHeader(destinationPort: number): Uint8Array {
  const header = new Uint8Array(20).with(12, 0x50);
  new DataView(header.buffer).setUint16(2, destinationPort);
  return header;
}

function ip(text: string): IpAddress {
  const parsed = parseIpAddress(text);
  if (!parsed.ok) throw new Error(parsed.why);
  return parsed.value;
}
