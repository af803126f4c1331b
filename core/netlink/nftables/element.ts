import type { AttributeReader } from '../attribute.ts';
import { aligned } from '../byte-order.ts';
import { ATTRIBUTE_HEADER, MessageFlag } from '../constants.ts';
import type { MessageWriter } from '../message-writer.ts';
import type { NetlinkMessage } from '../message.ts';
import {
  ElementAttribute,
  ElementFlag,
  ElementsAttribute,
  LIST_ITEM,
  NftMessage,
  SetFlag,
  Userdata,
} from './constants.ts';
import type { SetShape } from './set.ts';
import { beginNft, readNft, type TableKey } from './table.ts';
import { commentEntry, encodeUserdata, readComment } from './userdata.ts';
import { readData, writeData, type Data } from './verdict.ts';

/** An element of a set or map. `data-type.ts` makes keys and values. */
export interface SetElement {
  readonly key: Uint8Array;
  /** The last key of a range, which belongs to it; absent for a single key. */
  readonly lastKey?: Uint8Array | undefined;
  /** What a map leads to: a value, a verdict, or the name of an object. */
  readonly value?: Data | string | undefined;
  /** Milliseconds. */
  readonly timeoutMs?: number | undefined;
  readonly comment?: string | undefined;
}

/** An element as the kernel has it: sets with ranges of a single field have two for each range. */
export interface RawElement {
  readonly key: Uint8Array;
  /** The last key of a range, in sets with ranges of several fields. */
  readonly lastKey: Uint8Array | undefined;
  /** Not in the set: the first key behind a range. */
  readonly isEnd: boolean;
  readonly isCatchAll: boolean;
  readonly value: Data | string | undefined;
  readonly timeoutMs: number | undefined;
  readonly comment: string | undefined;
}

/** One message of elements: those of a dump belong together. */
export interface ElementList {
  readonly table: TableKey;
  readonly set: string;
  readonly elements: readonly RawElement[];
}

export type ElementRequest = 'add' | 'remove';

/** Writes one message; `chunkElements` makes lists that fit into it. */
export function writeElements(
  writer: MessageWriter,
  table: TableKey,
  set: { readonly name: string; readonly shape: SetShape },
  elements: readonly SetElement[],
  request: ElementRequest,
): void {
  const isAddition = request === 'add';
  const kind = isAddition ? NftMessage.newElements : NftMessage.removeElements;
  beginNft(writer, kind, isAddition ? MessageFlag.create : 0, table);
  writer.name(ElementsAttribute.table, table.name).name(ElementsAttribute.set, set.name);
  writer.nested(ElementsAttribute.elements, () => {
    for (const element of elements) {
      writer.nested(LIST_ITEM, () => writeElement(writer, set.shape, element, isAddition));
      const behind = isHalved(set.shape) ? following(element.lastKey ?? element.key) : undefined;
      if (behind !== undefined) writer.nested(LIST_ITEM, () => writeEnd(writer, behind));
    }
  });
  writer.end();
}

/** Elements of a message, which a list in one attribute of 65,535 bytes holds whatever their names. */
const MOST_ELEMENTS = 1500;
const MOST_BYTES = 60_000;

/** Splits elements so that each part fits into one message. */
export function chunkElements(
  elements: readonly SetElement[],
  shape: SetShape,
): readonly (readonly SetElement[])[] {
  const chunks: SetElement[][] = [];
  let chunk: SetElement[] = [];
  let bytes = 0;
  for (const element of elements) {
    const size = largestSize(element, shape);
    if (chunk.length === MOST_ELEMENTS || bytes + size > MOST_BYTES) {
      chunks.push(chunk);
      chunk = [];
      bytes = 0;
    }
    chunk.push(element);
    bytes += size;
  }
  return chunk.length === 0 ? chunks : [...chunks, chunk];
}

/** Requests the elements of a set (a dump). */
export function writeElementsQuery(writer: MessageWriter, table: TableKey, set: string): void {
  beginNft(writer, NftMessage.getElements, MessageFlag.dump, table);
  writer.name(ElementsAttribute.table, table.name).name(ElementsAttribute.set, set).end();
}

/** Reads NFT_MSG_NEWSETELEM; `undefined` when it is none. */
export function decodeElements(message: NetlinkMessage): ElementList | undefined {
  const read = readNft(message, NftMessage.newElements);
  if (read === undefined) return undefined;
  const { attributes, family } = read;
  let table: string | undefined;
  let set: string | undefined;
  const elements: RawElement[] = [];
  while (attributes.next()) {
    if (attributes.type === ElementsAttribute.table) table = attributes.text();
    else if (attributes.type === ElementsAttribute.set) set = attributes.text();
    else if (attributes.type === ElementsAttribute.elements) {
      const list = attributes.nested();
      while (list.next()) elements.push(readElement(list.nested()));
    }
  }
  if (table === undefined || set === undefined) return undefined;
  return { table: { family, name: table }, set, elements };
}

/** Makes elements of what the kernel has: pairs of a first key and the one behind become ranges. */
export function assembleElements(
  raw: readonly RawElement[],
  shape: SetShape,
): readonly SetElement[] {
  const own = raw.filter(({ isCatchAll }) => !isCatchAll);
  if (!isHalved(shape)) return own.filter(({ isEnd }) => !isEnd).map(elementOf);
  const sorted = own.slice().sort(inKeyOrder);
  return sorted.flatMap((element, i) => {
    if (element.isEnd) return [];
    // Without an end of its own a range goes up to the next one, or to the last key there is.
    const next = sorted[i + 1];
    const lastKey = next === undefined ? element.key.map(() => 0xff) : preceding(next.key);
    return [elementOf({ ...element, lastKey })];
  });
}

