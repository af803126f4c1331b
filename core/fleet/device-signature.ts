/**
 * The form of everything that a device publishes: JSON in UTF-8, readable with `jq .payload`,
 *
 *     {"payload":<JSON object>,"boot":<n>,"seq":<n>,"signature":"<base64>"}
 *
 * with exactly these members in this order and no space between them. The payload that is signed is the
 * text between `{"payload":` and the last `,"boot":`, byte for byte as it was sent: nothing is serialised
 * again to verify it. The signature is Ed25519 over
 *
 *     DOMAIN ‖ topic length u16 ‖ topic ‖ boot u64 ‖ seq u64 ‖ payload      (big-endian)
 *
 * so that a message cannot be moved to another topic or device, and an older one cannot stand for a
 * newer. `boot` counts the starts of the daemon, `seq` its publications since then.
 */
import { decodeBase64, encodeBase64 } from '../sansio/base64.ts';
import type { Crypto } from '../sansio/crypto.ts';
import { failed, ok, type Outcome } from '../sansio/outcome.ts';
import { decodeUtf8, encodeUtf8 } from '../sansio/utf8.ts';
import { parseJsonText } from './json.ts';

export interface DevicePublication {
  readonly boot: number;
  readonly seq: number;
  /** The payload's JSON object. */
  readonly payload: Readonly<Record<string, unknown>>;
}

export interface PublicationPlace {
  readonly topic: string;
  readonly boot: number;
  readonly seq: number;
}

/** Bytes of a device's publication: the state of as many peers as there may be. */
const MAX_PUBLICATION_BYTES = 524_288;

/** Returns the message; `signingKey` is the 32-byte Ed25519 seed of the device. */
export function signPublication(
  payload: object,
  place: PublicationPlace,
  signingKey: Uint8Array,
  crypto: Crypto,
): Uint8Array {
  const text = JSON.stringify(payload);
  const signature = encodeBase64(crypto.ed25519.sign(signingKey, signedBytes(place, text)));
  const { boot, seq } = place;
  return encodeUtf8(`{"payload":${text},"boot":${boot},"seq":${seq},"signature":"${signature}"}`);
}

/** Reads a message; without a public key it is only read, and may come from anyone. */
export function openPublication(
  topic: string,
  message: Uint8Array,
  publicKey: Uint8Array | undefined,
  crypto: Crypto,
): Outcome<DevicePublication, 'too-large' | 'malformed' | 'bad-signature'> {
  if (message.length > MAX_PUBLICATION_BYTES) return failed('too-large');
  const [, text = '', bootDigits, seqDigits, base64 = ''] =
    FORM.exec(decodeUtf8(message) ?? '') ?? [];
  const [boot, seq] = [Number(bootDigits), Number(seqDigits)];
  const signature = decodeBase64(base64);
  const isCounted = Number.isSafeInteger(boot) && Number.isSafeInteger(seq);
  if (!isCounted || signature?.length !== 64) return failed('malformed');
  if (publicKey !== undefined) {
    const signed = signedBytes({ topic, boot, seq }, text);
    if (!crypto.ed25519.verify(publicKey, signed, signature)) return failed('bad-signature');
  }
  const payload = parseJsonText(text);
  return isObject(payload) ? ok({ boot, seq, payload }) : failed('malformed');
}

const DOMAIN = encodeUtf8('culvert/1 device publication\0');

const FORM =
  /^\{"payload":(\{[^]*\}),"boot":(0|[1-9]\d{0,15}),"seq":(0|[1-9]\d{0,15}),"signature":"([A-Za-z0-9+/]{86}==)"\}$/;

function signedBytes({ topic, boot, seq }: PublicationPlace, payload: string): Uint8Array {
  const topicBytes = encodeUtf8(topic);
  const payloadBytes = encodeUtf8(payload);
  const head = DOMAIN.length + 2 + topicBytes.length;
  const bytes = new Uint8Array(head + 16 + payloadBytes.length);
  const view = new DataView(bytes.buffer);
  bytes.set(DOMAIN);
  view.setUint16(DOMAIN.length, topicBytes.length);
  bytes.set(topicBytes, DOMAIN.length + 2);
  view.setBigUint64(head, BigInt(boot));
  view.setBigUint64(head + 8, BigInt(seq));
  bytes.set(payloadBytes, head + 16);
  return bytes;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
