import { ipAddressFromBytes, type IpAddress } from '../net/ip-address.ts';
import type { Instant } from '../sansio/instant.ts';
import type { NatTuple } from './tuple.ts';

/** The sides of a session: how its requests come, and how they leave. */
export const INSIDE = 0;
export const OUTSIDE = 1;
export type Side = typeof INSIDE | typeof OUTSIDE;

/** In a key; as a protocol it is that of an IPv6 header, which no packet carries behind its headers. */
export const ANY_PROTOCOL = 0;

/** Directions of packets. */
export const REQUESTS = 0;
export const REPLIES = 1;

/*
 * A side: { port u16 | protocol u8 | family u8, source u32[4], destination u32[4] }, in one piece, as it is
 * compared as one. Of an IPv4 address all words but the first are 0.
 */
const WORDS_PER_SIDE = 9;
const WORDS_PER_ROW = 2 * WORDS_PER_SIDE;
const SOURCE = 1;
const DESTINATION = 5;

/**
 * The columns of the session table. Typed arrays of fixed size: pages that no session uses are never
 * touched and cost nothing, and a hundred thousand sessions are no work for the garbage collector.
 *
 * A side is compared with the key, which is loaded from a tuple first.
 */
export class SessionRows {
  /** Below 65,536. */
  readonly owner: Uint16Array;
  readonly state: Uint8Array;
  /** Bits: 1 a FIN was in a request, 2 in a reply. */
  readonly fins: Uint8Array;
  readonly openedAt: Float64Array;
  /** When it was last put into a queue of `state`. */
  readonly queuedAt: Float64Array;
  /** Two each: requests, replies. */
  readonly packets: Float64Array;
  readonly bytes: Float64Array;
  readonly #sides: Uint32Array;

  readonly #seed: number;
  readonly #key: Uint32Array = new Uint32Array(WORDS_PER_SIDE);

  /** The seed keeps senders from choosing tuples whose hashes are the same. */
  constructor(rows: number, seed: number) {
    this.#seed = seed;
    this.owner = new Uint16Array(rows);
    this.state = new Uint8Array(rows);
    this.fins = new Uint8Array(rows);
    this.openedAt = new Float64Array(rows);
    this.queuedAt = new Float64Array(rows);
    this.packets = new Float64Array(rows * 2);
    this.bytes = new Float64Array(rows * 2);
    this.#sides = new Uint32Array(rows * WORDS_PER_ROW);
  }

  /** Makes the tuple the key. */
  load({ protocol, source, port, destination }: NatTuple): void {
    this.#key[0] = port | (protocol << 16) | (source.length << 24);
    this.#loadAddress(source, SOURCE);
    this.#loadAddress(destination, DESTINATION);
  }

  /** Makes one side of a row the key. */
  loadSide(row: number, side: Side): void {
    const at = sideOf(row, side);
    for (let i = 0; i < WORDS_PER_SIDE; i++) this.#key[i] = this.#sides[at + i] ?? 0;
  }

  set keyPort(port: number) {
    this.#key[0] = ((this.#key[0] ?? 0) & ~0xffff) | port;
  }

