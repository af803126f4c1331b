import type { IpPrefix } from '../../net/ip-prefix.ts';
import { decodeSockaddr, type SocketAddress } from '../../net/socket-address.ts';
import { encodeHex } from '../../sansio/hex.ts';
import { AttributeReader } from '../attribute.ts';
import { HOST_IS_LITTLE_ENDIAN } from '../byte-order.ts';
import { MessageFlag } from '../constants.ts';
import type { GenericFamily } from '../genetlink/controller.ts';
import { beginGeneric, readGeneric } from '../genetlink/header.ts';
import { MessageWriter } from '../message-writer.ts';
import type { NetlinkMessage } from '../message.ts';
import { decodeFamily, decodeIp, familyBits } from '../rtnetlink/family.ts';
import {
  AllowedIpAttribute,
  DEVICE_KEY,
  DeviceAttribute,
  DeviceCommand,
  PeerAttribute,
} from './constants.ts';

/** A WireGuard interface of the kernel. */
export interface Device {
  readonly index: number;
  readonly name: string;
  /** Clamped (RFC 7748 §5), whatever it was set to. Absent where none was set. */
  readonly privateKey: Uint8Array | undefined;
  readonly publicKey: Uint8Array | undefined;
  /** 0 while the interface was never up and none was set. */
  readonly listenPort: number;
  /** Mark of the packets that it sends; 0 for none. */
  readonly fwmark: number;
  readonly peers: readonly Peer[];
}

export interface Peer {
  readonly publicKey: Uint8Array;
  readonly presharedKey: Uint8Array | undefined;
  /** Where it was set to, or last called from. The interface of a link-local one is not told. */
  readonly endpoint: SocketAddress | undefined;
  /** Seconds; 0 where it is off. */
  readonly persistentKeepalive: number;
  /** Milliseconds since 1970-01-01 UTC. */
  readonly lastHandshakeUnixMs: number | undefined;
  readonly rxBytes: number;
  readonly txBytes: number;
  readonly protocolVersion: number;
  readonly allowedIps: readonly IpPrefix[];
}

/**
 * What one message of a dump tells. Only the first one tells of the device itself; a peer with many
 * allowed IPs goes on in the next, with no more than its public key and these.
 */
export interface DevicePart {
  readonly index: number | undefined;
  readonly name: string | undefined;
  readonly privateKey: Uint8Array | undefined;
  readonly publicKey: Uint8Array | undefined;
  readonly listenPort: number | undefined;
  readonly fwmark: number | undefined;
  readonly peers: readonly Peer[];
}

/**
 * Asks for a device (a dump). Refused with ENODEV where no interface has the name, and EOPNOTSUPP where it
 * is none of WireGuard. It takes CAP_NET_ADMIN.
 */
export function encodeDeviceQuery(family: GenericFamily, name: string): Uint8Array {
  const writer = beginGeneric(
    new MessageWriter(),
    family,
    DeviceCommand.get,
    MessageFlag.ack | MessageFlag.dump,
  );
  return writer.name(DeviceAttribute.name, name).end().take();
}

/** Reads one message of the answer; `undefined` when it is none, or broken. Nothing is borrowed. */
export function decodeDevicePart(
  message: Pick<NetlinkMessage, 'type' | 'body'>,
  family: Pick<GenericFamily, 'id'>,
): DevicePart | undefined {
  const read = readGeneric(message, family.id);
  if (read === undefined || read.command !== DeviceCommand.get) return undefined;
  return readDevicePart(read.attributes);
}

/** Puts the messages of a dump together, in order; `undefined` when none tells of the device itself. */
export function assembleDevice(parts: readonly DevicePart[]): Device | undefined {
  const first = parts.find(({ index }) => index !== undefined);
  if (first?.index === undefined || first.name === undefined) return undefined;
  const peers = new Map<string, { readonly peer: Peer; readonly lists: (readonly IpPrefix[])[] }>();
  for (const part of parts) {
    for (const peer of part.peers) {
      const key = encodeHex(peer.publicKey);
      const known = peers.get(key);
      if (known === undefined) peers.set(key, { peer, lists: [peer.allowedIps] });
      else known.lists.push(peer.allowedIps);
    }
  }
  return {
    index: first.index,
    name: first.name,
    privateKey: first.privateKey,
    publicKey: first.publicKey,
    listenPort: first.listenPort ?? 0,
    fwmark: first.fwmark ?? 0,
    peers: Array.from(peers.values(), ({ peer, lists }) =>
      lists.length === 1 ? peer : { ...peer, allowedIps: lists.flat() },
    ),
  };
}

