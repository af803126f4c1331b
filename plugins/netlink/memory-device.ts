import { formatIpPrefix, networkOf, type IpPrefix } from '../../core/net/ip-prefix.ts';
import type { SocketAddress } from '../../core/net/socket-address.ts';
import { WIREGUARD_KIND } from '../../core/netlink/wireguard/constants.ts';
import type { Device, Peer } from '../../core/netlink/wireguard/device.ts';
import {
  splitSettings,
  type DeviceSettings,
  type PeerSettings,
} from '../../core/netlink/wireguard/settings.ts';
import type { PluginDefinition } from '../../core/plugin/plugin.ts';
import { wireguardDevice, type WireguardDevice } from '../../core/plugin/wireguard-device.ts';
import type { X25519 } from '../../core/sansio/crypto.ts';
import { encodeHex } from '../../core/sansio/hex.ts';
import { wireguardDevices, type DeviceKernel, type RefusedSettings } from './apply-device.ts';
import { ownRefusal, type Answer, type Refusal } from './refusal.ts';

/**
 * WireGuard interfaces in memory, with the rules of the kernel: a prefix belongs to one peer and moves to
 * the one that gets it last, what is to go and is not there is passed over, and so is a peer with the key
 * of the device. Its methods act as another program, or as peers would.
 */
export class MemoryDevices implements DeviceKernel {
  /** Whether the kernel has the module. */
  hasModule = true;
  /** UDP ports that other programs use. */
  readonly usedPorts = new Set<number>();
  readonly #x25519: Pick<X25519, 'publicKey'>;
  readonly #links = new Map<string, MemoryDevice | { readonly kind: string }>();
  #lastIndex = 1;

  constructor(x25519: Pick<X25519, 'publicKey'>) {
    this.#x25519 = x25519;
  }

  /** Makes an interface of another kind. */
  addLink(name: string, kind: string): void {
    this.#links.set(name, { kind });
  }

  /** Tells of a handshake, and of traffic, with a peer that called from there. */
  receive(
    name: string,
    publicKey: Uint8Array,
    seen: {
      readonly endpoint: SocketAddress;
      readonly unixMs: number;
      readonly rxBytes: number;
      readonly txBytes: number;
    },
  ): void {
    const device = this.#device(name);
    const peer = device.ok ? device.value.peers.get(encodeHex(publicKey)) : undefined;
    if (peer === undefined) return;
    peer.endpoint = seen.endpoint;
    peer.lastHandshakeUnixMs = seen.unixMs;
    peer.rxBytes += seen.rxBytes;
    peer.txBytes += seen.txBytes;
  }

  readKind(name: string): Answer<string | undefined> {
    const link = this.#links.get(name);
    return link === undefined ? NO_LINK : { ok: true, value: link.kind };
  }

  createLink(name: string): Refusal | undefined {
    if (name.length > LONGEST_NAME) return ownRefusal('ERANGE', 'too long');
    if (!this.hasModule) return ownRefusal('EOPNOTSUPP', 'Unknown device type');
    if (this.#links.has(name)) return ownRefusal('EEXIST', 'file exists');
    this.#lastIndex++;
    this.#links.set(name, {
      kind: WIREGUARD_KIND,
      index: this.#lastIndex,
      privateKey: undefined,
      publicKey: undefined,
      listenPort: 0,
      fwmark: 0,
      peers: new Map(),
      owners: new Map(),
    });
    return undefined;
  }

  removeLink(name: string): Refusal | undefined {
    return this.#links.delete(name) ? undefined : NO_LINK.refusal;
  }

  observe(name: string): Answer<Device> {
    const device = this.#device(name);
    if (!device.ok) return device;
    const { index, privateKey, publicKey, listenPort, fwmark, peers } = device.value;
    const value = { index, name, privateKey, publicKey, listenPort, fwmark };
    return { ok: true, value: { ...value, peers: Array.from(peers.values(), peerOf) } };
  }

  change(name: string, settings: DeviceSettings): readonly RefusedSettings[] {
    return splitSettings(settings).flatMap((piece) => {
      const device = this.#device(name);
      const refusal = device.ok ? this.#set(device.value, piece) : device.refusal;
      return refusal === undefined ? [] : [{ settings: piece, refusal }];
    });
  }

  #device(name: string): Answer<MemoryDevice> {
    if (!this.hasModule) return NO_FAMILY;
    const link = this.#links.get(name);
    if (link === undefined) return NO_LINK;
    return 'peers' in link ? { ok: true, value: link } : NOT_WIREGUARD;
  }

  #set(device: MemoryDevice, settings: DeviceSettings): Refusal | undefined {
    const { privateKey, listenPort, fwmark, replacePeers, peers } = settings;
    if (fwmark !== undefined) device.fwmark = fwmark;
    if (listenPort !== undefined) {
      if (this.usedPorts.has(listenPort)) return ownRefusal('EADDRINUSE', 'address in use');
      device.listenPort = listenPort;
    }
    if (replacePeers === true) device.peers.clear();
    if (privateKey !== undefined) this.#setPrivateKey(device, privateKey);
    for (const peer of peers) setPeer(device, peer);
    return undefined;
  }

  #setPrivateKey(device: MemoryDevice, privateKey: Uint8Array | 'none'): void {
    const key = privateKey === 'none' ? undefined : privateKey.slice();
    if (key !== undefined) {
      key[0] = (key[0] ?? 0) & 0xf8;
      key[31] = ((key[31] ?? 0) & 0x7f) | 0x40;
    }
    device.privateKey = key;
    device.publicKey = key && this.#x25519.publicKey(key);
    if (device.publicKey !== undefined) device.peers.delete(encodeHex(device.publicKey));
  }
}

