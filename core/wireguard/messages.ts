import { failed, ok, type Outcome } from '../sansio/outcome.ts';
import {
  COOKIE_LENGTH,
  COOKIE_NONCE_LENGTH,
  COOKIE_REPLY_LENGTH,
  INITIATION_LENGTH,
  KEY_LENGTH,
  MAC_LENGTH,
  RESPONSE_LENGTH,
  SMALLEST_TRANSPORT_LENGTH,
  TAG_LENGTH,
  TIMESTAMP_LENGTH,
} from './constants.ts';

/**
 * The first message of a handshake (whitepaper §5.4.2):
 * { type u8 = 1, zeros[3], sender u32, ephemeral[32], static[32 + 16], timestamp[12 + 16], mac1[16], mac2[16] }.
 *
 * All numbers on the wire are little-endian. Decoded byte fields are views of the datagram.
 */
export interface Initiation {
  readonly type: 'initiation';
  /** The sender's index for the session to be. */
  readonly sender: number;
  readonly ephemeral: Uint8Array;
  readonly sealedStatic: Uint8Array;
  readonly sealedTimestamp: Uint8Array;
}

/**
 * The second message of a handshake (§5.4.3):
 * { type u8 = 2, zeros[3], sender u32, receiver u32, ephemeral[32], empty[0 + 16], mac1[16], mac2[16] }.
 */
export interface Response {
  readonly type: 'response';
  readonly sender: number;
  /** The index from the initiation. */
  readonly receiver: number;
  readonly ephemeral: Uint8Array;
  readonly sealedEmpty: Uint8Array;
}

/** What a responder under load answers (§5.4.7): { type u8 = 3, zeros[3], receiver u32, nonce[24], cookie[16 + 16] }. */
export interface CookieReply {
  readonly type: 'cookie-reply';
  /** The sender index of the message that it answers. */
  readonly receiver: number;
  readonly nonce: Uint8Array;
  readonly sealedCookie: Uint8Array;
}

/** A sealed packet (§5.4.6): { type u8 = 4, zeros[3], receiver u32, counter u64, packet[n + 16] }. */
export interface Transport {
  readonly type: 'transport';
  readonly receiver: number;
}

export type Message = Initiation | Response | CookieReply | Transport;

/** Decodes the outer form of a datagram; nothing in it is authenticated yet. */
export function decodeMessage(datagram: Uint8Array): Outcome<Message, 'malformed'> {
  const { length } = datagram;
  if (length < 8) return failed('malformed');
  const view = viewOf(datagram);
  const typeAndZeros = view.getUint32(0, true);
  const index = view.getUint32(4, true);
  const field = (offset: number, size: number) => datagram.subarray(offset, offset + size);

  if (typeAndZeros === TYPE_INITIATION && length === INITIATION_LENGTH) {
    return ok({
      type: 'initiation',
      sender: index,
      ephemeral: field(INITIATION_EPHEMERAL, KEY_LENGTH),
      sealedStatic: field(INITIATION_STATIC, KEY_LENGTH + TAG_LENGTH),
      sealedTimestamp: field(INITIATION_TIMESTAMP, TIMESTAMP_LENGTH + TAG_LENGTH),
    });
  }
  if (typeAndZeros === TYPE_RESPONSE && length === RESPONSE_LENGTH) {
    return ok({
      type: 'response',
      sender: index,
      receiver: view.getUint32(8, true),
      ephemeral: field(RESPONSE_EPHEMERAL, KEY_LENGTH),
      sealedEmpty: field(RESPONSE_EMPTY, TAG_LENGTH),
    });
  }
  if (typeAndZeros === TYPE_COOKIE_REPLY && length === COOKIE_REPLY_LENGTH) {
    return ok({
      type: 'cookie-reply',
      receiver: index,
      nonce: field(COOKIE_REPLY_NONCE, COOKIE_NONCE_LENGTH),
      sealedCookie: field(COOKIE_REPLY_COOKIE, COOKIE_LENGTH + TAG_LENGTH),
    });
  }
  if (typeAndZeros === TYPE_TRANSPORT && length >= SMALLEST_TRANSPORT_LENGTH) {
    return ok({ type: 'transport', receiver: index });
  }
  return failed('malformed');
}

/** Encodes an initiation with both MACs zero. */
export function encodeInitiation(message: Omit<Initiation, 'type'>): Uint8Array {
  const bytes = new Uint8Array(INITIATION_LENGTH);
  const view = viewOf(bytes);
  view.setUint32(0, TYPE_INITIATION, true);
  view.setUint32(4, message.sender, true);
  bytes.set(message.ephemeral, INITIATION_EPHEMERAL);
  bytes.set(message.sealedStatic, INITIATION_STATIC);
  bytes.set(message.sealedTimestamp, INITIATION_TIMESTAMP);
  return bytes;
}

/** Encodes a response with both MACs zero. */
export function encodeResponse(message: Omit<Response, 'type'>): Uint8Array {
  const bytes = new Uint8Array(RESPONSE_LENGTH);
  const view = viewOf(bytes);
  view.setUint32(0, TYPE_RESPONSE, true);
  view.setUint32(4, message.sender, true);
  view.setUint32(8, message.receiver, true);
  bytes.set(message.ephemeral, RESPONSE_EPHEMERAL);
  bytes.set(message.sealedEmpty, RESPONSE_EMPTY);
  return bytes;
}

export function encodeCookieReply(message: Omit<CookieReply, 'type'>): Uint8Array {
  const bytes = new Uint8Array(COOKIE_REPLY_LENGTH);
  const view = viewOf(bytes);
  view.setUint32(0, TYPE_COOKIE_REPLY, true);
  view.setUint32(4, message.receiver, true);
  bytes.set(message.nonce, COOKIE_REPLY_NONCE);
  bytes.set(message.sealedCookie, COOKIE_REPLY_COOKIE);
  return bytes;
}

/** The two MACs that end an initiation and a response, and what each of them covers (§5.4.4). */
export interface Macs {
  readonly mac1: Uint8Array;
  readonly mac2: Uint8Array;
  readonly beforeMac1: Uint8Array;
  readonly beforeMac2: Uint8Array;
}

/** Returns views of the MACs of an encoded initiation or response. */
export function macsOf(bytes: Uint8Array): Macs {
  const mac1 = bytes.length - 2 * MAC_LENGTH;
  const mac2 = bytes.length - MAC_LENGTH;
  return {
    mac1: bytes.subarray(mac1, mac2),
    mac2: bytes.subarray(mac2),
    beforeMac1: bytes.subarray(0, mac1),
    beforeMac2: bytes.subarray(0, mac2),
  };
}

const TYPE_INITIATION = 1;
const TYPE_RESPONSE = 2;
const TYPE_COOKIE_REPLY = 3;
const TYPE_TRANSPORT = 4;

const INITIATION_EPHEMERAL = 8;
const INITIATION_STATIC = 40;
const INITIATION_TIMESTAMP = 88;
const RESPONSE_EPHEMERAL = 12;
const RESPONSE_EMPTY = 44;
const COOKIE_REPLY_NONCE = 8;
const COOKIE_REPLY_COOKIE = 32;

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
