import type { IpPrefix } from '../net/ip-prefix.ts';
import { PrefixTable } from '../net/prefix-table.ts';
import type { Configuration, PeerConfiguration } from './configuration.ts';
import type { ConfigurationError } from './error.ts';
import type { Name } from './name.ts';
import { repetitions } from './repetitions.ts';

export function checkResources(configuration: Configuration): readonly ConfigurationError[] {
  const { resources } = configuration;
  const peers = byId(configuration.peers);
  return [
    ...repetitions(resources.map(({ id }, i) => [id, `resources[${i}].id`])),
    ...resources.flatMap(({ gateways }, i) => {
      const located = gateways.map((id, j) => [id, `resources[${i}].gateways[${j}]`] as const);
      const strangers = located.flatMap(([id, path]) => checkCulvertPeer(peers.get(id), path));
      return [...strangers, ...repetitions(located)];
    }),
    ...checkInternet(configuration),
  ];
}

export function checkAuthorizations(configuration: Configuration): readonly ConfigurationError[] {
  const { authorizations } = configuration;
  const peers = byId(configuration.peers);
  const resources = byId(configuration.resources);
  const networks = new Map<Name, PrefixTable<number>>();
  const errors: ConfigurationError[] = [];
  for (const [i, { peer: id, resource, sources = [] }] of authorizations.entries()) {
    const path = `authorizations[${i}]`;
    const peer = peers.get(id);
    errors.push(...checkCulvertPeer(peer, `${path}.peer`));
    const isServed = resources.get(resource)?.gateways.length === 0;
    if (!isServed) {
      const message = 'must be the id of a resource that this device serves: one without gateways';
      errors.push({ path: `${path}.resource`, message });
    }
    if (peer === undefined || sources.length === 0) continue;
    const allowed = networks.get(id) ?? widestLengths(peer.allowedIps);
    networks.set(id, allowed);
    for (const [j, source] of sources.entries()) {
      if ((allowed.lookup(source.address) ?? Infinity) <= source.length) continue;
      const message = 'must lie in one of the allowedIps of the peer';
      errors.push({ path: `${path}.sources[${j}]`, message });
    }
  }
  const pairs = authorizations.map(
    ({ peer, resource }, i) => [`${peer} ${resource}`, `authorizations[${i}]`] as const,
  );
  return [...errors, ...repetitions(pairs, 'is for the same peer and resource as')];
}

/** The default route is one, and that of the LAN alone: what carries the tunnel must not go into it. */
function checkInternet({ resources, site }: Configuration): readonly ConfigurationError[] {
  const [first, ...others] = resources.flatMap(({ type, gateways }, i) =>
    type === 'internet' && gateways.length > 0 ? [`resources[${i}]`] : [],
  );
  if (first === undefined) return [];
  const errors = others.map((path) => ({
    path: `${path}.type`,
    message: `is "internet" as ${first}.type is: only one of them can have the default route`,
  }));
  if (site.lans.length > 0) return errors;
  const message = 'needs site.lans, the interfaces whose traffic it takes through gateways';
  return [{ path: first, message }, ...errors];
}

/** Only those speak the peering protocol, by which names are set up. */
function checkCulvertPeer(
  peer: PeerConfiguration | undefined,
  path: string,
): readonly ConfigurationError[] {
  if (peer?.kind === 'culvert') return [];
  const message =
    peer === undefined ? 'must be the id of a peer' : 'must be a peer of kind culvert';
  return [{ path, message }];
}

function byId<T extends { readonly id: Name }>(items: readonly T[]): ReadonlyMap<Name, T> {
  return new Map(items.map((item) => [item.id, item]));
}

/** Returns, for each of the networks, the length of the widest one around it. */
function widestLengths(networks: readonly IpPrefix[]): PrefixTable<number> {
  const table = new PrefixTable<number>();
  for (const network of [...networks].sort((a, b) => a.length - b.length)) {
    table.insert(network, table.lookup(network.address) ?? network.length);
  }
  return table;
}