  get keyPort(): number {
    return (this.#key[0] ?? 0) & 0xffff;
  }

  /** Hash of the whole key. */
  tupleHash(): number {
    return finish(mix(this.#addressHash(), this.#key[0] ?? 0));
  }

  /** Hash of the addresses of the key. */
  pairHash(): number {
    return finish(this.#addressHash());
  }

  /** Whether the side of the row is the key. */
  hasTuple(row: number, side: Side): boolean {
    return this.#sides[sideOf(row, side)] === this.#key[0] && this.hasPair(row, side);
  }

  /** Whether the side of the row has the addresses of the key. */
  hasPair(row: number, side: Side): boolean {
    const at = sideOf(row, side);
    if (((this.#sides[at] ?? 0) ^ (this.#key[0] ?? 0)) >>> 24 !== 0) return false;
    for (let i = SOURCE; i < WORDS_PER_SIDE; i++) {
      if (this.#sides[at + i] !== this.#key[i]) return false;
    }
    return true;
  }

  /** Whether the row has the protocol of the key, if that has one. */
  hasProtocol(row: number): boolean {
    const protocol = ((this.#key[0] ?? 0) >>> 16) & 0xff;
    return protocol === ANY_PROTOCOL || this.protocol(row) === protocol;
  }

  /** Writes the key as a side of the row. */
  store(row: number, side: Side): void {
    this.#sides.set(this.#key, sideOf(row, side));
  }

  /** Begins the history of a row. */
  reset(row: number, now: Instant): void {
    this.fins[row] = 0;
    this.openedAt[row] = now;
    this.packets.fill(0, row * 2, row * 2 + 2);
    this.bytes.fill(0, row * 2, row * 2 + 2);
  }

  count(row: number, direction: number, packets: number, bytes: number): void {
    const at = row * 2 + direction;
    this.packets[at] = (this.packets[at] ?? 0) + packets;
    this.bytes[at] = (this.bytes[at] ?? 0) + bytes;
  }

  port(row: number, side: Side): number {
    return (this.#sides[sideOf(row, side)] ?? 0) & 0xffff;
  }

  protocol(row: number): number {
    return ((this.#sides[sideOf(row, INSIDE)] ?? 0) >>> 16) & 0xff;
  }

  /** Returns 4 or 16 bytes. */
  source(row: number, side: Side): Uint8Array {
    return this.#addressBytes(sideOf(row, side), SOURCE);
  }

  destination(row: number, side: Side): Uint8Array {
    return this.#addressBytes(sideOf(row, side), DESTINATION);
  }

  sourceText(row: number, side: Side): IpAddress {
    return ipAddressFromBytes(this.source(row, side));
  }

  destinationText(row: number, side: Side): IpAddress {
    return ipAddressFromBytes(this.destination(row, side));
  }

  get byteLength(): number {
    const columns = [
      this.owner,
      this.state,
      this.fins,
      this.openedAt,
      this.queuedAt,
      this.packets,
      this.bytes,
      this.#sides,
    ];
    return columns.reduce((bytes, column) => bytes + column.byteLength, 0);
  }

  #addressHash(): number {
    const key = this.#key;
    let hash = this.#seed;
    if ((key[0] ?? 0) >>> 24 === 4) return mix(mix(hash, key[SOURCE] ?? 0), key[DESTINATION] ?? 0);
    for (let i = SOURCE; i < WORDS_PER_SIDE; i++) hash = mix(hash, key[i] ?? 0);
    return hash;
  }

  #loadAddress(bytes: Uint8Array, at: number): void {
    for (let word = 0; word < 4; word++) {
      const from = word * 4;
      this.#key[at + word] =
        ((bytes[from] ?? 0) << 24) |
        ((bytes[from + 1] ?? 0) << 16) |
        ((bytes[from + 2] ?? 0) << 8) |
        (bytes[from + 3] ?? 0);
    }
  }

  #addressBytes(side: number, field: number): Uint8Array {
    const bytes = new Uint8Array((this.#sides[side] ?? 0) >>> 24);
    for (let i = 0; i < bytes.length; i++) {
      bytes[i] = (this.#sides[side + field + (i >> 2)] ?? 0) >>> (24 - (i & 3) * 8);
    }
    return bytes;
  }
}

/** Returns the index of the first word of a side. */
function sideOf(row: number, side: Side): number {
  return row * WORDS_PER_ROW + side * WORDS_PER_SIDE;
}

/* The mixing and finishing steps of MurmurHash3. */

function mix(hash: number, word: number): number {
  const scrambled = Math.imul(rotate(Math.imul(word, 0xcc9e2d51), 15), 0x1b873593);
  return (Math.imul(rotate(hash ^ scrambled, 13), 5) + 0xe6546b64) | 0;
}

function finish(hash: number): number {
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

function rotate(word: number, by: number): number {
  return (word << by) | (word >>> (32 - by));
}
