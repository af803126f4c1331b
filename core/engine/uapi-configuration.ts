import type { Configuration, PeerConfiguration } from '../config/configuration.ts';
import { DEFAULTS } from '../config/defaults.ts';
import { parseEndpoint } from '../config/endpoint.ts';
import type { Name } from '../config/name.ts';
import { formatIpPrefix, type IpPrefix } from '../net/ip-prefix.ts';
import { encodeHex } from '../sansio/hex.ts';
import type { UapiPeerSet, UapiSet } from '../wireguard/uapi.ts';

/**
 * Returns the configuration that `wg set` asks for, so that it is applied like any other: by its
 * difference to the running one, and lasts until the next one. Keys of the interface are not part of a
 * configuration. Allowed IPs become routes here as everywhere, which wg-quick does elsewhere; a default
 * route never does.
 */
export function configurationAfterUapi(running: Configuration, request: UapiSet): Configuration {
  const peers = new Map<string, PeerConfiguration>();
  if (!request.replacePeers) {
    for (const peer of running.peers) peers.set(encodeHex(peer.publicKey), peer);
  }
  for (const change of request.peers) changePeer(peers, change, running.peers);
  return {
    ...running,
    interface: {
      ...running.interface,
      listenPort: request.listenPort ?? running.interface.listenPort,
    },
    peers: [...peers.values()],
  };
}

function changePeer(
  peers: Map<string, PeerConfiguration>,
  change: UapiPeerSet,
  running: readonly PeerConfiguration[],
): void {
  const key = encodeHex(change.publicKey);
  const before = peers.get(key);
  if (change.remove) {
    peers.delete(key);
    return;
  }
  if (before === undefined && change.updateOnly) return;

  const known = running.find((peer) => encodeHex(peer.publicKey) === key);
  const { presharedKey, endpoint, ...rest } = before ?? blankPeer(change.publicKey, known?.id);
  const nextPresharedKey =
    change.presharedKey === 'none' ? undefined : (change.presharedKey ?? presharedKey);
  const moved = change.endpoint === undefined ? undefined : parseEndpoint(change.endpoint);
  const nextEndpoint = moved?.ok === true ? moved.value : endpoint;
  peers.set(key, {
    ...rest,
    ...(nextPresharedKey === undefined ? {} : { presharedKey: nextPresharedKey }),
    ...(nextEndpoint === undefined ? {} : { endpoint: nextEndpoint }),
    keepalive: change.persistentKeepalive ?? rest.keepalive,
    allowedIps: allowedIpsAfter(peers, change, key, rest.allowedIps),
  });
}

/** A prefix belongs to one peer: who gets it takes it from who has it. */
function allowedIpsAfter(
  peers: Map<string, PeerConfiguration>,
  change: UapiPeerSet,
  key: string,
  before: readonly IpPrefix[],
): readonly IpPrefix[] {
  const own = new Map<string, IpPrefix>();
  if (!change.replaceAllowedIps)
    for (const prefix of before) own.set(formatIpPrefix(prefix), prefix);
  for (const { action, prefix } of change.allowedIps) {
    const text = formatIpPrefix(prefix);
    if (action === 'remove') {
      own.delete(text);
      continue;
    }
    for (const [otherKey, other] of peers) {
      if (otherKey !== key) peers.set(otherKey, without(other, text));
    }
    own.set(text, prefix);
  }
  return [...own.values()];
}

function without(peer: PeerConfiguration, prefix: string): PeerConfiguration {
  const left = peer.allowedIps.filter((candidate) => formatIpPrefix(candidate) !== prefix);
  return left.length === peer.allowedIps.length ? peer : { ...peer, allowedIps: left };
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
