import type { IpFamily } from '../../net/ip-address.ts';
import { AttributeReader } from '../attribute.ts';
import { HOST_IS_LITTLE_ENDIAN } from '../byte-order.ts';
import { MessageFlag } from '../constants.ts';
import { MessageWriter } from '../message-writer.ts';
import type { NetlinkMessage } from '../message.ts';
import {
  RouteMessage,
  RULE_HEADER,
  RULE_INVERTED,
  RULE_LOOKUP,
  RuleAttribute,
} from './constants.ts';
import { decodeFamily, encodeFamily } from './family.ts';

/** A rule of policy routing (ip-rule(8)) that looks packets up in a table. */
export interface RuleKey {
  readonly family: IpFamily;
  /** Lower comes first. */
  readonly priority: number;
  /** The name of the interface that the packets came in by, which need not exist; all without it. */
  readonly inputLink: string | undefined;
  readonly table: number;
  /** A route that is found but no longer than this many bits does not count; all count without it. */
  readonly suppressPrefixLength: number | undefined;
  /** Who made it: `RouteProtocol` or a daemon's number; 0 from kernels before 4.17. */
  readonly protocol: number;
}

/** A rule as RTM_NEWRULE tells it. */
export interface Rule extends RuleKey {
  /** The key says all of it: it selects by nothing else and does nothing else. */
  readonly isPlain: boolean;
}

/** Requests the rules (a dump) of one family. A kernel without IPv6 may answer with IPv4. */
export function encodeRulesQuery(family: IpFamily): Uint8Array {
  const flags = MessageFlag.request | MessageFlag.dump;
  const writer = new MessageWriter().begin(RouteMessage.getRule, flags);
  writer.fixed(RULE_HEADER).setUint8(0, encodeFamily(family));
  return writer.end().take();
}

/** Adds a rule; fails with EEXIST where an equal one is, whoever made it. */
export function encodeRuleAddition(rule: RuleKey): Uint8Array {
  const flags = MessageFlag.create | MessageFlag.exclusive;
  return encodeChange(RouteMessage.newRule, flags, rule);
}

/** Removes the first rule that has all that the key says. */
export function encodeRuleRemoval(rule: RuleKey): Uint8Array {
  return encodeChange(RouteMessage.removeRule, 0, rule);
}

/** Reads the body of RTM_NEWRULE or RTM_DELRULE; `undefined` when it is not one of IPv4 or IPv6. */
export function decodeRule(message: Pick<NetlinkMessage, 'body'>): Rule | undefined {
  const { body } = message;
  if (body.length < RULE_HEADER) return undefined;
  const header = new DataView(body.buffer, body.byteOffset, RULE_HEADER);
  const family = decodeFamily(header.getUint8(0));
  if (family === undefined) return undefined;
  // Lengths of the destination and source prefixes, and the TOS.
  const selects = header.getUint8(1) | header.getUint8(2) | header.getUint8(3);
  const isInverted = (header.getUint32(8, HOST_IS_LITTLE_ENDIAN) & RULE_INVERTED) !== 0;
  let isPlain = selects === 0 && header.getUint8(7) === RULE_LOOKUP && !isInverted;
  let inputLink: string | undefined;
  let priority = 0;
  let table = header.getUint8(4);
  let suppressed = NOTHING_SUPPRESSED;
  let protocol = 0;

  const reader = new AttributeReader(body.subarray(RULE_HEADER));
  while (reader.next()) {
    if (reader.type === RuleAttribute.inputLink) inputLink = reader.text();
    else if (reader.type === RuleAttribute.priority) priority = reader.u32() ?? priority;
    else if (reader.type === RuleAttribute.table) table = reader.u32() ?? table;
    else if (reader.type === RuleAttribute.suppressPrefixLength) {
      suppressed = reader.u32() ?? suppressed;
    } else if (reader.type === RuleAttribute.protocol) protocol = reader.u8() ?? protocol;
    else if (reader.type !== RuleAttribute.padding) isPlain = false;
  }
  if (reader.malformed) return undefined;
  const suppressPrefixLength = suppressed === NOTHING_SUPPRESSED ? undefined : suppressed;
  return { family, priority, inputLink, table, suppressPrefixLength, protocol, isPlain };
}

/** −1, as the kernel says it. */
const NOTHING_SUPPRESSED = 0xffff_ffff;

function encodeChange(type: number, messageFlags: number, rule: RuleKey): Uint8Array {
  const flags = MessageFlag.request | MessageFlag.ack | messageFlags;
  const writer = new MessageWriter().begin(type, flags);
  const header = writer.fixed(RULE_HEADER);
  header.setUint8(0, encodeFamily(rule.family));
  header.setUint8(7, RULE_LOOKUP);
  if (rule.inputLink !== undefined) writer.name(RuleAttribute.inputLink, rule.inputLink);
  writer.u32(RuleAttribute.priority, rule.priority).u32(RuleAttribute.table, rule.table);
  if (rule.suppressPrefixLength !== undefined) {
    writer.u32(RuleAttribute.suppressPrefixLength, rule.suppressPrefixLength);
  }
  return writer.u8(RuleAttribute.protocol, rule.protocol).end().take();
}
