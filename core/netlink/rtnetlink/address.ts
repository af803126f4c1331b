import { ipAddressBytes, ipFamily, type IpAddress } from '../../net/ip-address.ts';
import type { IpPrefix } from '../../net/ip-prefix.ts';
import { AttributeReader } from '../attribute.ts';
import { HOST_IS_LITTLE_ENDIAN } from '../byte-order.ts';
import { MessageFlag } from '../constants.ts';
import { MessageWriter } from '../message-writer.ts';
import type { NetlinkMessage } from '../message.ts';
import { ADDRESS_HEADER, AddressAttribute, AddressFlag, RouteMessage } from './constants.ts';
import { decodeFamily, decodeIp, encodeFamily, familyBits } from './family.ts';

/** An address of an interface, as RTM_NEWADDR tells it. */
export interface LinkAddress {
  /** Index of the interface. */
  readonly link: number;
  /** Host bits kept. */
  readonly address: IpPrefix;
  /** The other end of a point-to-point address; `address.length` counts its bits. */
  readonly peer: IpAddress | undefined;
  /** One of `Scope`, or a local invention. */
  readonly scope: number;
  /** `AddressFlag` bits. */
  readonly flags: number;
  /** IPv4 only: the alias name, by default that of the interface. */
  readonly label: string | undefined;
  /** IFAPROT_* (kernel 5.18): 1 loopback, 2 router advertisement, 3 link-local by the kernel. */
  readonly protocol: number | undefined;
}

/** What names an address towards the kernel. */
export type AddressKey = Pick<LinkAddress, 'link' | 'address' | 'peer'>;

/** Requests the addresses (a dump) of one interface or of all. Kernels before 4.20 answer with all. */
export function encodeAddressesQuery(filter: { readonly link?: number | undefined }): Uint8Array {
  const flags = MessageFlag.request | MessageFlag.dump;
  const writer = new MessageWriter().begin(RouteMessage.getAddress, flags);
  writer.fixed(ADDRESS_HEADER).setUint32(4, filter.link ?? 0, HOST_IS_LITTLE_ENDIAN);
  return writer.end().take();
}

/**
 * Adds an address; fails with EEXIST where it is. IPv6 duplicate detection is left out: it would keep
 * the address unusable for a second, and nobody else is on a tunnel interface.
 */
export function encodeAddressAddition(address: AddressKey): Uint8Array {
  const flags = MessageFlag.create | MessageFlag.exclusive;
  return encodeChange(RouteMessage.newAddress, flags, address, AddressFlag.noDuplicateDetection);
}

export function encodeAddressRemoval(address: AddressKey): Uint8Array {
  return encodeChange(RouteMessage.removeAddress, 0, address, 0);
}

/** Reads the body of RTM_NEWADDR or RTM_DELADDR; `undefined` when it is not one. */
export function decodeAddress(message: Pick<NetlinkMessage, 'body'>): LinkAddress | undefined {
  const { body } = message;
  if (body.length < ADDRESS_HEADER) return undefined;
  const header = new DataView(body.buffer, body.byteOffset, ADDRESS_HEADER);
  const family = decodeFamily(header.getUint8(0));
  const length = header.getUint8(1);
  if (family === undefined || length > familyBits(family)) return undefined;
  let flags = header.getUint8(2);
  let address: IpAddress | undefined;
  let local: IpAddress | undefined;
  let label: string | undefined;
  let protocol: number | undefined;

  const reader = new AttributeReader(body.subarray(ADDRESS_HEADER));
  while (reader.next()) {
    if (reader.type === AddressAttribute.address) {
      address = decodeIp(reader.value, family);
    } else if (reader.type === AddressAttribute.local) {
      local = decodeIp(reader.value, family);
    } else if (reader.type === AddressAttribute.label) label = reader.text();
    else if (reader.type === AddressAttribute.flags) flags = reader.u32() ?? flags;
    else if (reader.type === AddressAttribute.protocol) protocol = reader.u8();
  }
  // With a peer, IFA_LOCAL is ours and IFA_ADDRESS the peer's; IPv6 without one has IFA_ADDRESS only.
  const own = local ?? address;
  if (reader.malformed || own === undefined) return undefined;
  return {
    link: header.getUint32(4, HOST_IS_LITTLE_ENDIAN),
    address: { address: own, length },
    peer: address === own ? undefined : address,
    scope: header.getUint8(3),
    flags,
    label,
    protocol,
  };
}

function encodeChange(
  type: number,
  messageFlags: number,
  { link, address, peer }: AddressKey,
  ipv6Flags: number,
): Uint8Array {
  const flags = MessageFlag.request | MessageFlag.ack | messageFlags;
  const family = ipFamily(address.address);
  const writer = new MessageWriter().begin(type, flags);
  const header = writer.fixed(ADDRESS_HEADER);
  header.setUint8(0, encodeFamily(family));
  header.setUint8(1, address.length);
  header.setUint8(2, family === 6 ? ipv6Flags : 0);
  header.setUint32(4, link, HOST_IS_LITTLE_ENDIAN);
  const own = ipAddressBytes(address.address);
  writer.bytes(AddressAttribute.local, own);
  writer.bytes(AddressAttribute.address, peer === undefined ? own : ipAddressBytes(peer));
  return writer.end().take();
}
