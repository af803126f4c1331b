import { equalInConstantTime } from '../sansio/crypto.ts';
import { decodeHex } from '../sansio/hex.ts';
import { encodeUtf8 } from '../sansio/utf8.ts';
import type { TransportCipher } from './cipher.ts';
import {
  KEY_SIZE,
  MESSAGE_AUTHENTIC,
  MESSAGE_COUNTER_HIGH,
  MESSAGE_COUNTER_LOW,
  MESSAGE_HEADER_SIZE,
  MESSAGE_KEY,
  MESSAGE_LENGTH,
  MESSAGE_OFFSET,
  MESSAGE_SIZE,
  OUT,
  TAG_SIZE,
} from './layout.ts';

/**
 * Lets a cipher seal and open a message of which the result is known, and open a forged one. Returns
 * what it does wrong: a sentence but for the subject. Overwrites what lies at OUT.
 */
export function failedKnownAnswer(cipher: TransportCipher, arena: ArrayBuffer): string | undefined {
  try {
    return failure(cipher, arena);
  } catch (error) {
    return `fails: ${String(error)}`; // one that the machine has, but without this algorithm
  }
}

function failure(cipher: TransportCipher, arena: ArrayBuffer): string | undefined {
  const payload = new Uint8Array(arena, PAYLOAD, SUNSCREEN.length + TAG_SIZE);
  const record = new DataView(arena, RECORD, MESSAGE_SIZE);
  new Uint8Array(arena, KEY, KEY_SIZE).set(SUNSCREEN_KEY);
  payload.set(SUNSCREEN);
  record.setUint32(MESSAGE_OFFSET, PAYLOAD - MESSAGE_HEADER_SIZE, true);
  record.setUint32(MESSAGE_LENGTH, SUNSCREEN.length, true);
  record.setUint32(MESSAGE_COUNTER_LOW, SUNSCREEN_COUNTER, true);
  record.setUint32(MESSAGE_COUNTER_HIGH, 0, true);
  record.setUint32(MESSAGE_KEY, KEY, true);
  record.setUint32(MESSAGE_AUTHENTIC, 0, true);
  const isAuthentic = (): boolean => record.getUint32(MESSAGE_AUTHENTIC, true) === 1;

  cipher.seal(RECORD, 1);
  if (!equalInConstantTime(payload, SUNSCREEN_SEALED)) return 'seals a known message wrongly';
  cipher.open(RECORD, 1);
  const opened = payload.subarray(0, SUNSCREEN.length);
  if (!isAuthentic() || !equalInConstantTime(opened, SUNSCREEN)) {
    return 'does not open a known message';
  }
  payload.set(SUNSCREEN_SEALED);
  payload[0] = (SUNSCREEN_SEALED[0] ?? 0) ^ 1;
  cipher.open(RECORD, 1);
  return isAuthentic() ? 'opens a forged message' : undefined;
}

const RECORD = OUT;
const KEY = RECORD + MESSAGE_SIZE;
const PAYLOAD = KEY + KEY_SIZE + MESSAGE_HEADER_SIZE;

/**
 * The example of RFC 8439 §2.4.2, whose nonce begins with 32 zero bits as ours do. The specification
 * has no tag for it: that is what OpenSSL and noble-ciphers agree on.
 */
const SUNSCREEN_KEY = Uint8Array.from({ length: KEY_SIZE }, (_, i) => i);
const SUNSCREEN_COUNTER = 0x4a00_0000;
const SUNSCREEN = encodeUtf8(
  "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.",
);
const SUNSCREEN_SEALED = hex(
  '6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0bf91b65c5524733ab8f593dabcd62b357' +
    '1639d624e65152ab8f530c359f0861d807ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab7793736' +
    '5af90bbf74a35be6b40b8eedf2785e42874d' +
    '81db63fcb189a03121ae0ac72a3f1f36',
);

function hex(text: string): Uint8Array {
  return decodeHex(text) ?? new Uint8Array(0);
}
