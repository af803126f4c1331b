import t from 'tap';
import type { FastPathKernel } from '../../../core/fastpath/kernel.ts';
import {
  ARENA_START,
  CONTROL_KEY,
  FLOWS,
  FLOW_SIZE,
  OUT,
  OUT_END,
  PEERS,
  PEER_SIZE,
  REWRITE_STAMPS,
  SESSIONS,
  SESSIONS_PER_PEER,
  SESSION_SIZE,
  TUN_IN,
  UDP_IN,
  UDP_IN_END,
} from '../../../core/fastpath/layout.ts';
import type {
  Flow,
  FlowVerdict,
  PacketPolicy,
  Rewrite,
} from '../../../core/fastpath/packet-path.ts';
import { SeededRandom } from '../wireguard/network.ts';
import {
  ACK,
  bytes,
  CWR,
  FIN,
  headersOf,
  other,
  partialRead,
  plainRead,
  PSH,
  superRead,
  SYN,
  tcp,
  udp,
  V6,
} from './packets.ts';
import { address, kernels, REMOTE, Station, type Datagram } from './station.ts';

/*
 * Each kernel gets the same random batches; after each one all that lies in the arenas is the same, byte
 * for byte. Messages come back to the station that sent them: reordered, repeated, damaged, lost.
 */

const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
const rounds = Number(process.env['ROUNDS'] ?? 60);
const PEER_COUNT = 4;

/** A verdict of every kind, by port. */
const policy: PacketPolicy = {
  outbound: (flow) => verdictOf(flow, flow.destinationPort % PEER_COUNT),
  inbound: (peer, flow) => verdictOf(flow, peer),
};

/** All that matters: the key at hand is scratch, and most flows and peers are never touched. */
const COMPARED = [
  [ARENA_START, CONTROL_KEY],
  [CONTROL_KEY + FLOW_SIZE, TUN_IN],
  [UDP_IN, UDP_IN_END],
  [OUT, OUT_END],
  // Flows, rewrites, the list of touched ones, and the stamps of the first sessions.
  [FLOWS, REWRITE_STAMPS + 4096],
  [PEERS, PEERS + PEER_COUNT * PEER_SIZE],
  [SESSIONS, SESSIONS + PEER_COUNT * SESSIONS_PER_PEER * SESSION_SIZE],
] as const;

await t.test('every kernel leaves the same bytes as the twin', async (t) => {
  t.comment(`SEED=${seed}`);
  const stations = Object.entries(kernels).map(([name, create]) => ({
    name,
    station: createStation(create()),
  }));
  const random = new SeededRandom(seed);
  const differences: string[] = [];
  for (let round = 0; round < rounds && differences.length === 0; round++) {
    const title = `SEED=${seed} round ${round}`;
    const reads = Array.from({ length: 1 + random.below(4) }, () => randomRead(random));
    const small = Array.from({ length: random.below(20) }, () => smallRead(random));
    for (const { station } of stations) station.read(...reads, ...small);
    if (random.below(4) === 0) {
      const peer = random.below(PEER_COUNT);
      for (const { station } of stations) station.path.keepalive(peer);
    }
    const sent = stations.map(({ station }) => station.sent());
    differences.push(...differencesOf(stations, `${title} outbound`));

    const trains = randomTrains(random, sent[0] ?? []);
    const from = trains.map(() =>
      random.below(5) === 0 ? address(`192.0.2.9:${random.below(3) + 1}`) : REMOTE,
    );
    const fd = 7 + random.below(2);
    for (const { station } of stations) station.receive(trains, from, fd);
    const written = stations.map(({ station }) => station.writes().length);
    if (new Set(written).size > 1) differences.push(`${title}: ${written.join()} writes`);
    differences.push(...differencesOf(stations, `${title} inbound`));

    for (const { station } of stations) {
      while (station.path.pollFacts() !== undefined) continue;
      while (station.path.pollDatagram() !== undefined) continue;
      if (round % 3 === 0) while (station.path.pollFlowFacts() !== undefined) continue;
      if (round % 5 === 0) station.path.forgetSession(round % 64);
      while (station.path.pollLocal() !== undefined) continue;
      station.sent();
    }
    if (random.below(8) === 0) for (const { station } of stations) station.path.invalidateFlows();
  }
  t.same(differences, []);
  const [first] = stations;
  t.ok((first?.station.path.counters(0).rxPackets ?? 0) > rounds, 'packets were received');
  t.comment(JSON.stringify(first?.station.path.drops));
});

function createStation(kernel: FastPathKernel): Station {
  const station = new Station({ kernel, policy });
  for (let peer = 0; peer < PEER_COUNT; peer++) {
    station.connect(peer, peer === 3 ? { channel: 0x4abc } : {});
  }
  return station;
}

function verdictOf(flow: Flow, peer: number): FlowVerdict {
  switch (flow.sourcePort % 16) {
    case 1:
      return { type: 'drop', reason: 'filtered' };
    case 2:
      return { type: 'drop', reason: 'filtered', icmp: 'administratively-prohibited' };
    case 3:
      return { type: 'local' };
    default:
      return { type: 'forward', peer, ...rewriteOf(flow) };
  }
}

