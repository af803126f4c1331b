import {
  ipAddressBytes,
  ipAddressFromBytes,
  ipFamily,
  type IpAddress,
  type IpFamily,
} from '../net/ip-address.ts';
import { networkOf, type IpPrefix } from '../net/ip-prefix.ts';
import { readUint32, writeUint32 } from '../packet/big-endian.ts';
import { failed, ok, type Outcome } from '../sansio/outcome.ts';
import type { DomainName } from './name.ts';

/** Where proxy addresses come from: all of each range is ours. */
export interface ProxyRanges {
  /** 100.96.0.0/11 unless configured. */
  readonly ipv4: IpPrefix;
  /** A part of the fleet's ULA. */
  readonly ipv6: IpPrefix;
}

/** The addresses by which clients reach one name. */
export interface Proxies {
  readonly ipv4: readonly IpAddress[];
  readonly ipv6: readonly IpAddress[];
}

export const PROXIES_PER_FAMILY = 4;
export const MOST_PROXY_NAMES = 65_536;

/** More than names are given numbers between two writes to disk. */
const SPARED_NUMBERS = 256;

/**
 * Gives each name four proxy addresses of each family, in the order of asking. A name keeps its number,
 * and with it its addresses, until it is removed: connections live longer than any answer. The owner
 * keeps `entries()` on disk and hands them in at the next start. Numbers of removed names are used again
 * when all others are taken, the one that was free longest first.
 */
export class ProxyPool {
  #networks: Networks;
  #capacity: number;
  readonly #numbers = new Map<DomainName, number>();
  /** By number. */
  readonly #names: (DomainName | undefined)[] = [];
  readonly #free: number[] = [];
  #revision = 0;

  /** Entries that contradict each other or do not fit into the ranges are left out. */
  constructor(ranges: ProxyRanges, entries: Iterable<readonly [DomainName, number]> = []) {
    this.#networks = networksOf(ranges);
    this.#capacity = capacityOf(ranges);
    this.#restore(entries);
    if (this.#names.length > 0) this.#spare();
  }

  /** Returns the number of the name and gives it one if it has none. */
  assign(name: DomainName): Outcome<number, 'proxies-exhausted'> {
    let number = this.#numbers.get(name);
    if (number === undefined) {
      number = this.#names.length < this.#capacity ? this.#names.length : this.#free.shift();
      if (number === undefined) return failed('proxies-exhausted');
      this.#set(name, number);
      this.#revision++;
    } else {
      // To the end of the order: it was asked for last.
      this.#numbers.delete(name);
      this.#numbers.set(name, number);
    }
    return ok(number);
  }

  /** Returns the addresses of a name that has a number. */
  get(name: DomainName): Proxies | undefined {
    const number = this.#numbers.get(name);
    if (number === undefined) return undefined;
    const { ipv4, ipv6 } = this.#networks;
    return {
      ipv4: addressesAt(ipv4, number).map(ipAddressFromBytes),
      ipv6: addressesAt(ipv6, number).map(ipAddressFromBytes),
    };
  }

  /** Returns the addresses of a number as records have them, which costs less than their text. */
  addressBytes(number: number, family: IpFamily): readonly Uint8Array[] {
    return addressesAt(family === 4 ? this.#networks.ipv4 : this.#networks.ipv6, number);
  }

  /** Returns whose proxy the address is. */
  nameOf(address: IpAddress): DomainName | undefined {
    const network = ipFamily(address) === 4 ? this.#networks.ipv4 : this.#networks.ipv6;
    const bytes = ipAddressBytes(address);
    const last = network.length - 4;
    for (let i = 0; i < last; i++) if (bytes[i] !== network[i]) return undefined;
    const offset = readUint32(bytes, last) - readUint32(network, last);
    return this.#names[Math.floor(offset / PROXIES_PER_FAMILY) - 1];
  }

  /** Takes the addresses of these names back and returns how many there were. */
  removeWhere(predicate: (name: DomainName) => boolean): number {
    let removed = 0;
    for (const [name, number] of this.#numbers) {
      if (!predicate(name)) continue;
      this.#numbers.delete(name);
      this.#names[number] = undefined;
      this.#free.push(number);
      removed++;
    }
    if (removed > 0) this.#revision++;
    return removed;
  }

  /** The same of those that were asked for longest ago, `most` of them, but for some. */
  removeOldest(most: number, isKept: (name: DomainName) => boolean): number {
    let left = most;
    return this.removeWhere((name) => left > 0 && !isKept(name) && left-- > 0);
  }

  /** Names keep their numbers in the new ranges. Returns how many had no place there and are removed. */
  setRanges(ranges: ProxyRanges): number {
    const entries = [...this.#numbers];
    this.#networks = networksOf(ranges);
    this.#capacity = capacityOf(ranges);
    this.#numbers.clear();
    this.#names.length = 0;
    this.#free.length = 0;
    this.#restore(entries);
    this.#revision++;
    return entries.length - this.#numbers.size;
  }

  /** All names with their numbers, to be kept. */
  entries(): IterableIterator<[DomainName, number]> {
    return this.#numbers.entries();
  }

  /** Another number each time that there is something to keep. */
  get revision(): number {
    return this.#revision;
  }

  get size(): number {
    return this.#numbers.size;
  }

  /** How many names there can be. */
  get capacity(): number {
    return this.#capacity;
  }

  #restore(entries: Iterable<readonly [DomainName, number]>): void {
    for (const [name, number] of entries) {
      const isNumber = Number.isInteger(number) && number >= 0 && number < this.#capacity;
      if (!isNumber || this.#numbers.has(name) || this.#names[number] !== undefined) continue;
      while (this.#names.length < number) this.#names.push(undefined);
      this.#set(name, number);
    }
    for (const [number, name] of this.#names.entries()) {
      if (name === undefined) this.#free.push(number);
    }
  }

  /**
   * Leaves the numbers next in turn free: names may have got them that were not on disk yet when the daemon
   * was killed, and hosts that remember their addresses must not reach other names.
   */
  #spare(): void {
    const end = Math.min(this.#capacity, this.#names.length + SPARED_NUMBERS);
    while (this.#names.length < end) this.#free.push(this.#names.push(undefined) - 1);
  }

  #set(name: DomainName, number: number): void {
    this.#numbers.set(name, number);
    this.#names[number] = name;
  }
}

/** The bytes of the first address of each range; those of proxies differ in the last four. */
interface Networks {
  readonly ipv4: Uint8Array;
  readonly ipv6: Uint8Array;
}

function networksOf({ ipv4, ipv6 }: ProxyRanges): Networks {
  return {
    ipv4: ipAddressBytes(networkOf(ipv4).address),
    ipv6: ipAddressBytes(networkOf(ipv6).address),
  };
}

/**
 * The first addresses of a range stay free: the first of all is that of the network, or the anycast
 * address of its routers (RFC 4291 §2.6.1).
 */
function capacityOf({ ipv4, ipv6 }: ProxyRanges): number {
  const bits = Math.min(32 - ipv4.length, 128 - ipv6.length, 32);
  return Math.max(0, Math.min(MOST_PROXY_NAMES, Math.floor(2 ** bits / PROXIES_PER_FAMILY) - 1));
}

function addressesAt(network: Uint8Array, number: number): readonly Uint8Array[] {
  const last = network.length - 4;
  const first = readUint32(network, last) + (number + 1) * PROXIES_PER_FAMILY;
  return Array.from({ length: PROXIES_PER_FAMILY }, (_, i) => {
    const bytes = network.slice();
    writeUint32(bytes, last, first + i);
    return bytes;
  });
}
