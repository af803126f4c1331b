/** The replay window of a session: RFC 6479, with the bounds of the Linux kernel's WireGuard. */
import {
  REJECT_AFTER_MESSAGES_HIGH,
  REJECT_AFTER_MESSAGES_LOW,
  SESSION_RECEIVED,
  SESSION_WINDOW,
  WINDOW_BITS,
  WINDOW_PACKETS,
} from '../layout';

export const REJECT_AFTER_MESSAGES: u64 =
  ((<u64>REJECT_AFTER_MESSAGES_HIGH) << 32) | (<u64>REJECT_AFTER_MESSAGES_LOW);

const WORDS: i32 = WINDOW_BITS / 64;

/**
 * Returns whether the counter is fresh, and remembers it. To be asked after authentication only, since
 * a forged counter would move the window.
 */
export function acceptCounter(session: i32, counter: u64): bool {
  if (counter >= REJECT_AFTER_MESSAGES) return false;
  const received = load<u64>(session, SESSION_RECEIVED);
  counter++;
  if (counter + WINDOW_PACKETS < received) return false;
  if (counter > received) {
    const current = received >> 6;
    const steps = min<u64>((counter >> 6) - current, WORDS);
    for (let i: u64 = 1; i <= steps; i++) {
      store<u64>(word(session, current + i), 0, SESSION_WINDOW);
    }
    store<u64>(session, counter, SESSION_RECEIVED);
  }
  const at = word(session, counter >> 6);
  const bits = load<u64>(at, SESSION_WINDOW);
  const bit: u64 = 1 << (counter & 63);
  store<u64>(at, bits | bit, SESSION_WINDOW);
  return (bits & bit) == 0;
}

function word(session: i32, index: u64): i32 {
  return session + (((<i32>index) & (WORDS - 1)) << 3);
}
