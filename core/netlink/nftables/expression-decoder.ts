import { AttributeReader } from '../attribute.ts';
import { NetfilterFamily } from '../nfnetlink.ts';
import { ExpressionAttribute, LIST_ITEM, ObjectType } from './constants.ts';
import {
  BYTE_ORDER_OPERATIONS,
  COMPARISONS,
  CT_KEYS,
  DIRECTIONS,
  FIB_RESULTS,
  FIB_SELECTORS,
  HEADER_OPTION_KINDS,
  META_KEYS,
  NAT_OPTIONS,
  PAYLOAD_BASES,
  REJECT_KINDS,
  ROUTE_KEYS,
  type Expression,
  type NatOption,
  type Register,
} from './expression.ts';
import { readData, readValue } from './verdict.ts';

/**
 * Reads the expressions of a rule. One that we never write, or that says something we cannot, is
 * `unknown`: nothing is left out.
 */
export function readExpressions(list: AttributeReader): readonly Expression[] {
  const expressions: Expression[] = [];
  while (list.next()) {
    if (list.type === LIST_ITEM) expressions.push(readExpression(list.nested()));
  }
  return expressions;
}

function readExpression(reader: AttributeReader): Expression {
  let name = '';
  let data: Uint8Array = NO_BYTES;
  while (reader.next()) {
    if (reader.type === ExpressionAttribute.name) name = reader.text();
    else if (reader.type === ExpressionAttribute.data) data = reader.value;
  }
  const decode = DECODERS.get(name);
  return decode?.(new Attributes(data)) ?? { type: 'unknown', name };
}

const NO_BYTES = new Uint8Array();

/** The attributes of one expression, by type. */
class Attributes {
  readonly #values = new Map<number, Uint8Array>();

  constructor(bytes: Uint8Array) {
    const reader = new AttributeReader(bytes);
    while (reader.next()) this.#values.set(reader.type, reader.value);
  }

  has(type: number): boolean {
    return this.#values.has(type);
  }

  /** An integer of one, two, four or eight bytes. */
  number(type: number): number | undefined {
    const value = this.#values.get(type);
    if (value === undefined || ![1, 2, 4, 8].includes(value.length)) return undefined;
    return value.reduce((sum, byte) => sum * 256 + byte, 0);
  }

  text(type: number): string | undefined {
    const value = this.#values.get(type);
    if (value === undefined) return undefined;
    const nul = value.indexOf(0);
    return String.fromCharCode(...(nul < 0 ? value : value.subarray(0, nul)).subarray(0, 256));
  }

