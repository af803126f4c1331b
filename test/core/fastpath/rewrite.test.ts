import t, { type Test } from 'tap';
import type { FastPathKernel } from '../../../core/fastpath/kernel.ts';
import { MOST_FLOWS } from '../../../core/fastpath/layout.ts';
import type {
  Flow,
  FlowFacts,
  FlowVerdict,
  PacketPolicy,
  Rewrite,
} from '../../../core/fastpath/packet-path.ts';
import { parseIpAddress } from '../../../core/net/ip-address.ts';
import { IpPacket } from '../../../core/packet/ip-packet.ts';
import { readIcmpError } from '../../../core/packet/icmp.ts';
import { BugError } from '../../../core/sansio/outcome.ts';
import { addressBytes, echo, ipProblem } from '../nat/icmp-packets.ts';
import { SeededRandom } from '../wireguard/network.ts';
import {
  ACK,
  bytes,
  FIN,
  headersOf,
  partialRead,
  plainRead,
  problemOf,
  superRead,
  SYN,
  tcp,
  udp,
  V6,
  type TcpFields,
} from './packets.ts';
import { FD, kernels, packetOf, REMOTE, Station } from './station.ts';

/*
 * What the packet path rewrites is what the builder of packets, which knows nothing of it, would have built
 * with the other addresses and ports.
 */

const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
t.comment(`SEED=${seed}`);
const RST = 4;

/** Forwards everything, rewritten as it is told. */
class Rewriting implements PacketPolicy {
  rewrite: Rewrite | undefined;
  decide: ((flow: Flow) => Rewrite) | undefined;
  asked = 0;

  outbound(flow: Flow): FlowVerdict {
    return this.inbound(0, flow);
  }

  inbound(peer: number, flow: Flow): FlowVerdict {
    this.asked++;
    const rewrite = this.decide === undefined ? this.rewrite : this.decide(flow);
    return { type: 'forward', peer, ...(rewrite && { rewrite }) };
  }
}

for (const [name, create] of Object.entries(kernels)) {
  await t.test(name, async (t) => {
    await equality(t, create);
    await fragments(t, create);
    await segments(t, create);
    await facts(t, create);
    await answers(t, create);
    await stops(t, create);
  });
}

type Create = () => FastPathKernel;

/** Addresses and ports as a test writes them. */
interface Change {
  readonly source?: string;
  readonly destination?: string;
  readonly sourcePort?: number;
  readonly destinationPort?: number;
}

async function equality(t: Test, create: Create): Promise<void> {
  await t.test('rewrites to what would have been built so, both ways', async (t) => {
    const random = new SeededRandom(seed);
    const rewriting = new Rewriting();
    const station = connected(create, rewriting);
    const problems: string[] = [];
    for (let n = 0; n < 1500 && problems.length < 3; n++) {
      const { build, change } = randomCase(random, n);
      const [before, wanted] = [build({}), build(change)];
      rewriting.rewrite = rewriteOf(change);
      const { protocol } = headersOf(before);
      const isPartial = (protocol === 6 || protocol === 17) && random.below(2) === 0;
      station.path.invalidateFlows();
      station.read(isPartial ? partialRead(before) : plainRead(before));
      const [out] = station.sent().map(packetOf);
      rewriting.rewrite = undefined;
      station.path.invalidateFlows();
      // Back through the tunnel: what comes is the packet as it was.
      station.read(plainRead(before));
      const sent = station.sent();
      rewriting.rewrite = rewriteOf(change);
      station.path.invalidateFlows();
      station.receive([sent]);
      const [inward] = station.written();
      for (const [title, found] of [
        ['outbound', out],
        ['inbound', inward],
      ] as const) {
        const isSame = found !== undefined && hex(found) === hex(wanted);
        const problem = found && ipProblem(found);
        if (isSame && problem === undefined) continue;
        problems.push(
          `SEED=${seed} case ${n} ${title} ${problem}: ${found && hex(found)}, not ${hex(wanted)}`,
        );
      }
    }
    t.same(problems, []);
  });

  await t.test('a UDP checksum of zero stays, and none becomes zero', async (t) => {
    const rewriting = new Rewriting();
    const station = connected(create, rewriting);
    const without = udp();
    new DataView(without.buffer).setUint16(26, 0);
    rewriting.rewrite = rewriteOf({ destination: '10.9.9.9', destinationPort: 53 });
    station.read(plainRead(without));
    const [packet] = station.sent().map(packetOf);
    t.equal(packet && new DataView(packet.buffer).getUint16(26), 0);
    // All 65,536 sums, one of which is the one that would give zero.
    let zeros = 0;
    for (let port = 0; port < 65_536; port += 1) {
      if (port % 64 !== 0) continue;
      rewriting.rewrite = rewriteOf({ sourcePort: port });
      station.path.invalidateFlows();
      const reads = Array.from({ length: 64 }, (_, i) => udpWithWord(i));
      station.read(...reads.map(plainRead));
      for (const found of station.sent().map(packetOf)) {
        if (new DataView(found.buffer).getUint16(26) === 0 || problemOf(found)) zeros++;
      }
    }
    t.equal(zeros, 0);
  });

  await t.test('a wrong checksum stays wrong', async (t) => {
    const rewriting = new Rewriting();
    const station = connected(create, rewriting);
    rewriting.rewrite = rewriteOf({ source: '10.7.7.7', sourcePort: 9 });
    const damaged = tcp();
    damaged[60] = ~(damaged[60] ?? 0);
    station.read(plainRead(damaged));
    const [packet] = station.sent().map(packetOf);
    t.match(packet && problemOf(packet), /transport checksum/);
  });

  await t.test('what it cannot rewrite is a bug of the policy', async (t) => {
    for (const [rewrite, packet] of [
      [{ source: new Uint8Array(16) }, udp()],
      [{ destinationPort: 1 }, echo('10.0.0.1', '10.0.1.1', 5)],
      [{ sourcePort: 1 }, fragmentOf(tcp({ df: false }), 0, true)],
      [{ session: 131_072 }, udp()],
    ] as const) {
      const rewriting = new Rewriting();
      rewriting.rewrite = rewrite;
      const station = connected(create, rewriting);
      t.throws(() => station.read(plainRead(packet)), BugError);
    }
  });
}

