import { ipAddressBytes, ipFamily, type IpFamily } from '../../net/ip-address.ts';
import type { IpPrefix } from '../../net/ip-prefix.ts';
import { encodeUtf8 } from '../../sansio/utf8.ts';
import { NetfilterFamily } from '../nfnetlink.ts';
import { interfaceData, markData, prefixMask, protocolData, serviceData } from './data-type.ts';
import type { Comparison, Direction, Expression, FibSelector, Register } from './expression.ts';

/**
 * Builders of what a rule asks, each as nft writes it, so that `nft list` prints it back in its own
 * words. They are put together with `rule` of `statement.ts`.
 */
export type Part = Expression | readonly Expression[];

/** IP protocol numbers. */
export const Protocol = { icmp: 1, tcp: 6, udp: 17, icmpv6: 58 } as const;

/** One value of a packet, which can be loaded for a comparison or as a field of a set's key. */
export interface Field {
  /** Bytes; in a concatenation it fills whole words. */
  readonly length: number;
  load(into: Register): Expression;
}

const meta = (
  key: 'mark' | 'l4proto' | 'nfproto' | 'iifname' | 'oifname',
  length: number,
): Field => ({
  length,
  load: (into) => ({ type: 'meta', key, into }),
});

const network = (offset: number, length: number): Field => ({
  length,
  load: (into) => ({ type: 'payload', base: 'network', offset, length, into }),
});

const transport = (offset: number, length: number): Field => ({
  length,
  load: (into) => ({ type: 'payload', base: 'transport', offset, length, into }),
});

/** Fields of a packet. Those of a header say nothing unless the rule asks for its protocol before. */
export const field: Readonly<Record<FieldName, Field>> = {
  ipSource: network(12, 4),
  ipDestination: network(16, 4),
  ip6Source: network(8, 16),
  ip6Destination: network(24, 16),
  sourcePort: transport(0, 2),
  destinationPort: transport(2, 2),
  protocol: meta('l4proto', 1),
  mark: meta('mark', 4),
  inputInterface: meta('iifname', 16),
  outputInterface: meta('oifname', 16),
  connectionMark: {
    length: 4,
    load: (into: Register): Expression => ({ type: 'ct', key: 'mark', into }),
  },
};

export type FieldName =
  | 'ipSource'
  | 'ipDestination'
  | 'ip6Source'
  | 'ip6Destination'
  | 'sourcePort'
  | 'destinationPort'
  | 'protocol'
  | 'mark'
  | 'inputInterface'
  | 'outputInterface'
  | 'connectionMark';

/** The address that a connection was opened to (`original`, `destination`), and so on. */
export function connectionAddress(
  direction: Direction,
  end: 'source' | 'destination',
  family: IpFamily,
): Field {
  const keys = {
    source: ['ipSource', 'ip6Source'],
    destination: ['ipDestination', 'ip6Destination'],
  } as const;
  const key = keys[end][family === 4 ? 0 : 1];
  return { length: family === 4 ? 4 : 16, load: (into) => ({ type: 'ct', key, into, direction }) };
}

export function connectionPort(direction: Direction, end: 'source' | 'destination'): Field {
  const key = end === 'source' ? 'sourcePort' : 'destinationPort';
  return { length: 2, load: (into) => ({ type: 'ct', key, into, direction }) };
}

/** Loads the fields behind each other, the way a key of them is laid out. */
export function loadFields(fields: readonly Field[]): readonly Expression[] {
  let into: Register = 0;
  return fields.map((loaded) => {
    const expression = loaded.load(into);
    into += Math.ceil(loaded.length / 4);
    return expression;
  });
}

export function compare(
  compared: Field,
  value: Uint8Array,
  operator: Comparison = '==',
): readonly Expression[] {
  return [compared.load(0), { type: 'compare', from: 0, operator, value }];
}

