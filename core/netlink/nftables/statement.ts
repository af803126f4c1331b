import { ipAddressBytes, ipFamily, type IpAddress, type IpFamily } from '../../net/ip-address.ts';
import type { IpPrefix } from '../../net/ip-prefix.ts';
import { HOST_IS_LITTLE_ENDIAN } from '../byte-order.ts';
import { markData, prefixRange, serviceData } from './data-type.ts';
import type { Expression, NatExpression, NatOption, Register } from './expression.ts';
import { isSyn, loadFields, type Field, type Part } from './match.ts';
import type { RuleDefinition } from './rule.ts';

/** Builders of what a rule does. */

/** Puts a rule together. */
export function rule(...parts: readonly Part[]): RuleDefinition {
  return { expressions: parts.flat() };
}

/** Puts a rule together that `nft list` prints with a comment. */
export function named(comment: string, ...parts: readonly Part[]): RuleDefinition {
  return { comment, expressions: parts.flat() };
}

export const accept: Expression = { type: 'verdict', verdict: { type: 'accept' } };
export const drop: Expression = { type: 'verdict', verdict: { type: 'drop' } };
/** Back to the chain that jumped here, or to the policy. */
export const leave: Expression = { type: 'verdict', verdict: { type: 'return' } };

export function jump(chain: string): Expression {
  return { type: 'verdict', verdict: { type: 'jump', chain } };
}

export function goto(chain: string): Expression {
  return { type: 'verdict', verdict: { type: 'goto', chain } };
}

/** Does what a verdict map has for the fields; without an entry the rule does not match. */
export function decide(map: string, ...fields: readonly Field[]): readonly Expression[] {
  return [...loadFields(fields), { type: 'lookup', set: map, from: 0, into: 'verdict' }];
}

export const counter: Expression = { type: 'counter', packets: 0, bytes: 0 };

/** Counts in a counter of the table. */
export function countIn(name: string): Expression {
  return { type: 'object', kind: 'counter', name };
}

/** Gives the connection the lifetimes of a timeout object of the table. */
export function useTimeout(name: string): Expression {
  return { type: 'object', kind: 'timeout', name };
}

export const notrack: Expression = { type: 'notrack' };

/** Matches up to `rate` packets per `seconds`, after a burst. */
export function limit(rate: number, seconds: number, burst: number): Expression {
  return { type: 'limit', rate, seconds, burst, unit: 'packets', isInverted: false };
}

/** `level` as syslog has it: 4 warning, 6 info. */
export function log(prefix: string, level = 6): Expression {
  return { type: 'log', prefix, level };
}

/** Sets the bits of `mask` in the packet's mark. */
export function setMark(mark: number, mask = 0xffff_ffff): readonly Expression[] {
  return [...markValue(mark, mask, 'meta'), { type: 'set-meta', key: 'mark', from: 0 }];
}

/** Sets the bits of `mask` in the connection's mark. */
export function setConnectionMark(mark: number, mask = 0xffff_ffff): readonly Expression[] {
  return [...markValue(mark, mask, 'ct'), { type: 'set-ct', key: 'mark', from: 0 }];
}

export const saveMark: readonly Expression[] = [
  { type: 'meta', key: 'mark', into: 0 },
  { type: 'set-ct', key: 'mark', from: 0 },
];

export const restoreMark: readonly Expression[] = [
  { type: 'ct', key: 'mark', into: 0 },
  { type: 'set-meta', key: 'mark', from: 0 },
];

function markValue(mark: number, mask: number, of: 'meta' | 'ct'): readonly Expression[] {
  if (mask === 0xffff_ffff) return [{ type: 'immediate', into: 0, value: markData(mark) }];
  return [
    { type: of, key: 'mark', into: 0 },
    { type: 'bitwise', from: 0, into: 0, mask: markData(~mask), xor: markData(mark & mask) },
  ];
}

/** Puts connections into a zone, so that equal addresses of two networks are told apart. */
export function setZone(zone: number): readonly Expression[] {
  const value = new Uint8Array(2);
  new DataView(value.buffer).setUint16(0, zone, HOST_IS_LITTLE_ENDIAN);
  return [
    { type: 'immediate', into: 0, value },
    { type: 'set-ct', key: 'zone', from: 0 },
  ];
}

/** Writes the destination or source port of a UDP datagram and corrects its checksum. */
export function setUdpPort(end: 'source' | 'destination', port: number): readonly Expression[] {
  const offset = end === 'source' ? 0 : 2;
  return [
    { type: 'immediate', into: 0, value: serviceData(port) },
    {
      type: 'write-payload',
      base: 'transport',
      offset,
      length: 2,
      from: 0,
      checksum: { offset: 6 },
    },
  ];
}

/** To this machine, to the port where one is given; the interface's first address is the new destination. */
export function redirectTo(
  port?: number,
  options: readonly NatOption[] = [],
): readonly Expression[] {
  if (port === undefined) return [{ type: 'redirect', options }];
  return [
    { type: 'immediate', into: 0, value: serviceData(port) },
    { type: 'redirect', firstPort: 0, options },
  ];
}