async function fragments(t: Test, create: Create): Promise<void> {
  await t.test(
    'fragments go with new addresses, and the checksum in the first follows',
    async (t) => {
      const rewriting = new Rewriting();
      const station = connected(create, rewriting);
      const change = { source: '10.5.5.5', destination: '10.6.6.6' };
      const builds: readonly [number, (change: Change) => Uint8Array][] = [
        [17, (change) => udp({ ...change, df: false, payload: bytes(200) })],
        [6, (change) => tcp({ ...change, df: false, payload: bytes(200) })],
        [1, ({ source = '10.0.0.1', destination = '10.0.1.1' }) => echo(source, destination, 7)],
      ];
      for (const [protocol, build] of builds) {
        rewriting.decide = (flow) => {
          const isPortless = flow.sourcePort === 0 && flow.destinationPort === 0;
          const ports = protocol === 17 && !isPortless ? { sourcePort: 77 } : {};
          return rewriteOf({ ...change, ...ports });
        };
        station.path.invalidateFlows();
        const whole = build({});
        const wanted = build({ ...change, ...(protocol === 17 && { sourcePort: 77 }) });
        const cuts = [0, 48] as const;
        station.read(...cuts.map((at) => plainRead(fragmentOf(whole, at, at === 0))));
        const sent = station.sent();
        t.same(
          sent.map((datagram) => hex(packetOf(datagram))),
          cuts.map((at) => hex(fragmentOf(wanted, at, at === 0))),
          `protocol ${protocol}`,
        );
      }
    },
  );

  await t.test('the same over IPv6', async (t) => {
    const rewriting = new Rewriting();
    const station = connected(create, rewriting);
    const change = { source: 'fd00:5::5', destination: 'fd00:6::6' };
    rewriting.decide = (flow) =>
      rewriteOf({ ...change, ...(flow.destinationPort !== 0 && { destinationPort: 99 }) });
    const fields = { payload: bytes(200), sourcePort: 5, destinationPort: 6 };
    const whole = udp({ ...V6, ...fields });
    const wanted = udp({ ...change, ...fields, destinationPort: 99 });
    station.read(...[0, 64].map((at) => plainRead(fragmentOf6(whole, at))));
    t.same(
      station.sent().map((datagram) => hex(packetOf(datagram))),
      [0, 64].map((at) => hex(fragmentOf6(wanted, at))),
    );
  });
}

