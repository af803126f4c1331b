import { AttributeReader } from '../attribute.ts';
import { MessageFlag } from '../constants.ts';
import type { MessageWriter } from '../message-writer.ts';
import type { NetlinkMessage } from '../message.ts';
import { beginNetfilter, NetfilterFamily, readNetfilter, Subsystem } from '../nfnetlink.ts';
import { NftMessage, TableAttribute, TableFlag, Userdata } from './constants.ts';
import { commentEntry, encodeUserdata, readComment } from './userdata.ts';

/** `inet` sees IPv4 and IPv6. */
export type TableFamily = 'ip' | 'ip6' | 'inet';
const FAMILIES: Readonly<Record<TableFamily, number>> = {
  ip: NetfilterFamily.ipv4,
  ip6: NetfilterFamily.ipv6,
  inet: NetfilterFamily.inet,
};

/** A table is known by both together. */
export interface TableKey {
  readonly family: TableFamily;
  readonly name: string;
}

export interface TableDefinition extends TableKey {
  readonly comment?: string | undefined;
  /** Its chains are not hooked in. */
  readonly isDormant?: boolean | undefined;
  /**
   * Only our socket may change the table, and the table vanishes with it, also when the process is
   * killed. Kernels from 5.12 on.
   */
  readonly isOwned?: boolean | undefined;
}

/** A table as the kernel tells it. */
export interface Table extends TableKey {
  readonly comment: string | undefined;
  readonly isDormant: boolean;
  /** The netlink port of the socket that owns the table. */
  readonly owner: number | undefined;
}

/** Starts a message about something in the table. */
export function beginNft(
  writer: MessageWriter,
  kind: number,
  flags: number,
  { family }: Pick<TableKey, 'family'>,
): MessageWriter {
  return beginNetfilter(writer, Subsystem.nftables, kind, flags, FAMILIES[family]);
}

/** Reads the header of a message of nf_tables; `undefined` for families that we do not use. */
export function readNft(
  message: Pick<NetlinkMessage, 'type' | 'flags' | 'body'>,
  kind: number,
): { readonly family: TableFamily; readonly attributes: AttributeReader } | undefined {
  const read = readNetfilter(message, Subsystem.nftables);
  if (read === undefined || read.kind !== kind) return undefined;
  const family = TABLE_FAMILIES.find((name) => FAMILIES[name] === read.family);
  return family && { family, attributes: new AttributeReader(read.attributes) };
}

const TABLE_FAMILIES: readonly TableFamily[] = ['inet', 'ip', 'ip6'];

/** Makes a table, or changes the flags of one that exists. */
export function writeTable(writer: MessageWriter, table: TableDefinition): void {
  beginNft(writer, NftMessage.newTable, MessageFlag.create, table);
  const dormant = table.isDormant === true ? TableFlag.dormant : 0;
  const owner = table.isOwned === true ? TableFlag.owner : 0;
  writer.name(TableAttribute.name, table.name).be32(TableAttribute.flags, dormant | owner);
  if (table.comment !== undefined) {
    const userdata = encodeUserdata([commentEntry(Userdata.comment, table.comment)]);
    writer.bytes(TableAttribute.userdata, userdata);
  }
  writer.end();
}

/** Removes a table with all that is in it. */
export function writeTableRemoval(writer: MessageWriter, table: TableKey): void {
  beginNft(writer, NftMessage.removeTable, 0, table);
  writer.name(TableAttribute.name, table.name).end();
}

/** Requests one table; the kernel refuses with ENOENT where there is none. */
export function writeTableQuery(writer: MessageWriter, table: TableKey): void {
  beginNft(writer, NftMessage.getTable, MessageFlag.ack, table);
  writer.name(TableAttribute.name, table.name).end();
}

/** Reads NFT_MSG_NEWTABLE; `undefined` when it is not one of the families that we use. */
export function decodeTable(message: NetlinkMessage): Table | undefined {
  const read = readNft(message, NftMessage.newTable);
  if (read === undefined) return undefined;
  const { attributes, family } = read;
  let name: string | undefined;
  let flags = 0;
  let owner: number | undefined;
  let comment: string | undefined;
  while (attributes.next()) {
    if (attributes.type === TableAttribute.name) name = attributes.text();
    else if (attributes.type === TableAttribute.flags) flags = attributes.be32() ?? 0;
    else if (attributes.type === TableAttribute.owner) owner = attributes.be32();
    else if (attributes.type === TableAttribute.userdata) {
      comment = readComment(attributes.value, Userdata.comment);
    }
  }
  if (name === undefined) return undefined;
  const isOwned = (flags & TableFlag.owner) !== 0;
  return {
    family,
    name,
    comment,
    isDormant: (flags & TableFlag.dormant) !== 0,
    owner: isOwned ? (owner ?? 0) : undefined,
  };
}
