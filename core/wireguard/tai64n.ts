import { TIMESTAMP_LENGTH, INITIATIONS_PER_SECOND } from './constants.ts';

/**
 * TAI64N timestamps (whitepaper §5.1): { 2^62 + 10 + unix seconds u64, nanoseconds u32 }, big-endian, so
 * that later ones are greater as bytes.
 *
 * This makes those for one peer. They are rounded down to a coarse tick, which tells less of our clock,
 * and increase strictly also when the wall clock stands still or steps back.
 */
export class TimestampSource {
  #lastTick = -1;

  /** Returns the timestamp for the wall-clock time, in milliseconds since 1970. */
  next(unixMs: number): Uint8Array {
    const seconds = Math.max(0, Math.floor(unixMs / 1000));
    const nanoseconds = Math.max(0, unixMs - seconds * 1000) * 1e6;
    const tick = seconds * TICKS_PER_SECOND + Math.floor(nanoseconds / TICK);
    this.#lastTick = Math.max(tick, this.#lastTick + 1);
    return encodeTick(this.#lastTick);
  }
}

/** Whether `a` is a later timestamp than `b`. Both have 12 bytes. */
export function isLaterTimestamp(a: Uint8Array, b: Uint8Array): boolean {
  for (let i = 0; i < TIMESTAMP_LENGTH; i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return false;
}

/** In nanoseconds: the power of two below the time between two allowed initiations, as in the kernel. */
const TICK = 2 ** Math.floor(Math.log2(1e9 / INITIATIONS_PER_SECOND));
const TICKS_PER_SECOND = Math.ceil(1e9 / TICK);
/** TAI was 10 s ahead of UTC in 1970; leap seconds since then do not matter here. */
const TAI_OFFSET = 10;
const TAI64_HIGH_WORD = 0x4000_0000;

function encodeTick(tick: number): Uint8Array {
  const bytes = new Uint8Array(TIMESTAMP_LENGTH);
  const view = new DataView(bytes.buffer);
  const seconds = Math.floor(tick / TICKS_PER_SECOND) + TAI_OFFSET;
  view.setUint32(0, TAI64_HIGH_WORD + Math.floor(seconds / 2 ** 32));
  view.setUint32(4, seconds % 2 ** 32);
  view.setUint32(8, (tick % TICKS_PER_SECOND) * TICK);
  return bytes;
}