async function segments(t: Test, create: Create): Promise<void> {
  await t.test('super-packets are rewritten before they are split', async (t) => {
    const rewriting = new Rewriting();
    const station = connected(create, rewriting);
    const change = { source: '10.5.5.5', sourcePort: 7, destination: '10.6.6.6' };
    rewriting.rewrite = rewriteOf({ ...change });
    station.read(superRead(tcp({ payload: bytes(3000) }), 1300));
    const packets = station.sent().map(packetOf);
    t.same(packets.map(problemOf), [undefined, undefined, undefined]);
    const plain = connected(create, new Rewriting());
    plain.read(superRead(tcp({ ...change, payload: bytes(3000) }), 1300));
    t.same(packets, plain.sent().map(packetOf));
    t.match(station.path.pollFlowFacts(), undefined, 'without a session nothing is told');
  });

  await t.test('flows with different rewrites never share a write, those of one do', async (t) => {
    const rewriting = new Rewriting();
    const station = connected(create, rewriting);
    // In the eyes of the LAN both are from one address, and only the port tells them apart.
    rewriting.decide = (flow) =>
      rewriteOf({ source: '10.5.5.5', ...(flow.sourcePort === 2 && { sourcePort: 3 }) });
    const packet = (source: string, sourcePort: number, n: number): Uint8Array =>
      tcp({ source, sourcePort, sequence: n * 100, payload: bytes(100) });
    const outbound = new Rewriting();
    const sender = connected(create, outbound);
    sender.read(
      ...[0, 1, 2].flatMap((n) => [
        plainRead(packet('10.0.0.1', 2, n)),
        plainRead(packet('10.0.0.2', 2, n)),
        plainRead(packet('10.0.0.3', 4, n)),
      ]),
    );
    rewriting.decide = (flow) =>
      rewriteOf({ source: '10.5.5.5', sourcePort: (flow.source[3] ?? 0) * 1000 });
    station.receive([sender.sent()]);
    const written = station.writes();
    t.same(
      written.map(({ packet, vnet }) => [packet.length, vnet.size, sourcePortOf(packet)]),
      [1000, 2000, 3000].map((port) => [340, 100, port]),
    );
  });
}

async function facts(t: Test, create: Create): Promise<void> {
  await t.test('tells what each session carried, each way, and the flags of TCP', async (t) => {
    const rewriting = new Rewriting();
    const station = connected(create, rewriting);
    rewriting.decide = (flow) => ({
      session: flow.sourcePort,
      isReply: flow.destinationPort === 1,
    });
    const empty = new Uint8Array(0);
    station.read(
      plainRead(tcp({ sourcePort: 5, flags: FIN | ACK, payload: empty })),
      plainRead(tcp({ sourcePort: 5, flags: SYN, payload: empty })),
      plainRead(tcp({ sourcePort: 6, flags: SYN, payload: empty })),
      plainRead(tcp({ sourcePort: 6, flags: RST, payload: empty })),
      superRead(udp({ sourcePort: 7, destinationPort: 1, payload: bytes(1000) }), 500),
    );
    const all = allFacts(station);
    t.same(
      all.sort((a, b) => a.session - b.session),
      [
        { session: 5, isReply: false, packets: 2, bytes: 80, syn: true, fin: false, rst: false },
        { session: 6, isReply: false, packets: 2, bytes: 80, syn: true, fin: false, rst: true },
        { session: 7, isReply: true, packets: 2, bytes: 1056, syn: false, fin: false, rst: false },
      ],
    );
    t.same(allFacts(station), [], 'once');
    const sent = station.sent();
    station.receive([sent.slice(0, 2)]);
    t.same(allFacts(station), [
      { session: 5, isReply: false, packets: 2, bytes: 80, syn: true, fin: false, rst: false },
    ]);
  });

  await t.test('facts of a flow whose row another takes are not lost', async (t) => {
    const rewriting = new Rewriting();
    const station = connected(create, rewriting);
    let session = 0;
    rewriting.decide = () => ({ session: session++ % 1000 });
    const flows = MOST_FLOWS / 4;
    let packets = 0;
    for (let round = 0; round < 8; round++) {
      for (let first = 0; first < flows; first += 64) {
        const reads = Array.from({ length: 64 }, (_, i) =>
          plainRead(udp({ sourcePort: first + i, destinationPort: round + 1 })),
        );
        station.read(...reads);
        station.sent();
      }
      for (const facts of allFacts(station)) packets += facts.packets;
    }
    t.equal(packets, 8 * flows);
  });

  await t.test('a session that is forgotten has its flows asked about again', async (t) => {
    const rewriting = new Rewriting();
    const station = connected(create, rewriting);
    rewriting.decide = (flow) => ({ session: flow.sourcePort });
    const both = [1, 2].map((sourcePort) => plainRead(udp({ sourcePort })));
    station.read(...both);
    t.equal(rewriting.asked, 2);
    station.read(...both);
    t.equal(rewriting.asked, 2);
    station.path.forgetSession(2);
    station.read(...both);
    t.equal(rewriting.asked, 3);
    station.read(...both);
    t.equal(rewriting.asked, 3);
  });
}

