import type { AttributeReader } from '../attribute.ts';
import { MessageFlag } from '../constants.ts';
import type { MessageWriter } from '../message-writer.ts';
import type { NetlinkMessage } from '../message.ts';
import {
  LIST_ITEM,
  NftMessage,
  ObjectType,
  SET_FIELD_LENGTH,
  SetAttribute,
  SetDescription,
  SetFlag,
  SetUserdata,
  VERDICT_DATA,
} from './constants.ts';
import {
  dataByteOrder,
  dataTypeLength,
  dataTypeNumber,
  fieldLength,
  type DataType,
} from './data-type.ts';
import type { ObjectKind } from './expression.ts';
import { beginNft, readNft, type TableKey } from './table.ts';
import { commentEntry, encodeUserdata, numberEntry, readComment } from './userdata.ts';

/** A set, or a map from keys to values. */
export interface SetDefinition {
  readonly name: string;
  readonly comment?: string | undefined;
  /** One type, or several for a concatenation. */
  readonly key: readonly DataType[];
  /** What a map leads to; absent for a set. */
  readonly value?: MapValue | undefined;
  /** Elements may be ranges. */
  readonly isInterval?: boolean | undefined;
  /** Elements may have a timeout; they vanish then. */
  readonly hasTimeouts?: boolean | undefined;
  /** The timeout of elements that have none of their own, in milliseconds. */
  readonly timeoutMs?: number | undefined;
  /** Rules add elements. */
  readonly isDynamic?: boolean | undefined;
  /** The most elements; more are refused. */
  readonly size?: number | undefined;
}

export type MapValue =
  | { readonly type: 'verdict' }
  | { readonly type: 'object'; readonly kind: ObjectKind }
  /** `isRange`: each value is a first and a last one behind each other, as NAT of prefixes takes them. */
  | { readonly type: 'data'; readonly fields: readonly DataType[]; readonly isRange?: boolean };

/** What the kernel keeps of a definition; a set cannot change it. */
export interface SetShape {
  readonly flags: number;
  readonly keyType: number;
  readonly keyLength: number;
  readonly dataType: number;
  readonly dataLength: number;
  readonly objectType: number;
  readonly timeoutMs: number;
  readonly size: number;
}

/** A set as the kernel tells it. */
export interface NftSet {
  readonly table: TableKey;
  readonly name: string;
  readonly shape: SetShape;
  readonly comment: string | undefined;
}

export function shapeOf(set: SetDefinition): SetShape {
  const { value } = set;
  const isConcatenated = set.key.length > 1;
  const hasTimeouts = set.hasTimeouts === true || set.timeoutMs !== undefined;
  const isRange = value?.type === 'data' && value.isRange === true;
  return {
    flags:
      (set.isInterval === true ? SetFlag.interval : 0) |
      (set.isInterval === true && isConcatenated ? SetFlag.concatenation : 0) |
      (hasTimeouts ? SetFlag.timeout : 0) |
      (set.isDynamic === true ? SetFlag.dynamic : 0) |
      (value === undefined ? 0 : value.type === 'object' ? SetFlag.object : SetFlag.map),
    keyType: dataTypeNumber(set.key),
    keyLength: dataTypeLength(set.key),
    dataType:
      value?.type === 'verdict'
        ? VERDICT_DATA
        : value?.type === 'data'
          ? dataTypeNumber(value.fields)
          : 0,
    dataLength: value?.type === 'data' ? dataTypeLength(value.fields) * (isRange ? 2 : 1) : 0,
    objectType: value?.type === 'object' ? ObjectType[value.kind] : 0,
    timeoutMs: set.timeoutMs ?? 0,
    size: set.size ?? 0,
  };
}

/** Makes a set without elements. */
export function writeSet(
  writer: MessageWriter,
  table: TableKey,
  set: SetDefinition,
  id: number,
): void {
  const shape = shapeOf(set);
  beginNft(writer, NftMessage.newSet, MessageFlag.create, table);
  writer.name(SetAttribute.table, table.name).name(SetAttribute.name, set.name);
  writer.be32(SetAttribute.flags, shape.flags);
  writer.be32(SetAttribute.keyType, shape.keyType).be32(SetAttribute.keyLength, shape.keyLength);
  if ((shape.flags & SetFlag.map) !== 0) {
    writer.be32(SetAttribute.dataType, shape.dataType);
    writer.be32(SetAttribute.dataLength, shape.dataLength);
  }
  if (shape.objectType !== 0) writer.be32(SetAttribute.objectType, shape.objectType);
  writer.be32(SetAttribute.id, id);
  writeDescription(writer, set, shape);
  if (shape.timeoutMs !== 0) writer.be64(SetAttribute.timeout, shape.timeoutMs);
  writer.bytes(SetAttribute.userdata, encodeUserdata(userdataOf(set)));
  writer.end();
}

