import type { IpFamily } from '../../net/ip-address.ts';
import type { AttributeReader } from '../attribute.ts';
import { MessageFlag } from '../constants.ts';
import type { MessageWriter } from '../message-writer.ts';
import type { NetlinkMessage } from '../message.ts';
import { netfilterFamily, NetfilterFamily } from '../nfnetlink.ts';
import {
  CounterAttribute,
  NftMessage,
  ObjectAttribute,
  ObjectType,
  TimeoutAttribute,
} from './constants.ts';
import { beginNft, readNft, type TableKey } from './table.ts';

/** Something with a name and a state, which rules of the table refer to. */
export type ObjectDefinition = CounterDefinition | TimeoutDefinition;

export interface CounterDefinition {
  readonly kind: 'counter';
  readonly name: string;
}

/** How long conntrack keeps a connection, instead of the system's timeouts. */
export interface TimeoutDefinition {
  readonly kind: 'timeout';
  readonly name: string;
  readonly family: IpFamily;
  /** Of IP: 6 or 17. */
  readonly protocol: number;
  /** Seconds, by state; the others keep the system's. */
  readonly seconds: Readonly<Partial<Record<TimeoutState, number>>>;
}

/** CTA_TIMEOUT_UDP_* and CTA_TIMEOUT_TCP_*. */
const UDP_STATES = { unreplied: 1, replied: 2 } as const;
const TCP_STATES = {
  synSent: 1,
  synReceived: 2,
  established: 3,
  finWait: 4,
  closeWait: 5,
  lastAck: 6,
  timeWait: 7,
  close: 8,
  synSent2: 9,
  retransmitted: 10,
  unacknowledged: 11,
} as const;
export type TimeoutState = keyof typeof UDP_STATES | keyof typeof TCP_STATES;

const UDP = 17;

/** An object as the kernel tells it. */
export type NamedObject = {
  readonly table: TableKey;
} & (
  (CounterDefinition & { readonly packets: number; readonly bytes: number }) | TimeoutDefinition
);

export function writeObject(
  writer: MessageWriter,
  table: TableKey,
  object: ObjectDefinition,
): void {
  beginNft(writer, NftMessage.newObject, MessageFlag.create, table);
  writer.name(ObjectAttribute.table, table.name).name(ObjectAttribute.name, object.name);
  writer.be32(ObjectAttribute.type, ObjectType[object.kind]);
  writer.nested(ObjectAttribute.data, () => {
    if (object.kind === 'timeout') writeTimeout(writer, object);
    else writer.be64(CounterAttribute.bytes, 0).be64(CounterAttribute.packets, 0);
  });
  writer.end();
}

export function writeObjectRemoval(
  writer: MessageWriter,
  table: TableKey,
  object: Pick<ObjectDefinition, 'kind' | 'name'>,
): void {
  beginNft(writer, NftMessage.removeObject, 0, table);
  writer.name(ObjectAttribute.table, table.name).name(ObjectAttribute.name, object.name);
  writer.be32(ObjectAttribute.type, ObjectType[object.kind]).end();
}

/** Requests the objects of a table (a dump). */
export function writeObjectsQuery(writer: MessageWriter, table: TableKey): void {
  beginNft(writer, NftMessage.getObject, MessageFlag.dump, table);
  writer.name(ObjectAttribute.table, table.name).end();
}

/** Reads NFT_MSG_NEWOBJ; `undefined` for kinds that we do not make. */
export function decodeObject(message: NetlinkMessage): NamedObject | undefined {
  const read = readNft(message, NftMessage.newObject);
  if (read === undefined) return undefined;
  const { attributes, family } = read;
  let tableName: string | undefined;
  let name: string | undefined;
  let type: number | undefined;
  let data: AttributeReader | undefined;
  while (attributes.next()) {
    if (attributes.type === ObjectAttribute.table) tableName = attributes.text();
    else if (attributes.type === ObjectAttribute.name) name = attributes.text();
    else if (attributes.type === ObjectAttribute.type) type = attributes.be32();
    else if (attributes.type === ObjectAttribute.data) data = attributes.nested();
  }
  if (tableName === undefined || name === undefined || data === undefined) return undefined;
  const table = { family, name: tableName };
  if (type === ObjectType.counter) return { table, kind: 'counter', name, ...readCounter(data) };
  if (type !== ObjectType.timeout) return undefined;
  const timeout = readTimeout(data);
  return timeout && { table, kind: 'timeout', name, ...timeout };
}

function writeTimeout(writer: MessageWriter, object: TimeoutDefinition): void {
  const { family, protocol, seconds } = object;
  writer.be16(TimeoutAttribute.family, netfilterFamily(family));
  writer.u8(TimeoutAttribute.protocol, protocol);
  writer.nested(TimeoutAttribute.data, () => {
    for (const [state, number] of statesOf(protocol)) {
      const value = seconds[state];
      if (value !== undefined) writer.be32(number, value);
    }
  });
}

function readTimeout(
  reader: AttributeReader,
): Omit<TimeoutDefinition, 'kind' | 'name'> | undefined {
  let family: number | undefined;
  let protocol: number | undefined;
  const values = new Map<number, number>();
  while (reader.next()) {
    if (reader.type === TimeoutAttribute.family) family = reader.be16();
    else if (reader.type === TimeoutAttribute.protocol) protocol = reader.u8();
    else if (reader.type === TimeoutAttribute.data) {
      const states = reader.nested();
      while (states.next()) values.set(states.type, states.be32() ?? 0);
    }
  }
  if (protocol === undefined) return undefined;
  const seconds: Partial<Record<TimeoutState, number>> = {};
  for (const [state, number] of statesOf(protocol)) {
    const value = values.get(number);
    if (value !== undefined) seconds[state] = value;
  }
  return { family: family === NetfilterFamily.ipv6 ? 6 : 4, protocol, seconds };
}

function statesOf(protocol: number): readonly (readonly [TimeoutState, number])[] {
  const states = protocol === UDP ? UDP_STATES : TCP_STATES;
  return Object.entries(states) as [TimeoutState, number][];
}

function readCounter(reader: AttributeReader): { packets: number; bytes: number } {
  let packets = 0;
  let bytes = 0;
  while (reader.next()) {
    if (reader.type === CounterAttribute.packets) packets = reader.be64() ?? 0;
    else if (reader.type === CounterAttribute.bytes) bytes = reader.be64() ?? 0;
  }
  return { packets, bytes };
}
