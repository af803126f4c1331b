import { ipAddressFromBytes, type IpAddress, type IpFamily } from '../net/ip-address.ts';
import { readUint16 } from './big-endian.ts';

/** IP protocol numbers (IANA, "Assigned Internet Protocol Numbers"). */
export const PROTOCOL_ICMP = 1;
export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;
export const PROTOCOL_ICMPV6 = 58;

export const IPV4_HEADER_SIZE = 20;
export const IPV6_HEADER_SIZE = 40;

/** Longer chains of IPv6 extension headers are refused: the sender must not decide how long we look. */
const MOST_EXTENSION_HEADERS = 8;

export type MalformedIpPacket =
  'not-ip' | 'truncated-ip' | 'bad-ip-header-length' | 'too-many-extension-headers';

/**
 * The IP header of one packet, where it lies. An instance is meant to be used for packet after packet, so
 * that reading allocates nothing; after a failed `read` its fields have no meaning.
 *
 * All offsets are indices into `bytes`, which is borrowed.
 */
export class IpPacket {
  bytes: Uint8Array = NO_BYTES;
  /** Where the packet begins. */
  offset = 0;
  family: IpFamily = 4;
  /** The length that the header states; what follows it in the buffer is no part of the packet. */
  totalLength = 0;
  sourceOffset = 0;
  destinationOffset = 0;
  /** 4 or 16. */
  addressLength = 0;
  /** The protocol behind all IPv6 extension headers. */
  protocol = 0;
  /** Where that protocol's header begins, or the payload of a fragment that is not the first. */
  payloadOffset = 0;
  /** How many bytes of it are there. */
  payloadLength = 0;
  /** In bytes: 0 in a packet that is whole and in a first fragment. */
  fragmentOffset = 0;
  hasMoreFragments = false;

  /** Reads the packet that begins at `offset`, where `length` bytes are at hand. */
  read(bytes: Uint8Array, offset: number, length: number): MalformedIpPacket | undefined {
    const malformed = this.readQuoted(bytes, offset, length);
    if (malformed !== undefined) return malformed;
    return this.totalLength > length ? 'truncated-ip' : undefined;
  }

  /** The same for a packet that an ICMP error quotes: its end may be cut off, its headers may not. */
  readQuoted(bytes: Uint8Array, offset: number, length: number): MalformedIpPacket | undefined {
    const available = Math.min(length, bytes.length - offset);
    if (available < 1) return 'truncated-ip';
    this.bytes = bytes;
    this.offset = offset;
    switch ((bytes[offset] ?? 0) >> 4) {
      case 4:
        return this.#readIpv4(available);
      case 6:
        return this.#readIpv6(available);
      default:
        return 'not-ip';
    }
  }

  /** Whether the header of the transport protocol is in this packet. */
  get isFirstOrWhole(): boolean {
    return this.fragmentOffset === 0;
  }

  get isFragment(): boolean {
    return this.fragmentOffset > 0 || this.hasMoreFragments;
  }

  get source(): IpAddress {
    return this.#address(this.sourceOffset);
  }

  get destination(): IpAddress {
    return this.#address(this.destinationOffset);
  }

  /** RFC 791 §3.1. */
  #readIpv4(available: number): MalformedIpPacket | undefined {
    if (available < IPV4_HEADER_SIZE) return 'truncated-ip';
    const { bytes, offset } = this;
    const headerLength = ((bytes[offset] ?? 0) & 0x0f) * 4;
    this.totalLength = readUint16(bytes, offset + 2);
    if (headerLength < IPV4_HEADER_SIZE || headerLength > this.totalLength) {
      return 'bad-ip-header-length';
    }
    if (headerLength > available) return 'truncated-ip';
    const fragment = readUint16(bytes, offset + 6);
    this.family = 4;
    this.addressLength = 4;
    this.sourceOffset = offset + 12;
    this.destinationOffset = offset + 16;
    this.protocol = bytes[offset + 9] ?? 0;
    this.fragmentOffset = (fragment & 0x1fff) * 8;
    this.hasMoreFragments = (fragment & 0x2000) !== 0;
    this.#setPayload(headerLength, available);
    return undefined;
  }

  /** RFC 8200 §3. */
  #readIpv6(available: number): MalformedIpPacket | undefined {
    if (available < IPV6_HEADER_SIZE) return 'truncated-ip';
    const { bytes, offset } = this;
    this.totalLength = IPV6_HEADER_SIZE + readUint16(bytes, offset + 4);
    this.family = 6;
    this.addressLength = 16;
    this.sourceOffset = offset + 8;
    this.destinationOffset = offset + 24;
    this.protocol = bytes[offset + 6] ?? 0;
    this.fragmentOffset = 0;
    this.hasMoreFragments = false;
    return this.#walkExtensionHeaders(available);
  }

  /** RFC 8200 §4: each header names the protocol of the next and, but for the fragment's, its length. */
  #walkExtensionHeaders(available: number): MalformedIpPacket | undefined {
    const { bytes, offset } = this;
    let at = IPV6_HEADER_SIZE;
    for (let count = 0; isExtensionHeader(this.protocol); count++) {
      if (count === MOST_EXTENSION_HEADERS) return 'too-many-extension-headers';
      if (at + 8 > this.totalLength) return 'bad-ip-header-length';
      if (at + 8 > available) return 'truncated-ip';
      const protocol = this.protocol;
      const units = bytes[offset + at + 1] ?? 0;
      this.protocol = bytes[offset + at] ?? 0;
      if (protocol === FRAGMENT) {
        const fragment = readUint16(bytes, offset + at + 2);
        this.fragmentOffset = fragment & 0xfff8;
        this.hasMoreFragments = (fragment & 1) !== 0;
        at += 8;
        if (this.fragmentOffset > 0) break;
      } else {
        // RFC 4302 §2.2: the authentication header counts in units of 4 bytes.
        at += protocol === AUTHENTICATION ? (units + 2) * 4 : (units + 1) * 8;
      }
    }
    if (at > this.totalLength) return 'bad-ip-header-length';
    if (at > available) return 'truncated-ip';
    this.#setPayload(at, available);
    return undefined;
  }

  #setPayload(headerLength: number, available: number): void {
    this.payloadOffset = this.offset + headerLength;
    this.payloadLength = Math.min(this.totalLength, available) - headerLength;
  }

  #address(offset: number): IpAddress {
    return ipAddressFromBytes(this.bytes.subarray(offset, offset + this.addressLength));
  }
}

const NO_BYTES: Uint8Array = new Uint8Array(0);

/* Extension headers (IANA, "IPv6 Extension Header Types") that have the length where RFC 6564 wants it. */
const HOP_BY_HOP = 0;
const ROUTING = 43;
const FRAGMENT = 44;
const AUTHENTICATION = 51;
const DESTINATION_OPTIONS = 60;
const MOBILITY = 135;
const HOST_IDENTITY = 139;
const SHIM6 = 140;

function isExtensionHeader(protocol: number): boolean {
  switch (protocol) {
    case HOP_BY_HOP:
    case ROUTING:
    case FRAGMENT:
    case AUTHENTICATION:
    case DESTINATION_OPTIONS:
    case MOBILITY:
    case HOST_IDENTITY:
    case SHIM6:
      return true;
    default:
      return false;
  }
}