/** Whether a field is in a range; both ends belong to it. */
export function isBetween(
  compared: Field,
  first: Uint8Array,
  last: Uint8Array,
): readonly Expression[] {
  return [
    compared.load(0),
    { type: 'compare', from: 0, operator: '>=', value: first },
    { type: 'compare', from: 0, operator: '<=', value: last },
  ];
}

/** Whether some bits of a field are set so: (field & mask) == value. */
export function hasBits(
  compared: Field,
  mask: Uint8Array,
  value: Uint8Array,
  operator: '==' | '!=' = '==',
): readonly Expression[] {
  return [
    compared.load(0),
    { type: 'bitwise', from: 0, into: 0, mask, xor: new Uint8Array(mask.length) },
    { type: 'compare', from: 0, operator, value },
  ];
}

/** The interface that the packet came in by; a name that ends in `*` stands for all that start so. */
export function inputInterface(name: string, operator: '==' | '!=' = '=='): readonly Expression[] {
  return compare(field.inputInterface, interfacePattern(name), operator);
}

export function outputInterface(name: string, operator: '==' | '!=' = '=='): readonly Expression[] {
  return compare(field.outputInterface, interfacePattern(name), operator);
}

function interfacePattern(name: string): Uint8Array {
  return name.endsWith('*') ? encodeUtf8(name.slice(0, -1)) : interfaceData(name);
}

export function isFamily(family: IpFamily): readonly Expression[] {
  const number = family === 4 ? NetfilterFamily.ipv4 : NetfilterFamily.ipv6;
  return compare(meta('nfproto', 1), Uint8Array.of(number));
}

/** The protocol above IP, behind extension headers. */
export function isProtocol(protocol: number): readonly Expression[] {
  return compare(field.protocol, protocolData(protocol));
}

/** Source address in a prefix; asks for the family too. */
export function source(prefix: IpPrefix, operator: '==' | '!=' = '=='): readonly Expression[] {
  return inPrefix(prefix, 'source', operator);
}

export function destination(prefix: IpPrefix, operator: '==' | '!=' = '=='): readonly Expression[] {
  return inPrefix(prefix, 'destination', operator);
}

function inPrefix(
  { address, length }: IpPrefix,
  end: 'source' | 'destination',
  operator: '==' | '!=',
): readonly Expression[] {
  const family = ipFamily(address);
  const bytes = ipAddressBytes(address);
  const [v4, v6] = end === 'source' ? [12, 8] : [16, 24];
  const offset = family === 4 ? v4 : v6;
  if (length === 0) return isFamily(family);
  const wholeBytes = length / 8;
  if (Number.isInteger(wholeBytes)) {
    const start = network(offset, wholeBytes);
    return [...isFamily(family), ...compare(start, bytes.subarray(0, wholeBytes), operator)];
  }
  const mask = prefixMask(length, bytes.length);
  const value = bytes.map((byte, i) => byte & (mask[i] ?? 0));
  return [...isFamily(family), ...hasBits(network(offset, bytes.length), mask, value, operator)];
}

export type Ports = number | { readonly first: number; readonly last: number };

/** Destination port of TCP or UDP; asks for the protocol too. */
export function destinationPort(protocol: number, ports: Ports): readonly Expression[] {
  return [...isProtocol(protocol), ...matchPorts(field.destinationPort, ports)];
}

export function sourcePort(protocol: number, ports: Ports): readonly Expression[] {
  return [...isProtocol(protocol), ...matchPorts(field.sourcePort, ports)];
}

function matchPorts(compared: Field, ports: Ports): readonly Expression[] {
  return typeof ports === 'number'
    ? compare(compared, serviceData(ports))
    : isBetween(compared, serviceData(ports.first), serviceData(ports.last));
}

/** ICMP or ICMPv6 of a type. */
export function icmpType(family: IpFamily, type: number): readonly Expression[] {
  const protocol = family === 4 ? Protocol.icmp : Protocol.icmpv6;
  return [
    ...isFamily(family),
    ...isProtocol(protocol),
    ...compare(transport(0, 1), Uint8Array.of(type)),
  ];
}

