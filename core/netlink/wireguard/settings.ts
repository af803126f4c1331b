import { ipAddressBytes, ipFamily } from '../../net/ip-address.ts';
import type { IpPrefix } from '../../net/ip-prefix.ts';
import { encodeSockaddr, type SocketAddress } from '../../net/socket-address.ts';
import { MessageFlag } from '../constants.ts';
import type { GenericFamily } from '../genetlink/controller.ts';
import { beginGeneric } from '../genetlink/header.ts';
import type { MessageWriter } from '../message-writer.ts';
import { encodeFamily } from '../rtnetlink/family.ts';
import {
  AllowedIpAttribute,
  DEVICE_KEY,
  DeviceAttribute,
  DeviceCommand,
  DeviceFlag,
  PeerAttribute,
  PeerFlag,
} from './constants.ts';

/**
 * A change of a device: what is `undefined` stays as it is. The kernel works through it in the order of
 * the fields, then peer by peer; where it refuses something, what came before stands.
 */
export interface DeviceSettings {
  /** 32 bytes. */
  readonly privateKey?: Uint8Array | 'none' | undefined;
  /** 0 asks for a random one. */
  readonly listenPort?: number | undefined;
  /** 0 asks for none. */
  readonly fwmark?: number | undefined;
  /** Whether peers that `peers` does not name go away. */
  readonly replacePeers?: boolean | undefined;
  readonly peers: readonly PeerSettings[];
}

export interface PeerSettings {
  /** 32 bytes. The one of the device itself makes the kernel pass over the peer. */
  readonly publicKey: Uint8Array;
  /** Whether it goes away; nothing happens where it is not there. */
  readonly remove?: boolean | undefined;
  /** Whether nothing happens where it is not there yet. */
  readonly updateOnly?: boolean | undefined;
  /** 32 bytes. */
  readonly presharedKey?: Uint8Array | 'none' | undefined;
  readonly endpoint?: SocketAddress | undefined;
  /** Seconds, 0 to 65535; 0 switches it off. */
  readonly persistentKeepalive?: number | undefined;
  /** Whether the peer loses its prefixes before it gets `allowedIps`. */
  readonly replaceAllowedIps?: boolean | undefined;
  /** What the peer gets; it is taken from the peer that has it. */
  readonly allowedIps?: readonly IpPrefix[] | undefined;
}

/** Bytes of peers in one message, well below the 65,535 of the attribute that holds them. */
export const PEERS_BUDGET: number = 32 * 1024;

/**
 * Returns the change in pieces, each of which fits one message. What is about the device itself comes
 * alone, so that a port in use keeps no peer out. A peer that does not fit goes on in the next piece,
 * which adds to what it has, and does not bring it back where another program removed it meanwhile.
 */
export function splitSettings(
  { peers, ...device }: DeviceSettings,
  budget: number = PEERS_BUDGET,
): readonly DeviceSettings[] {
  const isAboutDevice = Object.values(device).some((value) => value !== undefined);
  const pieces: DeviceSettings[] = isAboutDevice ? [{ ...device, peers: [] }] : [];
  let piece: PeerSettings[] = [];
  let room = budget;
  const close = () => {
    if (piece.length > 0) pieces.push({ peers: piece });
    piece = [];
    room = budget;
  };
  for (const peer of peers) {
    const { allowedIps = [] } = peer;
    if (room < LARGEST_PEER + LARGEST_ALLOWED_IP) close();
    let settings = peer;
    for (let from = 0; ;) {
      room -= LARGEST_PEER;
      let to = from;
      for (; to < allowedIps.length && room >= LARGEST_ALLOWED_IP; to++) {
        room -= LARGEST_ALLOWED_IP;
      }
      const isWhole = to - from === allowedIps.length;
      piece.push(isWhole ? settings : { ...settings, allowedIps: allowedIps.slice(from, to) });
      if (to === allowedIps.length) break;
      close();
      from = to;
      settings = { publicKey: peer.publicKey, updateOnly: true };
    }
  }
  close();
  return pieces;
}

/** Returns the request that makes the change. Its peers must fit one message: `splitSettings`. */
export function encodeSettings(
  writer: MessageWriter,
  family: GenericFamily,
  name: string,
  settings: DeviceSettings,
): Uint8Array {
  const { privateKey, listenPort, fwmark, replacePeers, peers } = settings;
  beginGeneric(writer, family, DeviceCommand.set, MessageFlag.ack);
  writer.name(DeviceAttribute.name, name);
  if (privateKey !== undefined) writer.bytes(DeviceAttribute.privateKey, keyBytes(privateKey));
  if (listenPort !== undefined) writer.u16(DeviceAttribute.listenPort, listenPort);
  if (fwmark !== undefined) writer.u32(DeviceAttribute.fwmark, fwmark);
  if (replacePeers === true) writer.u32(DeviceAttribute.flags, DeviceFlag.replacePeers);
  if (peers.length > 0) {
    writer.nested(DeviceAttribute.peers, () => {
      for (const peer of peers) writer.nested(0, () => writePeer(writer, peer));
    });
  }
  return writer.end().take();
}

/** Bytes of a peer with everything but allowed IPs, and of an IPv6 one of these; with headers. */
const LARGEST_PEER = 128;
const LARGEST_ALLOWED_IP = 40;

const NO_KEY: Uint8Array = new Uint8Array(DEVICE_KEY);

function keyBytes(key: Uint8Array | 'none'): Uint8Array {
  return key === 'none' ? NO_KEY : key;
}

function writePeer(writer: MessageWriter, peer: PeerSettings): void {
  const { presharedKey, endpoint, persistentKeepalive, allowedIps = [] } = peer;
  writer.bytes(PeerAttribute.publicKey, peer.publicKey);
  if (presharedKey !== undefined) {
    writer.bytes(PeerAttribute.presharedKey, keyBytes(presharedKey));
  }
  if (endpoint !== undefined) {
    const sockaddr = new Uint8Array(28);
    const length = encodeSockaddr(endpoint, sockaddr, 0);
    writer.bytes(PeerAttribute.endpoint, sockaddr.subarray(0, length));
  }
  if (persistentKeepalive !== undefined) {
    writer.u16(PeerAttribute.persistentKeepalive, persistentKeepalive);
  }
  const flags =
    (peer.remove === true ? PeerFlag.remove : 0) |
    (peer.replaceAllowedIps === true ? PeerFlag.replaceAllowedIps : 0) |
    (peer.updateOnly === true ? PeerFlag.updateOnly : 0);
  if (flags !== 0) writer.u32(PeerAttribute.flags, flags);
  if (allowedIps.length === 0) return;
  writer.nested(PeerAttribute.allowedIps, () => {
    for (const { address, length } of allowedIps) {
      writer.nested(0, () => {
        writer.u16(AllowedIpAttribute.family, encodeFamily(ipFamily(address)));
        writer.bytes(AllowedIpAttribute.address, ipAddressBytes(address));
        writer.u8(AllowedIpAttribute.length, length);
      });
    }
  });
}
