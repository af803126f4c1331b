import type { Configuration, PeerConfiguration } from '../config/configuration.ts';
import { DEFAULTS, LIMITS } from '../config/defaults.ts';
import { parseEndpoint } from '../config/endpoint.ts';
import type { Name } from '../config/name.ts';
import { checkSemantics } from '../config/semantics.ts';
import { formatIpPrefix, type IpPrefix } from '../net/ip-prefix.ts';
import { encodeHex } from '../sansio/hex.ts';
import { failed, ok, type Outcome } from '../sansio/outcome.ts';
import type { UapiPeerSet, UapiSet } from '../wireguard/uapi.ts';

/** `too-many`: peers, or prefixes of one peer. `invalid`: no document may say that. */
export type UapiRefusal = 'too-many' | 'invalid';

/**
 * Returns the configuration that `wg set` asks for, so that it is applied like any other: by its
 * difference to the running one, and lasts until the next one. It keeps to what holds for a document.
 * Keys of the interface are not part of a configuration. Allowed IPs become routes here as everywhere,
 * which wg-quick does elsewhere; a default route never does.
 */
export function configurationAfterUapi(
  running: Configuration,
  request: UapiSet,
): Outcome<Configuration, UapiRefusal> {
  const peers = new UapiPeers(running.peers);
  if (request.replacePeers) peers.clear();
  for (const change of request.peers) {
    if (!peers.change(change)) return failed('invalid');
  }
  const configuration = {
    ...running,
    interface: {
      ...running.interface,
      listenPort: request.listenPort ?? running.interface.listenPort,
    },
    peers: peers.all(),
  };
  const isTooMany =
    configuration.peers.length > LIMITS.peers ||
    configuration.peers.some(({ allowedIps }) => allowedIps.length > LIMITS.allowedIps);
  if (isTooMany) return failed('too-many');
  return checkSemantics(configuration).length === 0 ? ok(configuration) : failed('invalid');
}

/** A peer while a request changes it: its prefixes by their text. */
interface Draft {
  readonly peer: PeerConfiguration;
  readonly allowedIps: Map<string, IpPrefix>;
}

/** The peers by their key, and the owner of each prefix: it belongs to one peer. */
class UapiPeers {
  readonly #running: ReadonlyMap<string, PeerConfiguration>;
  readonly #drafts = new Map<string, Draft>();
  readonly #owners = new Map<string, Draft>();

  constructor(running: readonly PeerConfiguration[]) {
    this.#running = new Map(running.map((peer) => [encodeHex(peer.publicKey), peer]));
    for (const [key, peer] of this.#running) {
      const draft: Draft = { peer, allowedIps: new Map() };
      this.#drafts.set(key, draft);
      for (const prefix of peer.allowedIps) this.#give(prefix, draft);
    }
  }

  clear(): void {
    this.#drafts.clear();
    this.#owners.clear();
  }

  /** Returns whether the change can be: nothing that it would make is kept if not. */
  change(change: UapiPeerSet): boolean {
    const key = encodeHex(change.publicKey);
    const before = this.#drafts.get(key);
    if (change.remove) {
      if (before !== undefined) this.#remove(key, before);
      return true;
    }
    if (before === undefined && change.updateOnly) return true;
    if (change.publicKey.every((byte) => byte === 0)) return false;

    const known = before?.peer ?? blankPeer(change.publicKey, this.#running.get(key)?.id);
    const peer = changedPeer(known, change);
    if (peer === undefined) return false;
    const draft: Draft = { peer, allowedIps: before?.allowedIps ?? new Map() };
    this.#drafts.set(key, draft);
    for (const text of draft.allowedIps.keys()) this.#owners.set(text, draft);
    this.#changeAllowedIps(draft, change);
    return true;
  }

  all(): readonly PeerConfiguration[] {
    return [...this.#drafts.values()].map(({ peer, allowedIps }) => {
      return { ...peer, allowedIps: [...allowedIps.values()] };
    });
  }

  #changeAllowedIps(draft: Draft, change: UapiPeerSet): void {
    if (change.replaceAllowedIps) {
      for (const text of draft.allowedIps.keys()) this.#owners.delete(text);
      draft.allowedIps.clear();
    }
    for (const { action, prefix } of change.allowedIps) {
      if (action === 'add') this.#give(prefix, draft);
      else if (draft.allowedIps.delete(formatIpPrefix(prefix))) {
        this.#owners.delete(formatIpPrefix(prefix));
      }
    }
  }

  /** Who gets a prefix takes it from who has it. */
  #give(prefix: IpPrefix, draft: Draft): void {
    const text = formatIpPrefix(prefix);
    const owner = this.#owners.get(text);
    if (owner !== draft) owner?.allowedIps.delete(text);
    this.#owners.set(text, draft);
    draft.allowedIps.set(text, prefix);
  }

  #remove(key: string, draft: Draft): void {
    this.#drafts.delete(key);
    for (const text of draft.allowedIps.keys()) this.#owners.delete(text);
  }
}

/** Returns the peer with all that is changed but its prefixes; `undefined` where that cannot be. */
function changedPeer(
  { presharedKey, endpoint, ...rest }: PeerConfiguration,
  change: UapiPeerSet,
): PeerConfiguration | undefined {
  const nextPresharedKey =
    change.presharedKey === 'none' ? undefined : (change.presharedKey ?? presharedKey);
  const moved = change.endpoint === undefined ? undefined : parseEndpoint(change.endpoint);
  if (moved?.ok === false) return undefined;
  const nextEndpoint = moved?.value ?? endpoint;
  return {
    ...rest,
    ...(nextPresharedKey === undefined ? {} : { presharedKey: nextPresharedKey }),
    ...(nextEndpoint === undefined ? {} : { endpoint: nextEndpoint }),
    keepalive: change.persistentKeepalive ?? rest.keepalive,
  };
}

/** A peer that `wg` adds has no name; the start of its key serves as one. */
function blankPeer(publicKey: Uint8Array, id: Name | undefined): PeerConfiguration {
  return {
    id: id ?? (`wg-${encodeHex(publicKey).slice(0, 16)}` as Name),
    publicKey,
    kind: 'wireguard',
    allowedIps: [],
    keepalive: DEFAULTS.keepalive,
  };
}
