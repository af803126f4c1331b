import type { IpAddress, IpFamily } from '../net/ip-address.ts';
import type { IpPrefix } from '../net/ip-prefix.ts';
import { PrefixTable } from '../net/prefix-table.ts';

/**
 * The cryptokey routing table (whitepaper §2): which peer a packet goes to, by its destination, and
 * which peer alone may send it, by its source. Each prefix belongs to one peer.
 */
export class AllowedIps {
  #table = new PrefixTable<number>();

  /** Gives the prefix to the peer; it is taken from the peer that had it. */
  insert(prefix: IpPrefix, peer: number): void {
    this.#table.insert(prefix, peer);
  }

  /** Takes the prefix from the peer; that of another peer stays. */
  remove(prefix: IpPrefix, peer: number): void {
    if (this.#table.get(prefix) === peer) this.#table.remove(prefix);
  }

  removePeer(peer: number): void {
    this.#table.removeWhere((owner) => owner === peer);
  }

  clear(): void {
    this.#table = new PrefixTable<number>();
  }

  /** Returns the peer whose longest prefix holds the address. */
  lookup(address: IpAddress): number | undefined {
    return this.#table.lookup(address);
  }

  /** The same for the address that lies at `offset`, as in a packet. */
  lookupBytes(bytes: Uint8Array, offset: number, family: IpFamily): number | undefined {
    return this.#table.lookupBytes(bytes, offset, family);
  }

  prefixesOf(peer: number): IpPrefix[] {
    const prefixes: IpPrefix[] = [];
    for (const [prefix, owner] of this.#table.entries()) {
      if (owner === peer) prefixes.push(prefix);
    }
    return prefixes;
  }
}
