/** Writes the answers that are not a server's: what the stub resolver says, errors, and truncation. */
import { readUint16, writeUint16, writeUint32 } from '../packet/big-endian.ts';
import {
  DNSSEC_OK,
  FLAG,
  HEADER_LENGTH,
  OPCODE_MASK,
  PLAIN_UDP_SIZE,
  RCODE_MASK,
  type Edns,
  type Query,
} from './message.ts';
import { encodeName, readName, type DomainName } from './name.ts';
import { CLASS, RCODE, TYPE } from './numbers.ts';

/** A record of the question's name. */
export interface AnswerRecord {
  readonly type: number;
  /** In seconds. */
  readonly ttl: number;
  readonly data: Uint8Array;
}

/** `data` is an address of 4 or 16 bytes. */
export function addressRecord(data: Uint8Array, ttl: number): AnswerRecord {
  return { type: data.length === 4 ? TYPE.A : TYPE.AAAA, ttl, data };
}

export function pointerRecord(name: DomainName, ttl: number): AnswerRecord {
  return { type: TYPE.PTR, ttl, data: encodeName(name) };
}

/** NOERROR with these records: few enough to fit wherever a DNS message does. */
export function encodeAnswer(query: Query, records: readonly AnswerRecord[]): Uint8Array {
  return encode(query, RCODE.NOERROR, records, []);
}

/**
 * NOERROR or NXDOMAIN without an answer, and with the SOA by which resolvers in front know that nothing
 * is wrong and how many seconds they may remember it (RFC 2308 §2, §5).
 */
export function encodeNegative(
  query: Query,
  rcode: typeof RCODE.NOERROR | typeof RCODE.NXDOMAIN,
  ttl: number,
): Uint8Array {
  return encode(query, rcode, [], [{ type: TYPE.SOA, ttl, data: soaData(ttl) }]);
}

export function encodeFailure(query: Query, rcode: number): Uint8Array {
  return encode(query, rcode, [], []);
}

/** The answer to what has a header, but is no query that we understand. */
export function encodeRefusal(message: Uint8Array, rcode: number): Uint8Array {
  // Of a message with one question that can be read, the question is repeated.
  const name = readUint16(message, 4) === 1 ? readName(message, HEADER_LENGTH) : undefined;
  const hasQuestion = name !== undefined && name.end + 4 <= message.length;
  const bytes = message.slice(0, hasQuestion ? name.end + 4 : HEADER_LENGTH);
  const kept = readUint16(message, 2) & (OPCODE_MASK | FLAG.RECURSION_DESIRED);
  writeUint16(bytes, 2, FLAG.RESPONSE | FLAG.RECURSION_AVAILABLE | kept | rcode);
  writeCounts(bytes, hasQuestion ? 1 : 0, 0, 0, 0);
  return bytes;
}

/** Returns how many bytes a client takes over UDP. */
export function udpSizeOf(edns: Edns | undefined): number {
  return Math.min(Math.max(edns?.udpSize ?? 0, PLAIN_UDP_SIZE), MOST_UDP_SIZE);
}

/**
 * Returns the answer as the client takes it over UDP. One that does not fit becomes header, question and
 * our OPT with TC set: parts of an answer must not be used anyway (RFC 2181 §9).
 */
export function fitIntoUdp(query: Query, answer: Uint8Array): Uint8Array {
  if (answer.length <= udpSizeOf(query.edns)) return answer;
  const opt = encodeOpt(query.edns, readUint16(answer, 2) & RCODE_MASK);
  const bytes = new Uint8Array(query.questionEnd + opt.length);
  bytes.set(answer.subarray(0, query.questionEnd));
  bytes.set(opt, query.questionEnd);
  writeUint16(bytes, 2, readUint16(answer, 2) | FLAG.TRUNCATED);
  writeCounts(bytes, 1, 0, 0, opt.length > 0 ? 1 : 0);
  return bytes;
}

