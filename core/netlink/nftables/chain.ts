import type { AttributeReader } from '../attribute.ts';
import { MessageFlag } from '../constants.ts';
import type { MessageWriter } from '../message-writer.ts';
import type { NetlinkMessage } from '../message.ts';
import { ChainAttribute, HookAttribute, HOOKS, NftMessage, Userdata } from './constants.ts';
import { beginNft, readNft, type TableKey } from './table.ts';
import { commentEntry, encodeUserdata, readComment } from './userdata.ts';

export interface ChainDefinition {
  readonly name: string;
  readonly comment?: string | undefined;
  /** Absent for a chain that others jump to. */
  readonly base?: BaseChain | undefined;
}

/** Where a chain is hooked into the way of packets. */
export interface BaseChain {
  readonly type: 'filter' | 'nat' | 'route';
  readonly hook: Hook;
  /** Lower ones come first; see `Priority`. */
  readonly priority: number;
  /** What becomes of packets that no rule decides about; `accept` by default. */
  readonly policy?: Policy | undefined;
}

export type Hook = (typeof HOOKS)[number];
export type Policy = 'accept' | 'drop';

/** NF_IP_PRI_*, as nft names them. */
export const Priority = {
  raw: -300,
  mangle: -150,
  destinationNat: -100,
  filter: 0,
  security: 50,
  sourceNat: 100,
} as const;

/** A chain as the kernel tells it. */
export interface Chain {
  readonly table: TableKey;
  readonly name: string;
  readonly base: ObservedBase | undefined;
  readonly comment: string | undefined;
}

export interface ObservedBase {
  readonly type: string;
  /** `HOOKS` names the number. */
  readonly hook: number;
  readonly priority: number;
  readonly policy: Policy;
}

/** Makes a chain, or changes the policy of one that exists. */
export function writeChain(writer: MessageWriter, table: TableKey, chain: ChainDefinition): void {
  beginNft(writer, NftMessage.newChain, MessageFlag.create, table);
  writer.name(ChainAttribute.table, table.name).name(ChainAttribute.name, chain.name);
  const { base } = chain;
  if (base !== undefined) {
    writer.name(ChainAttribute.type, base.type);
    writer.be32(ChainAttribute.policy, base.policy === 'drop' ? 0 : 1);
    writer.nested(ChainAttribute.hook, () => {
      writer.be32(HookAttribute.number, HOOKS.indexOf(base.hook));
      writer.be32(HookAttribute.priority, base.priority);
    });
  }
  if (chain.comment !== undefined) {
    const userdata = encodeUserdata([commentEntry(Userdata.comment, chain.comment)]);
    writer.bytes(ChainAttribute.userdata, userdata);
  }
  writer.end();
}

export function writeChainRemoval(writer: MessageWriter, table: TableKey, name: string): void {
  beginNft(writer, NftMessage.removeChain, 0, table);
  writer.name(ChainAttribute.table, table.name).name(ChainAttribute.name, name).end();
}

/** Requests the chains of all tables of the family (a dump): the kernel filters by no more than that. */
export function writeChainsQuery(writer: MessageWriter, table: TableKey): void {
  beginNft(writer, NftMessage.getChain, MessageFlag.dump, table).end();
}

/** Reads NFT_MSG_NEWCHAIN; `undefined` when it is none. */
export function decodeChain(message: NetlinkMessage): Chain | undefined {
  const read = readNft(message, NftMessage.newChain);
  if (read === undefined) return undefined;
  const { attributes, family } = read;
  let table: string | undefined;
  let name: string | undefined;
  let type: string | undefined;
  let policy: Policy = 'accept';
  let hook: ReturnType<typeof readHook>;
  let comment: string | undefined;
  while (attributes.next()) {
    if (attributes.type === ChainAttribute.table) table = attributes.text();
    else if (attributes.type === ChainAttribute.name) name = attributes.text();
    else if (attributes.type === ChainAttribute.type) type = attributes.text();
    else if (attributes.type === ChainAttribute.hook) hook = readHook(attributes.nested());
    else if (attributes.type === ChainAttribute.policy) {
      policy = attributes.be32() === 0 ? 'drop' : 'accept';
    } else if (attributes.type === ChainAttribute.userdata) {
      comment = readComment(attributes.value, Userdata.comment);
    }
  }
  if (table === undefined || name === undefined) return undefined;
  const base = hook && { type: type ?? '', ...hook, policy };
  return { table: { family, name: table }, name, base, comment };
}

function readHook(reader: AttributeReader): Pick<ObservedBase, 'hook' | 'priority'> | undefined {
  let hook: number | undefined;
  let priority: number | undefined;
  while (reader.next()) {
    if (reader.type === HookAttribute.number) hook = reader.be32();
    else if (reader.type === HookAttribute.priority) priority = reader.be32();
  }
  return hook === undefined || priority === undefined
    ? undefined
    : { hook, priority: priority | 0 };
}