/** Whether the kernel has ranges of this set as two elements (the rbtree backend). */
function isHalved(shape: SetShape): boolean {
  const ranges = SetFlag.interval | SetFlag.concatenation;
  return (shape.flags & ranges) === SetFlag.interval;
}

function writeElement(
  writer: MessageWriter,
  shape: SetShape,
  element: SetElement,
  isAddition: boolean,
): void {
  const { key, value, timeoutMs, comment } = element;
  if (isAddition && timeoutMs !== undefined) writer.be64(ElementAttribute.timeout, timeoutMs);
  writeData(writer, ElementAttribute.key, key);
  if ((shape.flags & SetFlag.concatenation) !== 0) {
    writeData(writer, ElementAttribute.keyEnd, element.lastKey ?? key);
  }
  if (!isAddition) return;
  if (typeof value === 'string') writer.name(ElementAttribute.object, value);
  else if (value !== undefined) writeData(writer, ElementAttribute.data, value);
  if (comment !== undefined) {
    const userdata = encodeUserdata([commentEntry(Userdata.comment, comment)]);
    writer.bytes(ElementAttribute.userdata, userdata);
  }
}

function writeEnd(writer: MessageWriter, key: Uint8Array): void {
  writer.be32(ElementAttribute.flags, ElementFlag.intervalEnd);
  writeData(writer, ElementAttribute.key, key);
}

function readElement(reader: AttributeReader): RawElement {
  let key: Uint8Array = new Uint8Array();
  let lastKey: Uint8Array | undefined;
  let flags = 0;
  let value: Data | string | undefined;
  let timeoutMs: number | undefined;
  let comment: string | undefined;
  while (reader.next()) {
    if (reader.type === ElementAttribute.key) key = keyOf(reader) ?? key;
    else if (reader.type === ElementAttribute.keyEnd) lastKey = keyOf(reader);
    else if (reader.type === ElementAttribute.flags) flags = reader.be32() ?? 0;
    else if (reader.type === ElementAttribute.data) value = readData(reader.nested());
    else if (reader.type === ElementAttribute.object) value = reader.text();
    else if (reader.type === ElementAttribute.timeout) timeoutMs = reader.be64();
    else if (reader.type === ElementAttribute.userdata) {
      comment = readComment(reader.value, Userdata.comment);
    }
  }
  const isEnd = (flags & ElementFlag.intervalEnd) !== 0;
  const isCatchAll = (flags & ElementFlag.catchAll) !== 0;
  return { key, lastKey, isEnd, isCatchAll, value, timeoutMs, comment };
}

function keyOf(reader: AttributeReader): Uint8Array | undefined {
  const data = readData(reader.nested());
  return data instanceof Uint8Array ? data : undefined;
}

function elementOf({ key, lastKey, value, timeoutMs, comment }: RawElement): SetElement {
  const isRange = lastKey !== undefined && compareKeys(key, lastKey) !== 0;
  return {
    key,
    ...(isRange && { lastKey }),
    ...(value !== undefined && { value }),
    ...(timeoutMs !== undefined && { timeoutMs }),
    ...(comment !== undefined && { comment }),
  };
}

/** Where a range ends and the next one starts, the end comes first. */
function inKeyOrder(a: RawElement, b: RawElement): number {
  return compareKeys(a.key, b.key) || Number(b.isEnd) - Number(a.isEnd);
}

function compareKeys(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < a.length; i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}

/** Returns the next key up, or `undefined` behind the last one. */
function following(key: Uint8Array): Uint8Array | undefined {
  return step(key, 0xff, 1);
}

function preceding(key: Uint8Array): Uint8Array {
  return step(key, 0, -1) ?? key;
}

/** Counts by one: bytes that overflow (those equal to `limit`) carry. */
function step(key: Uint8Array, limit: number, by: number): Uint8Array | undefined {
  const stepped = key.slice();
  for (let i = stepped.length - 1; i >= 0; i--) {
    const byte = stepped[i] ?? 0;
    stepped[i] = byte + by;
    if (byte !== limit) return stepped;
  }
  return undefined;
}

/** No less than the bytes that the element takes, the end of a range included. */
function largestSize({ key, value, timeoutMs, comment }: SetElement, shape: SetShape): number {
  const keyBytes = 8 + aligned(key.length);
  const ranges = SetFlag.interval | SetFlag.concatenation;
  const end = (shape.flags & ranges) === 0 ? 0 : keyBytes + ITEM_AND_FLAGS;
  const data = value instanceof Uint8Array ? 8 + aligned(value.length) : LARGEST_NAME;
  return (
    ATTRIBUTE_HEADER +
    keyBytes +
    end +
    (value === undefined ? 0 : data) +
    (timeoutMs === undefined ? 0 : 12) +
    (comment === undefined ? 0 : LARGEST_NAME)
  );
}

const ITEM_AND_FLAGS = 12;
/** A verdict with the name of a chain, the name of an object, a comment: 128 bytes each and headers. */
const LARGEST_NAME = 160;
