import type { IpPrefix } from '../net/ip-prefix.ts';
import { ROOT, type DomainName } from './name.ts';
import { reverseZones } from './reverse-name.ts';

/**
 * Says which group of upstream servers is asked for a name: that of the longest zone which holds it. Some
 * names only the router itself knows (`localNames`), and a site may have zones with servers of their own.
 */
export class UpstreamRules {
  readonly #groups: ReadonlyMap<DomainName, string>;
  readonly #singleLabels: string | undefined;
  readonly #others: string;

  /** A later rule for the same zone replaces an earlier one. */
  constructor(rules: readonly UpstreamRule[], others: string) {
    this.#groups = new Map(rules.flatMap(({ zones, group }) => zones.map((z) => [z, group])));
    this.#singleLabels = rules
      .filter(({ hasSingleLabels }) => hasSingleLabels === true)
      .at(-1)?.group;
    this.#others = others;
  }

  groupOf(name: DomainName): string {
    let start = 0;
    do {
      const group = this.#groups.get(name.slice(start) as DomainName);
      if (group !== undefined) return group;
      start = name.indexOf('.', start) + 1;
    } while (start > 0);
    const isSingleLabel = name !== ROOT && !name.includes('.');
    return (isSingleLabel ? this.#singleLabels : undefined) ?? this.#others;
  }
}

export interface UpstreamRule {
  readonly zones: readonly DomainName[];
  /** Whether names of one label, which no public server knows, belong here too. */
  readonly hasSingleLabels?: boolean;
  readonly group: string;
}

/**
 * The names that the router's own resolver answers: its domain (`lan`), the reverse names of its
 * networks, and hosts by their bare name.
 */
export function localNames(
  domains: readonly DomainName[],
  networks: readonly IpPrefix[],
  group: string,
): UpstreamRule {
  return { zones: [...domains, ...networks.flatMap(reverseZones)], hasSingleLabels: true, group };
}
