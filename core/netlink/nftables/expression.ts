import type { IpFamily } from '../../net/ip-address.ts';
import type { Verdict } from './verdict.ts';

/**
 * A rule is a list of expressions, which the kernel runs in order for each packet: they load registers,
 * and the first one that does not match ends the rule. `match.ts` and `statement.ts` build them.
 */
export type Expression =
  | { readonly type: 'meta'; readonly key: MetaKey; readonly into: Register }
  | { readonly type: 'set-meta'; readonly key: MetaKey; readonly from: Register }
  | CtExpression
  | { readonly type: 'set-ct'; readonly key: CtKey; readonly from: Register }
  | PayloadExpression
  | PayloadWriteExpression
  | HeaderOptionExpression
  | { readonly type: 'route'; readonly key: RouteKey; readonly into: Register }
  | FibExpression
  | {
      readonly type: 'compare';
      readonly from: Register;
      readonly operator: Comparison;
      readonly value: Uint8Array;
    }
  | {
      readonly type: 'range';
      readonly from: Register;
      readonly isInverted: boolean;
      /** Both ends belong to it. */
      readonly first: Uint8Array;
      readonly last: Uint8Array;
    }
  | BitwiseExpression
  | ByteOrderExpression
  | LookupExpression
  | { readonly type: 'immediate'; readonly into: Register; readonly value: Uint8Array }
  | { readonly type: 'verdict'; readonly verdict: Verdict }
  | NatExpression
  | MasqueradeExpression
  | RedirectExpression
  | RejectExpression
  | { readonly type: 'notrack' }
  | { readonly type: 'counter'; readonly packets: number; readonly bytes: number }
  | LimitExpression
  | LogExpression
  | QueueExpression
  | { readonly type: 'object'; readonly kind: ObjectKind; readonly name: string }
  | UnknownExpression;

/** One of sixteen words of 32 bits, numbered from 0; a value fills as many as it needs. */
export type Register = number;

export type MetaKey = keyof typeof META_KEYS;
export const META_KEYS = {
  length: 0,
  protocol: 1,
  priority: 2,
  mark: 3,
  iif: 4,
  oif: 5,
  iifname: 6,
  oifname: 7,
  nfproto: 15,
  l4proto: 16,
  pkttype: 19,
} as const;

export interface CtExpression {
  readonly type: 'ct';
  readonly key: CtKey;
  readonly into: Register;
  /** Of the two tuples of a connection, for the keys that are in both. */
  readonly direction?: Direction | undefined;
}

export type Direction = (typeof DIRECTIONS)[number];
export const DIRECTIONS = ['original', 'reply'] as const;

export type CtKey = keyof typeof CT_KEYS;
export const CT_KEYS = {
  state: 0,
  direction: 1,
  status: 2,
  mark: 3,
  expiration: 5,
  l3proto: 7,
  protocol: 10,
  sourcePort: 11,
  destinationPort: 12,
  zone: 17,
  ipSource: 19,
  ipDestination: 20,
  ip6Source: 21,
  ip6Destination: 22,
} as const;

export interface PayloadExpression {
  readonly type: 'payload';
  readonly base: PayloadBase;
  /** Bytes, from the start of the base. */
  readonly offset: number;
  readonly length: number;
  readonly into: Register;
}

export interface PayloadWriteExpression {
  readonly type: 'write-payload';
  readonly base: PayloadBase;
  readonly offset: number;
  readonly length: number;
  readonly from: Register;
  /** The internet checksum (RFC 1071) to correct: where it is, from the start of the base. */
  readonly checksum?: { readonly offset: number } | undefined;
  /** What is written is part of the pseudo-header, which the transport's checksum covers. */
  readonly isPseudoHeader?: boolean | undefined;
}

export type PayloadBase = (typeof PAYLOAD_BASES)[number];
export const PAYLOAD_BASES = ['link', 'network', 'transport', 'inner'] as const;

/** Reads into a register or writes from one (just one of the two is there) an option of TCP or IP. */
export interface HeaderOptionExpression {
  readonly type: 'header-option';
  readonly header: HeaderOptionKind;
  /** The option's number. */
  readonly option: number;
  /** Bytes, from the start of the option. */
  readonly offset: number;
  readonly length: number;
  readonly into?: Register | undefined;
  readonly from?: Register | undefined;
  /** Loads 1 or 0 for whether the option is there. */
  readonly isPresence?: boolean | undefined;
}

export type HeaderOptionKind = (typeof HEADER_OPTION_KINDS)[number];
export const HEADER_OPTION_KINDS = ['ipv6', 'tcp', 'ipv4'] as const;

