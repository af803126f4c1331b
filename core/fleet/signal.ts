/**
 * The form of a signal on the wire: nonce[24] ‖ XChaCha20-Poly1305 of JSON in UTF-8,
 *
 *     {"from":"<name>","to":"<name>","boot":<n>,"seq":<n>,"candidates":["candidate:…"],"deviceKey":"<base64>"}
 *
 * with the topic as additional data, so that a broker can neither read it nor move it to another device.
 */
import { parseName, type Name } from '../config/name.ts';
import { formatCandidate, parseCandidate, type Candidate } from '../ice/candidate.ts';
import { decodeBase64, encodeBase64 } from '../sansio/base64.ts';
import type { Crypto } from '../sansio/crypto.ts';
import { failed, ok, type Outcome } from '../sansio/outcome.ts';
import { randomBytes, type Random } from '../sansio/random.ts';
import { encodeUtf8 } from '../sansio/utf8.ts';
import { parseJson } from './json.ts';

/** How a device can be reached, told to one peer. The newest says all: candidates are the complete list. */
export interface Signal {
  /** Names of the devices in the fleet. */
  readonly from: Name;
  readonly to: Name;
  /** Counts the starts of the sender, and its signals since then. */
  readonly boot: number;
  readonly seq: number;
  readonly candidates: readonly Candidate[];
  /** Ed25519 public key of the sender, 32 bytes: signs the certificate of its stream listener. */
  readonly deviceKey: Uint8Array;
}

/** Bytes of a sealed signal: four times what as many candidates as there may be take. */
export const MAX_SIGNAL_BYTES = 16_384;
export const MAX_SIGNAL_CANDIDATES = 64;

/** Seals a signal. Of too many candidates the first are told. */
export function sealSignal(
  signal: Signal,
  topic: string,
  key: Uint8Array,
  { crypto, random }: { readonly crypto: Crypto; readonly random: Random },
): Uint8Array {
  const { from, to, boot, seq } = signal;
  const candidates = signal.candidates.slice(0, MAX_SIGNAL_CANDIDATES).map(formatCandidate);
  const deviceKey = encodeBase64(signal.deviceKey);
  const json = encodeUtf8(JSON.stringify({ from, to, boot, seq, candidates, deviceKey }));
  const nonce = randomBytes(random, NONCE_BYTES);
  const sealed = crypto.xchacha20poly1305.seal(key, nonce, json, encodeUtf8(topic));
  const bytes = new Uint8Array(NONCE_BYTES + sealed.length);
  bytes.set(nonce);
  bytes.set(sealed, NONCE_BYTES);
  return bytes;
}

/** Opens what a peer sealed; a candidate that does not parse is left out. */
export function openSignal(
  sealed: Uint8Array,
  topic: string,
  key: Uint8Array,
  crypto: Crypto,
): Outcome<Signal, 'not-authentic' | 'malformed'> {
  if (sealed.length > MAX_SIGNAL_BYTES) return failed('malformed');
  if (sealed.length < NONCE_BYTES + TAG_BYTES) return failed('malformed');
  const nonce = sealed.subarray(0, NONCE_BYTES);
  const ciphertext = sealed.subarray(NONCE_BYTES);
  const json = crypto.xchacha20poly1305.open(key, nonce, ciphertext, encodeUtf8(topic));
  if (json === undefined) return failed('not-authentic');
  const signal = readSignal(parseJson(json));
  return signal === undefined ? failed('malformed') : ok(signal);
}

const NONCE_BYTES = 24;
const TAG_BYTES = 16;
const DEVICE_KEY_BYTES = 32;

/** Unknown members are ignored: later versions may say more. */
function readSignal(value: unknown): Signal | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const members = value as Readonly<Record<keyof Signal, unknown>>;
  const from = typeof members.from === 'string' ? parseName(members.from) : undefined;
  const to = typeof members.to === 'string' ? parseName(members.to) : undefined;
  const deviceKey =
    typeof members.deviceKey === 'string' ? decodeBase64(members.deviceKey) : undefined;
  const { boot, seq, candidates: texts } = members;
  if (from === undefined || to === undefined || !isCount(boot) || !isCount(seq)) return undefined;
  if (deviceKey?.length !== DEVICE_KEY_BYTES) return undefined;
  if (!Array.isArray(texts) || texts.length > MAX_SIGNAL_CANDIDATES) return undefined;
  const candidates: Candidate[] = [];
  for (const text of texts as readonly unknown[]) {
    const candidate = typeof text === 'string' ? parseCandidate(text) : undefined;
    if (candidate !== undefined) candidates.push(candidate);
  }
  return { from, to, boot, seq, candidates, deviceKey };
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
