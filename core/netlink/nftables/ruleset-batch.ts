import { unreachable } from '../../sansio/outcome.ts';
import { aligned, HOST_IS_LITTLE_ENDIAN } from '../byte-order.ts';
import { AttributeReader } from '../attribute.ts';
import { ATTRIBUTE_HEADER, MESSAGE_HEADER, MessageFlag } from '../constants.ts';
import type { MessageWriter } from '../message-writer.ts';
import { BatchAttribute, BatchMessage, NETFILTER_HEADER, Subsystem } from '../nfnetlink.ts';
import { writeChain, writeChainRemoval } from './chain.ts';
import { ElementAttribute, ElementsAttribute } from './constants.ts';
import { formatData } from './data-type.ts';
import { writeElements, type SetElement } from './element.ts';
import { writeObject, writeObjectRemoval } from './object.ts';
import { writeFlush, writeRule } from './rule.ts';
import type { ElementsChange, RulesetChange } from './ruleset-plan.ts';
import { shapeOf, writeSet, writeSetRemoval, type SetDefinition } from './set.ts';
import { writeTable, writeTableRemoval, type TableKey } from './table.ts';

/** Returns one request for each change, without the frame of the batch. */
export function encodeRulesetChanges(
  changes: readonly RulesetChange[],
  writer: MessageWriter,
): readonly Uint8Array[] {
  return changes.map((change, i) => {
    writeChange(writer, change, i + 1);
    return writer.take();
  });
}

/**
 * Returns the requests as one transaction: all of them are carried out, or none. The first message of
 * the datagram opens it (sequence `first`), the requests follow, the last one closes it. Only the last
 * request asks for an acknowledgement, since older kernels answer nothing to the closing message.
 * `generation`: the kernel refuses the whole (ERESTART) when another program changed something since.
 */
export function joinBatch(
  requests: readonly Uint8Array[],
  first: number,
  generation: number | undefined,
  writer: MessageWriter,
): Uint8Array {
  writeFrame(writer, BatchMessage.begin);
  if (generation !== undefined) writer.be32(BatchAttribute.generation, generation);
  const begin = writer.end().take();
  writeFrame(writer, BatchMessage.end);
  const messages = [begin, ...requests, writer.end().take()];
  const length = messages.reduce((sum, message) => sum + aligned(message.length), 0);
  const datagram = new Uint8Array(length);
  const view = new DataView(datagram.buffer);
  let at = 0;
  for (const [i, message] of messages.entries()) {
    datagram.set(message, at);
    if (i === requests.length && i > 0) {
      const flags = view.getUint16(at + 6, HOST_IS_LITTLE_ENDIAN);
      view.setUint16(at + 6, flags | MessageFlag.ack, HOST_IS_LITTLE_ENDIAN);
    }
    view.setUint32(at + 8, first + i, HOST_IS_LITTLE_ENDIAN);
    at += aligned(message.length);
  }
  return datagram;
}

/** The frame names the subsystem where others have zeros. */
function writeFrame(writer: MessageWriter, type: number): void {
  writer.begin(type, MessageFlag.request);
  writer.fixed(NETFILTER_HEADER).setUint16(2, Subsystem.nftables);
}

function writeChange(writer: MessageWriter, change: RulesetChange, id: number): void {
  switch (change.type) {
    case 'add-table':
    case 'set-flags':
      return writeTable(writer, change.table);
    case 'remove-table':
      return writeTableRemoval(writer, change.table);
    case 'add-object':
      return writeObject(writer, change.table, change.object);
    case 'remove-object':
      return writeObjectRemoval(writer, change.table, change.object);
    case 'add-chain':
    case 'set-policy':
      return writeChain(writer, change.table, change.chain);
    case 'flush-chain':
      return writeFlush(writer, change.table, change.chain);
    case 'remove-chain':
      return writeChainRemoval(writer, change.table, change.chain);
    case 'add-rule':
      return writeRule(writer, change.table, change.chain, change.rule);
    case 'add-set':
      return writeSet(writer, change.table, change.set, id);
    case 'remove-set':
      return writeSetRemoval(writer, change.table, change.set);
    case 'change-elements': {
      const set = { name: change.set.name, shape: shapeOf(change.set) };
      return writeElements(writer, change.table, set, change.elements, change.request);
    }
    default:
      return unreachable(change);
  }
}

/** Returns the name of the object that a change is about, such as `chain inet culvert forward`. */
export function changedRulesetObject(change: RulesetChange): string {
  switch (change.type) {
    case 'add-table':
    case 'set-flags':
    case 'remove-table':
      return `table ${tableName(change.table)}`;
    case 'add-object':
    case 'remove-object':
      return `${change.object.kind} ${tableName(change.table)} ${change.object.name}`;
    case 'add-chain':
    case 'set-policy':
      return `chain ${tableName(change.table)} ${change.chain.name}`;
    case 'flush-chain':
    case 'remove-chain':
      return `chain ${tableName(change.table)} ${change.chain}`;
    case 'add-rule': {
      const { rule, position, chain } = change;
      const comment = rule.comment === undefined ? '' : ` (${rule.comment})`;
      return `rule ${position}${comment} of chain ${tableName(change.table)} ${chain}`;
    }
    case 'add-set':
      return setName(change.table, change.set);
    case 'remove-set':
      return `set ${tableName(change.table)} ${change.set}`;
    case 'change-elements':
      return elementsName(change);
    default:
      return unreachable(change);
  }
}

/**
 * Narrows a change of many elements down to the one that the kernel pointed at: `attributeOffset` is
 * where in the request the offending attribute starts.
 */
export function refusedChange(
  change: RulesetChange,
  request: Uint8Array,
  attributeOffset: number | undefined,
): RulesetChange {
  if (change.type !== 'change-elements' || attributeOffset === undefined) return change;
  const attributes = new AttributeReader(request.subarray(MESSAGE_HEADER + NETFILTER_HEADER));
  while (attributes.next() && attributes.type !== ElementsAttribute.elements);
  const list = attributes.nested();
  let index = -1;
  while (list.next()) {
    const { value } = list;
    const start = value.byteOffset - request.byteOffset - ATTRIBUTE_HEADER;
    if (start > attributeOffset) break;
    const item = list.nested();
    // The end of a range stands behind its start and is no element of its own.
    if (!(item.next() && item.type === ElementAttribute.flags)) index++;
  }
  const element = change.elements[index];
  return element === undefined ? change : { ...change, elements: [element] };
}

function tableName({ family, name }: TableKey): string {
  return `${family} ${name}`;
}

function setName(table: TableKey, set: SetDefinition): string {
  return `${set.value === undefined ? 'set' : 'map'} ${tableName(table)} ${set.name}`;
}

function elementsName({ table, set, elements }: ElementsChange): string {
  const [only, ...others] = elements;
  const what =
    only !== undefined && others.length === 0
      ? `element ${elementName(only, set)}`
      : `${elements.length} elements`;
  return `${what} of ${setName(table, set)}`;
}

function elementName({ key, lastKey }: SetElement, set: SetDefinition): string {
  const first = formatData(key, set.key);
  return lastKey === undefined ? first : `${first} - ${formatData(lastKey, set.key)}`;
}
