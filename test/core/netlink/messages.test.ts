import t from 'tap';
import { AttributeReader } from '../../../core/netlink/attribute.ts';
import { HOST_IS_LITTLE_ENDIAN } from '../../../core/netlink/byte-order.ts';
import { MessageFlag, MessageType } from '../../../core/netlink/constants.ts';
import { MessageWriter } from '../../../core/netlink/message-writer.ts';
import {
  readAcknowledgement,
  readMessages,
  stampSequence,
  type NetlinkMessage,
} from '../../../core/netlink/message.ts';
import { decodeAddress } from '../../../core/netlink/rtnetlink/address.ts';
import { NEXT_HOP_HEADER, RouteMessage } from '../../../core/netlink/rtnetlink/constants.ts';
import { decodeLink } from '../../../core/netlink/rtnetlink/link.ts';
import { readNotification } from '../../../core/netlink/rtnetlink/notification.ts';
import {
  decodeRule,
  encodeRuleAddition,
  encodeRuleRemoval,
} from '../../../core/netlink/rtnetlink/rule.ts';
import { decodeRoute, MOST_NEXT_HOPS } from '../../../core/netlink/rtnetlink/route.ts';
import { Transaction } from '../../../core/netlink/transaction.ts';
import { decodeHex } from '../../../core/sansio/hex.ts';

/*
 * Messages of kernel 6.18 on x86-64, captured with `strace -e trace=recvmsg -e read=3,4 ip ...`. In the
 * link's message the counters are left out.
 */
const LINK = `74010000100000000700000000000000000001000300000043100100000000000700030076610000
   08000d00e803000005001000060000000500110000000000050043000000000008000400dc050000
   080032004400000008003300ffff000008001b000000000008001e000000000008003d0000000000
   08001f000200000008002800ffff0000080029000000010008003a000000010008003f0000000100
   080040000000010008003b00f8ff070008003c00ffff000008004200000000000800200002000000
   0500210001000000080023000200000008002f000100000008003000010000000600440000000000
   060045000000000005002700000000000a00010002000000000a00000a000200ffffffffffff0000
   0c002b0005000200000000001000120009000100766574680000000008000500020000000c000600
   6e6f71756575650024000e0000000000000000000000000000000000000000000000000000000000
   0000000004003e8004004180`;
const IPV4_ADDRESS = `4c000000 14002200 07000000 00000000
   0218800003000000 080001000a010203 080002000a010203 0700030076610000 0800080080000000
   14000600ffffffffffffffffb9030300b9030300`;
const IPV6_LINK_LOCAL = `50000000 14002200 07000000 00000000
   0a40c0fd03000000 14000100fe80000000000000000000fffe00000a
   14000600ffffffffffffffffb9030300b9030300 08000800c0000000 05000b0003000000`;
const MULTIPATH = `58000000 18002200 07000000 00000000
   02100000feba000100000000 08000f00fe000000 080001000a090000 0800060005000000
   24000900 1000000203000000080005000a010209 1000000002000000080005000a050002`;
const IPV6_ROUTE = `88000000 18002200 07000000 00000000
   0a300000feba000100000000 08000f00fe000000 14000100fd090000000000000000000000000000
   0800060000040000 14000500fd000001000000000000000000000009 0800040003000000
   24000c0000000000000000000000000000000000000000000000000000000000000000000500140000000000`;
const VIA = `4c000000 18002200 07000000 00000000
   02100000fc03000100000000 08000f00780a0000 080001000a080000
   160012000a00fe800000000000000000000000000001 0000 0800040003000000`;
const DONE = '14000000 03002200 07000000 00000000 00000000';
const CONNECTED = `3c000000 18002200 07000000 00000000
   02180000fe02fd0100000000 08000f00fe000000 080001000a010200 080007000a010203 0800040003000000`;
/** `ip link add x7 type nonesuch`: capped, with attributes. */
const UNKNOWN_KIND = `64000000 02000002 07000000 00000000 a1ffffff
   3800000010000506be3b006b00000000 00000000000000000000000000000000 0700030078370000
   100012000c0001006e6f6e6573756368 18000100556e6b6e6f776e206465766963652074797065 00`;

const CAPTURED = [
  LINK,
  IPV4_ADDRESS,
  IPV6_LINK_LOCAL,
  MULTIPATH,
  IPV6_ROUTE,
  VIA,
  DONE,
  CONNECTED,
  UNKNOWN_KIND,
].map(bytesOf);

const BARE: NetlinkMessage = { type: 0, flags: 0, sequence: 7, port: 0, body: new Uint8Array() };
const elsewhere = HOST_IS_LITTLE_ENDIAN ? false : 'captured on a little-endian machine';