/** Returns our OPT record for a client that sent one, and nothing for others (RFC 6891 §6.1.1). */
export function encodeOpt(edns: Edns | undefined, rcode: number): Uint8Array {
  if (edns === undefined) return new Uint8Array(0);
  const opt = new Uint8Array(11);
  writeUint16(opt, 1, TYPE.OPT);
  writeUint16(opt, 3, OUR_UDP_SIZE);
  opt[5] = rcode >> 4;
  writeUint16(opt, 7, edns.isDnssecOk ? DNSSEC_OK : 0);
  return opt;
}

/** The query that somebody who wants to know this sends. */
export function encodeQuery(
  question: { readonly name: DomainName; readonly type: number },
  id: number,
): Uint8Array {
  const name = encodeName(question.name);
  const bytes = new Uint8Array(HEADER_LENGTH + name.length + 4);
  writeUint16(bytes, 0, id);
  writeUint16(bytes, 2, FLAG.RECURSION_DESIRED);
  writeCounts(bytes, 1, 0, 0, 0);
  bytes.set(name, HEADER_LENGTH);
  writeUint16(bytes, HEADER_LENGTH + name.length, question.type);
  writeUint16(bytes, HEADER_LENGTH + name.length + 2, CLASS.IN);
  return bytes;
}

/** Fits into what networks carry without fragments (the DNS flag day of 2020). */
const OUR_UDP_SIZE = 1232;
/** Clients promise more than is good; what is larger goes over TCP. */
const MOST_UDP_SIZE = 4096;

/** The name in the question, which starts behind the header (RFC 1035 §4.1.4). */
const POINTER_TO_QUESTION = 0xc000 | HEADER_LENGTH;

/** Refresh, retry and expire: nobody transfers this zone. */
const SOA_TIMES = [3600, 600, 86_400];

/** RFC 1035 §3.3.13: the question's name as server, the root as mailbox, serial 1. */
function soaData(minimum: number): Uint8Array {
  const data = new Uint8Array(23);
  writeUint16(data, 0, POINTER_TO_QUESTION);
  for (const [i, value] of [1, ...SOA_TIMES, minimum].entries()) {
    writeUint32(data, 3 + 4 * i, value);
  }
  return data;
}

function encode(
  query: Query,
  rcode: number,
  answers: readonly AnswerRecord[],
  authority: readonly AnswerRecord[],
): Uint8Array {
  const records = [...answers, ...authority];
  const opt = encodeOpt(query.edns, rcode);
  const length = records.reduce(
    (sum, { data }) => sum + RECORD_LENGTH + data.length,
    query.questionEnd + opt.length,
  );
  const bytes = new Uint8Array(length);
  // The question goes back as it came, for clients that hide a nonce in its case.
  bytes.set(query.bytes.subarray(0, query.questionEnd));
  writeUint16(bytes, 2, flagsOf(query, rcode));
  writeCounts(bytes, 1, answers.length, authority.length, opt.length > 0 ? 1 : 0);
  let offset = query.questionEnd;
  for (const { type, ttl, data } of records) {
    writeUint16(bytes, offset, POINTER_TO_QUESTION);
    writeUint16(bytes, offset + 2, type);
    writeUint16(bytes, offset + 4, CLASS.IN);
    writeUint32(bytes, offset + 6, ttl);
    writeUint16(bytes, offset + 10, data.length);
    bytes.set(data, offset + RECORD_LENGTH);
    offset += RECORD_LENGTH + data.length;
  }
  bytes.set(opt, offset);
  return bytes;
}

const RECORD_LENGTH = 12;

function flagsOf(query: Query, rcode: number): number {
  const kept = query.flags & (FLAG.RECURSION_DESIRED | FLAG.CHECKING_DISABLED);
  const isAnswer = rcode === RCODE.NOERROR || rcode === RCODE.NXDOMAIN;
  const authority = isAnswer ? FLAG.AUTHORITATIVE : 0;
  return FLAG.RESPONSE | FLAG.RECURSION_AVAILABLE | authority | kept | (rcode & RCODE_MASK);
}

function writeCounts(
  bytes: Uint8Array,
  questions: number,
  answers: number,
  authority: number,
  additional: number,
): void {
  for (const [i, count] of [questions, answers, authority, additional].entries()) {
    writeUint16(bytes, 4 + 2 * i, count);
  }
}