/** The bytes of the payload from an offset in the transport header on. */
export function transportBytes(
  offset: number,
  value: Uint8Array,
  operator: Comparison = '==',
): readonly Expression[] {
  return compare(transport(offset, value.length), value, operator);
}

export function hasMark(mark: number, mask = 0xffff_ffff): readonly Expression[] {
  return matchMark(field.mark, mark, mask);
}

export function hasConnectionMark(mark: number, mask = 0xffff_ffff): readonly Expression[] {
  return matchMark(field.connectionMark, mark, mask);
}

function matchMark(compared: Field, mark: number, mask: number): readonly Expression[] {
  return mask === 0xffff_ffff
    ? compare(compared, markData(mark))
    : hasBits(compared, markData(mask), markData(mark));
}

/** NF_CT_STATE_BIT and NF_CT_STATE_UNTRACKED_BIT. */
const STATES = { invalid: 1, established: 2, related: 4, new: 8, untracked: 64 } as const;
export type ConnectionState = keyof typeof STATES;

/** Whether the connection is in one of the states. */
export function connectionState(...states: readonly ConnectionState[]): readonly Expression[] {
  const mask = states.reduce((sum, state) => sum | STATES[state], 0);
  const state: Field = { length: 4, load: (into) => ({ type: 'ct', key: 'state', into }) };
  return hasBits(state, markData(mask), markData(0), '!=');
}

/** IPS_*_BIT (linux/netfilter/nf_conntrack_common.h). */
const STATUSES = { seenReply: 2, assured: 4, confirmed: 8, snat: 16, dnat: 32 } as const;

export function connectionStatus(status: keyof typeof STATUSES): readonly Expression[] {
  const bits: Field = { length: 4, load: (into) => ({ type: 'ct', key: 'status', into }) };
  return hasBits(bits, markData(STATUSES[status]), markData(0), '!=');
}

/** A packet of the connection's first direction, or of its second. */
export function connectionDirection(direction: Direction): readonly Expression[] {
  const loaded: Field = { length: 1, load: (into) => ({ type: 'ct', key: 'direction', into }) };
  return compare(loaded, Uint8Array.of(direction === 'original' ? 0 : 1));
}

/** Of a TCP segment: SYN set, RST not, as the MSS is told in it. */
export function isSyn(): readonly Expression[] {
  return [
    ...isProtocol(Protocol.tcp),
    ...hasBits(transport(13, 1), Uint8Array.of(0x06), Uint8Array.of(0x02)),
  ];
}

/** What kind of address the packet's destination is to this machine. RTN_*. */
const ADDRESS_TYPES = { unicast: 1, local: 2, broadcast: 3, multicast: 5 } as const;

export function destinationIs(type: keyof typeof ADDRESS_TYPES): readonly Expression[] {
  return [
    { type: 'fib', selectors: ['destination'], result: 'addressType', into: 0 },
    { type: 'compare', from: 0, operator: '==', value: markData(ADDRESS_TYPES[type]) },
  ];
}

/** No route leads back to the source by the interface that the packet came in by (RFC 3704, strict). */
export function isSpoofed(): readonly Expression[] {
  const selectors: readonly FibSelector[] = ['source', 'inputInterface', 'present'];
  return [
    { type: 'fib', selectors, result: 'interface', into: 0 },
    { type: 'compare', from: 0, operator: '==', value: markData(0) },
  ];
}

/** Whether the fields together are a key of a set of the same table. */
export function isIn(set: string, ...fields: readonly Field[]): readonly Expression[] {
  return [...loadFields(fields), { type: 'lookup', set, from: 0 }];
}

export function isNotIn(set: string, ...fields: readonly Field[]): readonly Expression[] {
  return [...loadFields(fields), { type: 'lookup', set, from: 0, isInverted: true }];
}
