/**
 * STUN messages (RFC 8489 §5) as ICE (RFC 8445) and TURN (RFC 8656) use them:
 *
 *     { type u16, length u16, cookie u32 = 0x2112a442, transaction id[12] }      (big-endian)
 *     then attributes of { type u16, length u16, value[length], padding to 4 bytes }
 *
 * The length counts all behind the 20 bytes of the header.
 */
import { readUint16, readUint32, writeUint16, writeUint32 } from '../packet/big-endian.ts';
import { equalInConstantTime, type Crypto } from '../sansio/crypto.ts';
import { BugError, failed, ok, type Outcome } from '../sansio/outcome.ts';
import {
  AttributeReader,
  encodeAttributes,
  FINGERPRINT,
  MAGIC_COOKIE,
  MESSAGE_INTEGRITY,
  type StunAttributes,
} from './attributes.ts';
import { fingerprint } from './fingerprint.ts';

export type { StunAttributes } from './attributes.ts';

/**
 * Attributes that are not in `StunAttributes` are skipped on reading; unknown ones that are
 * comprehension-required are listed in `unknownRequired`.
 */
export interface StunMessage {
  readonly class: StunClass;
  readonly method: StunMethod;
  /** 12 bytes. */
  readonly transactionId: Uint8Array;
  readonly attributes: StunAttributes;
}

export type StunClass = 'request' | 'indication' | 'success' | 'error';

export type StunMethod =
  'binding' | 'allocate' | 'refresh' | 'send' | 'data' | 'create-permission' | 'channel-bind';

/** A message as it came, with what is needed to check it. */
export interface ReceivedStun extends StunMessage {
  /** Whether MESSAGE-INTEGRITY is there at all. */
  readonly hasIntegrity: boolean;
  /** Types of attributes below 0x8000 that are not known here (RFC 8489 §6.3.1). */
  readonly unknownRequired: readonly number[];
  /**
   * Whether MESSAGE-INTEGRITY is there and holds under the key, compared in constant time. To be called
   * while the datagram is still as it was decoded.
   */
  hasValidIntegrity(key: Uint8Array, crypto: Pick<Crypto, 'hmacSha1'>): boolean;
}

/** Whether a datagram can only be STUN: top bits, length, magic cookie. Costs no allocation. */
export function isStun(datagram: Uint8Array): boolean {
  return (
    datagram.length >= HEADER_LENGTH &&
    (datagram[0] ?? 0) < 0x40 &&
    readUint16(datagram, 2) === datagram.length - HEADER_LENGTH &&
    datagram.length % 4 === 0 &&
    readUint32(datagram, 4) === MAGIC_COOKIE
  );
}

/** Reads a whole datagram. A FINGERPRINT that is there must hold. Borrows from the datagram. */
export function decodeStun(datagram: Uint8Array): Outcome<ReceivedStun, 'malformed'> {
  if (!isStun(datagram)) return failed('malformed');
  const type = readUint16(datagram, 0);
  const method = METHODS.find((known) => METHOD_NUMBERS[known] === methodNumber(type));
  const messageClass = CLASSES[((type >> 7) & 2) | ((type >> 4) & 1)];
  if (method === undefined || messageClass === undefined) return failed('malformed');

  const reader = new AttributeReader(datagram.subarray(4, HEADER_LENGTH));
  let integrityAt: number | undefined;
  let offset = HEADER_LENGTH;
  while (offset < datagram.length) {
    const attribute = readUint16(datagram, offset);
    const start = offset + ATTRIBUTE_HEADER_LENGTH;
    const end = start + readUint16(datagram, offset + 2);
    if (end > datagram.length) return failed('malformed');
    const value = datagram.subarray(start, end);
    if (attribute === FINGERPRINT) {
      const isValid =
        end === datagram.length &&
        value.length === FINGERPRINT_LENGTH &&
        readUint32(value, 0) === fingerprint(datagram.subarray(0, offset));
      if (!isValid) return failed('malformed');
    } else if (integrityAt === undefined) {
      if (attribute === MESSAGE_INTEGRITY) {
        if (value.length !== INTEGRITY_LENGTH) return failed('malformed');
        integrityAt = offset;
      } else if (!reader.read(attribute, value)) return failed('malformed');
    } // else: nothing vouches for what follows MESSAGE-INTEGRITY, so it is ignored (§14.5).
    offset = padded(end);
  }

  return ok({
    class: messageClass,
    method,
    transactionId: datagram.subarray(8, HEADER_LENGTH),
    attributes: reader.attributes,
    unknownRequired: reader.unknownRequired,
    hasIntegrity: integrityAt !== undefined,
    hasValidIntegrity(key, crypto) {
      if (integrityAt === undefined) return false;
      const start = integrityAt + ATTRIBUTE_HEADER_LENGTH;
      const given = datagram.subarray(start, start + INTEGRITY_LENGTH);
      return equalInConstantTime(given, integrity(datagram, integrityAt, key, crypto));
    },
  });
}

