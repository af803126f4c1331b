import { ipFamily, type IpFamily } from '../net/ip-address.ts';
import type { IpPrefix } from '../net/ip-prefix.ts';
import { Priority } from '../netlink/nftables/chain.ts';
import { prefixRange } from '../netlink/nftables/data-type.ts';
import type { SetElement } from '../netlink/nftables/element.ts';
import {
  field,
  inputInterface,
  isFamily,
  isIn,
  outputInterface,
} from '../netlink/nftables/match.ts';
import { masquerade, rule } from '../netlink/nftables/statement.ts';
import type { TableKey } from '../netlink/nftables/table.ts';
import type { WantedRuleset, WantedSet } from '../netlink/nftables/wanted-ruleset.ts';

export interface Masquerade {
  /** The tunnel's device. */
  readonly device: string;
  /** The tunnel addresses of the peers. */
  readonly sources: readonly IpPrefix[];
  readonly isOn: boolean;
}

/**
 * Returns the table with which peers reach the site in the name of this machine: what came in by the
 * tunnel's device from one of the sources, and leaves by another, gets the address of the interface it
 * leaves by, so that hosts of the site need no route back. Off or without sources, the table is to be absent.
 *
 * The chain asks behind the routing decision for the interface that a packet came in by, which kernels
 * know from 5.7 on. The table has no owner, which would need 5.12: what a crash leaves behind matches
 * nothing while the device is gone, and is compared and kept when it is back.
 */
export function masqueradeRuleset({ device, sources, isOn }: Masquerade): WantedRuleset {
  if (!isOn || sources.length === 0) return [{ ...TABLE, isAbsent: true, chains: [] }];
  const leaves = [inputInterface(device), outputInterface(device, '!=')];
  const rules = [
    rule(...leaves, isFamily(4), isIn(SETS[4], field.ipSource), masquerade()),
    rule(...leaves, isFamily(6), isIn(SETS[6], field.ip6Source), masquerade()),
  ];
  const base = { type: 'nat', hook: 'postrouting', priority: Priority.sourceNat } as const;
  return [
    {
      ...TABLE,
      sets: [sourceSet(4, sources), sourceSet(6, sources)],
      // Not `masquerade`, which nft takes for its statement.
      chains: [{ name: 'srcnat', base, rules }],
    },
  ];
}

const TABLE: TableKey = { family: 'inet', name: 'culvert' };
const SETS = { 4: 'sources4', 6: 'sources6' } as const;

function sourceSet(family: IpFamily, sources: readonly IpPrefix[]): WantedSet {
  return {
    name: SETS[family],
    key: [family === 4 ? 'ipv4_addr' : 'ipv6_addr'],
    isInterval: true,
    elements: disjoint(sources.filter(({ address }) => ipFamily(address) === family)),
  };
}

/** Returns the prefixes as ranges in order, without those inside of others: the kernel refuses overlaps. */
function disjoint(prefixes: readonly IpPrefix[]): readonly SetElement[] {
  const ranges = prefixes.map(prefixRange);
  ranges.sort((a, b) => compareBytes(a.first, b.first) || compareBytes(b.last, a.last));
  const elements: SetElement[] = [];
  let end: Uint8Array | undefined;
  for (const { first, last } of ranges) {
    // Of two prefixes that overlap, one is inside of the other.
    if (end !== undefined && compareBytes(first, end) <= 0) continue;
    elements.push({ key: first, lastKey: last });
    end = last;
  }
  return elements;
}

function compareBytes(a: Uint8Array, b: Uint8Array): number {
  for (const [i, byte] of a.entries()) {
    const difference = byte - (b[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