/** Everything that can be rewritten, by ports, for each second flow. */
function rewriteOf(flow: Flow): { readonly rewrite?: Rewrite } {
  const { protocol, sourcePort, destinationPort, source, destination } = flow;
  const kind = sourcePort * 5 + destinationPort * 3;
  if (kind % 2 === 0 && !flow.isFragment) return {};
  if (flow.isFragment) return { rewrite: { source: changedBy(source, kind) } };
  const hasPorts = [6, 17, 136].includes(protocol);
  const isIcmp = [1, 58].includes(protocol);
  const changed = (address: Uint8Array): Uint8Array => changedBy(address, kind);
  return {
    rewrite: {
      session: kind % 64,
      isReply: kind % 3 === 0,
      ...(kind % 4 === 1 && { source: changed(source) }),
      ...(kind % 5 !== 1 && { destination: changed(destination) }),
      ...(kind % 3 !== 1 && hasPorts && { sourcePort: kind & 0xffff }),
      ...(kind % 7 > 1 && hasPorts && { destinationPort: (kind * 999) & 0xffff }),
      ...(isIcmp && { sourcePort: kind & 0xffff }),
    },
  };
}

function changedBy(address: Uint8Array, by: number): Uint8Array {
  return address.map((byte, i) => byte ^ (by + i));
}

/** Returns where arenas differ from the first one. */
function differencesOf(
  stations: readonly { readonly name: string; readonly station: Station }[],
  title: string,
): string[] {
  const [first, ...others] = stations.map(({ name, station }) => ({
    name,
    bytes: Buffer.from(station.kernel.memory),
  }));
  return others.flatMap(({ name, bytes }) =>
    COMPARED.flatMap(([from, to]) => {
      if (first?.bytes.compare(bytes, from, to, from, to) === 0) return [];
      let at = from;
      while (first?.bytes[at] === bytes[at]) at++;
      return [`${title}: ${name} differs at ${at}`];
    }),
  );
}

function randomRead(random: SeededRandom): Uint8Array {
  const addresses = random.below(2) === 0 ? {} : V6;
  const ports = { sourcePort: random.below(20), destinationPort: 8 + random.below(4) };
  const ip = { ...addresses, ...ports, tos: random.below(4), df: random.below(2) === 0 };
  const payload = bytes(1 + random.below(20_000), random.below(9));
  const size = 30 + random.below(1350);
  const options = bytes(random.below(4) * 4).fill(1);
  const flags = ACK | [0, PSH, FIN, CWR][random.below(4)]!;
  const read =
    random.below(3) === 0
      ? superRead(udp({ ...ip, payload }), size)
      : superRead(tcp({ ...ip, payload, options, flags, sequence: random.word() }), size);
  return random.below(4) === 0 ? damaged(random, read) : read;
}

function smallRead(random: SeededRandom): Uint8Array {
  const addresses = random.below(2) === 0 ? {} : V6;
  const ports = { sourcePort: 4 + random.below(3), destinationPort: 8 + random.below(4) };
  const mss = Uint8Array.of(...[[], [1]][random.below(2)]!, 2, 4, random.below(9), 1, 0, 0, 0, 0);
  const options = mss.subarray(0, 8);
  const packet = [
    () => tcp({ ...addresses, ...ports, flags: SYN, options, payload: new Uint8Array(0) }),
    () => tcp({ ...addresses, ...ports, sequence: random.below(3) * 100 }),
    () => udp({ ...addresses, ...ports, payload: bytes(random.below(300)) }),
    () => udp({ ...addresses, ...ports, payload: bytes(1300 + random.below(200)) }),
    () => fragment(udp({ ...addresses, ...ports, df: false }), random.below(2) * 64),
    () => fragment(tcp({ ...addresses, ...ports, df: false }), random.below(2) * 64),
    () => echoRequest(addresses, random),
  ][random.below(7)]!();
  const { protocol } = headersOf(packet);
  const isPlain = random.below(2) === 0 || (protocol !== 6 && protocol !== 17);
  const read = isPlain ? plainRead(packet) : partialRead(packet);
  return random.below(6) === 0 ? damaged(random, read) : read;
}

/** One of the fragments of an IPv4 packet, `offset` bytes in; other packets stay whole. */
function fragment(packet: Uint8Array, offset: number): Uint8Array {
  if (headersOf(packet).family === 4) {
    new DataView(packet.buffer).setUint16(6, offset === 0 ? 0x2000 : offset / 8);
  }
  return packet;
}

function echoRequest(addresses: Partial<typeof V6>, random: SeededRandom): Uint8Array {
  const isIpv6 = addresses.source !== undefined;
  const message = Uint8Array.of(isIpv6 ? 128 : 8, 0, 1, 2, 0, random.below(8), 0, 1);
  return other(isIpv6 ? 58 : 1, message, addresses);
}

/** At most 8 trains of what was sent, in another order, with repetitions, losses and damage. */
function randomTrains(random: SeededRandom, sent: readonly Datagram[]): Datagram[][] {
  const trains: Datagram[][] = [];
  for (let n = 0; n < 8 && sent.length > 0; n++) {
    const start = random.below(sent.length);
    const train: Datagram[] = [];
    const length = sent[start]?.payload.length ?? 0;
    for (const { payload } of sent.slice(start, start + 1 + random.below(40))) {
      if (payload.length > length || train.at(-1)?.payload.length !== train[0]?.payload.length)
        break;
      const bad = random.below(20) === 0 ? damaged(random, payload, payload.length) : payload;
      train.push({ payload: bad.length === payload.length ? bad : payload, tos: random.below(4) });
    }
    trains.push(train);
  }
  const noise = new Uint8Array(random.below(80));
  random.fill(noise);
  if (trains.length > 0) trains[0] = [{ payload: noise, tos: 0 }];
  return trains;
}

function damaged(random: SeededRandom, from: Uint8Array, within = 70): Uint8Array {
  const copy = from.slice();
  for (let n = 1 + random.below(3); n > 0; n--) copy[random.below(within)] = random.word();
  return random.below(4) === 0 ? copy.subarray(0, random.below(copy.length)) : copy;
}