async function answers(t: Test, create: Create): Promise<void> {
  await t.test('answers are asked about again when the request gets a session', async (t) => {
    let isOpen = false;
    let asked = 0;
    const session = 1;
    const station = connected(create, {
      outbound: () => {
        isOpen = true;
        const rewrite = { session, source: addressBytes('10.5.5.5'), sourcePort: 77 };
        return { type: 'forward', peer: 0, rewrite };
      },
      inbound: (peer) => {
        asked++;
        if (!isOpen) return { type: 'drop', reason: 'no-session' };
        const rewrite = { destination: addressBytes('10.0.0.1'), destinationPort: 5000 };
        return { type: 'forward', peer, rewrite: { session, isReply: true, ...rewrite } };
      },
    });
    const far = connected(create, new Rewriting());
    const fromFar = (packet: Uint8Array): Uint8Array[] => {
      far.read(plainRead(packet));
      station.receive([far.sent()]);
      return station.written();
    };
    const ends = { source: '10.0.1.1', sourcePort: 6000 };
    const answer = udp({ ...ends, destination: '10.5.5.5', destinationPort: 77 });
    t.same(fromFar(answer), []);
    t.same(fromFar(answer), []);
    t.equal(asked, 1);
    station.read(plainRead(udp()));
    t.same(station.sent().map(packetOf), [udp({ source: '10.5.5.5', sourcePort: 77 })]);
    t.same(fromFar(answer), [udp({ ...ends, destination: '10.0.0.1', destinationPort: 5000 })]);
    t.equal(asked, 2);
  });
}

async function stops(t: Test, create: Create): Promise<void> {
  await t.test('what waits for a session was rewritten once', async (t) => {
    const rewriting = new Rewriting();
    rewriting.rewrite = { ...rewriteOf({ source: '10.5.5.5', sourcePort: 7 }), session: 1 };
    const station = new Station({ kernel: create(), policy: rewriting });
    station.path.setPath(0, { fd: FD, remote: REMOTE });
    const whole = tcp({ payload: bytes(2000) });
    station.read(partialRead(udp()), plainRead(udp()), superRead(whole, 1000));
    t.same(station.sent(), []);
    station.connect(0);
    const packets = station.sent().map(packetOf);
    const change = { source: '10.5.5.5', sourcePort: 7 };
    t.same(packets.slice(0, 2), [udp(change), udp(change)]);
    t.same(packets.map(problemOf), [undefined, undefined, undefined, undefined]);
    t.same(packets.slice(2).map(sourcePortOf), [7, 7]);
    const counted = allFacts(station).reduce((sum, facts) => sum + facts.packets, 0);
    t.equal(counted, 4);
  });

  await t.test('who sent too much at once is told about the packet that he sent', async (t) => {
    const rewriting = new Rewriting();
    rewriting.rewrite = rewriteOf({ source: '10.5.5.5', sourcePort: 7 });
    const station = connected(create, rewriting);
    const address = parseIpAddress('10.0.0.9');
    if (address.ok) station.path.setAddresses([address.value]);
    const large = udp({ payload: bytes(1500) });
    station.read(plainRead(large));
    t.same(station.sent(), []);
    const [answer] = station.written();
    const ip = new IpPacket();
    t.equal(answer && ip.read(answer, 0, answer.length), undefined);
    t.equal(ip.destination, '10.0.0.1');
    const error = readIcmpError(ip);
    t.match(error, { error: { type: 'packet-too-big' } });
    const at = error?.quotedOffset ?? 0;
    t.same(answer?.subarray(at, at + 60), large.subarray(0, 60));
  });
}

