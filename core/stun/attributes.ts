/**
 * The attributes of a STUN message: their numbers, and the form of their values. A value is read from
 * exactly the bytes of its length field, without the padding.
 */
import { ipAddressBytes, ipAddressFromBytes } from '../net/ip-address.ts';
import {
  socketAddress,
  socketAddressIp,
  socketAddressPort,
  type SocketAddress,
} from '../net/socket-address.ts';
import { readUint16, readUint32, writeUint16, writeUint32 } from '../packet/big-endian.ts';
import { decodeUtf8, encodeUtf8 } from '../sansio/utf8.ts';

export interface StunAttributes {
  // RFC 8489 §14
  readonly mappedAddress?: SocketAddress;
  readonly xorMappedAddress?: SocketAddress;
  readonly username?: string;
  readonly realm?: string;
  readonly nonce?: string;
  readonly software?: string;
  readonly errorCode?: { readonly code: number; readonly reason: string };
  readonly unknownAttributes?: readonly number[];
  readonly alternateServer?: SocketAddress;
  // RFC 8445 §16.1
  readonly priority?: number;
  readonly useCandidate?: true;
  /** 8 bytes: the tie-breaker. */
  readonly iceControlled?: Uint8Array;
  readonly iceControlling?: Uint8Array;
  // RFC 8656 §18
  readonly channelNumber?: number;
  /** Seconds. */
  readonly lifetime?: number;
  readonly xorPeerAddresses?: readonly SocketAddress[];
  readonly xorRelayedAddresses?: readonly SocketAddress[];
  /** IP protocol number: 17 is UDP. */
  readonly requestedTransport?: number;
  readonly requestedAddressFamily?: 4 | 6;
  readonly additionalAddressFamily?: 4 | 6;
  /** The same by the number of the draft, which coturn knows (up to 4.6, and later ones beside the RFC's). */
  readonly draftAdditionalAddressFamily?: 4 | 6;
  readonly addressErrorCode?: {
    readonly family: 4 | 6;
    readonly code: number;
    readonly reason: string;
  };
  readonly data?: Uint8Array;
  readonly dontFragment?: true;
}

/** Attributes that frame a message and are none of its content (RFC 8489 §14.5, §14.7). */
export const MESSAGE_INTEGRITY = 0x0008;
export const FINGERPRINT = 0x8028;

/** Tells STUN from other protocols, and masks addresses (§5, §14.2). */
export const MAGIC_COOKIE = 0x2112_a442;

/** Collects the attributes of one message as they are read. */
export class AttributeReader {
  readonly attributes: StunAttributes = {};
  readonly unknownRequired: number[] = [];
  /** Cookie and transaction id: what XOR addresses are masked with. */
  readonly #mask: Uint8Array;

  constructor(mask: Uint8Array) {
    this.#mask = mask;
  }

