import type { Aead } from '../sansio/crypto.ts';
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
  TAG_SIZE,
} from './layout.ts';

/** Returns a cipher that makes one call of the injected ChaCha20-Poly1305 for each message. */
export function createPortableCipher(
  name: string,
  aead: Aead,
  arena: ArrayBuffer,
): TransportCipher {
  const view = new DataView(arena);
  const nonce = new Uint8Array(12);
  const noData = new Uint8Array(0);

  const u32 = (at: number): number => view.getUint32(at, true);
  const keyOf = (message: number): Uint8Array =>
    new Uint8Array(arena, u32(message + MESSAGE_KEY), KEY_SIZE);
  const payloadOf = (message: number, extra: number): Uint8Array => {
    const payload = u32(message + MESSAGE_OFFSET) + MESSAGE_HEADER_SIZE;
    return new Uint8Array(arena, payload, u32(message + MESSAGE_LENGTH) + extra);
  };
  const setNonce = (message: number): void => {
    const counter = message + MESSAGE_COUNTER_LOW;
    const words = MESSAGE_COUNTER_HIGH - MESSAGE_COUNTER_LOW + 4;
    nonce.set(new Uint8Array(arena, counter, words), nonce.length - words);
  };

  return {
    name,
    seal(first, count) {
      for (let message = first; message < first + count * MESSAGE_SIZE; message += MESSAGE_SIZE) {
        setNonce(message);
        const sealed = aead.seal(keyOf(message), nonce, payloadOf(message, 0), noData);
        payloadOf(message, TAG_SIZE).set(sealed);
      }
    },
    open(first, count) {
      for (let message = first; message < first + count * MESSAGE_SIZE; message += MESSAGE_SIZE) {
        setNonce(message);
        const opened = aead.open(keyOf(message), nonce, payloadOf(message, TAG_SIZE), noData);
        if (opened !== undefined) payloadOf(message, 0).set(opened);
        view.setUint32(message + MESSAGE_AUTHENTIC, opened === undefined ? 0 : 1, true);
      }
    },
  };
}