  nested(type: number): AttributeReader {
    return new AttributeReader(this.#values.get(type) ?? NO_BYTES);
  }

  register(type: number): Register | undefined {
    const number = this.number(type);
    if (number === undefined) return undefined;
    if (number >= 1 && number <= 4) return (number - 1) * 4;
    return number >= 8 && number < 24 ? number - 8 : undefined;
  }

  /** Whether the register is the one of verdicts. */
  isVerdict(type: number): boolean {
    return this.number(type) === 0;
  }

  choice<Name extends string>(type: number, names: readonly Name[]): Name | undefined {
    return names[this.number(type) ?? -1];
  }

  key<Name extends string>(type: number, keys: Readonly<Record<Name, number>>): Name | undefined {
    const number = this.number(type);
    return namesOf(keys).find((name) => keys[name] === number);
  }
}

type Decoder = (attributes: Attributes) => Expression | undefined;

const DECODERS: ReadonlyMap<string, Decoder> = new Map<string, Decoder>([
  ['meta', readMeta],
  ['ct', readCt],
  ['payload', readPayload],
  ['exthdr', readHeaderOption],
  ['rt', readRoute],
  ['fib', readFib],
  ['cmp', readCompare],
  ['range', readRange],
  ['bitwise', readBitwise],
  ['byteorder', readByteOrder],
  ['lookup', readLookup],
  ['immediate', readImmediate],
  ['nat', readNat],
  ['masq', readMasquerade],
  ['redir', readRedirect],
  ['reject', readReject],
  ['notrack', () => ({ type: 'notrack' })],
  ['counter', readCounter],
  ['limit', readLimit],
  ['log', readLog],
  ['queue', readQueue],
  ['objref', readObject],
]);

function readMeta(attributes: Attributes): Expression | undefined {
  const key = attributes.key(2, META_KEYS);
  const into = attributes.register(1);
  const from = attributes.register(3);
  if (key === undefined) return undefined;
  if (into !== undefined) return { type: 'meta', key, into };
  return from === undefined ? undefined : { type: 'set-meta', key, from };
}

function readCt(attributes: Attributes): Expression | undefined {
  const key = attributes.key(2, CT_KEYS);
  const into = attributes.register(1);
  const from = attributes.register(4);
  if (key === undefined) return undefined;
  if (into === undefined) return from === undefined ? undefined : { type: 'set-ct', key, from };
  const direction = attributes.choice(3, DIRECTIONS);
  return { type: 'ct', key, into, ...(direction && { direction }) };
}

function readPayload(attributes: Attributes): Expression | undefined {
  const base = attributes.choice(2, PAYLOAD_BASES);
  const offset = attributes.number(3);
  const length = attributes.number(4);
  if (base === undefined || offset === undefined || length === undefined) return undefined;
  const into = attributes.register(1);
  if (into !== undefined) return { type: 'payload', base, offset, length, into };
  const from = attributes.register(5);
  if (from === undefined) return undefined;
  const checksumOffset = attributes.number(7);
  const hasChecksum = attributes.number(6) === 1 && checksumOffset !== undefined;
  return {
    type: 'write-payload',
    base,
    offset,
    length,
    from,
    ...(hasChecksum && { checksum: { offset: checksumOffset } }),
    ...(attributes.number(8) === 1 && { isPseudoHeader: true }),
  };
}

function readHeaderOption(attributes: Attributes): Expression | undefined {
  const header = attributes.has(6) ? attributes.choice(6, HEADER_OPTION_KINDS) : 'ipv6';
  const option = attributes.number(2);
  const offset = attributes.number(3);
  const length = attributes.number(4);
  if (header === undefined || option === undefined) return undefined;
  if (offset === undefined || length === undefined) return undefined;
  const into = attributes.register(1);
  const from = attributes.register(7);
  if (into === undefined && from === undefined) return undefined;
  return {
    type: 'header-option',
    header,
    option,
    offset,
    length,
    ...(into === undefined ? { from } : { into }),
    ...(attributes.number(5) === 1 && { isPresence: true }),
  };
}

function readRoute(attributes: Attributes): Expression | undefined {
  const key = attributes.key(2, ROUTE_KEYS);
  const into = attributes.register(1);
  return key === undefined || into === undefined ? undefined : { type: 'route', key, into };
}

function readFib(attributes: Attributes): Expression | undefined {
  const result = attributes.key(2, FIB_RESULTS);
  const flags = attributes.number(3);
  const into = attributes.register(1);
  if (result === undefined || flags === undefined || into === undefined) return undefined;
  const selectors = namesOf(FIB_SELECTORS).filter((name) => (flags & FIB_SELECTORS[name]) !== 0);
  return { type: 'fib', selectors, result, into };
}

function readCompare(attributes: Attributes): Expression | undefined {
  const from = attributes.register(1);
  const operator = attributes.choice(2, COMPARISONS);
  const value = readValue(attributes.nested(3));
  if (from === undefined || operator === undefined || value === undefined) return undefined;
  return { type: 'compare', from, operator, value };
}

function readRange(attributes: Attributes): Expression | undefined {
  const from = attributes.register(1);
  const first = readValue(attributes.nested(3));
  const last = readValue(attributes.nested(4));
  if (from === undefined || first === undefined || last === undefined) return undefined;
  return { type: 'range', from, isInverted: attributes.number(2) === 1, first, last };
}

function readBitwise(attributes: Attributes): Expression | undefined {
  const from = attributes.register(1);
  const into = attributes.register(2);
  const mask = readValue(attributes.nested(4));
  const xor = readValue(attributes.nested(5));
  if (from === undefined || into === undefined || (attributes.number(6) ?? 0) !== 0) {
    return undefined;
  }
  return mask === undefined || xor === undefined
    ? undefined
    : { type: 'bitwise', from, into, mask, xor };
}

function readByteOrder(attributes: Attributes): Expression | undefined {
  const from = attributes.register(1);
  const into = attributes.register(2);
  const operation = attributes.choice(3, BYTE_ORDER_OPERATIONS);
  const length = attributes.number(4);
  const size = attributes.number(5);
  if (from === undefined || into === undefined || operation === undefined) return undefined;
  return length === undefined || size === undefined
    ? undefined
    : { type: 'byteorder', from, into, operation, length, size };
}

function readLookup(attributes: Attributes): Expression | undefined {
  const set = attributes.text(1);
  const from = attributes.register(2);
  if (set === undefined || from === undefined) return undefined;
  const into = attributes.isVerdict(3) ? 'verdict' : attributes.register(3);
  return {
    type: 'lookup',
    set,
    from,
    ...(into !== undefined && { into }),
    ...(attributes.number(5) === 1 && { isInverted: true }),
  };
}

function readImmediate(attributes: Attributes): Expression | undefined {
  const data = readData(attributes.nested(2));
  if (data === undefined) return undefined;
  if (!(data instanceof Uint8Array)) return { type: 'verdict', verdict: data };
  const into = attributes.register(1);
  return into === undefined ? undefined : { type: 'immediate', into, value: data };
}

function readNat(attributes: Attributes): Expression | undefined {
  const kind = attributes.choice(1, ['snat', 'dnat'] as const);
  const family = attributes.number(2);
  const isIp = family === NetfilterFamily.ipv4 || family === NetfilterFamily.ipv6;
  if (kind === undefined || !isIp) return undefined;
  const firstAddress = attributes.register(3);
  const lastAddress = attributes.register(4);
  return {
    type: 'nat',
    kind,
    family: family === NetfilterFamily.ipv4 ? 4 : 6,
    ...(firstAddress !== undefined && { firstAddress }),
    // The kernel repeats the first where there is no last.
    ...(lastAddress !== undefined && lastAddress !== firstAddress && { lastAddress }),
    ...readPorts(attributes, 5, 6),
    options: readNatOptions(attributes.number(7)),
  };
}

function readMasquerade(attributes: Attributes): Expression {
  const options = readNatOptions(attributes.number(1));
  return { type: 'masquerade', ...readPorts(attributes, 2, 3), options };
}

function readRedirect(attributes: Attributes): Expression {
  const options = readNatOptions(attributes.number(3));
  return { type: 'redirect', ...readPorts(attributes, 1, 2), options };
}

function readPorts(
  attributes: Attributes,
  first: number,
  last: number,
): { readonly firstPort?: Register; readonly lastPort?: Register } {
  const firstPort = attributes.register(first);
  const lastPort = attributes.register(last);
  return {
    ...(firstPort !== undefined && { firstPort }),
    ...(lastPort !== undefined && lastPort !== firstPort && { lastPort }),
  };
}

function readNatOptions(flags = 0): readonly NatOption[] {
  return namesOf(NAT_OPTIONS).filter((name) => (flags & NAT_OPTIONS[name]) !== 0);
}

function readReject(attributes: Attributes): Expression | undefined {
  const kind = attributes.choice(1, REJECT_KINDS);
  if (kind === undefined) return undefined;
  return { type: 'reject', kind, code: attributes.number(2) ?? 0 };
}

function readCounter(attributes: Attributes): Expression {
  const packets = attributes.number(2) ?? 0;
  return { type: 'counter', packets, bytes: attributes.number(1) ?? 0 };
}

function readLimit(attributes: Attributes): Expression | undefined {
  const rate = attributes.number(1);
  const seconds = attributes.number(2);
  const unit = attributes.choice(4, ['packets', 'bytes'] as const);
  if (rate === undefined || seconds === undefined || unit === undefined) return undefined;
  const isInverted = attributes.number(5) === 1;
  return { type: 'limit', rate, seconds, burst: attributes.number(3) ?? 0, unit, isInverted };
}

function readLog(attributes: Attributes): Expression {
  const prefix = attributes.text(2);
  const level = attributes.number(5);
  const group = attributes.number(1);
  return {
    type: 'log',
    ...(prefix !== undefined && { prefix }),
    ...(level !== undefined && { level }),
    ...(group !== undefined && { group }),
  };
}

function readQueue(attributes: Attributes): Expression | undefined {
  const first = attributes.number(1);
  if (first === undefined) return undefined;
  const isBypassed = ((attributes.number(3) ?? 0) & 1) !== 0;
  return { type: 'queue', first, count: attributes.number(2) ?? 1, isBypassed };
}

function readObject(attributes: Attributes): Expression | undefined {
  const kind = attributes.key(1, ObjectType);
  const name = attributes.text(2);
  return kind === undefined || name === undefined ? undefined : { type: 'object', kind, name };
}

/** The keys of one of our tables. */
function namesOf<Name extends string>(table: Readonly<Record<Name, number>>): readonly Name[] {
  return Object.keys(table) as Name[];
}