await t.test('reads what the kernel sends', { skip: elsewhere }, async (t) => {
  t.strictSame(decodeLink(message(LINK)), {
    index: 3,
    name: 'va',
    kind: 'veth',
    hardwareType: 1,
    mtu: 1500,
    isUp: true,
    hasCarrier: true,
    state: 'up',
    hardwareAddress: '02:00:00:00:00:0a',
    controller: undefined,
    lower: 2,
  });
  t.strictSame(decodeAddress(message(IPV4_ADDRESS)), {
    link: 3,
    address: { address: '10.1.2.3', length: 24 },
    peer: undefined,
    scope: 0,
    flags: 0x80,
    label: 'va',
    protocol: undefined,
  });
  t.strictSame(decodeAddress(message(IPV6_LINK_LOCAL)), {
    link: 3,
    address: { address: 'fe80::ff:fe00:a', length: 64 },
    peer: undefined,
    scope: 253,
    flags: 0xc0,
    label: undefined,
    protocol: 3,
  });
  const route = {
    type: 'unicast',
    table: 254,
    protocol: 186,
    scope: 0,
    metric: 0,
    source: undefined,
    preferredSource: undefined,
    isCloned: false,
  };
  t.strictSame(decodeRoute(message(MULTIPATH)), {
    ...route,
    destination: { address: '10.9.0.0', length: 16 },
    metric: 5,
    nextHops: [
      { link: 3, gateway: '10.1.2.9', weight: 3 },
      { link: 2, gateway: '10.5.0.2', weight: 1 },
    ],
  });
  t.strictSame(decodeRoute(message(IPV6_ROUTE)), {
    ...route,
    destination: { address: 'fd09::', length: 48 },
    metric: 1024,
    nextHops: [{ link: 3, gateway: 'fd00:1::9', weight: 1 }],
  });
  t.strictSame(decodeRoute(message(VIA)), {
    ...route,
    destination: { address: '10.8.0.0', length: 16 },
    table: 2680,
    protocol: 3,
    nextHops: [{ link: 3, gateway: 'fe80::1', weight: 1 }],
  });
  t.strictSame(decodeRoute(message(CONNECTED)), {
    ...route,
    destination: { address: '10.1.2.0', length: 24 },
    protocol: 2,
    scope: 253,
    preferredSource: '10.1.2.3',
    nextHops: [{ link: 3, gateway: undefined, weight: 1 }],
  });
});

await t.test('hears the kernel explain a refusal', { skip: elsewhere }, async (t) => {
  t.strictSame(readAcknowledgement(message(UNKNOWN_KIND)), {
    errno: 95,
    message: 'Unknown device type',
    attributeOffset: undefined,
  });
});

await t.test('finds the explanation behind a capped request and its offset', async (t) => {
  const writer = new MessageWriter();
  const ackFlags = MessageFlag.ackAttributes | MessageFlag.capped;
  writer.begin(MessageType.error, ackFlags).fixed(4 + 16);
  writer.name(1, 'no such thing').u32(2, 36).end();
  const [ack] = readMessages(writer.take()).messages;
  t.match(readAcknowledgement(ack!), { message: 'no such thing', attributeOffset: 36 });
});

await t.test('takes a dump that ends in an error for one', async (t) => {
  const writer = new MessageWriter();
  const failed = writer.begin(MessageType.done, MessageFlag.multi | MessageFlag.ackAttributes);
  failed.fixed(4).setInt32(0, -13, HOST_IS_LITTLE_ENDIAN);
  writer.name(1, 'not today').end();
  const datagram = writer.take();
  stampSequence(datagram, 7);
  const transaction = new Transaction(7, () => undefined);
  transaction.handleDatagram(datagram);
  t.match(transaction.state, { type: 'refused', why: { errno: 13, message: 'not today' } });
});

await t.test('collects a dump over several datagrams', { skip: elsewhere }, async (t) => {
  const types: number[] = [];
  const transaction = new Transaction(7, ({ type }) => types.push(type));
  transaction.handleDatagram(concat(bytesOf(IPV4_ADDRESS), bytesOf(IPV6_LINK_LOCAL)));
  t.match(transaction.state, { type: 'open' });
  transaction.handleDatagram(concat(bytesOf(IPV4_ADDRESS), bytesOf(DONE), bytesOf(LINK)));
  t.strictSame(transaction.state, { type: 'done', isInterrupted: false });
  t.strictSame(types, [20, 20, 20]);
  t.equal(transaction.malformed, 0);
});