/** Source address: the one of the interface that the packet leaves by. */
export function masquerade(...options: readonly NatOption[]): Expression {
  return { type: 'masquerade', options };
}

export interface NatTarget {
  readonly address: IpAddress;
  /** Up to this one, chosen by the kernel. */
  readonly lastAddress?: IpAddress;
  readonly port?: number;
  readonly options?: readonly NatOption[];
}

export function snat(target: NatTarget): readonly Expression[] {
  return translate('snat', target);
}

export function dnat(target: NatTarget): readonly Expression[] {
  return translate('dnat', target);
}

/** Changes the network part of the address and keeps the rest (1:1). The new prefix is as long as the old. */
export function prefixNat(kind: 'snat' | 'dnat', prefix: IpPrefix): readonly Expression[] {
  const { first, last } = prefixRange(prefix);
  const { address } = prefix;
  return [
    { type: 'immediate', into: 0, value: first },
    { type: 'immediate', into: SECOND, value: last },
    nat(kind, ipFamily(address), { firstAddress: 0, lastAddress: SECOND, options: ['prefix'] }),
  ];
}

/**
 * Translates to what a map has for the fields: an address, or an address and a port (`withPort`).
 * Without an entry the rule does not match.
 */
export function natByMap(
  kind: 'snat' | 'dnat',
  family: IpFamily,
  map: string,
  fields: readonly Field[],
  has: 'address' | 'address-and-port' = 'address',
): readonly Expression[] {
  const firstPort = has === 'address' ? undefined : wordsOf(family);
  return [
    ...loadFields(fields),
    { type: 'lookup', set: map, from: 0, into: 0 },
    nat(kind, family, { firstAddress: 0, ...(firstPort !== undefined && { firstPort }) }),
  ];
}

/** Translates prefixes to prefixes by a map whose values are ranges (`isRange`). */
export function prefixNatByMap(
  kind: 'snat' | 'dnat',
  family: IpFamily,
  map: string,
  fields: readonly Field[],
): readonly Expression[] {
  const registers = { firstAddress: 0, lastAddress: wordsOf(family) };
  return [
    ...loadFields(fields),
    { type: 'lookup', set: map, from: 0, into: 0 },
    nat(kind, family, { ...registers, options: ['prefix'] }),
  ];
}

function wordsOf(family: IpFamily): number {
  return family === 4 ? 1 : 4;
}

/** The register behind one that an address of either family fills. */
const SECOND: Register = 4;

function translate(kind: 'snat' | 'dnat', target: NatTarget): readonly Expression[] {
  const { address, lastAddress, port, options } = target;
  const firstPort = lastAddress === undefined ? SECOND : 2 * SECOND;
  return [
    { type: 'immediate', into: 0, value: ipAddressBytes(address) },
    ...(lastAddress === undefined
      ? []
      : [{ type: 'immediate', into: SECOND, value: ipAddressBytes(lastAddress) } as const]),
    ...(port === undefined
      ? []
      : [{ type: 'immediate', into: firstPort, value: serviceData(port) } as const]),
    nat(kind, ipFamily(address), {
      firstAddress: 0,
      ...(lastAddress !== undefined && { lastAddress: SECOND }),
      ...(port !== undefined && { firstPort }),
      ...(options && { options }),
    }),
  ];
}

function nat(
  kind: 'snat' | 'dnat',
  family: IpFamily,
  registers: Partial<Omit<NatExpression, 'type' | 'kind' | 'family'>>,
): Expression {
  return { type: 'nat', kind, family, ...registers, options: registers.options ?? [] };
}

/** Codes of `reject` for both families (NFT_REJECT_ICMPX_*). */
const ICMPX = {
  'no-route': 0,
  'port-unreachable': 1,
  'host-unreachable': 2,
  prohibited: 3,
} as const;

/** Tells the sender with ICMP of its own family: `prohibited` is 3/13 or 1/1. */
export function reject(why: keyof typeof ICMPX): Expression {
  return { type: 'reject', kind: 'icmpx', code: ICMPX[why] };
}

/** Resets a TCP connection; the rule asks for TCP before. */
export const resetTcp: Expression = { type: 'reject', kind: 'tcp-reset', code: 0 };

/** TCP option 2 (RFC 9293 §3.2): the value is behind kind and length. */
const MSS_OPTION = {
  type: 'header-option',
  header: 'tcp',
  option: 2,
  offset: 2,
  length: 2,
  from: 0,
} as const;

/** In SYNs: lowers the MSS to `bytes`, or to what fits into the MTU of the route. */
export function clampMss(to: number | 'route'): readonly Expression[] {
  const value: readonly Expression[] =
    to === 'route'
      ? [
          { type: 'route', key: 'tcpMss', into: 0 },
          { type: 'byteorder', from: 0, into: 0, operation: 'hton', length: 2, size: 2 },
        ]
      : [{ type: 'immediate', into: 0, value: serviceData(to) }];
  return [...isSyn(), ...value, MSS_OPTION];
}
