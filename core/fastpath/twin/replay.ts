import {
  REJECT_AFTER_MESSAGES_HIGH,
  REJECT_AFTER_MESSAGES_LOW,
  SESSION_RECEIVED,
  SESSION_WINDOW,
  WINDOW_BITS,
  WINDOW_PACKETS,
} from '../layout.ts';
import type { Memory } from './memory.ts';

export const REJECT_AFTER_MESSAGES: bigint =
  (BigInt(REJECT_AFTER_MESSAGES_HIGH) << 32n) | BigInt(REJECT_AFTER_MESSAGES_LOW);

/**
 * Returns whether the counter is fresh, and remembers it: RFC 6479, with the bounds of the Linux
 * kernel's WireGuard. To be asked after authentication only, since a forged counter would move the window.
 */
export function acceptCounter(memory: Memory, session: number, counter: bigint): boolean {
  if (counter >= REJECT_AFTER_MESSAGES) return false;
  const received = memory.u64(session + SESSION_RECEIVED);
  const next = counter + 1n;
  if (next + BigInt(WINDOW_PACKETS) < received) return false;
  if (next > received) {
    const words = Math.min(Number(next / 64n - received / 64n), WINDOW_BITS / 64);
    for (let i = 1; i <= words; i++) memory.setU64(word(session, received / 64n + BigInt(i)), 0n);
    memory.setU64(session + SESSION_RECEIVED, next);
  }
  const at = word(session, next / 64n);
  const bit = 1n << (next % 64n);
  const bits = memory.u64(at);
  memory.setU64(at, bits | bit);
  return (bits & bit) === 0n;
}

function word(session: number, index: bigint): number {
  return session + SESSION_WINDOW + Number(index % BigInt(WINDOW_BITS / 64)) * 8;
}
