import { AttributeReader } from '../attribute.ts';
import type { MessageWriter } from '../message-writer.ts';
import { MessageFlag } from '../constants.ts';
import type { NetlinkMessage } from '../message.ts';
import { beginNetfilter, NetfilterFamily, readNetfilter, Subsystem } from '../nfnetlink.ts';
import { GenerationAttribute, NftMessage } from './constants.ts';

/** Every transaction of any program makes a new generation of all tables of the network namespace. */
export interface Generation {
  readonly id: number;
  /** The program that made it, in a notification. */
  readonly process: string | undefined;
}

export function writeGenerationQuery(writer: MessageWriter): void {
  const family = NetfilterFamily.unspecified;
  const { nftables } = Subsystem;
  beginNetfilter(writer, nftables, NftMessage.getGeneration, MessageFlag.ack, family).end();
}

/** Reads NFT_MSG_NEWGEN; `undefined` when it is none. */
export function decodeGeneration(message: NetlinkMessage): Generation | undefined {
  const read = readNetfilter(message, Subsystem.nftables);
  if (read === undefined || read.kind !== NftMessage.newGeneration) return undefined;
  let id: number | undefined;
  let process: string | undefined;
  const reader = new AttributeReader(read.attributes);
  while (reader.next()) {
    if (reader.type === GenerationAttribute.id) id = reader.be32();
    else if (reader.type === GenerationAttribute.processName) process = reader.text();
  }
  return id === undefined ? undefined : { id, process };
}

/** Returns the generation after this one; the kernel leaves 0 out. */
export function nextGeneration(id: number): number {
  return id === 0xffff_ffff ? 1 : id + 1;
}
