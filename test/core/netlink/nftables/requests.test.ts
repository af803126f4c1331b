import { readFileSync } from 'node:fs';
import t from 'tap';
import { AttributeReader } from '../../../../core/netlink/attribute.ts';
import { HOST_IS_LITTLE_ENDIAN } from '../../../../core/netlink/byte-order.ts';
import { MessageWriter } from '../../../../core/netlink/message-writer.ts';
import { readMessages } from '../../../../core/netlink/message.ts';
import {
  writeChain,
  writeChainRemoval,
  type ChainDefinition,
} from '../../../../core/netlink/nftables/chain.ts';
import {
  concatenate,
  markData,
  protocolData,
  serviceData,
} from '../../../../core/netlink/nftables/data-type.ts';
import {
  writeElements,
  type ElementRequest,
  type SetElement,
} from '../../../../core/netlink/nftables/element.ts';
import type { Expression } from '../../../../core/netlink/nftables/expression.ts';
import {
  compare,
  connectionAddress,
  connectionPort,
  connectionState,
  connectionStatus,
  destination,
  destinationIs,
  destinationPort,
  field,
  hasMark,
  icmpType,
  inputInterface,
  isFamily,
  isIn,
  isProtocol,
  isSpoofed,
  outputInterface,
  Protocol,
  source,
  transportBytes,
  type Part,
} from '../../../../core/netlink/nftables/match.ts';
import {
  writeObject,
  writeObjectRemoval,
  type ObjectDefinition,
} from '../../../../core/netlink/nftables/object.ts';
import {
  decodeRule,
  prepareRule,
  writeFlush,
  writeRule,
} from '../../../../core/netlink/nftables/rule.ts';
import {
  shapeOf,
  writeSet,
  writeSetRemoval,
  type SetDefinition,
} from '../../../../core/netlink/nftables/set.ts';
import {
  accept,
  clampMss,
  counter,
  countIn,
  decide,
  dnat,
  drop,
  goto,
  jump,
  leave,
  limit,
  log,
  masquerade,
  natByMap,
  notrack,
  prefixNat,
  prefixNatByMap,
  redirectTo,
  reject,
  resetTcp,
  rule,
  saveMark,
  setMark,
  setUdpPort,
  setZone,
  snat,
  useTimeout,
} from '../../../../core/netlink/nftables/statement.ts';
import { writeTable, writeTableRemoval } from '../../../../core/netlink/nftables/table.ts';
import { decodeHex, encodeHex } from '../../../../core/sansio/hex.ts';
import { encodeUtf8 } from '../../../../core/sansio/utf8.ts';
import { address, EVERYTHING, ip, prefix, range } from '../../../netns/nftables-rules.ts';

/* Requests of nft 1.0.6, see test/vectors/SOURCES.md. */
const VECTORS: readonly { readonly command: string; readonly hex: string }[] = JSON.parse(
  readFileSync(new URL('../../../vectors/nftables.json', import.meta.url), 'utf8'),
);

type Write = (writer: MessageWriter) => void;
const T = { family: 'inet', name: 't' } as const;
const { tcp, udp } = Protocol;

const table = (definition: Parameters<typeof writeTable>[1]): Write => {
  return (writer) => writeTable(writer, definition);
};
const chain = (definition: ChainDefinition, of: Parameters<typeof writeChain>[1] = T): Write => {
  return (writer) => writeChain(writer, of, definition);
};
const object = (definition: ObjectDefinition): Write => {
  return (writer) => writeObject(writer, T, definition);
};
const set = (definition: SetDefinition): Write => {
  return (writer) => writeSet(writer, T, definition, 1);
};
const element = (name: string, element: SetElement, request: ElementRequest = 'add'): Write => {
  const definition = EVERYTHING.sets!.find((candidate) => candidate.name === name)!;
  const shape = shapeOf(definition);
  return (writer) => writeElements(writer, T, { name, shape }, [element], request);
};
const inChain = (name: string, ...parts: readonly Part[]): Write => {
  return (writer) => writeRule(writer, T, name, prepareRule(rule(...parts), new MessageWriter()));
};

