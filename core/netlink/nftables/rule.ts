import { encodeUtf8 } from '../../sansio/utf8.ts';
import { ATTRIBUTE_NESTED, MessageFlag } from '../constants.ts';
import type { MessageWriter } from '../message-writer.ts';
import type { NetlinkMessage } from '../message.ts';
import { NftMessage, RuleAttribute, Userdata } from './constants.ts';
import type { Expression } from './expression.ts';
import { readExpressions } from './expression-decoder.ts';
import { writeExpressions } from './expression-encoder.ts';
import { beginNft, readNft, type TableKey } from './table.ts';
import { clipComment, commentEntry, encodeUserdata, readComment } from './userdata.ts';

export interface RuleDefinition {
  /** What `nft list` prints behind the rule, before the fingerprint. Cut after 100 bytes. */
  readonly comment?: string | undefined;
  readonly expressions: readonly Expression[];
}

/** A rule with its bytes, and the fingerprint over them by which it is recognised when it is read back. */
export interface PreparedRule {
  readonly comment: string | undefined;
  /** The value of NFTA_RULE_EXPRESSIONS. */
  readonly expressions: Uint8Array;
  readonly fingerprint: string;
}

/** A rule as the kernel tells it. */
export interface Rule {
  readonly table: TableKey;
  readonly chain: string;
  readonly handle: number | undefined;
  readonly comment: string | undefined;
  /** Absent where the rule is not of our making. */
  readonly fingerprint: string | undefined;
  readonly expressions: readonly Expression[];
}

export function prepareRule(rule: RuleDefinition, scratch: MessageWriter): PreparedRule {
  writeExpressions(scratch, RuleAttribute.expressions, rule.expressions);
  const expressions = scratch.take().subarray(4);
  const comment = rule.comment === undefined ? undefined : clipComment(rule.comment, MOST_COMMENT);
  return { comment, expressions, fingerprint: fingerprintOf(expressions, comment ?? '') };
}

const MOST_COMMENT = 100;

/** Appends a rule to its chain. */
export function writeRule(
  writer: MessageWriter,
  table: TableKey,
  chain: string,
  rule: PreparedRule,
): void {
  beginNft(writer, NftMessage.newRule, MessageFlag.create | MessageFlag.append, table);
  writer.name(RuleAttribute.table, table.name).name(RuleAttribute.chain, chain);
  writer.bytes(RuleAttribute.expressions | ATTRIBUTE_NESTED, rule.expressions);
  const text = [...(rule.comment === undefined ? [] : [rule.comment]), `#${rule.fingerprint}`];
  const userdata = encodeUserdata([commentEntry(Userdata.comment, text.join(' '))]);
  writer.bytes(RuleAttribute.userdata, userdata).end();
}

/** Removes all rules of a chain. */
export function writeFlush(writer: MessageWriter, table: TableKey, chain: string): void {
  beginNft(writer, NftMessage.removeRule, 0, table);
  writer.name(RuleAttribute.table, table.name).name(RuleAttribute.chain, chain).end();
}

/** Requests the rules of a table (a dump), chain by chain and in order. */
export function writeRulesQuery(writer: MessageWriter, table: TableKey): void {
  beginNft(writer, NftMessage.getRule, MessageFlag.dump, table);
  writer.name(RuleAttribute.table, table.name).end();
}

/** Reads NFT_MSG_NEWRULE; `undefined` when it is none. */
export function decodeRule(message: NetlinkMessage): Rule | undefined {
  const read = readNft(message, NftMessage.newRule);
  if (read === undefined) return undefined;
  const { attributes, family } = read;
  let table: string | undefined;
  let chain: string | undefined;
  let handle: number | undefined;
  let text: string | undefined;
  let expressions: readonly Expression[] = [];
  while (attributes.next()) {
    if (attributes.type === RuleAttribute.table) table = attributes.text();
    else if (attributes.type === RuleAttribute.chain) chain = attributes.text();
    else if (attributes.type === RuleAttribute.handle) handle = attributes.be64();
    else if (attributes.type === RuleAttribute.expressions) {
      expressions = readExpressions(attributes.nested());
    } else if (attributes.type === RuleAttribute.userdata) {
      text = readComment(attributes.value, Userdata.comment);
    }
  }
  if (table === undefined || chain === undefined) return undefined;
  const [, comment, fingerprint] = TAGGED.exec(text ?? '') ?? [undefined, text, undefined];
  return {
    table: { family, name: table },
    chain,
    handle,
    comment: comment === '' ? undefined : comment,
    fingerprint,
    expressions,
  };
}

/** A comment with the fingerprint behind it. */
const TAGGED = /^(.*?) ?#([0-9a-f]{16})$/s;

/** Two rounds of FNV-1a with 32 bits: it recognises what we wrote, and protects from nobody. */
function fingerprintOf(expressions: Uint8Array, comment: string): string {
  const text = encodeUtf8(comment);
  return [0x811c_9dc5, 0x050c_5d1f]
    .map((basis) => fnv1a(fnv1a(basis, expressions), text))
    .map((hash) => hash.toString(16).padStart(8, '0'))
    .join('');
}

function fnv1a(basis: number, bytes: Uint8Array): number {
  let hash = basis;
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x0100_0193);
  return hash >>> 0;
}
