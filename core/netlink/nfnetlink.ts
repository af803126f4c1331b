import type { IpFamily } from '../net/ip-address.ts';
import { MessageFlag } from './constants.ts';
import type { MessageWriter } from './message-writer.ts';
import type { NetlinkMessage } from './message.ts';

/** What all messages of NETLINK_NETFILTER share (linux/netfilter/nfnetlink.h). Integers are big-endian. */

/** Bytes of struct nfgenmsg: family, version, resource. */
export const NETFILTER_HEADER = 4;

/** The upper byte of a message's type. */
export const Subsystem = { conntrack: 1, nftables: 10 } as const;

export const NetfilterFamily = {
  unspecified: 0,
  inet: 1,
  ipv4: 2,
  arp: 3,
  netdev: 5,
  bridge: 7,
  ipv6: 10,
} as const;

/** Messages that hold a batch together; they belong to no subsystem. */
export const BatchMessage = { begin: 0x10, end: 0x11 } as const;
export const BatchAttribute = { generation: 1 } as const;

export const NetfilterGroup = {
  conntrackNew: 1,
  conntrackUpdate: 2,
  conntrackDestroy: 3,
  nftables: 7,
} as const;

export interface NetfilterMessage {
  /** Number of the message within its subsystem. */
  readonly kind: number;
  /** A `NetfilterFamily`. */
  readonly family: number;
  readonly flags: number;
  /** Borrowed from the datagram. */
  readonly attributes: Uint8Array;
}

/** Starts a request: `kind` is the message's number within the subsystem, `flags` without REQUEST. */
export function beginNetfilter(
  writer: MessageWriter,
  subsystem: number,
  kind: number,
  flags: number,
  family: number,
): MessageWriter {
  writer.begin((subsystem << 8) | kind, MessageFlag.request | flags);
  writer.fixed(NETFILTER_HEADER).setUint8(0, family);
  return writer;
}

/** Reads the header; `undefined` when the message is of another subsystem or too short. */
export function readNetfilter(
  message: Pick<NetlinkMessage, 'type' | 'flags' | 'body'>,
  subsystem: number,
): NetfilterMessage | undefined {
  const { type, flags, body } = message;
  if (type >> 8 !== subsystem || body.length < NETFILTER_HEADER) return undefined;
  const attributes = body.subarray(NETFILTER_HEADER);
  return { kind: type & 0xff, family: body[0] ?? 0, flags, attributes };
}

export function netfilterFamily(family: IpFamily): number {
  return family === 4 ? NetfilterFamily.ipv4 : NetfilterFamily.ipv6;
}
