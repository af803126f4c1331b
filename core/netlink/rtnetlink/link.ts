import { encodeHex } from '../../sansio/hex.ts';
import { AttributeReader } from '../attribute.ts';
import { HOST_IS_LITTLE_ENDIAN } from '../byte-order.ts';
import { MessageFlag } from '../constants.ts';
import { MessageWriter } from '../message-writer.ts';
import type { NetlinkMessage } from '../message.ts';
import {
  LINK_HEADER,
  LinkAttribute,
  LinkFlag,
  LinkInfo,
  OPERATIONAL_STATES,
  RouteMessage,
  SKIP_STATISTICS,
} from './constants.ts';

export type OperationalState = (typeof OPERATIONAL_STATES)[number];

/** A network interface, as RTM_NEWLINK tells it. */
export interface Link {
  readonly index: number;
  readonly name: string;
  /** `veth`, `bridge`, `tun`, `wireguard`, ...; absent for hardware and loopback. */
  readonly kind: string | undefined;
  /** ARPHRD_*: 1 Ethernet, 772 loopback, 65534 none. */
  readonly hardwareType: number;
  /** Bytes. */
  readonly mtu: number;
  /** Administratively up. */
  readonly isUp: boolean;
  readonly hasCarrier: boolean;
  readonly state: OperationalState;
  /** `02:00:00:00:00:01`; absent where there is none. */
  readonly hardwareAddress: string | undefined;
  /** Index of the bridge or bond that it is a port of. */
  readonly controller: number | undefined;
  /** Index of the link below it, or of a veth's other end. */
  readonly lower: number | undefined;
}

/** Requests all links (a dump). */
export function encodeLinksQuery(): Uint8Array {
  const writer = begin(RouteMessage.getLink, MessageFlag.dump, 0);
  return writer.u32(LinkAttribute.extendedMask, SKIP_STATISTICS).end().take();
}

/** Requests one link by its name. */
export function encodeLinkQuery(name: string): Uint8Array {
  const writer = begin(RouteMessage.getLink, MessageFlag.ack, 0);
  writer.u32(LinkAttribute.extendedMask, SKIP_STATISTICS);
  return writer.name(LinkAttribute.name, name).end().take();
}

/** Makes a link of a kind that needs no options, such as `bridge` or `wireguard`. */
export function encodeLinkCreation(name: string, kind: string): Uint8Array {
  const flags = MessageFlag.ack | MessageFlag.create | MessageFlag.exclusive;
  const writer = begin(RouteMessage.newLink, flags, 0).name(LinkAttribute.name, name);
  writer.nested(LinkAttribute.info, () => writer.text(LinkInfo.kind, kind));
  return writer.end().take();
}

export function encodeLinkRemoval(index: number): Uint8Array {
  return begin(RouteMessage.removeLink, MessageFlag.ack, index).end().take();
}

/** `mtu` in bytes. */
export function encodeLinkMtu(index: number, mtu: number): Uint8Array {
  const writer = begin(RouteMessage.newLink, MessageFlag.ack, index);
  return writer.u32(LinkAttribute.mtu, mtu).end().take();
}

export function encodeLinkUp(index: number): Uint8Array {
  return begin(RouteMessage.newLink, MessageFlag.ack, index, LinkFlag.up).end().take();
}

/** Reads the body of RTM_NEWLINK or RTM_DELLINK; `undefined` when it is not one. */
export function decodeLink(message: Pick<NetlinkMessage, 'body'>): Link | undefined {
  const { body } = message;
  if (body.length < LINK_HEADER) return undefined;
  const header = new DataView(body.buffer, body.byteOffset, LINK_HEADER);
  const flags = header.getUint32(8, HOST_IS_LITTLE_ENDIAN);
  let name: string | undefined;
  let kind: string | undefined;
  let mtu: number | undefined;
  let state: number | undefined;
  let hardwareAddress: string | undefined;
  let controller: number | undefined;
  let lower: number | undefined;

  const reader = new AttributeReader(body.subarray(LINK_HEADER));
  while (reader.next()) {
    if (reader.type === LinkAttribute.name) name = reader.text();
    else if (reader.type === LinkAttribute.info) kind = readKind(reader.nested());
    else if (reader.type === LinkAttribute.mtu) mtu = reader.u32();
    else if (reader.type === LinkAttribute.operationalState) state = reader.u8();
    else if (reader.type === LinkAttribute.controller) controller = reader.u32();
    else if (reader.type === LinkAttribute.lower) lower = reader.u32();
    else if (reader.type === LinkAttribute.hardwareAddress) {
      hardwareAddress = formatHardwareAddress(reader.value);
    }
  }
  if (reader.malformed || name === undefined) return undefined;
  return {
    index: header.getInt32(4, HOST_IS_LITTLE_ENDIAN),
    name,
    kind,
    hardwareType: header.getUint16(2, HOST_IS_LITTLE_ENDIAN),
    mtu: mtu ?? 0,
    isUp: (flags & LinkFlag.up) !== 0,
    hasCarrier: (flags & LinkFlag.lowerUp) !== 0,
    state: OPERATIONAL_STATES[state ?? 0] ?? 'unknown',
    hardwareAddress,
    controller,
    // A link on another namespace's hardware, or a tunnel on none, says 0.
    lower: lower === 0 ? undefined : lower,
  };
}

function begin(type: number, flags: number, index: number, up = 0): MessageWriter {
  const writer = new MessageWriter().begin(type, MessageFlag.request | flags);
  const header = writer.fixed(LINK_HEADER);
  header.setInt32(4, index, HOST_IS_LITTLE_ENDIAN);
  header.setUint32(8, up, HOST_IS_LITTLE_ENDIAN);
  // The change mask: which of the flags are meant.
  header.setUint32(12, up, HOST_IS_LITTLE_ENDIAN);
  return writer;
}

function readKind(info: AttributeReader): string | undefined {
  while (info.next()) if (info.type === LinkInfo.kind) return info.text();
  return undefined;
}

function formatHardwareAddress(bytes: Uint8Array): string | undefined {
  if (bytes.length === 0) return undefined;
  return Array.from(bytes, (byte) => encodeHex(Uint8Array.of(byte))).join(':');
}