await t.test('passes over the answers to other requests', { skip: elsewhere }, async (t) => {
  const types: number[] = [];
  const transaction = new Transaction(8, ({ type }) => types.push(type));
  transaction.handleDatagram(concat(bytesOf(IPV4_ADDRESS), bytesOf(DONE)));
  t.match(transaction.state, { type: 'open' });
  t.strictSame(types, []);
});

await t.test('notices that a dump was interrupted', async (t) => {
  const transaction = new Transaction(7, () => undefined);
  const writer = new MessageWriter();
  const flags = MessageFlag.multi | MessageFlag.dumpInterrupted;
  writer.begin(RouteMessage.newAddress, flags).end();
  const first = writer.take();
  writer.begin(MessageType.done, MessageFlag.multi).fixed(4);
  const last = writer.end().take();
  for (const datagram of [first, last]) {
    stampSequence(datagram, 7);
    transaction.handleDatagram(datagram);
  }
  t.strictSame(transaction.state, { type: 'done', isInterrupted: true });
});

await t.test('tells which interface a change concerns', { skip: elsewhere }, async (t) => {
  t.strictSame(readNotification(message(LINK)), { link: 3 });
  t.strictSame(readNotification(message(IPV4_ADDRESS)), { link: 3 });
  t.strictSame(readNotification(message(IPV6_ROUTE)), { link: 3 });
  t.strictSame(readNotification(message(MULTIPATH)), { link: undefined }, 'two interfaces');
});

await t.test('tells who made the rule that changed', async (t) => {
  const rule = {
    family: 6,
    priority: 7,
    inputLink: 'br-lan',
    table: 99,
    suppressPrefixLength: 0,
    protocol: 213,
  } as const;
  const [added] = readMessages(encodeRuleAddition(rule)).messages;
  const [removed] = readMessages(encodeRuleRemoval(rule)).messages;
  t.strictSame(decodeRule(added!), { ...rule, isPlain: true });
  t.strictSame(readNotification(added!), { link: undefined, ruleProtocol: 213 });
  t.strictSame(readNotification(removed!), { link: undefined, ruleProtocol: 213 });
  t.equal(
    readNotification({ ...BARE, type: RouteMessage.newRule, body: new Uint8Array(11) }),
    undefined,
  );
});

await t.test('sees in a rule when it says more than its key', async (t) => {
  const rule = (fill: (header: DataView) => void) =>
    decodeRule({
      body: body(12, (header) => {
        header.setUint8(0, 2);
        header.setUint8(7, 1);
        fill(header);
      }),
    });
  t.match(
    rule(() => undefined),
    { family: 4, table: 0, priority: 0, isPlain: true },
  );
  t.match(
    rule((header) => header.setUint8(2, 24)),
    { isPlain: false },
    'a source',
  );
  t.match(
    rule((header) => header.setUint8(3, 4)),
    { isPlain: false },
    'a type of service',
  );
  t.match(
    rule((header) => header.setUint8(7, 7)),
    { isPlain: false },
    'unreachable',
  );
  const inverted = (header: DataView) => header.setUint32(8, 2, HOST_IS_LITTLE_ENDIAN);
  t.match(rule(inverted), { isPlain: false }, 'not');
  const writer = new MessageWriter();
  writer.fixed(12).setUint16(0, 2, true);
  t.match(decodeRule({ body: writer.u32(10, 1).take() }), { isPlain: false }, 'a mark');
  t.equal(
    rule((header) => header.setUint8(0, 128)),
    undefined,
    'of multicast routing',
  );
});

await t.test('is not told of bridge ports, wireless scans and caches', async (t) => {
  const bridgePort = body(16, (header) => header.setUint8(0, 7));
  t.equal(readNotification({ ...BARE, type: RouteMessage.newLink, body: bridgePort }), undefined);
  const writer = new MessageWriter().begin(RouteMessage.newLink, 0);
  writer.fixed(16);
  const [scan] = readMessages(writer.bytes(11, new Uint8Array(8)).end().take()).messages;
  t.equal(readNotification(scan!), undefined);
  const cached = body(12, (header) => {
    header.setUint8(0, 10);
    header.setUint8(7, 1);
    header.setUint32(8, 0x200, HOST_IS_LITTLE_ENDIAN);
  });
  t.equal(readNotification({ ...BARE, type: RouteMessage.newRoute, body: cached }), undefined);
  t.equal(readNotification({ ...BARE, type: 28 }), undefined, 'neighbours');
});