function connected(create: Create, policy: PacketPolicy): Station {
  const station = new Station({ kernel: create(), policy });
  station.connect(0);
  return station;
}

/** A packet with given or changed addresses and ports, and the change. */
function randomCase(
  random: SeededRandom,
  n: number,
): { build: (change: Change) => Uint8Array; change: Change } {
  const isIpv6 = n % 2 === 1;
  const randomAddress = (): string =>
    isIpv6
      ? `fd00:${random.below(65_536).toString(16)}::${(1 + random.below(65_535)).toString(16)}`
      : `10.${random.below(256)}.${random.below(256)}.${random.below(256)}`;
  const maybe = <T>(value: T): T | undefined => (random.below(3) === 0 ? undefined : value);
  const fields: Partial<TcpFields> = {
    source: randomAddress(),
    destination: randomAddress(),
    sourcePort: random.below(65_536),
    destinationPort: 1 + random.below(65_535),
    payload: bytes(random.below(900), random.below(256)),
    sequence: random.word(),
    ttl: 1 + random.below(255),
    tos: random.below(64) * 4,
  };
  const change = compact({
    source: maybe(randomAddress()),
    destination: maybe(randomAddress()),
    sourcePort: maybe(random.below(65_536)),
    destinationPort: maybe(random.below(65_536)),
  });
  switch (random.below(3)) {
    case 0:
      return { build: (change) => tcp({ ...fields, ...change }), change };
    case 1:
      return { build: (change) => udp({ ...fields, ...change }), change };
    default: {
      const { destinationPort: _, ...withoutPort } = change;
      const build = (change: Change): Uint8Array => {
        const { source, destination, sourcePort, payload } = { ...fields, ...change };
        return echo(source ?? '', destination ?? '', sourcePort ?? 0, payload && { payload });
      };
      return { build, change: withoutPort };
    }
  }
}

function compact(change: { [Field in keyof Change]: Change[Field] | undefined }): Change {
  return Object.fromEntries(Object.entries(change).filter(([, value]) => value !== undefined));
}

function rewriteOf({ source, destination, sourcePort, destinationPort }: Change): Rewrite {
  return {
    ...(source !== undefined && { source: addressBytes(source) }),
    ...(destination !== undefined && { destination: addressBytes(destination) }),
    ...(sourcePort !== undefined && { sourcePort }),
    ...(destinationPort !== undefined && { destinationPort }),
  };
}

function allFacts(station: Station): FlowFacts[] {
  const all: FlowFacts[] = [];
  for (let facts = station.path.pollFlowFacts(); facts; facts = station.path.pollFlowFacts()) {
    all.push({ ...facts });
  }
  return all;
}

/** The fragment of an IPv4 packet that begins `at` bytes into its payload, of 48 bytes or the rest. */
function fragmentOf(packet: Uint8Array, at: number, isFirst: boolean): Uint8Array {
  const end = isFirst ? 20 + 48 : packet.length;
  const cut = Uint8Array.from([...packet.subarray(0, 20), ...packet.subarray(20 + at, end)]);
  const view = new DataView(cut.buffer);
  view.setUint16(2, cut.length);
  view.setUint16(6, (isFirst ? 0x2000 : 0) | (at / 8));
  view.setUint16(10, 0);
  let sum = 0;
  for (let i = 0; i < 20; i += 2) sum += view.getUint16(i);
  view.setUint16(10, 0xffff - (sum % 65_535 || 65_535));
  return cut;
}

/** A fragment of an IPv6 packet: 64 bytes of its payload. */
function fragmentOf6(packet: Uint8Array, at: number): Uint8Array {
  const part = packet.subarray(40 + at, 40 + at + 64);
  const position = at | 1;
  const header = [packet[6] ?? 0, 0, position >> 8, position & 0xff, 1, 2, 3, 4];
  const cut = Uint8Array.from([...packet.subarray(0, 40), ...header, ...part]);
  cut[6] = 44;
  new DataView(cut.buffer).setUint16(4, cut.length - 40);
  return cut;
}

function udpWithWord(word: number): Uint8Array {
  return udp({ payload: Uint8Array.of(word >> 8, word & 0xff, 0, 0) });
}

function sourcePortOf(packet: Uint8Array): number {
  const { transport } = headersOf(packet);
  return new DataView(packet.buffer, packet.byteOffset).getUint16(transport);
}

function hex(data: Uint8Array): string {
  return Buffer.from(data).toString('hex');
}
