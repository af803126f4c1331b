import type {
  Configuration,
  InterfaceConfiguration,
  LogConfiguration,
  PeerConfiguration,
  RelayConfiguration,
  StreamsConfiguration,
} from './configuration.ts';
import type {
  AuthorizationConfiguration,
  ResourceConfiguration,
} from './resource-configuration.ts';
import type {
  DnsConfiguration,
  NatConfiguration,
  SiteConfiguration,
} from './site-configuration.ts';

/** One step from a configuration to the next. `fields` name what differs. */
export type ConfigChange =
  | { readonly type: 'peer-removed'; readonly peer: PeerConfiguration }
  | {
      readonly type: 'interface-changed';
      readonly previous: InterfaceConfiguration;
      readonly next: InterfaceConfiguration;
      readonly fields: readonly (keyof InterfaceConfiguration)[];
    }
  | {
      readonly type: 'peer-changed';
      readonly previous: PeerConfiguration;
      readonly peer: PeerConfiguration;
      readonly fields: readonly (keyof PeerConfiguration)[];
    }
  | { readonly type: 'peer-added'; readonly peer: PeerConfiguration }
  | { readonly type: 'relays-changed'; readonly relays: readonly RelayConfiguration[] }
  | { readonly type: 'streams-changed'; readonly streams: StreamsConfiguration }
  | { readonly type: 'resources-changed'; readonly resources: readonly ResourceConfiguration[] }
  | {
      readonly type: 'authorizations-changed';
      readonly authorizations: readonly AuthorizationConfiguration[];
    }
  | { readonly type: 'site-changed'; readonly site: SiteConfiguration }
  | { readonly type: 'nat-changed'; readonly nat: NatConfiguration }
  | { readonly type: 'dns-changed'; readonly dns: DnsConfiguration }
  | { readonly type: 'log-changed'; readonly log: LogConfiguration };

/**
 * Returns the steps in an order that can be applied one by one: removals, the interface, changes,
 * additions, the other parts. A network that moves between two peers leaves the one before the other gets it only if
 * the first is removed, so allowed IPs are best set as a whole. A peer with another public key or kind
 * is another peer: it is removed and added. Changes of order are none where order says nothing.
 */
export function diffConfiguration(previous: Configuration, next: Configuration): ConfigChange[] {
  const changes: ConfigChange[] = [];
  const added: PeerConfiguration[] = [];
  const before = new Map(previous.peers.map((peer) => [peer.id, peer]));
  const after = new Map(next.peers.map((peer) => [peer.id, peer]));

  for (const peer of previous.peers) {
    const same = after.get(peer.id);
    if (same === undefined || !isSamePeer(peer, same)) changes.push({ type: 'peer-removed', peer });
  }
  const fields = differing(previous.interface, next.interface, INTERFACE_FIELDS);
  if (fields.length > 0) {
    const [from, to] = [previous.interface, next.interface];
    changes.push({ type: 'interface-changed', previous: from, next: to, fields });
  }
  for (const peer of next.peers) {
    const known = before.get(peer.id);
    if (known === undefined || !isSamePeer(known, peer)) {
      added.push(peer);
      continue;
    }
    const peerFields = differing(known, peer, PEER_FIELDS);
    if (peerFields.length > 0) {
      changes.push({ type: 'peer-changed', previous: known, peer, fields: peerFields });
    }
  }
  for (const peer of added) changes.push({ type: 'peer-added', peer });
  return [...changes, ...changesOfParts(previous, next)];
}

/** The parts that are taken as a whole. */
function changesOfParts(previous: Configuration, next: Configuration): readonly ConfigChange[] {
  const { relays, streams, resources, authorizations, site, nat, dns, log } = next;
  const changes = {
    relays: { type: 'relays-changed', relays },
    streams: { type: 'streams-changed', streams },
    resources: { type: 'resources-changed', resources },
    authorizations: { type: 'authorizations-changed', authorizations },
    site: { type: 'site-changed', site },
    nat: { type: 'nat-changed', nat },
    dns: { type: 'dns-changed', dns },
    log: { type: 'log-changed', log },
  } as const satisfies Record<Part, ConfigChange>;
  return PARTS.filter((part) => !isEqual(previous[part], next[part], part)).map(
    (part) => changes[part],
  );
}

type Part = Exclude<keyof Configuration, 'schema' | 'interface' | 'peers'>;

// Records, so that the compiler asks for a field that is added to the type.
const INTERFACE_FIELDS = fieldsOf<InterfaceConfiguration>({
  name: true,
  mtu: true,
  listenPort: true,
  addresses: true,
});
const PEER_FIELDS = fieldsOf<PeerConfiguration>({
  id: true,
  name: true,
  publicKey: true,
  presharedKey: true,
  kind: true,
  endpoint: true,
  allowedIps: true,
  keepalive: true,
});
const PARTS = fieldsOf<Pick<Configuration, Part>>({
  relays: true,
  streams: true,
  resources: true,
  authorizations: true,
  site: true,
  nat: true,
  dns: true,
  log: true,
});
/** Lists whose order says what comes first; all others are sets. */
const ORDERED: ReadonlySet<string> = new Set(['resources', 'gateways', 'upstreams']);

function fieldsOf<T>(fields: Record<keyof T, true>): readonly (keyof T)[] {
  return Object.keys(fields) as (keyof T)[];
}

function isSamePeer(a: PeerConfiguration, b: PeerConfiguration): boolean {
  return a.kind === b.kind && isEqual(a.publicKey, b.publicKey);
}

function differing<T>(a: T, b: T, fields: readonly (keyof T)[]): readonly (keyof T)[] {
  return fields.filter((field) => !isEqual(a[field], b[field]));
}

/** Compares values of a configuration that stand under the key. */
function isEqual(a: unknown, b: unknown, key = ''): boolean {
  return a === b || canonical(a, key) === canonical(b, key);
}

function canonical(value: unknown, key: string): string {
  if (value instanceof Uint8Array) return value.join(',');
  if (Array.isArray(value)) {
    const items = value.map((item) => canonical(item, ''));
    return (ORDERED.has(key) ? items : items.sort()).join('|');
  }
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? '';
  const entries = Object.entries(value).map(([name, item]) => `${name}=${canonical(item, name)}`);
  return `{${entries.sort().join(';')}}`;
}
