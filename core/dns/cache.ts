import { readUint16, readUint32, writeUint16, writeUint32 } from '../packet/big-endian.ts';
import { after, elapsed, type Instant } from '../sansio/instant.ts';
import { encodeOpt } from './answer.ts';
import {
  decodeResponse,
  FLAG,
  HEADER_LENGTH,
  readRecords,
  type Query,
  type ResourceRecord,
  type Response,
} from './message.ts';
import { CLASS, RCODE, TYPE } from './numbers.ts';

export const MOST_CACHE_BYTES: number = 4 * 1024 * 1024;
/** Larger answers are rare, and one of them would push out many. */
const MOST_ANSWER_BYTES = 4096;
/** In seconds. A server's typing error must not stay for longer, and RFC 2308 §5 says so of negatives. */
const LONGEST_TTL = 86_400;
const LONGEST_NEGATIVE_TTL = 10_800;
/** What an entry weighs beside its bytes and its key. */
const ENTRY_OVERHEAD = 200;

interface Entry {
  /** The whole answer without its OPT, which belongs to one hop (RFC 6891 §6.2.1). */
  readonly message: Uint8Array;
  readonly ttlOffsets: Uint16Array;
  readonly weight: number;
  readonly storedAt: Instant;
  readonly expiresAt: Instant;
}

/**
 * Keeps answers of servers as long as their records hold, negative ones after RFC 2308. A full cache
 * drops the answer that was not asked for the longest. Nothing in it is looked at but as the answer to
 * the very question that it was the answer to.
 */
export class DnsCache {
  /** In the order of their last use. */
  readonly #entries = new Map<string, Entry>();
  readonly #mostBytes: number;
  #bytes = 0;
  #hits = 0;
  #misses = 0;

  constructor(mostBytes: number = MOST_CACHE_BYTES) {
    this.#mostBytes = mostBytes;
  }

  /** Returns the answer for this client, with the time that has passed taken off its TTLs. */
  answer(query: Query, now: Instant): Uint8Array | undefined {
    const key = keyOf(query);
    const entry = key === undefined ? undefined : this.#entries.get(key);
    if (key === undefined || entry === undefined || entry.expiresAt <= now) {
      if (key !== undefined) this.#delete(key);
      this.#misses++;
      return undefined;
    }
    this.#hits++;
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    return answerFrom(entry, query, now);
  }

