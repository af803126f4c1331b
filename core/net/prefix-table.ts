import { ipAddressBytes, ipAddressFromBytes, ipFamily, type IpAddress } from './ip-address.ts';
import type { IpPrefix } from './ip-prefix.ts';

/**
 * Maps prefixes to values; a lookup finds the value of the longest prefix that holds the address.
 *
 * One path-compressed bit trie a family, as in the kernel's allowedips.c: every node is a prefix that is
 * in the table or one where two of them part, so there are less than two nodes a prefix, and the depth is
 * bounded by the width of the address. The nodes lie in one Int32Array; lookups allocate nothing.
 */
export class PrefixTable<T> {
  readonly #ipv4 = new PrefixTrie<T>(32);
  readonly #ipv6 = new PrefixTrie<T>(128);

  /** Sets the value of the prefix and replaces an older one; bits behind its length are ignored. */
  insert(prefix: IpPrefix, value: T): void {
    this.#trieOf(prefix.address).insert(ipAddressBytes(prefix.address), prefix.length, value);
  }

  /** Returns whether the prefix, at exactly this length, was there. */
  remove(prefix: IpPrefix): boolean {
    return this.#trieOf(prefix.address).remove(ipAddressBytes(prefix.address), prefix.length);
  }

  /** Removes all entries that the predicate names and returns how many. */
  removeWhere(predicate: (value: T, prefix: IpPrefix) => boolean): number {
    const doomed = [...this.entries()].filter(([prefix, value]) => predicate(value, prefix));
    for (const [prefix] of doomed) this.remove(prefix);
    return doomed.length;
  }

  lookup(address: IpAddress): T | undefined {
    return this.#trieOf(address).lookup(ipAddressBytes(address), 0);
  }

  /** Looks up the address that lies at `offset`, as in a packet; the caller knows that it is there. */
  lookupBytes(bytes: Uint8Array, offset: number, family: 4 | 6): T | undefined {
    return (family === 4 ? this.#ipv4 : this.#ipv6).lookup(bytes, offset);
  }

  /** Returns the value of this very prefix. */
  get(prefix: IpPrefix): T | undefined {
    return this.#trieOf(prefix.address).get(ipAddressBytes(prefix.address), prefix.length);
  }

  /** Iterates in the order of the addresses, IPv4 first, shorter prefixes before longer ones. */
  *entries(): IterableIterator<readonly [IpPrefix, T]> {
    yield* this.#ipv4.entries();
    yield* this.#ipv6.entries();
  }

  get size(): number {
    return this.#ipv4.size + this.#ipv6.size;
  }

  #trieOf(address: IpAddress): PrefixTrie<T> {
    return ipFamily(address) === 4 ? this.#ipv4 : this.#ipv6;
  }
}

/*
 * A node: { children i32[2], prefix length, 1 if it is an entry, prefix u32[4] in host order }. Children
 * are offsets of nodes; offset 0 is no node, and its first child is the root, so that "the slot that
 * points to a node" is an index for the root as well.
 */
const NODE_SIZE = 8;
const CHILDREN = 0;
const LENGTH = 2;
const IS_ENTRY = 3;
const WORDS = 4;
const NONE = 0;
const ROOT_SLOT = 0;

class PrefixTrie<T> {
  readonly #width: number;
  readonly #key: Int32Array = new Int32Array(4);
  #nodes: Int32Array = new Int32Array(8 * NODE_SIZE);
  /** The value of the node at offset n is at n / NODE_SIZE. */
  readonly #values: (T | undefined)[] = [];
  #end = NODE_SIZE;
  /** Free nodes, linked through their first child. */
  #free = NONE;
  #size = 0;

  constructor(width: 32 | 128) {
    this.#width = width;
  }

  get size(): number {
    return this.#size;
  }