  /** Takes the next attribute; `false` when its value is malformed. A repeated one is ignored (§14). */
  read(type: number, value: Uint8Array): boolean {
    const attribute = BY_TYPE.get(type);
    if (attribute === undefined) {
      if (type < COMPREHENSION_OPTIONAL) this.unknownRequired.push(type);
      return true;
    }
    const collected = this.attributes as Record<string, unknown>;
    const before = collected[attribute.name];
    if (before !== undefined && !attribute.isList) return true;
    const decoded = attribute.form.read(value, this.#mask);
    if (decoded === undefined) return false;
    if (!attribute.isList) collected[attribute.name] = decoded;
    else if (before === undefined) collected[attribute.name] = [decoded];
    else (before as unknown[]).push(decoded);
    return true;
  }
}

/** Calls `write` for each attribute that is there, in a fixed order. */
export function encodeAttributes(
  attributes: StunAttributes,
  mask: Uint8Array,
  write: (type: number, value: Uint8Array) => void,
): void {
  for (const { name, type, form, isList } of ATTRIBUTES) {
    const value = attributes[name];
    if (value === undefined) continue;
    const values = isList ? (value as readonly unknown[]) : [value];
    for (const one of values) write(type, form.write(one, mask));
  }
}

/** Types from here on may be skipped by who does not know them (§14). */
const COMPREHENSION_OPTIONAL = 0x8000;

/** How a value lies in the bytes of an attribute. */
interface Form<Value> {
  /** `undefined` when malformed. */
  read(bytes: Uint8Array, mask: Uint8Array): Value | undefined;
  write(value: Value, mask: Uint8Array): Uint8Array;
}

interface Attribute {
  readonly name: keyof StunAttributes;
  readonly type: number;
  readonly form: Form<unknown>;
  /** May stand in a message more than once. */
  readonly isList: boolean;
}

/** { zero u8, family u8, port u16, address[4 or 16] } (§14.1). */
const ADDRESS: Form<SocketAddress> = {
  read: readAddress,
  write: writeAddress,
};

/** The same with port and address XORed, so that no NAT rewrites them by mistake (§14.2). */
const XOR_ADDRESS: Form<SocketAddress> = {
  read: (bytes, mask) => readAddress(masked(bytes, mask)),
  write: (address, mask) => masked(writeAddress(address), mask),
};

/** Text that is compared or sent back, so it has to be right. */
const TEXT: Form<string> = {
  read: (bytes) => decodeUtf8(bytes),
  write: (text) => encodeUtf8(text),
};

/** Text for people: it does not condemn a message. */
const REMARK: Form<string> = {
  read: (bytes) => decodeUtf8(bytes) ?? '',
  write: (text) => encodeUtf8(text),
};

/** { zero u16, class u8 (3 bits), number u8, reason } (§14.8). */
const ERROR_CODE: Form<{ readonly code: number; readonly reason: string }> = {
  read: readErrorCode,
  write: writeErrorCode,
};

/** The same with the family in the first byte (RFC 8656 §18.13). */
const ADDRESS_ERROR_CODE: Form<NonNullable<StunAttributes['addressErrorCode']>> = {
  read(bytes) {
    const family = FAMILY_OF.get(bytes[0] ?? 0);
    const error = readErrorCode(bytes);
    return family === undefined || error === undefined ? undefined : { family, ...error };
  },
  write(value) {
    const bytes = writeErrorCode(value);
    bytes[0] = value.family === 4 ? IPV4 : IPV6;
    return bytes;
  },
};

const TYPES: Form<readonly number[]> = {
  read: (bytes) =>
    bytes.length % 2 === 0
      ? Array.from({ length: bytes.length / 2 }, (_, i) => readUint16(bytes, i * 2))
      : undefined,
  write(types) {
    const bytes = new Uint8Array(types.length * 2);
    for (const [i, type] of types.entries()) writeUint16(bytes, i * 2, type);
    return bytes;
  },
};

const UINT32: Form<number> = {
  read: (bytes) => (bytes.length === 4 ? readUint32(bytes, 0) : undefined),
  write(value) {
    const bytes = new Uint8Array(4);
    writeUint32(bytes, 0, value);
    return bytes;
  },
};

/** { value u16, zero u16 } */
const UINT16: Form<number> = {
  read: (bytes) => (bytes.length === 4 ? readUint16(bytes, 0) : undefined),
  write: (value) => Uint8Array.of(value >>> 8, value, 0, 0),
};

/** { value u8, zero[3] } */
const UINT8: Form<number> = {
  read: (bytes) => (bytes.length === 4 ? bytes[0] : undefined),
  write: (value) => Uint8Array.of(value, 0, 0, 0),
};

const FAMILY: Form<4 | 6> = {
  read: (bytes) => (bytes.length === 4 ? FAMILY_OF.get(bytes[0] ?? 0) : undefined),
  write: (family) => Uint8Array.of(family === 4 ? IPV4 : IPV6, 0, 0, 0),
};

const FLAG: Form<true> = {
  read: (bytes) => (bytes.length === 0 ? true : undefined),
  write: () => new Uint8Array(0),
};

const BYTES: Form<Uint8Array> = {
  read: (bytes) => bytes,
  write: (bytes) => bytes,
};

const TIE_BREAKER: Form<Uint8Array> = {
  read: (bytes) => (bytes.length === 8 ? bytes : undefined),
  write: (bytes) => bytes,
};

/** RFC 8489 §18.3, RFC 8445 §20.1, RFC 8656 §18; in the order in which they are written. */
const ATTRIBUTES: readonly Attribute[] = [
  one('errorCode', 0x0009, ERROR_CODE),
  one('unknownAttributes', 0x000a, TYPES),
  one('mappedAddress', 0x0001, ADDRESS),
  one('xorMappedAddress', 0x0020, XOR_ADDRESS),
  one('alternateServer', 0x8023, ADDRESS),
  one('channelNumber', 0x000c, UINT16),
  one('lifetime', 0x000d, UINT32),
  list('xorPeerAddresses', 0x0012, XOR_ADDRESS),
  list('xorRelayedAddresses', 0x0016, XOR_ADDRESS),
  one('requestedAddressFamily', 0x0017, FAMILY),
  one('additionalAddressFamily', 0x8000, FAMILY),
  // draft-martinsen-tram-ssoda.
  one('draftAdditionalAddressFamily', 0x8032, FAMILY),
  one('addressErrorCode', 0x8001, ADDRESS_ERROR_CODE),
  one('requestedTransport', 0x0019, UINT8),
  one('dontFragment', 0x001a, FLAG),
  one('data', 0x0013, BYTES),
  one('priority', 0x0024, UINT32),
  one('useCandidate', 0x0025, FLAG),
  one('iceControlled', 0x8029, TIE_BREAKER),
  one('iceControlling', 0x802a, TIE_BREAKER),
  one('software', 0x8022, REMARK),
  one('username', 0x0006, TEXT),
  one('realm', 0x0014, TEXT),
  one('nonce', 0x0015, TEXT),
];

const BY_TYPE: ReadonlyMap<number, Attribute> = new Map(
  ATTRIBUTES.map((attribute) => [attribute.type, attribute]),
);

function one<Name extends keyof StunAttributes>(
  name: Name,
  type: number,
  form: Form<NonNullable<StunAttributes[Name]>>,
): Attribute {
  return { name, type, form, isList: false };
}

function list(
  name: 'xorPeerAddresses' | 'xorRelayedAddresses',
  type: number,
  form: Form<SocketAddress>,
): Attribute {
  return { name, type, form, isList: true };
}

const IPV4 = 1;
const IPV6 = 2;
const FAMILY_OF: ReadonlyMap<number, 4 | 6> = new Map([
  [IPV4, 4],
  [IPV6, 6],
]);

function readAddress(bytes: Uint8Array): SocketAddress | undefined {
  const family = FAMILY_OF.get(bytes[1] ?? 0);
  if (family === undefined || bytes.length !== (family === 4 ? 8 : 20)) return undefined;
  return socketAddress(ipAddressFromBytes(bytes.subarray(4)), readUint16(bytes, 2));
}

function writeAddress(address: SocketAddress): Uint8Array {
  const ip = ipAddressBytes(socketAddressIp(address));
  const bytes = new Uint8Array(4 + ip.length);
  bytes[1] = ip.length === 4 ? IPV4 : IPV6;
  writeUint16(bytes, 2, socketAddressPort(address));
  bytes.set(ip, 4);
  return bytes;
}

/** The port is masked with the first half of the cookie, the address with cookie and transaction id. */
function masked(bytes: Uint8Array, mask: Uint8Array): Uint8Array {
  return bytes.map((byte, i) => byte ^ (i < 2 ? 0 : (mask[i < 4 ? i - 2 : i - 4] ?? 0)));
}

function readErrorCode(
  bytes: Uint8Array,
): { readonly code: number; readonly reason: string } | undefined {
  const hundreds = (bytes[2] ?? 0) & 0b111;
  const rest = bytes[3] ?? 0;
  if (bytes.length < 4 || hundreds < 3 || hundreds > 6 || rest > 99) return undefined;
  return { code: hundreds * 100 + rest, reason: decodeUtf8(bytes.subarray(4)) ?? '' };
}

function writeErrorCode(value: { readonly code: number; readonly reason: string }): Uint8Array {
  const reason = encodeUtf8(value.reason);
  const bytes = new Uint8Array(4 + reason.length);
  bytes[2] = Math.trunc(value.code / 100);
  bytes[3] = value.code % 100;
  bytes.set(reason, 4);
  return bytes;
}