const OURS: readonly Write[] = [
  table({ family: 'inet', name: 'x', isDormant: true }),
  table({ family: 'inet', name: 'x', comment: 'hello' }),
  (writer) => writeTableRemoval(writer, T),
  chain({ name: 'other' }),
  chain({ name: 'f', base: { type: 'filter', hook: 'forward', priority: 0, policy: 'drop' } }),
  chain(
    { name: 'r', base: { type: 'route', hook: 'output', priority: -150 } },
    { family: 'ip6', name: 't6' },
  ),
  (writer) => writeChainRemoval(writer, T, 'other'),
  (writer) => writeFlush(writer, T, 'raw'),
  object({ kind: 'counter', name: 'more' }),
  object({
    kind: 'timeout',
    name: 'udp6',
    family: 6,
    protocol: udp,
    seconds: { unreplied: 10, replied: 20 },
  }),
  (writer) => writeObjectRemoval(writer, T, { kind: 'counter', name: 'seen' }),
  set({ name: 's1', key: ['ipv4_addr'], isInterval: true, comment: 'x' }),
  set({ name: 's2', key: ['ifname'], size: 100 }),
  set({ name: 's3', key: ['inet_service', 'ipv4_addr'], isInterval: true }),
  set({ name: 'm1', key: ['mark'], value: { type: 'verdict' } }),
  set({
    name: 'm2',
    key: ['ipv4_addr'],
    value: { type: 'data', fields: ['ipv4_addr'], isRange: true },
    isInterval: true,
  }),
  set({ name: 'm3', key: ['ipv4_addr'], value: { type: 'object', kind: 'counter' } }),
  set({ name: 's4', key: ['ipv6_addr'], timeoutMs: 3_600_000 }),
  set({ name: 's5', key: ['ipv4_addr'], isDynamic: true, timeoutMs: 60_000, size: 100 }),
  (writer) => writeSetRemoval(writer, T, 'nets'),
  element('nets', { ...range('0.0.0.0/8'), comment: 'zero' }),
  element('services', {
    key: concatenate(protocolData(tcp), serviceData(80)),
    lastKey: concatenate(protocolData(tcp), serviceData(90)),
  }),
  element('names', {
    key: concatenate(address('10.0.0.1'), serviceData(53)),
    value: concatenate(address('10.0.0.2'), serviceData(5353)),
  }),
  element('sites', {
    ...range('0.0.0.0/16'),
    value: concatenate(address('10.2.0.0'), address('10.2.255.255')),
  }),
  element('decisions', { key: markData(2), value: { type: 'jump', chain: 'common' } }),
  element('guests', { key: address('fd00::1'), timeoutMs: 10_000 }),
  element('counted', { key: address('1.2.3.4'), value: 'seen' }),
  element(
    'names',
    {
      key: concatenate(address('10.0.0.1'), serviceData(53)),
      value: concatenate(address('10.0.0.2'), serviceData(5353)),
    },
    'remove',
  ),
  inChain(
    'raw',
    destinationPort(udp, 51820),
    transportBytes(8, Uint8Array.of(2), '<'),
    transportBytes(12, Uint8Array.of(0x21, 0x12, 0xa4, 0x42)),
    notrack,
    setUdpPort('destination', 3478),
  ),
  inChain('raw', isFamily(4), isIn('nets', field.ipSource), counter, drop),
  inChain('raw', connectionState('invalid'), drop),
  inChain('raw', inputInterface('wg*'), accept),
  inChain('raw', isIn('links', field.inputInterface), accept),
  inChain('raw', outputInterface('eth0'), drop),
  inChain('raw', decide('decisions', field.mark)),
  inChain('raw', hasMark(0x1200, 0xff00), setMark(0x3400, 0xff00)),
  inChain('raw', destinationIs('local'), accept),
  inChain('raw', isSpoofed(), drop),
  inChain('raw', destinationPort(tcp, { first: 1000, last: 2000 }), accept),
  inChain('raw', limit(5, 1, 10), log('a ', 6)),
  inChain('raw', { type: 'queue', first: 3, count: 1, isBypassed: true }),
  inChain('raw', source(prefix('10.0.0.0/9')), accept),
  inChain('raw', destination(prefix('fd00::/8'), '!='), jump('common')),
  inChain('raw', useTimeout('dns')),
  inChain('raw', countIn('seen')),
  inChain('raw', icmpType(4, 8), goto('common')),
  inChain(
    'raw',
    isProtocol(udp),
    compare(connectionPort('original', 'destination'), serviceData(53)),
    leave,
  ),
  inChain(
    'raw',
    compare(connectionAddress('original', 'destination', 4), address('10.0.0.1')),
    accept,
  ),
  inChain('raw', saveMark),
  inChain('raw', connectionStatus('dnat'), accept),
  inChain('raw', setZone(4)),
  inChain('raw', isFamily(4), TTL_64()),
  inChain(
    'raw',
    {
      type: 'header-option',
      header: 'tcp',
      option: 8,
      offset: 0,
      length: 1,
      into: 0,
      isPresence: true,
    },
    { type: 'compare', from: 0, operator: '==', value: Uint8Array.of(1) },
    drop,
  ),
  inChain('forwarded', isProtocol(tcp), resetTcp),
  inChain('forwarded', clampMss('route')),
  inChain('forwarded', reject('prohibited')),
  inChain('out', outputInterface('eth0'), masquerade('random', 'persistent')),
  inChain(
    'out',
    isProtocol(udp),
    { type: 'immediate', into: 0, value: serviceData(1000) },
    { type: 'immediate', into: 4, value: serviceData(2000) },
    { type: 'masquerade', firstPort: 0, lastPort: 4, options: [] },
  ),
  inChain('out', source(prefix('fd00::/64')), prefixNat('snat', prefix('fd01::/64'))),
  inChain('out', isFamily(4), prefixNatByMap('snat', 4, 'sites', [field.ipSource])),
  inChain(
    'out',
    snat({ address: ip('10.0.0.1'), lastAddress: ip('10.0.0.9'), options: ['random'] }),
  ),
  inChain('in', destinationPort(udp, 53), redirectTo(5353)),
  inChain('in', isProtocol(tcp), dnat({ address: ip('10.0.0.1'), port: 80 })),
  inChain(
    'in',
    isFamily(4),
    isProtocol(udp),
    natByMap('dnat', 4, 'names', [field.ipDestination, field.destinationPort], 'address-and-port'),
  ),
  inChain(
    'in',
    isFamily(6),
    natByMap('dnat', 6, 'proxies', [field.ip6Source, field.ip6Destination]),
  ),
];

