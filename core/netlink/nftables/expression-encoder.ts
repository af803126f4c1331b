import { unreachable } from '../../sansio/outcome.ts';
import type { MessageWriter } from '../message-writer.ts';
import { netfilterFamily } from '../nfnetlink.ts';
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
  type HeaderOptionExpression,
  type LimitExpression,
  type LogExpression,
  type LookupExpression,
  type NatExpression,
  type NatOption,
  type PayloadWriteExpression,
  type QueueExpression,
  type Register,
} from './expression.ts';
import { writeData } from './verdict.ts';

/** Writes the attribute `type` with the expressions of a rule, in the order of attributes that nft has. */
export function writeExpressions(
  writer: MessageWriter,
  type: number,
  expressions: readonly Expression[],
): void {
  writer.nested(type, () => {
    for (const expression of expressions) writeExpression(writer, expression);
  });
}

function writeExpression(writer: MessageWriter, expression: Expression): void {
  if (expression.type === 'unknown') return;
  writer.nested(LIST_ITEM, () => {
    writer.name(ExpressionAttribute.name, KERNEL_NAMES[expression.type]);
    if (expression.type === 'notrack') return;
    writer.nested(ExpressionAttribute.data, () => {
      if (isStatement(expression)) writeStatement(writer, expression);
      else writeAttributes(writer, expression);
    });
  });
}

/** The kernel's names. */
const KERNEL_NAMES = {
  meta: 'meta',
  'set-meta': 'meta',
  ct: 'ct',
  'set-ct': 'ct',
  payload: 'payload',
  'write-payload': 'payload',
  'header-option': 'exthdr',
  route: 'rt',
  fib: 'fib',
  compare: 'cmp',
  range: 'range',
  bitwise: 'bitwise',
  byteorder: 'byteorder',
  lookup: 'lookup',
  immediate: 'immediate',
  verdict: 'immediate',
  nat: 'nat',
  masquerade: 'masq',
  redirect: 'redir',
  reject: 'reject',
  notrack: 'notrack',
  counter: 'counter',
  limit: 'limit',
  log: 'log',
  queue: 'queue',
  object: 'objref',
} as const;

type Known = Exclude<Expression, { readonly type: 'unknown' | 'notrack' }>;

function writeAttributes(writer: MessageWriter, expression: Exclude<Known, Statement>): void {
  switch (expression.type) {
    case 'meta':
      writer.be32(2, META_KEYS[expression.key]).be32(1, registerNumber(expression.into));
      return;
    case 'set-meta':
      writer.be32(2, META_KEYS[expression.key]).be32(3, registerNumber(expression.from));
      return;
    case 'ct':
      writer.be32(2, CT_KEYS[expression.key]).be32(1, registerNumber(expression.into));
      if (expression.direction !== undefined) {
        writer.u8(3, DIRECTIONS.indexOf(expression.direction));
      }
      return;
    case 'set-ct':
      writer.be32(2, CT_KEYS[expression.key]).be32(4, registerNumber(expression.from));
      return;
    case 'payload':
      writer.be32(1, registerNumber(expression.into));
      writer.be32(2, PAYLOAD_BASES.indexOf(expression.base));
      writer.be32(3, expression.offset).be32(4, expression.length);
      return;
    case 'write-payload':
      writePayloadWrite(writer, expression);
      return;
    case 'header-option':
      writeHeaderOption(writer, expression);
      return;
    case 'route':
      writer.be32(2, ROUTE_KEYS[expression.key]).be32(1, registerNumber(expression.into));
      return;
    case 'fib': {
      const flags = expression.selectors.reduce((sum, name) => sum | FIB_SELECTORS[name], 0);
      writer.be32(3, flags).be32(2, FIB_RESULTS[expression.result]);
      writer.be32(1, registerNumber(expression.into));
      return;
    }
    case 'compare':
      writer.be32(1, registerNumber(expression.from));
      writer.be32(2, COMPARISONS.indexOf(expression.operator));
      writeData(writer, 3, expression.value);
      return;
    case 'range':
      writer.be32(1, registerNumber(expression.from)).be32(2, expression.isInverted ? 1 : 0);
      writeData(writer, 3, expression.first);
      writeData(writer, 4, expression.last);
      return;
    case 'bitwise':
      writer.be32(1, registerNumber(expression.from)).be32(2, registerNumber(expression.into));
      writer.be32(3, expression.mask.length);
      writeData(writer, 4, expression.mask);
      writeData(writer, 5, expression.xor);
      return;
    case 'byteorder':
      writer.be32(1, registerNumber(expression.from)).be32(2, registerNumber(expression.into));
      writer.be32(3, BYTE_ORDER_OPERATIONS.indexOf(expression.operation));
      writer.be32(4, expression.length).be32(5, expression.size);
      return;
    case 'lookup':
      writeLookup(writer, expression);
      return;
    case 'immediate':
      writer.be32(1, registerNumber(expression.into));
      writeData(writer, 2, expression.value);
      return;
    case 'verdict':
      writer.be32(1, VERDICT_REGISTER);
      writeData(writer, 2, expression.verdict);
      return;
    default:
      unreachable(expression);
  }
}

/** The expressions that act, and load no register. */
const STATEMENTS = [
  'nat',
  'masquerade',
  'redirect',
  'reject',
  'counter',
  'limit',
  'log',
  'queue',
  'object',
] as const;
type Statement = Extract<Known, { readonly type: (typeof STATEMENTS)[number] }>;