await t.test('refuses impossible prefix lengths, types and addresses', async (t) => {
  const route = (fill: (header: DataView) => void) =>
    decodeRoute({
      body: body(12, (header) => {
        header.setUint8(0, 2);
        header.setUint8(7, 1);
        fill(header);
      }),
    });
  t.ok(
    route(() => undefined),
    'the default route',
  );
  t.equal(
    route((header) => header.setUint8(1, 33)),
    undefined,
  );
  t.equal(
    route((header) => header.setUint8(2, 33)),
    undefined,
  );
  t.equal(
    route((header) => header.setUint8(7, 12)),
    undefined,
  );
  t.equal(
    route((header) => header.setUint8(0, 1)),
    undefined,
  );
  const writer = new MessageWriter().begin(RouteMessage.newAddress, 0);
  writer.fixed(8).setUint8(0, 2);
  const [short] = readMessages(writer.bytes(2, new Uint8Array(3)).end().take()).messages;
  t.equal(decodeAddress(short!), undefined);
});

await t.test('bounds next hops, and stops at attributes without a length', async (t) => {
  const hops = (count: number) => {
    const writer = new MessageWriter().begin(RouteMessage.newRoute, 0);
    const header = writer.fixed(12);
    header.setUint8(0, 2);
    header.setUint8(7, 1);
    const value = new Uint8Array(count * NEXT_HOP_HEADER);
    const view = new DataView(value.buffer);
    for (let at = 0; at < value.length; at += NEXT_HOP_HEADER) {
      view.setUint16(at, NEXT_HOP_HEADER, HOST_IS_LITTLE_ENDIAN);
    }
    return decodeRoute(readMessages(writer.bytes(9, value).end().take()).messages[0]!);
  };
  t.equal(hops(MOST_NEXT_HOPS)?.nextHops.length, MOST_NEXT_HOPS);
  t.equal(hops(MOST_NEXT_HOPS + 1), undefined);

  const zeros = new AttributeReader(new Uint8Array(64));
  t.notOk(zeros.next());
  t.ok(zeros.malformed);
  const many = new Uint8Array(0x1_0000);
  const view = new DataView(many.buffer);
  for (let at = 0; at < many.length; at += 4) view.setUint16(at, 4, HOST_IS_LITTLE_ENDIAN);
  const reader = new AttributeReader(many);
  let count = 0;
  while (reader.next()) count++;
  t.equal(count, many.length / 4);
});

await t.test('reads names that are not UTF-8 as Latin-1', async (t) => {
  const writer = new MessageWriter().begin(1, 0);
  const reader = new AttributeReader(
    writer
      .bytes(3, Uint8Array.of(0x65, 0xe9, 0))
      .end()
      .take()
      .subarray(16),
  );
  t.ok(reader.next());
  t.equal(reader.text(), 'eé');
});

await t.test('survives random, mutated and truncated bytes', async (t) => {
  const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);
  const random = mulberry32(seed);
  const below = (limit: number) => Math.floor(random() * limit);
  const survive = (datagram: Uint8Array) => {
    const transaction = new Transaction(7, decodeAll);
    transaction.handleDatagram(datagram);
    readMessages(datagram).messages.forEach(decodeAll);
    decodeAll({ ...BARE, body: datagram });
  };
  try {
    for (const original of CAPTURED) {
      for (let length = 0; length <= original.length; length++) survive(original.slice(0, length));
    }
    for (let run = 0; run < 20_000; run++) {
      const mutated = CAPTURED[below(CAPTURED.length)]!.slice();
      for (let flips = below(8); flips >= 0; flips--) mutated[below(mutated.length)] = below(256);
      survive(mutated);
      survive(Uint8Array.from({ length: below(96) }, () => below(random() < 0.5 ? 32 : 256)));
    }
    t.pass('nothing was thrown', { seed });
  } catch (error) {
    t.fail(`SEED=${seed}`, { error });
  }
});

/** Decodes the body as everything that it could be. */
function decodeAll(message: NetlinkMessage): void {
  decodeLink(message);
  decodeAddress(message);
  decodeRoute(message);
  for (const type of Object.values(RouteMessage)) readNotification({ ...message, type });
  for (const type of Object.values(MessageType)) {
    for (const flags of [0, MessageFlag.ackAttributes, 0xffff]) {
      readAcknowledgement({ ...message, type, flags });
    }
  }
}

function message(hex: string): NetlinkMessage {
  const { messages, isWhole } = readMessages(bytesOf(hex));
  if (!isWhole || messages.length !== 1) throw new Error('not one message');
  return messages[0]!;
}

function bytesOf(hex: string): Uint8Array {
  const bytes = decodeHex(hex.replace(/\s/g, ''));
  if (bytes === undefined) throw new Error('not hexadecimal');
  return bytes;
}

function concat(...parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => Array.from(part)));
}

function body(length: number, fill: (header: DataView) => void): Uint8Array {
  const bytes = new Uint8Array(length);
  fill(new DataView(bytes.buffer));
  return bytes;
}

function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