export type RouteKey = keyof typeof ROUTE_KEYS;
/** `tcpMss`: what fits into the MTU of the route, in the machine's byte order. */
export const ROUTE_KEYS = { nextHop4: 1, nextHop6: 2, tcpMss: 3 } as const;

export interface FibExpression {
  readonly type: 'fib';
  readonly selectors: readonly FibSelector[];
  readonly result: FibResult;
  readonly into: Register;
}

export type FibSelector = keyof typeof FIB_SELECTORS;
/** `present`: load 1 or 0 for whether there is a route. */
export const FIB_SELECTORS = {
  source: 1,
  destination: 2,
  mark: 4,
  inputInterface: 8,
  outputInterface: 16,
  present: 32,
} as const;
export type FibResult = keyof typeof FIB_RESULTS;
export const FIB_RESULTS = { interface: 1, interfaceName: 2, addressType: 3 } as const;

export type Comparison = (typeof COMPARISONS)[number];
export const COMPARISONS = ['==', '!=', '<', '<=', '>', '>='] as const;

/** into = (from & mask) ^ xor */
export interface BitwiseExpression {
  readonly type: 'bitwise';
  readonly from: Register;
  readonly into: Register;
  readonly mask: Uint8Array;
  readonly xor: Uint8Array;
}

export interface ByteOrderExpression {
  readonly type: 'byteorder';
  readonly from: Register;
  readonly into: Register;
  readonly operation: (typeof BYTE_ORDER_OPERATIONS)[number];
  readonly length: number;
  /** Bytes of each number: 2, 4 or 8. */
  readonly size: number;
}
export const BYTE_ORDER_OPERATIONS = ['ntoh', 'hton'] as const;

/** Asks whether the registers are in a set, or what a map has for them. */
export interface LookupExpression {
  readonly type: 'lookup';
  readonly set: string;
  readonly from: Register;
  /** Where the value of a map goes; a verdict takes effect. */
  readonly into?: Register | 'verdict' | undefined;
  readonly isInverted?: boolean | undefined;
}

export interface NatExpression {
  readonly type: 'nat';
  readonly kind: 'snat' | 'dnat';
  readonly family: IpFamily;
  readonly firstAddress?: Register | undefined;
  readonly lastAddress?: Register | undefined;
  readonly firstPort?: Register | undefined;
  readonly lastPort?: Register | undefined;
  readonly options: readonly NatOption[];
}

export interface MasqueradeExpression {
  readonly type: 'masquerade';
  readonly firstPort?: Register | undefined;
  readonly lastPort?: Register | undefined;
  readonly options: readonly NatOption[];
}

export interface RedirectExpression {
  readonly type: 'redirect';
  readonly firstPort?: Register | undefined;
  readonly lastPort?: Register | undefined;
  readonly options: readonly NatOption[];
}

export type NatOption = keyof typeof NAT_OPTIONS;
/** NF_NAT_RANGE_*. `prefix`: keep the host bits of the address, translate the others. */
export const NAT_OPTIONS = { random: 4, persistent: 8, fullyRandom: 16, prefix: 64 } as const;

export interface RejectExpression {
  readonly type: 'reject';
  /** `icmp`: with a code of the packet's own ICMP version; `icmpx`: with an `IcmpxCode` for both. */
  readonly kind: RejectKind;
  readonly code: number;
}
export type RejectKind = (typeof REJECT_KINDS)[number];
export const REJECT_KINDS = ['icmp', 'tcp-reset', 'icmpx'] as const;

/** At most `rate` per `seconds`, after a burst. What is beyond does not match; inverted, what is not. */
export interface LimitExpression {
  readonly type: 'limit';
  readonly rate: number;
  readonly seconds: number;
  readonly burst: number;
  readonly unit: 'packets' | 'bytes';
  readonly isInverted: boolean;
}

/** To the kernel's log with a level of syslog, or to a netlink group. */
export interface LogExpression {
  readonly type: 'log';
  readonly prefix?: string | undefined;
  readonly level?: number | undefined;
  readonly group?: number | undefined;
}

/** To a program (NFQUEUE). With `isBypassed`, on when there is none. */
export interface QueueExpression {
  readonly type: 'queue';
  readonly first: number;
  readonly count: number;
  readonly isBypassed: boolean;
}

export type ObjectKind = 'counter' | 'timeout';

/** Read from the kernel and not made by us. */
export interface UnknownExpression {
  readonly type: 'unknown';
  readonly name: string;
}
