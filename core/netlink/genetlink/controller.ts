import { AttributeReader } from '../attribute.ts';
import { MessageFlag } from '../constants.ts';
import { MessageWriter } from '../message-writer.ts';
import type { NetlinkMessage } from '../message.ts';
import { beginGeneric, readGeneric } from './header.ts';

/*
 * The controller of generic netlink (linux/genetlink.h): families have names, and numbers that the kernel
 * gives them when their module loads. They are others after the module was loaded again.
 */

export interface GenericFamily {
  /** The type of its messages. */
  readonly id: number;
  readonly name: string;
  readonly version: number;
  /** Numbers of its multicast groups by name. */
  readonly groups: ReadonlyMap<string, number>;
}

/** Asks for a family by name. Refused with ENOENT where the kernel has none, after it tried to load it. */
export function encodeGenericFamilyQuery(name: string): Uint8Array {
  const writer = beginGeneric(new MessageWriter(), CONTROLLER, GET_FAMILY, MessageFlag.ack);
  return writer.name(FamilyAttribute.name, name).end().take();
}

/** Reads the answer; `undefined` when it is none. */
export function decodeGenericFamily(
  message: Pick<NetlinkMessage, 'type' | 'body'>,
): GenericFamily | undefined {
  const read = readGeneric(message, CONTROLLER.id);
  if (read === undefined || read.command !== NEW_FAMILY) return undefined;
  const groups = new Map<string, number>();
  let id: number | undefined;
  let name: string | undefined;
  let version = 0;
  const reader = new AttributeReader(read.attributes);
  while (reader.next()) {
    if (reader.type === FamilyAttribute.id) id = reader.u16();
    else if (reader.type === FamilyAttribute.name) name = reader.text();
    else if (reader.type === FamilyAttribute.version) version = reader.u32() ?? 0;
    else if (reader.type === FamilyAttribute.groups) readGroups(reader.nested(), groups);
  }
  if (reader.malformed || id === undefined || name === undefined) return undefined;
  return { id, name, version, groups };
}

const CONTROLLER = { id: 0x10, version: 2 } as const;
const NEW_FAMILY = 1;
const GET_FAMILY = 3;

const FamilyAttribute = { id: 1, name: 2, version: 3, groups: 7 } as const;
const GroupAttribute = { name: 1, id: 2 } as const;

function readGroups(list: AttributeReader, groups: Map<string, number>): void {
  while (list.next()) {
    const reader = list.nested();
    let name: string | undefined;
    let id: number | undefined;
    while (reader.next()) {
      if (reader.type === GroupAttribute.name) name = reader.text();
      else if (reader.type === GroupAttribute.id) id = reader.u32();
    }
    if (name !== undefined && id !== undefined) groups.set(name, id);
  }
}
