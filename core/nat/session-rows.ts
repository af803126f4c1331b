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

const WORDS_PER_ADDRESS = 4;
const WORDS_PER_SIDE = 2 * WORDS_PER_ADDRESS;
const WORDS_PER_ROW = 2 * WORDS_PER_SIDE;

/**
 * The columns of the session table. Typed arrays of fixed size: pages that no session uses are never
 * touched and cost nothing, and a hundred thousand sessions are no work for the garbage collector.
 *
 * A side is compared with the key, which is loaded from a tuple first.
 */
export class SessionRows {
  readonly owner: Uint32Array;
  readonly state: Uint8Array;
  /** Bits: 1 a FIN was in a request, 2 in a reply. */
  readonly fins: Uint8Array;
  readonly openedAt: Float64Array;
  /** When it was last put into a queue of `state`. */
  readonly queuedAt: Float64Array;
  /** Two each: requests, replies. */
  readonly packets: Float64Array;
  readonly bytes: Float64Array;
  readonly #addresses: Uint32Array;
  readonly #ports: Uint16Array;
  readonly #protocols: Uint8Array;
  readonly #isIpv6: Uint8Array;

  readonly #seed: number;
  readonly #key: Uint32Array = new Uint32Array(WORDS_PER_SIDE);
  #keyPort = 0;
  #keyProtocol = 0;
  #keyIsIpv6 = 0;

  /** The seed keeps senders from choosing tuples whose hashes are the same. */
  constructor(rows: number, seed: number) {
    this.#seed = seed;
    this.owner = new Uint32Array(rows);
    this.state = new Uint8Array(rows);
    this.fins = new Uint8Array(rows);
    this.openedAt = new Float64Array(rows);
    this.queuedAt = new Float64Array(rows);
    this.packets = new Float64Array(rows * 2);
    this.bytes = new Float64Array(rows * 2);
    this.#addresses = new Uint32Array(rows * WORDS_PER_ROW);
    this.#ports = new Uint16Array(rows * 2);
    this.#protocols = new Uint8Array(rows);
    this.#isIpv6 = new Uint8Array(rows);
  }

  /** Makes the tuple the key. */
  load({ protocol, source, port, destination }: NatTuple): void {
    this.#keyProtocol = protocol;
    this.#keyPort = port;
    this.#keyIsIpv6 = source.length === 16 ? 1 : 0;
    this.#loadAddress(source, 0);
    this.#loadAddress(destination, WORDS_PER_ADDRESS);
  }

  /** Makes one side of a row the key. */
  loadSide(row: number, side: Side): void {
    const at = row * WORDS_PER_ROW + side * WORDS_PER_SIDE;
    for (let i = 0; i < WORDS_PER_SIDE; i++) this.#key[i] = this.#addresses[at + i] ?? 0;
    this.#keyProtocol = this.#protocols[row] ?? 0;
    this.#keyPort = this.port(row, side);
    this.#keyIsIpv6 = this.#isIpv6[row] ?? 0;
  }

  set keyPort(port: number) {
    this.#keyPort = port;
  }

  get keyPort(): number {
    return this.#keyPort;
  }

  /** Hash of the whole key. */
  tupleHash(): number {
    return finish(mix(this.pairHash(), this.#keyPort * 256 + this.#keyProtocol));
  }

  /** Hash of the addresses of the key. */
  pairHash(): number {
    let hash = this.#seed + this.#keyIsIpv6;
    // Of an IPv4 address all words but the first are 0.
    const step = this.#keyIsIpv6 === 1 ? 1 : WORDS_PER_ADDRESS;
    for (let i = 0; i < WORDS_PER_SIDE; i += step) hash = mix(hash, this.#key[i] ?? 0);
    return finish(hash);
  }

  /** Whether the side of the row is the key. */
  hasTuple(row: number, side: Side): boolean {
    return (
      this.port(row, side) === this.#keyPort &&
      this.#protocols[row] === this.#keyProtocol &&
      this.hasPair(row, side)
    );
  }

  /** Whether the side of the row has the addresses of the key. */
  hasPair(row: number, side: Side): boolean {
    if (this.#isIpv6[row] !== this.#keyIsIpv6) return false;
    const at = row * WORDS_PER_ROW + side * WORDS_PER_SIDE;
    for (let i = 0; i < WORDS_PER_SIDE; i++) {
      if (this.#addresses[at + i] !== this.#key[i]) return false;
    }
    return true;
  }

  /** Whether the row has the protocol of the key, if that has one. */
  hasProtocol(row: number): boolean {
    return this.#keyProtocol === ANY_PROTOCOL || this.#protocols[row] === this.#keyProtocol;
  }

  /** Writes the key as a side of the row. */
  store(row: number, side: Side): void {
    this.#addresses.set(this.#key, row * WORDS_PER_ROW + side * WORDS_PER_SIDE);
    this.#ports[row * 2 + side] = this.#keyPort;
    this.#protocols[row] = this.#keyProtocol;
    this.#isIpv6[row] = this.#keyIsIpv6;
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
    return this.#ports[row * 2 + side] ?? 0;
  }

  protocol(row: number): number {
    return this.#protocols[row] ?? 0;
  }

  /** Returns 4 or 16 bytes. */
  source(row: number, side: Side): Uint8Array {
    return this.#addressBytes(row, row * WORDS_PER_ROW + side * WORDS_PER_SIDE);
  }

  destination(row: number, side: Side): Uint8Array {
    const at = row * WORDS_PER_ROW + side * WORDS_PER_SIDE + WORDS_PER_ADDRESS;
    return this.#addressBytes(row, at);
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
      this.#addresses,
      this.#ports,
      this.#protocols,
      this.#isIpv6,
    ];
    return columns.reduce((bytes, column) => bytes + column.byteLength, 0);
  }

  #loadAddress(bytes: Uint8Array, at: number): void {
    for (let word = 0; word < WORDS_PER_ADDRESS; word++) {
      const from = word * 4;
      this.#key[at + word] =
        ((bytes[from] ?? 0) << 24) |
        ((bytes[from + 1] ?? 0) << 16) |
        ((bytes[from + 2] ?? 0) << 8) |
        (bytes[from + 3] ?? 0);
    }
  }

  #addressBytes(row: number, at: number): Uint8Array {
    const bytes = new Uint8Array(this.#isIpv6[row] === 1 ? 16 : 4);
    for (let i = 0; i < bytes.length; i++) {
      bytes[i] = (this.#addresses[at + (i >> 2)] ?? 0) >>> (24 - (i & 3) * 8);
    }
    return bytes;
  }
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
