/**
 * Reads DNS messages (RFC 1035 §4) as far as somebody here must know what is in them: header, question,
 * EDNS (RFC 6891), and where the records lie. What is forwarded stays the bytes that came. Nothing throws.
 */
import { readUint16, readUint32 } from '../packet/big-endian.ts';
import { failed, ok, type Outcome } from '../sansio/outcome.ts';
import { readName, skipName, type DomainName } from './name.ts';
import { OPCODE, OPTION, TYPE } from './numbers.ts';

export const HEADER_LENGTH = 12;
/** What every UDP client takes (RFC 1035 §4.2.1). */
export const PLAIN_UDP_SIZE = 512;
/** What the length before a message on a stream can say (RFC 1035 §4.2.2). */
export const MOST_MESSAGE_BYTES = 65_535;

/** In the 16 bits behind the id (RFC 1035 §4.1.1, RFC 4035 §3.2). */
export const FLAG = {
  RESPONSE: 0x8000,
  AUTHORITATIVE: 0x0400,
  TRUNCATED: 0x0200,
  RECURSION_DESIRED: 0x0100,
  RECURSION_AVAILABLE: 0x0080,
  AUTHENTIC_DATA: 0x0020,
  CHECKING_DISABLED: 0x0010,
} as const;
export const OPCODE_MASK = 0x7800;
export const RCODE_MASK = 0x000f;
/** In the TTL field of an OPT record. */
export const DNSSEC_OK = 0x8000;

export interface Question {
  readonly name: DomainName;
  readonly type: number;
  readonly class: number;
}

/** What the OPT record of a client says. */
export interface Edns {
  readonly udpSize: number;
  readonly version: number;
  readonly isDnssecOk: boolean;
  /** Whether the answer depends on the address that is given here (RFC 7871). */
  readonly hasClientSubnet: boolean;
}

/** One question of a client. */
export interface Query {
  /** As they came; borrowed from the caller. */
  readonly bytes: Uint8Array;
  readonly id: number;
  readonly flags: number;
  readonly question: Question;
  /** The offset behind the question, which starts behind the header. */
  readonly questionEnd: number;
  readonly edns: Edns | undefined;
}

/**
 * - `not-a-query`: too short for a header, or a response: to be dropped, as an answer could loop.
 * - `unsupported-opcode`: something else than a standard query.
 * - `malformed`: no question, several of them, or one that cannot be read.
 */
export type QueryError = 'not-a-query' | 'unsupported-opcode' | 'malformed';

export function decodeQuery(bytes: Uint8Array): Outcome<Query, QueryError> {
  const flags = readUint16(bytes, 2);
  if (bytes.length < HEADER_LENGTH || (flags & FLAG.RESPONSE) !== 0) return failed('not-a-query');
  if ((flags & OPCODE_MASK) >> 11 !== OPCODE.QUERY) return failed('unsupported-opcode');
  const read = readQuestion(bytes);
  if (read === undefined) return failed('malformed');
  const { question, end } = read;
  const id = readUint16(bytes, 0);
  return ok({ bytes, id, flags, question, questionEnd: end, edns: readEdns(bytes, end) });
}

/** The answer of a server, of which the records are not yet looked at. */
export interface Response {
  readonly id: number;
  readonly flags: number;
  /** The four bits of the header. */
  readonly rcode: number;
  readonly question: Question;
  readonly questionEnd: number;
}

/** `undefined` for what is no response with one question. */
export function decodeResponse(bytes: Uint8Array): Response | undefined {
  const flags = readUint16(bytes, 2);
  if (bytes.length < HEADER_LENGTH || (flags & FLAG.RESPONSE) === 0) return undefined;
  if ((flags & OPCODE_MASK) >> 11 !== OPCODE.QUERY) return undefined;
  const read = readQuestion(bytes);
  if (read === undefined) return undefined;
  const { question, end } = read;
  const rcode = flags & RCODE_MASK;
  return { id: readUint16(bytes, 0), flags, rcode, question, questionEnd: end };
}

export type Section = 'answer' | 'authority' | 'additional';

/** A resource record (RFC 1035 §3.2.1) and where it lies in its message. */
export interface ResourceRecord {
  readonly section: Section;
  readonly type: number;
  readonly class: number;
  /** In seconds. */
  readonly ttl: number;
  /** Where the owner's name starts. */
  readonly start: number;
  readonly ttlOffset: number;
  readonly dataOffset: number;
  /** Where the data and with them the record end. */
  readonly end: number;
}

/** Returns the records behind the question, or `undefined` when they are not as many as the header says. */
export function readRecords(
  message: Uint8Array,
  questionEnd: number,
): readonly ResourceRecord[] | undefined {
  const records: ResourceRecord[] = [];
  let start = questionEnd;
  for (const [i, section] of SECTIONS.entries()) {
    for (let left = readUint16(message, 6 + 2 * i); left > 0; left--) {
      const record = readRecord(message, start, section);
      if (record === undefined) return undefined;
      records.push(record);
      start = record.end;
    }
  }
  return records;
}

const SECTIONS: readonly Section[] = ['answer', 'authority', 'additional'];

/** Behind the owner's name: type, class, TTL, length of the data. */
const FIXED_LENGTH = 10;
/** A client has one record, the OPT, or a few: SIG(0) and TSIG follow it. */
const MOST_QUERY_RECORDS = 4;

function readQuestion(message: Uint8Array): { question: Question; end: number } | undefined {
  if (readUint16(message, 4) !== 1) return undefined;
  const read = readName(message, HEADER_LENGTH);
  if (read === undefined || read.end + 4 > message.length) return undefined;
  const type = readUint16(message, read.end);
  const question = { name: read.name, type, class: readUint16(message, read.end + 2) };
  return { question, end: read.end + 4 };
}

function readRecord(
  message: Uint8Array,
  start: number,
  section: Section,
): ResourceRecord | undefined {
  const fixed = skipName(message, start);
  if (fixed === undefined || fixed + FIXED_LENGTH > message.length) return undefined;
  const dataOffset = fixed + FIXED_LENGTH;
  const end = dataOffset + readUint16(message, fixed + 8);
  if (end > message.length) return undefined;
  return {
    section,
    type: readUint16(message, fixed),
    class: readUint16(message, fixed + 2),
    ttl: readUint32(message, fixed + 4),
    start,
    ttlOffset: fixed + 4,
    dataOffset,
    end,
  };
}

/** What cannot be read counts as no EDNS: the server that it is forwarded to may say more. */
function readEdns(message: Uint8Array, questionEnd: number): Edns | undefined {
  const count = readUint16(message, 6) + readUint16(message, 8) + readUint16(message, 10);
  let start = questionEnd;
  for (let i = 0; i < Math.min(count, MOST_QUERY_RECORDS); i++) {
    const record = readRecord(message, start, 'additional');
    if (record === undefined) return undefined;
    if (record.type === TYPE.OPT) {
      return {
        udpSize: record.class,
        version: (record.ttl >>> 16) & 0xff,
        isDnssecOk: (record.ttl & DNSSEC_OK) !== 0,
        hasClientSubnet: hasOption(message, record, OPTION.CLIENT_SUBNET),
      };
    }
    start = record.end;
  }
  return undefined;
}

function hasOption(message: Uint8Array, opt: ResourceRecord, code: number): boolean {
  for (let at = opt.dataOffset; at + 4 <= opt.end; at += 4 + readUint16(message, at + 2)) {
    if (readUint16(message, at) === code) return true;
  }
  return false;
}