export function writeSetRemoval(writer: MessageWriter, table: TableKey, name: string): void {
  beginNft(writer, NftMessage.removeSet, 0, table);
  writer.name(SetAttribute.table, table.name).name(SetAttribute.name, name).end();
}

/** Requests the sets of a table (a dump). */
export function writeSetsQuery(writer: MessageWriter, table: TableKey): void {
  beginNft(writer, NftMessage.getSet, MessageFlag.dump, table);
  writer.name(SetAttribute.table, table.name).end();
}

/** Reads NFT_MSG_NEWSET; `undefined` when it is none. */
export function decodeSet(message: NetlinkMessage): NftSet | undefined {
  const read = readNft(message, NftMessage.newSet);
  if (read === undefined) return undefined;
  const { attributes, family } = read;
  let table: string | undefined;
  let name: string | undefined;
  let comment: string | undefined;
  let size = 0;
  const numbers = new Map<number, number>();
  while (attributes.next()) {
    if (attributes.type === SetAttribute.table) table = attributes.text();
    else if (attributes.type === SetAttribute.name) name = attributes.text();
    else if (attributes.type === SetAttribute.description) size = readSize(attributes.nested());
    else if (attributes.type === SetAttribute.userdata) {
      comment = readComment(attributes.value, SetUserdata.comment);
    } else {
      const isLong = attributes.type === SetAttribute.timeout;
      numbers.set(attributes.type, (isLong ? attributes.be64() : attributes.be32()) ?? 0);
    }
  }
  if (table === undefined || name === undefined) return undefined;
  const number = (type: number) => numbers.get(type) ?? 0;
  const dataType = number(SetAttribute.dataType);
  const shape: SetShape = {
    flags: number(SetAttribute.flags),
    keyType: number(SetAttribute.keyType),
    keyLength: number(SetAttribute.keyLength),
    dataType,
    // Of a verdict it is the size of a structure with a pointer.
    dataLength: dataType === VERDICT_DATA ? 0 : number(SetAttribute.dataLength),
    objectType: number(SetAttribute.objectType),
    timeoutMs: number(SetAttribute.timeout),
    size,
  };
  return { table: { family, name: table }, name, shape, comment };
}

function writeDescription(writer: MessageWriter, set: SetDefinition, shape: SetShape): void {
  const isRanges = (shape.flags & SetFlag.concatenation) !== 0;
  if (shape.size === 0 && !isRanges) return;
  writer.nested(SetAttribute.description, () => {
    if (shape.size !== 0) writer.be32(SetDescription.size, shape.size);
    if (!isRanges) return;
    writer.nested(SetDescription.fields, () => {
      for (const field of set.key) {
        writer.nested(LIST_ITEM, () => writer.be32(SET_FIELD_LENGTH, fieldLength(field)));
      }
    });
  });
}

function readSize(description: AttributeReader): number {
  while (description.next()) {
    if (description.type === SetDescription.size) return description.be32() ?? 0;
  }
  return 0;
}

function userdataOf(set: SetDefinition): Parameters<typeof encodeUserdata>[0] {
  const { value, comment } = set;
  const fields = value?.type === 'data' ? value.fields : [];
  const isRange = value?.type === 'data' && value.isRange === true;
  // nft 1.0.6 aborts over a verdict in the machine's order.
  const order = dataByteOrder(fields);
  const hasData = value !== undefined && value.type !== 'object';
  return [
    numberEntry(SetUserdata.keyByteOrder, dataByteOrder(set.key)),
    ...(hasData ? [numberEntry(SetUserdata.dataByteOrder, order)] : []),
    ...(value === undefined ? [] : [numberEntry(SetUserdata.dataInterval, isRange ? 1 : 0)]),
    ...(comment === undefined ? [] : [commentEntry(SetUserdata.comment, comment)]),
  ];
}