/** Returns the plugin that configures WireGuard interfaces in memory. */
export function createMemoryDevice(devices: MemoryDevices): PluginDefinition<WireguardDevice> {
  return {
    name: 'wireguard-device-memory',
    provides: wireguardDevice,
    needs: [],
    create: () => ({ api: wireguardDevices(devices), stop: () => undefined }),
  };
}

interface MemoryDevice {
  readonly kind: string;
  readonly index: number;
  privateKey: Uint8Array | undefined;
  publicKey: Uint8Array | undefined;
  listenPort: number;
  fwmark: number;
  /** By their public key in hexadecimal. */
  readonly peers: Map<string, MemoryPeer>;
  /** Which peer got a prefix last, whether or not it still has it. */
  readonly owners: Map<string, string>;
}

type MemoryPeer = { -readonly [Key in Exclude<keyof Peer, 'allowedIps'>]: Peer[Key] } & {
  /** By their text. */
  readonly prefixes: Map<string, IpPrefix>;
};

/** IFNAMSIZ without the NUL. */
const LONGEST_NAME = 15;

const NO_LINK = { ok: false, refusal: ownRefusal('ENODEV', 'no such device') } as const;
const NO_FAMILY = { ok: false, refusal: ownRefusal('ENOENT', 'no such family') } as const;
const NOT_WIREGUARD = { ok: false, refusal: ownRefusal('EOPNOTSUPP', 'not supported') } as const;

function setPeer(device: MemoryDevice, settings: PeerSettings): void {
  const key = encodeHex(settings.publicKey);
  if (settings.remove === true) device.peers.delete(key);
  const isOwn = device.publicKey !== undefined && encodeHex(device.publicKey) === key;
  if (settings.remove === true || isOwn) return;
  let peer = device.peers.get(key);
  if (peer === undefined) {
    if (settings.updateOnly === true) return;
    peer = newPeer(settings.publicKey.slice());
    device.peers.set(key, peer);
  }
  const { presharedKey, endpoint, persistentKeepalive, allowedIps = [] } = settings;
  if (presharedKey !== undefined) {
    peer.presharedKey = presharedKey === 'none' ? undefined : presharedKey.slice();
  }
  if (endpoint !== undefined) peer.endpoint = endpoint;
  if (settings.replaceAllowedIps === true) peer.prefixes.clear();
  for (const prefix of allowedIps) {
    const network = networkOf(prefix);
    const text = formatIpPrefix(network);
    device.peers.get(device.owners.get(text) ?? key)?.prefixes.delete(text);
    device.owners.set(text, key);
    peer.prefixes.set(text, network);
  }
  if (persistentKeepalive !== undefined) peer.persistentKeepalive = persistentKeepalive;
}

function newPeer(publicKey: Uint8Array): MemoryPeer {
  return {
    publicKey,
    presharedKey: undefined,
    endpoint: undefined,
    persistentKeepalive: 0,
    lastHandshakeUnixMs: undefined,
    rxBytes: 0,
    txBytes: 0,
    protocolVersion: 1,
    prefixes: new Map(),
  };
}

function peerOf({ prefixes, ...peer }: MemoryPeer): Peer {
  return { ...peer, allowedIps: Array.from(prefixes.values()) };
}
