import { formatIpPrefix, isFullLength, networkOf, type IpPrefix } from '../../net/ip-prefix.ts';
import type { SocketAddress } from '../../net/socket-address.ts';
import { equalInConstantTime } from '../../sansio/crypto.ts';
import { encodeHex } from '../../sansio/hex.ts';
import type { Device, Peer } from './device.ts';
import type { DeviceSettings, PeerSettings } from './settings.ts';

/** The whole wanted state of a device of ours; peers that are not in it get removed. */
export interface WantedDevice {
  readonly name: string;
  /** 32 bytes. */
  readonly privateKey: Uint8Array;
  /** 0 leaves the choice to the kernel. */
  readonly listenPort: number;
  /** Mark of the packets that it sends; 0 for none. */
  readonly fwmark: number;
  /** Of peers with the same public key the last one counts. */
  readonly peers: readonly WantedPeer[];
}

export interface WantedPeer {
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
  /** 32 bytes. */
  readonly presharedKey: Uint8Array | undefined;
  /** `undefined` leaves it where it is: where the peer last called from. */
  readonly endpoint: SocketAddress | undefined;
  /** Seconds, 0 to 65535; 0 switches it off. */
  readonly persistentKeepalive: number;
  /** A prefix belongs to one peer: to the last that wants it, as the kernel has it. */
  readonly allowedIps: readonly IpPrefix[];
}

/**
 * Returns what leads from the observed to the wanted state; `countChanges` is 0 when nothing differs. A
 * prefix that moves to another peer is taken along when that one gets it, without a moment in between.
 * Only a prefix that nobody gets costs its peer a new list: older kernels (before 6.16) know no other way.
 */
export function planDevice(wanted: WantedDevice, observed: Device): DeviceSettings {
  const { privateKey, listenPort, fwmark } = wanted;
  const isKeyThere = isSameKey(clamped(privateKey), observed.privateKey);
  const isPortThere = listenPort === 0 || listenPort === observed.listenPort;
  return {
    ...(!isKeyThere && { privateKey }),
    ...(!isPortThere && { listenPort }),
    ...(fwmark !== observed.fwmark && { fwmark }),
    peers: planPeers(wanted.peers, observed.peers),
  };
}

/** Returns how many objects the change touches: peers, and values of the device itself. */
export function countChanges({ peers, ...device }: DeviceSettings): number {
  return Object.values(device).filter((value) => value !== undefined).length + peers.length;
}

/** Returns what makes a peer what is wanted, whatever it was. */
export function wholePeer(peer: WantedPeer): PeerSettings {
  const { publicKey, presharedKey, endpoint, persistentKeepalive, allowedIps } = peer;
  return {
    publicKey,
    presharedKey: presharedKey ?? 'none',
    endpoint,
    persistentKeepalive,
    replaceAllowedIps: true,
    allowedIps,
  };
}

/** Additions and changes come before removals, so that what moves is never without a peer. */
function planPeers(wanted: readonly WantedPeer[], observed: readonly Peer[]): PeerSettings[] {
  const there = new Map(observed.map((peer) => [keyOf(peer), peer]));
  const peers = new Map(wanted.map((peer) => [keyOf(peer), peer]));
  const owners = new Map<string, WantedPeer>();
  for (const peer of peers.values()) {
    for (const prefix of peer.allowedIps) owners.set(nameOf(prefix), peer);
  }
  const plan: PeerSettings[] = [];
  for (const [key, peer] of peers) {
    const old = there.get(key);
    const own = prefixesOf(peer, owners);
    const settings = old === undefined ? addition(peer, own) : change(peer, old, own, owners);
    if (settings !== undefined) plan.push(settings);
  }
  for (const [key, { publicKey }] of there) {
    if (!peers.has(key)) plan.push({ publicKey, remove: true });
  }
  return plan;
}

/** By `nameOf`. */
type Prefixes = ReadonlyMap<string, IpPrefix>;

function addition(peer: WantedPeer, own: Prefixes): PeerSettings {
  const { publicKey, presharedKey, endpoint, persistentKeepalive } = peer;
  return {
    publicKey,
    ...(presharedKey !== undefined && { presharedKey }),
    ...(endpoint !== undefined && { endpoint }),
    ...(persistentKeepalive !== 0 && { persistentKeepalive }),
    ...(own.size > 0 && { allowedIps: Array.from(own.values()) }),
  };
}

/** `own` is what the peer shall have, `owners` tells who shall have what. */
function change(
  peer: WantedPeer,
  old: Peer,
  own: Prefixes,
  owners: ReadonlyMap<string, WantedPeer>,
): PeerSettings | undefined {
  const { publicKey, presharedKey, endpoint, persistentKeepalive } = peer;
  const had = new Set(old.allowedIps.map(nameOf));
  let isReplaced = false;
  for (const text of had) {
    // What another peer gets is taken from this one by that.
    if (!owners.has(text)) isReplaced = true;
  }
  const allowedIps: IpPrefix[] = [];
  for (const [text, prefix] of own) if (isReplaced || !had.has(text)) allowedIps.push(prefix);
  const changes: Omit<PeerSettings, 'publicKey'> = {
    ...(!isSameKey(presharedKey, old.presharedKey) && { presharedKey: presharedKey ?? 'none' }),
    ...(endpoint !== undefined && endpoint !== old.endpoint && { endpoint }),
    ...(persistentKeepalive !== old.persistentKeepalive && { persistentKeepalive }),
    ...(isReplaced && { replaceAllowedIps: true }),
    ...(allowedIps.length > 0 && { allowedIps }),
  };
  if (Object.keys(changes).length === 0) return undefined;
  return { publicKey, updateOnly: true, ...changes };
}

/** Returns each prefix of the peer once, without those that a later peer wants too. */
function prefixesOf(peer: WantedPeer, owners: ReadonlyMap<string, WantedPeer>): Prefixes {
  const own = new Map<string, IpPrefix>();
  for (const prefix of peer.allowedIps) {
    const text = nameOf(prefix);
    if (owners.get(text) === peer) own.set(text, prefix);
  }
  return own;
}

/** The same for the same network. Single addresses are their own name: there are tens of thousands. */
function nameOf(prefix: IpPrefix): string {
  return isFullLength(prefix) ? prefix.address : formatIpPrefix(networkOf(prefix));
}

function isSameKey(a: Uint8Array | undefined, b: Uint8Array | undefined): boolean {
  return a === undefined || b === undefined ? a === b : equalInConstantTime(a, b);
}

/** The private key as the kernel keeps it (RFC 7748 §5). */
function clamped(privateKey: Uint8Array): Uint8Array {
  const key = privateKey.slice();
  key[0] = (key[0] ?? 0) & 0xf8;
  key[31] = ((key[31] ?? 0) & 0x7f) | 0x40;
  return key;
}

function keyOf({ publicKey }: { readonly publicKey: Uint8Array }): string {
  return encodeHex(publicKey);
}
