import { MessageFlag } from '../constants.ts';
import { AttributeReader } from '../attribute.ts';
import type { NetlinkMessage } from '../message.ts';
import { readNetfilter, Subsystem } from '../nfnetlink.ts';
import {
  ConnectionAttribute,
  ConntrackMessage,
  CountersAttribute,
  ProtocolInfo,
  TcpInfo,
} from './constants.ts';
import { readTuple, type Tuple } from './tuple.ts';

/** An entry of conntrack. NAT shows where the reply is not the original turned around. */
export interface Connection {
  readonly original: Tuple;
  readonly reply: Tuple;
  /** Tells an entry from a later one with the same tuples. */
  readonly id: number | undefined;
  /** `ConnectionStatus` bits. */
  readonly status: number;
  readonly mark: number;
  readonly zone: number;
  /** Until it is forgotten; absent in the event of its end. */
  readonly timeoutSeconds: number | undefined;
  readonly tcpState: TcpState | undefined;
  /** Absent unless the system counts (net.netfilter.nf_conntrack_acct). */
  readonly sent: Traffic | undefined;
  readonly received: Traffic | undefined;
}

/** IPS_* (linux/netfilter/nf_conntrack_common.h). */
export const ConnectionStatus = {
  seenReply: 0x2,
  assured: 0x4,
  confirmed: 0x8,
  sourceNat: 0x10,
  destinationNat: 0x20,
  dying: 0x200,
} as const;

export type TcpState = (typeof TCP_STATES)[number];
const TCP_STATES = [
  'none',
  'syn-sent',
  'syn-received',
  'established',
  'fin-wait',
  'close-wait',
  'last-ack',
  'time-wait',
  'close',
  'syn-sent-both',
] as const;

export interface Traffic {
  readonly packets: number;
  readonly bytes: number;
}

export interface ConnectionEvent {
  readonly type: 'new' | 'update' | 'destroy';
  readonly connection: Connection;
}

/** Reads an entry of a dump; `undefined` when it is none. */
export function decodeConnection(message: NetlinkMessage): Connection | undefined {
  const read = readNetfilter(message, Subsystem.conntrack);
  if (read === undefined || read.kind !== ConntrackMessage.new) return undefined;
  return readConnection(new AttributeReader(read.attributes));
}

/** Reads a message of the conntrack groups; `undefined` when it is none. */
export function decodeConnectionEvent(message: NetlinkMessage): ConnectionEvent | undefined {
  const read = readNetfilter(message, Subsystem.conntrack);
  if (read === undefined) return undefined;
  const { kind, flags } = read;
  if (kind !== ConntrackMessage.new && kind !== ConntrackMessage.remove) return undefined;
  const connection = readConnection(new AttributeReader(read.attributes));
  if (connection === undefined) return undefined;
  if (kind === ConntrackMessage.remove) return { type: 'destroy', connection };
  return { type: (flags & MessageFlag.create) === 0 ? 'update' : 'new', connection };
}

function readConnection(reader: AttributeReader): Connection | undefined {
  let original: Tuple | undefined;
  let reply: Tuple | undefined;
  let sent: Traffic | undefined;
  let received: Traffic | undefined;
  let tcpState: TcpState | undefined;
  let zone = 0;
  const numbers = new Map<number, number>();
  while (reader.next()) {
    const { type } = reader;
    if (type === ConnectionAttribute.original) original = readTuple(reader.nested());
    else if (type === ConnectionAttribute.reply) reply = readTuple(reader.nested());
    else if (type === ConnectionAttribute.zone) zone = reader.be16() ?? 0;
    else if (type === ConnectionAttribute.originalCounters) sent = readTraffic(reader.nested());
    else if (type === ConnectionAttribute.replyCounters) received = readTraffic(reader.nested());
    else if (type === ConnectionAttribute.protocolInfo) tcpState = readTcpState(reader.nested());
    else numbers.set(type, reader.be32() ?? 0);
  }
  if (original === undefined || reply === undefined) return undefined;
  return {
    original,
    reply,
    id: numbers.get(ConnectionAttribute.id),
    status: numbers.get(ConnectionAttribute.status) ?? 0,
    mark: numbers.get(ConnectionAttribute.mark) ?? 0,
    zone,
    timeoutSeconds: numbers.get(ConnectionAttribute.timeout),
    tcpState,
    sent,
    received,
  };
}

function readTraffic(reader: AttributeReader): Traffic {
  let packets = 0;
  let bytes = 0;
  while (reader.next()) {
    if (reader.type === CountersAttribute.packets) packets = reader.be64() ?? 0;
    else if (reader.type === CountersAttribute.bytes) bytes = reader.be64() ?? 0;
  }
  return { packets, bytes };
}

function readTcpState(protocols: AttributeReader): TcpState | undefined {
  while (protocols.next()) {
    if (protocols.type !== ProtocolInfo.tcp) continue;
    const tcp = protocols.nested();
    while (tcp.next()) if (tcp.type === TcpInfo.state) return TCP_STATES[tcp.u8() ?? 0];
  }
  return undefined;
}