/** By message, an attribute: NFTA_RULE_USERDATA, NFTA_SET_ID, NFTA_SET_ELEM_LIST_SET_ID, NFTA_OBJ_DATA. */
const PASSED_OVER = new Map([
  [6, 7],
  [9, 10],
  [12, 4],
  [20, 4],
]);

/**
 * Of an expression, what nft writes and the kernel supposes: the operation of a bitwise one where it is
 * AND and XOR, the number of a set that it names too. And NF_NAT_RANGE_PROTO_SPECIFIED, which newer
 * kernels set themselves.
 */
const OPTIONAL: readonly [name: string, isOptional: (attribute: Attribute) => boolean][] = [
  ['bitwise', ([type, value]) => type === 6 && value === '00000000'],
  ['lookup', ([type]) => type === 4],
  ['nat', ([type, value]) => type === 7 && value === '00000002'],
];

const elsewhere = HOST_IS_LITTLE_ENDIAN ? false : 'captured on a little-endian machine';

await t.test('asks what nft asks', { skip: elsewhere }, async (t) => {
  t.equal(OURS.length, VECTORS.length);
  for (const [i, { command, hex }] of VECTORS.entries()) {
    t.strictSame(treeOf(write(OURS[i]!)), treeOf(decodeHex(hex)!), command);
  }
});

