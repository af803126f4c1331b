import type { Flow } from '../fastpath/flow.ts';
import { ipFamily, type IpFamily } from '../net/ip-address.ts';
import type { IpPrefix } from '../net/ip-prefix.ts';
import { PrefixTable } from '../net/prefix-table.ts';
import { unreachable } from '../sansio/outcome.ts';
import type { Resource } from './resource.ts';

/**
 * Resources by the addresses that they hold. The time of a lookup does not depend on how many resources there
 * are, only on how many of them lie within each other around one address.
 */
export class ResourceTable<Item extends Resource = Resource> {
  readonly #byId: ReadonlyMap<string, Item>;
  readonly #byPrefix: PrefixTable<Network<Item>>;
  readonly #internet: readonly Item[];

  constructor(resources: readonly Item[]) {
    this.#byId = new Map(resources.map((resource) => [resource.id, resource]));
    this.#byPrefix = networksOf(resources);
    this.#internet = resources.filter((resource) => resource.type === 'internet');
  }

  get size(): number {
    return this.#byId.size;
  }

  get(id: string): Item | undefined {
    return this.#byId.get(id);
  }

  /** Returns the networks and hosts that hold the destination of the flow, the most specific first. */
  *around({ destination, family }: Pick<Flow, 'destination' | 'family'>): Iterable<Item> {
    let network = this.#byPrefix.lookupBytes(destination, 0, family);
    for (; network !== undefined; network = network.around) yield* network.resources;
  }

  /** Resources that hold everything else. */
  get internet(): readonly Item[] {
    return this.#internet;
  }
}

/** Returns the networks that a resource consists of; none where others say what it is. */
export function prefixesOf(resource: Resource): readonly IpPrefix[] {
  switch (resource.type) {
    case 'cidr':
      return resource.prefixes;
    case 'ip':
      return [{ address: resource.address, length: LENGTHS[ipFamily(resource.address)] }];
    case 'dns':
    case 'internet':
      return [];
    default:
      return unreachable(resource);
  }
}

const LENGTHS: Readonly<Record<IpFamily, number>> = { 4: 32, 6: 128 };

/** The resources of exactly one prefix. */
interface Network<Item> {
  readonly resources: Item[];
  /** The next wider prefix with resources. */
  readonly around: Network<Item> | undefined;
}

function networksOf<Item extends Resource>(resources: readonly Item[]): PrefixTable<Network<Item>> {
  const entries = resources.flatMap((resource) =>
    prefixesOf(resource).map((prefix) => ({ prefix, resource })),
  );
  // Wider ones first, so that what a lookup finds is the network around.
  entries.sort((a, b) => a.prefix.length - b.prefix.length);
  const table = new PrefixTable<Network<Item>>();
  for (const { prefix, resource } of entries) {
    const known = table.get(prefix);
    if (known !== undefined) known.resources.push(resource);
    else table.insert(prefix, { resources: [resource], around: table.lookup(prefix.address) });
  }
  return table;
}