function isStatement(expression: Known): expression is Statement {
  return STATEMENTS.some((type) => type === expression.type);
}

function writeStatement(writer: MessageWriter, expression: Statement): void {
  switch (expression.type) {
    case 'nat':
      writeNat(writer, expression);
      return;
    case 'masquerade': {
      const { firstPort, lastPort } = expression;
      writeNatFlags(writer, 1, expression.options, firstPort !== undefined);
      if (firstPort !== undefined) writer.be32(2, registerNumber(firstPort));
      if (lastPort !== undefined) writer.be32(3, registerNumber(lastPort));
      return;
    }
    case 'redirect': {
      const { firstPort, lastPort } = expression;
      if (firstPort !== undefined) writer.be32(1, registerNumber(firstPort));
      if (lastPort !== undefined) writer.be32(2, registerNumber(lastPort));
      writeNatFlags(writer, 3, expression.options, firstPort !== undefined);
      return;
    }
    case 'reject':
      writer.be32(1, REJECT_KINDS.indexOf(expression.kind)).u8(2, expression.code);
      return;
    case 'counter':
      if (expression.bytes > 0 || expression.packets > 0) {
        writer.be64(1, expression.bytes).be64(2, expression.packets);
      }
      return;
    case 'limit':
      writeLimit(writer, expression);
      return;
    case 'log':
      writeLog(writer, expression);
      return;
    case 'queue':
      writeQueue(writer, expression);
      return;
    case 'object':
      writer.be32(1, ObjectType[expression.kind]).text(2, expression.name);
      return;
    default:
      unreachable(expression);
  }
}

const VERDICT_REGISTER = 0;

/** The first word of four is named by the old number of a register of 16 bytes, as the kernel does it. */
function registerNumber(register: Register): number {
  return register % 4 === 0 ? 1 + register / 4 : 8 + register;
}

function writePayloadWrite(writer: MessageWriter, expression: PayloadWriteExpression): void {
  writer.be32(5, registerNumber(expression.from));
  writer.be32(2, PAYLOAD_BASES.indexOf(expression.base));
  writer.be32(3, expression.offset).be32(4, expression.length);
  if (expression.checksum !== undefined) {
    writer.be32(6, 1).be32(7, expression.checksum.offset);
  }
  if (expression.isPseudoHeader === true) writer.be32(8, 1);
}

function writeHeaderOption(writer: MessageWriter, expression: HeaderOptionExpression): void {
  const { into, from } = expression;
  if (into !== undefined) writer.be32(1, registerNumber(into));
  if (from !== undefined) writer.be32(7, registerNumber(from));
  writer.u8(2, expression.option);
  writer.be32(3, expression.offset).be32(4, expression.length);
  writer.be32(6, HEADER_OPTION_KINDS.indexOf(expression.header));
  if (expression.isPresence === true) writer.be32(5, 1);
}

function writeLookup(
  writer: MessageWriter,
  { set, from, into, isInverted }: LookupExpression,
): void {
  writer.be32(2, registerNumber(from));
  if (into !== undefined) {
    writer.be32(3, into === 'verdict' ? VERDICT_REGISTER : registerNumber(into));
  }
  writer.name(1, set);
  if (isInverted === true) writer.be32(5, 1);
}

function writeNat(writer: MessageWriter, expression: NatExpression): void {
  writer.be32(1, expression.kind === 'snat' ? 0 : 1);
  writer.be32(2, netfilterFamily(expression.family));
  const { firstAddress, lastAddress, firstPort, lastPort } = expression;
  if (firstAddress !== undefined) writer.be32(3, registerNumber(firstAddress));
  if (lastAddress !== undefined) writer.be32(4, registerNumber(lastAddress));
  if (firstPort !== undefined) writer.be32(5, registerNumber(firstPort));
  if (lastPort !== undefined) writer.be32(6, registerNumber(lastPort));
  writeNatFlags(writer, 7, expression.options, firstPort !== undefined);
}

/** NF_NAT_RANGE_PROTO_SPECIFIED: older kernels look at it, newer ones set it themselves. */
const NAT_HAS_PORT = 2;

function writeNatFlags(
  writer: MessageWriter,
  type: number,
  options: readonly NatOption[],
  hasPort: boolean,
): void {
  const flags = options.reduce((sum, name) => sum | NAT_OPTIONS[name], hasPort ? NAT_HAS_PORT : 0);
  if (flags !== 0) writer.be32(type, flags);
}

function writeLimit(writer: MessageWriter, expression: LimitExpression): void {
  writer.be64(1, expression.rate).be64(2, expression.seconds).be32(3, expression.burst);
  writer.be32(4, expression.unit === 'packets' ? 0 : 1).be32(5, expression.isInverted ? 1 : 0);
}

function writeLog(writer: MessageWriter, { prefix, level, group }: LogExpression): void {
  if (prefix !== undefined) writer.name(2, prefix);
  if (group !== undefined) writer.be16(1, group);
  if (level !== undefined) writer.be32(5, level);
}

function writeQueue(writer: MessageWriter, { first, count, isBypassed }: QueueExpression): void {
  writer.be16(1, first).be16(2, count);
  if (isBypassed) writer.be16(3, 1);
}