await t.test('reads a rule as it was written', async (t) => {
  for (const { name, rules } of EVERYTHING.chains) {
    for (const wanted of rules) {
      const bytes = write((writer) => {
        writeRule(writer, EVERYTHING, name, prepareRule(wanted, new MessageWriter()));
      });
      const read = decodeRule(readMessages(bytes).messages[0]!);
      t.match(read, { table: { family: 'inet', name: 'everything' }, chain: name });
      t.strictSame(read?.expressions, wanted.expressions);
      t.equal(read?.comment, wanted.comment);
      t.match(read?.fingerprint, /^[0-9a-f]{16}$/);
    }
  }
});

await t.test('knows a rule by its expressions and its comment', async (t) => {
  const fingerprint = (comment: string | undefined, ...expressions: Expression[]) =>
    prepareRule({ comment, expressions }, new MessageWriter()).fingerprint;
  t.equal(fingerprint(undefined, accept), fingerprint(undefined, accept));
  t.not(fingerprint(undefined, accept), fingerprint(undefined, drop));
  t.not(fingerprint(undefined, accept), fingerprint('so', accept));
  t.not(fingerprint(undefined, accept), fingerprint(undefined, counter, accept));
});

await t.test('cuts comments at a whole character', async (t) => {
  const comment = 'ö'.repeat(80);
  const prepared = prepareRule({ comment, expressions: [] }, new MessageWriter());
  t.equal(prepared.comment, 'ö'.repeat(50));
});

function TTL_64(): readonly Expression[] {
  const place = { base: 'network', offset: 8, length: 2 } as const;
  return [
    { type: 'payload', ...place, into: 0 },
    {
      type: 'bitwise',
      from: 0,
      into: 0,
      mask: Uint8Array.of(0, 0xff),
      xor: Uint8Array.of(64, 0),
    },
    { type: 'write-payload', ...place, from: 0, checksum: { offset: 10 } },
  ];
}

function write(request: Write): Uint8Array {
  const writer = new MessageWriter();
  request(writer);
  return writer.take();
}

/** The attributes of a request, without what is of no consequence. */
function treeOf(bytes: Uint8Array): unknown {
  const [message] = readMessages(bytes).messages;
  const kind = message!.type & 0xff;
  const shown = attributesOf(message!.body.subarray(4)).filter(
    ([type]) => type !== PASSED_OVER.get(kind),
  );
  return { kind, family: message!.body[0], shown: shown.map(withoutNumbers) };
}

/** nft numbers the items of a list of elements; the kernel does not look. */
function withoutNumbers([type, value]: Attribute): unknown {
  const isList = type === 3 && typeof value !== 'string';
  return [type, isList ? value.map(([, item]) => item) : value];
}

type Attribute = readonly [type: number, value: string | readonly Attribute[]];

function attributesOf(bytes: Uint8Array): readonly Attribute[] {
  const reader = new AttributeReader(bytes);
  const attributes: Attribute[] = [];
  while (reader.next()) {
    const at = reader.value.byteOffset - 1;
    const isNested = (new Uint8Array(reader.value.buffer)[at]! & 0x80) !== 0;
    const value = isNested ? attributesOf(reader.value) : hexOf(reader.value);
    attributes.push([reader.type, value]);
  }
  const [first, second] = attributes;
  const optional = OPTIONAL.find(([name]) => first?.[1] === hexOf(encodeUtf8(`${name}\0`)));
  if (optional === undefined || typeof second?.[1] !== 'object') return attributes;
  const [, left] = optional;
  return [first!, [second[0], second[1].filter((attribute) => !left(attribute))]];
}

/** The value in hexadecimal, without the type that nft notes of a concatenation in a set's user data. */
function hexOf(bytes: Uint8Array): string {
  return encodeHex(bytes).replace('030800040d0000000100', '');
}