/** Reads the attributes of a device, which requests and answers have in common. */
export function readDevicePart(attributes: Uint8Array): DevicePart | undefined {
  const peers: Peer[] = [];
  let index: number | undefined;
  let name: string | undefined;
  let privateKey: Uint8Array | undefined;
  let publicKey: Uint8Array | undefined;
  let listenPort: number | undefined;
  let fwmark: number | undefined;
  const reader = new AttributeReader(attributes);
  while (reader.next()) {
    const { type } = reader;
    if (type === DeviceAttribute.index) index = reader.u32();
    else if (type === DeviceAttribute.name) name = reader.text();
    else if (type === DeviceAttribute.privateKey) privateKey = readKey(reader.value);
    else if (type === DeviceAttribute.publicKey) publicKey = readKey(reader.value);
    else if (type === DeviceAttribute.listenPort) listenPort = reader.u16();
    else if (type === DeviceAttribute.fwmark) fwmark = reader.u32();
    else if (type === DeviceAttribute.peers) {
      const list = reader.nested();
      while (list.next()) {
        const peer = readPeer(list.nested());
        if (peer === undefined) return undefined;
        peers.push(peer);
      }
      if (list.malformed) return undefined;
    }
  }
  if (reader.malformed) return undefined;
  return { index, name, privateKey, publicKey, listenPort, fwmark, peers };
}

function readPeer(reader: AttributeReader): Peer | undefined {
  const allowedIps: IpPrefix[] = [];
  let publicKey: Uint8Array | undefined;
  let presharedKey: Uint8Array | undefined;
  let endpoint: SocketAddress | undefined;
  let lastHandshakeUnixMs: number | undefined;
  let persistentKeepalive = 0;
  let rxBytes = 0;
  let txBytes = 0;
  let protocolVersion = 0;
  while (reader.next()) {
    const { type } = reader;
    if (type === PeerAttribute.publicKey) publicKey = copyKey(reader.value);
    else if (type === PeerAttribute.presharedKey) presharedKey = readKey(reader.value);
    else if (type === PeerAttribute.endpoint) endpoint = decodeSockaddr(reader.value, 0);
    else if (type === PeerAttribute.persistentKeepalive) persistentKeepalive = reader.u16() ?? 0;
    else if (type === PeerAttribute.lastHandshake) lastHandshakeUnixMs = readTime(reader.value);
    else if (type === PeerAttribute.rxBytes) rxBytes = reader.u64() ?? 0;
    else if (type === PeerAttribute.txBytes) txBytes = reader.u64() ?? 0;
    else if (type === PeerAttribute.protocolVersion) protocolVersion = reader.u32() ?? 0;
    else if (type === PeerAttribute.allowedIps && !readAllowedIps(reader.nested(), allowedIps)) {
      return undefined;
    }
  }
  if (reader.malformed || publicKey === undefined) return undefined;
  return {
    publicKey,
    presharedKey,
    endpoint,
    persistentKeepalive,
    lastHandshakeUnixMs,
    rxBytes,
    txBytes,
    protocolVersion,
    allowedIps,
  };
}

/** Returns whether all of them could be read. */
function readAllowedIps(list: AttributeReader, allowedIps: IpPrefix[]): boolean {
  while (list.next()) {
    const reader = list.nested();
    let family: number | undefined;
    let bytes: Uint8Array | undefined;
    let length: number | undefined;
    while (reader.next()) {
      if (reader.type === AllowedIpAttribute.family) family = reader.u16();
      else if (reader.type === AllowedIpAttribute.address) bytes = reader.value;
      else if (reader.type === AllowedIpAttribute.length) length = reader.u8();
    }
    const ipFamily = decodeFamily(family ?? 0);
    if (ipFamily === undefined || bytes === undefined || length === undefined) return false;
    const address = decodeIp(bytes, ipFamily);
    if (address === undefined || length > familyBits(ipFamily)) return false;
    allowedIps.push({ address, length });
  }
  return !list.malformed;
}

/** Returns a copy of the key; all zeros stand for none. */
function readKey(bytes: Uint8Array): Uint8Array | undefined {
  const key = copyKey(bytes);
  return key?.every((byte) => byte === 0) === true ? undefined : key;
}

function copyKey(bytes: Uint8Array): Uint8Array | undefined {
  return bytes.length === DEVICE_KEY ? bytes.slice() : undefined;
}

/** struct __kernel_timespec: seconds and nanoseconds, 64 bits each on every CPU; zero for never. */
function readTime(bytes: Uint8Array): number | undefined {
  if (bytes.length < 16) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, 16);
  const seconds = Number(view.getBigInt64(0, HOST_IS_LITTLE_ENDIAN));
  const nanoseconds = Number(view.getBigInt64(8, HOST_IS_LITTLE_ENDIAN));
  const ms = seconds * 1000 + Math.floor(nanoseconds / 1_000_000);
  return ms === 0 ? undefined : ms;
}