  /** Takes an answer if it may be kept. That it answers the query is known to the caller. */
  store(query: Query, answer: Uint8Array, now: Instant): void {
    const key = keyOf(query);
    const cacheable = key === undefined ? undefined : cacheableOf(answer);
    if (key === undefined || cacheable === undefined) return;
    const { message, ttlOffsets, ttl } = cacheable;
    const weight = ENTRY_OVERHEAD + key.length + message.length + 2 * ttlOffsets.length;
    this.#delete(key);
    if (weight > this.#mostBytes) return;
    const expiresAt = after(now, ttl * 1000);
    this.#entries.set(key, { message, ttlOffsets, weight, storedAt: now, expiresAt });
    this.#bytes += weight;
    for (const oldest of this.#entries.keys()) {
      if (this.#bytes <= this.#mostBytes) break;
      this.#delete(oldest);
    }
  }

  flush(): void {
    this.#entries.clear();
    this.#bytes = 0;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** What the entries weigh, about. */
  get bytes(): number {
    return this.#bytes;
  }

  get hits(): number {
    return this.#hits;
  }

  get misses(): number {
    return this.#misses;
  }

  #delete(key: string): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    this.#entries.delete(key);
    this.#bytes -= entry.weight;
  }
}

/**
 * Whatever the answer depends on. `undefined` for what is asked of the server each time: other classes,
 * answers for one subnet (RFC 7871), and questions about its own cache (RD clear).
 */
function keyOf({ question, flags, edns }: Query): string | undefined {
  if (question.class !== CLASS.IN || edns?.hasClientSubnet === true) return undefined;
  if ((edns?.version ?? 0) !== 0 || (flags & FLAG.RECURSION_DESIRED) === 0) return undefined;
  const dnssecOk = edns?.isDnssecOk === true ? 'D' : '';
  const checkingDisabled = (flags & FLAG.CHECKING_DISABLED) === 0 ? '' : 'C';
  return `${question.type}${dnssecOk}${checkingDisabled} ${question.name}`;
}

interface Cacheable {
  readonly message: Uint8Array;
  readonly ttlOffsets: Uint16Array;
  readonly ttl: number;
}

function cacheableOf(answer: Uint8Array): Cacheable | undefined {
  const response = decodeResponse(answer);
  if (response === undefined || answer.length > MOST_ANSWER_BYTES) return undefined;
  if ((response.flags & FLAG.TRUNCATED) !== 0) return undefined;
  const records = readRecords(answer, response.questionEnd);
  if (records === undefined) return undefined;
  const opt = records.find(({ type }) => type === TYPE.OPT);
  // Upper bits of the code; and whatever signs the message stands behind the OPT.
  if (opt !== undefined && (opt !== records.at(-1) || opt.ttl >>> 24 !== 0)) return undefined;

  const kept = records.filter((record) => record !== opt);
  const ttl = lifetimeOf(answer, response, kept);
  if (ttl === undefined || ttl === 0) return undefined;
  const message = answer.slice(0, kept.at(-1)?.end ?? response.questionEnd);
  if (opt !== undefined) writeUint16(message, 10, readUint16(message, 10) - 1);
  return { message, ttlOffsets: Uint16Array.from(kept, ({ ttlOffset }) => ttlOffset), ttl };
}

/** In seconds; `undefined` for what must not be kept. */
function lifetimeOf(
  answer: Uint8Array,
  { rcode, question }: Response,
  records: readonly ResourceRecord[],
): number | undefined {
  if (rcode !== RCODE.NOERROR && rcode !== RCODE.NXDOMAIN) return undefined;
  const hasAnswer = records.some(
    ({ section, type }) =>
      section === 'answer' && (type === question.type || question.type === TYPE.ANY),
  );
  const shortest = records.reduce((least, record) => Math.min(least, ttlOf(record)), LONGEST_TTL);
  if (hasAnswer && rcode === RCODE.NOERROR) return shortest;
  // Without an SOA nothing says how long it is true (RFC 2308 §5).
  const soa = records.find(({ section, type }) => section === 'authority' && type === TYPE.SOA);
  if (soa === undefined || soa.end - soa.dataOffset < 22) return undefined;
  return Math.min(shortest, readUint32(answer, soa.end - 4), LONGEST_NEGATIVE_TTL);
}

/** RFC 2181 §8: with the upper bit set it counts as zero. */
function ttlOf({ ttl }: ResourceRecord): number {
  return ttl > 0x7fff_ffff ? 0 : ttl;
}

function answerFrom(entry: Entry, query: Query, now: Instant): Uint8Array {
  const { message, ttlOffsets } = entry;
  const opt = encodeOpt(query.edns, RCODE.NOERROR);
  const bytes = new Uint8Array(message.length + opt.length);
  bytes.set(message);
  bytes.set(opt, message.length);
  // The question of this client, in its case: as long as that which stood here.
  bytes.set(query.bytes.subarray(HEADER_LENGTH, query.questionEnd), HEADER_LENGTH);
  writeUint16(bytes, 0, query.id);
  const kept = FLAG.RECURSION_DESIRED | FLAG.CHECKING_DISABLED;
  // RFC 6840 §5.7: AD only for who asked for it.
  const asksForAd = (query.flags & FLAG.AUTHENTIC_DATA) !== 0 || query.edns?.isDnssecOk === true;
  const dropped = kept | FLAG.AUTHORITATIVE | (asksForAd ? 0 : FLAG.AUTHENTIC_DATA);
  writeUint16(bytes, 2, (readUint16(message, 2) & ~dropped) | (query.flags & kept));
  if (opt.length > 0) writeUint16(bytes, 10, readUint16(message, 10) + 1);
  const age = Math.floor(elapsed(entry.storedAt, now) / 1000);
  for (const offset of ttlOffsets) {
    writeUint32(
      bytes,
      offset,
      Math.max(0, Math.min(readUint32(message, offset), LONGEST_TTL) - age),
    );
  }
  return bytes;
}