/**
 * Writes a message with FINGERPRINT, and with MESSAGE-INTEGRITY where a key is given. That the message
 * fits into a datagram is the caller's duty.
 */
export function encodeStun(
  message: StunMessage,
  options: { readonly integrityKey?: Uint8Array; readonly crypto: Pick<Crypto, 'hmacSha1'> },
): Uint8Array {
  const { integrityKey, crypto } = options;
  if (message.transactionId.length !== 12) throw new BugError('transaction id of another length');
  const mask = new Uint8Array(16);
  writeUint32(mask, 0, MAGIC_COOKIE);
  mask.set(message.transactionId, 4);

  const attributes: { readonly type: number; readonly value: Uint8Array }[] = [];
  encodeAttributes(message.attributes, mask, (type, value) => attributes.push({ type, value }));
  const tailLength =
    (integrityKey === undefined ? 0 : ATTRIBUTE_HEADER_LENGTH + INTEGRITY_LENGTH) +
    ATTRIBUTE_HEADER_LENGTH +
    FINGERPRINT_LENGTH;
  const length = attributes.reduce(
    (sum, { value }) => sum + ATTRIBUTE_HEADER_LENGTH + padded(value.length),
    HEADER_LENGTH + tailLength,
  );
  if (length > MAX_LENGTH) throw new BugError(`message of ${length} bytes`);

  const bytes = new Uint8Array(length);
  writeUint16(bytes, 0, messageType(message));
  writeUint16(bytes, 2, length - HEADER_LENGTH);
  bytes.set(mask, 4);
  let offset = HEADER_LENGTH;
  const write = (type: number, value: Uint8Array) => {
    writeUint16(bytes, offset, type);
    writeUint16(bytes, offset + 2, value.length);
    bytes.set(value, offset + ATTRIBUTE_HEADER_LENGTH);
    offset += ATTRIBUTE_HEADER_LENGTH + padded(value.length);
  };
  for (const { type, value } of attributes) write(type, value);
  if (integrityKey !== undefined) {
    write(MESSAGE_INTEGRITY, integrity(bytes, offset, integrityKey, crypto));
  }
  const crc = new Uint8Array(FINGERPRINT_LENGTH);
  writeUint32(crc, 0, fingerprint(bytes.subarray(0, offset)));
  write(FINGERPRINT, crc);
  return bytes;
}

const HEADER_LENGTH = 20;
const ATTRIBUTE_HEADER_LENGTH = 4;
const INTEGRITY_LENGTH = 20;
const FINGERPRINT_LENGTH = 4;
/** What the length field can say. */
const MAX_LENGTH = HEADER_LENGTH + 0xfffc;

/** By the two class bits (§5). */
const CLASSES: readonly StunClass[] = ['request', 'indication', 'success', 'error'];

/** RFC 8489 §18.2, RFC 8656 §17. */
const METHOD_NUMBERS: Readonly<Record<StunMethod, number>> = {
  binding: 0x001,
  allocate: 0x003,
  refresh: 0x004,
  send: 0x006,
  data: 0x007,
  'create-permission': 0x008,
  'channel-bind': 0x009,
};
const METHODS = Object.keys(METHOD_NUMBERS) as readonly StunMethod[];

/** The 12 bits of the method stand around those of the class: M11-M7 C1 M6-M4 C0 M3-M0 (§5). */
function methodNumber(type: number): number {
  return ((type & 0x3e00) >> 2) | ((type & 0x00e0) >> 1) | (type & 0x000f);
}

function messageType(message: StunMessage): number {
  const method = METHOD_NUMBERS[message.method];
  const bits = CLASSES.indexOf(message.class);
  return (
    ((method & 0xf80) << 2) |
    ((method & 0x070) << 1) |
    (method & 0x00f) |
    ((bits & 2) << 7) |
    ((bits & 1) << 4)
  );
}

/** HMAC over all before the attribute at `offset`, with a length that ends behind it (§14.5). */
function integrity(
  bytes: Uint8Array,
  offset: number,
  key: Uint8Array,
  crypto: Pick<Crypto, 'hmacSha1'>,
): Uint8Array {
  const length = new Uint8Array(2);
  const end = offset + ATTRIBUTE_HEADER_LENGTH + INTEGRITY_LENGTH;
  writeUint16(length, 0, end - HEADER_LENGTH);
  return crypto.hmacSha1(key, bytes.subarray(0, 2), length, bytes.subarray(4, offset));
}

function padded(length: number): number {
  return (length + 3) & ~3;
}