  lookup(bytes: Uint8Array, offset: number): T | undefined {
    this.#load(bytes, offset);
    const nodes = this.#nodes;
    let found = NONE;
    let node = nodes[ROOT_SLOT] as number;
    while (node !== NONE) {
      const length = nodes[node + LENGTH] as number;
      if (this.#commonBits(node, length) < length) break;
      if (nodes[node + IS_ENTRY] === 1) found = node;
      if (length === this.#width) break;
      node = nodes[node + CHILDREN + this.#bit(length)] as number;
    }
    return found === NONE ? undefined : this.#values[found / NODE_SIZE];
  }

  get(bytes: Uint8Array, length: number): T | undefined {
    this.#load(bytes, 0);
    const node = this.#nodes[this.#descend(length)] as number;
    return this.#isExactly(node, length) ? this.#values[node / NODE_SIZE] : undefined;
  }

  insert(bytes: Uint8Array, length: number, value: T): void {
    this.#load(bytes, 0);
    const slot = this.#descend(length);
    const below = this.#nodes[slot] as number;
    if (this.#isExactly(below, length)) {
      this.#setValue(below, value);
      return;
    }
    const node = this.#allocate(length);
    this.#setValue(node, value);
    const common = below === NONE ? length : this.#commonBits(below, length);
    if (below === NONE) {
      this.#nodes[slot] = node;
    } else if (common === length) {
      this.#nodes[node + CHILDREN + this.#bitOf(below, length)] = below;
      this.#nodes[slot] = node;
    } else {
      const fork = this.#allocate(common);
      this.#nodes[fork + CHILDREN + this.#bit(common)] = node;
      this.#nodes[fork + CHILDREN + (1 - this.#bit(common))] = below;
      this.#nodes[slot] = fork;
    }
  }

  remove(bytes: Uint8Array, length: number): boolean {
    this.#load(bytes, 0);
    const slot = this.#descend(length);
    const node = this.#nodes[slot] as number;
    if (!this.#isExactly(node, length) || this.#nodes[node + IS_ENTRY] === 0) return false;
    this.#nodes[node + IS_ENTRY] = 0;
    this.#values[node / NODE_SIZE] = undefined;
    this.#size--;
    this.#spliceOut(slot);
    // Without that child the fork above it, if it is one, may have become superfluous.
    const parent = slot - (slot % NODE_SIZE);
    if (parent !== NONE) {
      this.#load(this.#prefixBytes(parent), 0);
      this.#spliceOut(this.#descend(this.#nodes[parent + LENGTH] as number));
    }
    return true;
  }

  *entries(): IterableIterator<readonly [IpPrefix, T]> {
    const waiting = [this.#nodes[ROOT_SLOT] as number];
    for (let node = waiting.pop(); node !== undefined; node = waiting.pop()) {
      if (node === NONE) continue;
      waiting.push(this.#nodes[node + CHILDREN + 1] as number);
      waiting.push(this.#nodes[node + CHILDREN] as number);
      if (this.#nodes[node + IS_ENTRY] === 1) {
        const address = ipAddressFromBytes(this.#prefixBytes(node));
        const length = this.#nodes[node + LENGTH] as number;
        yield [{ address, length }, this.#values[node / NODE_SIZE] as T];
      }
    }
  }

  #load(bytes: Uint8Array, offset: number): void {
    for (let word = 0, at = offset; word < this.#width / 32; word++, at += 4) {
      this.#key[word] =
        ((bytes[at] as number) << 24) |
        ((bytes[at + 1] as number) << 16) |
        ((bytes[at + 2] as number) << 8) |
        (bytes[at + 3] as number);
    }
  }

  /**
   * Returns the slot below which the first `length` bits of the key belong: it holds no node, the node of
   * exactly this prefix, or the first that is not a shorter prefix of it.
   */
  #descend(length: number): number {
    let slot = ROOT_SLOT;
    for (;;) {
      const node = this.#nodes[slot] as number;
      if (node === NONE) return slot;
      const nodeLength = this.#nodes[node + LENGTH] as number;
      if (nodeLength >= length || this.#commonBits(node, length) < nodeLength) return slot;
      slot = node + CHILDREN + this.#bit(nodeLength);
    }
  }

  #isExactly(node: number, length: number): boolean {
    if (node === NONE || this.#nodes[node + LENGTH] !== length) return false;
    return this.#commonBits(node, length) === length;
  }

  /** Returns how many of the leading bits of key and node agree, at most `most` and the node's length. */
  #commonBits(node: number, most: number): number {
    const nodes = this.#nodes;
    const limit = Math.min(most, nodes[node + LENGTH] as number);
    for (let word = 0; word * 32 < limit; word++) {
      const difference = (this.#key[word] as number) ^ (nodes[node + WORDS + word] as number);
      if (difference !== 0) return Math.min(word * 32 + Math.clz32(difference), limit);
    }
    return limit;
  }

  #bit(index: number): number {
    return ((this.#key[index >> 5] as number) >>> (31 - (index & 31))) & 1;
  }

  #bitOf(node: number, index: number): number {
    return ((this.#nodes[node + WORDS + (index >> 5)] as number) >>> (31 - (index & 31))) & 1;
  }

  #setValue(node: number, value: T): void {
    if (this.#nodes[node + IS_ENTRY] === 0) this.#size++;
    this.#nodes[node + IS_ENTRY] = 1;
    this.#values[node / NODE_SIZE] = value;
  }

  /** Makes a node of the first `length` bits of the key. */
  #allocate(length: number): number {
    let node = this.#free;
    if (node !== NONE) this.#free = this.#nodes[node + CHILDREN] as number;
    else {
      node = this.#end;
      this.#end += NODE_SIZE;
      if (this.#end > this.#nodes.length) {
        const larger = new Int32Array(this.#nodes.length * 2);
        larger.set(this.#nodes);
        this.#nodes = larger;
      }
    }
    this.#nodes.fill(0, node, node + NODE_SIZE);
    this.#nodes[node + LENGTH] = length;
    for (let word = 0; word * 32 < length; word++) {
      const bits = Math.min(length - word * 32, 32);
      this.#nodes[node + WORDS + word] = (this.#key[word] as number) & (-1 << (32 - bits));
    }
    return node;
  }

  /** Frees the node that the slot points to, unless it is an entry or two paths part there. */
  #spliceOut(slot: number): void {
    const node = this.#nodes[slot] as number;
    const left = this.#nodes[node + CHILDREN] as number;
    const right = this.#nodes[node + CHILDREN + 1] as number;
    if (this.#nodes[node + IS_ENTRY] === 1 || (left !== NONE && right !== NONE)) return;
    this.#nodes[slot] = left === NONE ? right : left;
    this.#nodes[node + CHILDREN] = this.#free;
    this.#free = node;
  }

  #prefixBytes(node: number): Uint8Array {
    const bytes = new Uint8Array(this.#width / 8);
    for (let i = 0; i < bytes.length; i++) {
      bytes[i] = (this.#nodes[node + WORDS + (i >> 2)] as number) >>> (24 - (i & 3) * 8);
    }
    return bytes;
  }
}
