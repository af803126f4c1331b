/**
 * Poly1305 (RFC 8439 §2.5) in four words, each in an u64 so that products and carries fit.
 *
 * h has words of 32, 32, 32 and 34 bits, r (clamped to 28 bits a word) four of 32. A block goes
 * h = (h + m)·r mod 2^130 - 5, where s = 5/4·r stands for the words that reach beyond 2^128: r1..r3 are
 * multiples of 4. Between blocks h0 may exceed its word: with h0 < 2.04·2^32, before the product
 * h0 < 3.04·2^32, h1, h2 < 2·2^32 and h3 < 6·2^32, so every sum is below 15.6·2^60.
 */

/** { h 4 × u64, r 4 × u64, s 2 × u64 } */
const STATE: usize = memory.data(80, 16);
export const H: usize = STATE;
export const R: usize = STATE + 32;
const S: usize = STATE + 64;
/** A block that is not whole in the message, then the tag. */
const BLOCK: usize = memory.data(16, 16);

export const BITS_32: u64 = 0xffff_ffff;
export const BITS_34: u64 = 0x3_ffff_ffff;
/** Ends every block: 2^128, seen from h3. */
export const BIT_128: u64 = 0x1_0000_0000;

/** Starts a message with the 32 bytes of a one-time key. */
export function start(key: usize): void {
  store<u64>(H, 0);
  store<u64>(H, 0, 8);
  store<u64>(H, 0, 16);
  store<u64>(H, 0, 24);
  // The clamp of RFC 8439 §2.5.1.
  store<u64>(R, load<u32>(key) & 0x0fff_ffff);
  store<u64>(R, load<u32>(key, 4) & 0x0fff_fffc, 8);
  store<u64>(R, load<u32>(key, 8) & 0x0fff_fffc, 16);
  store<u64>(R, load<u32>(key, 12) & 0x0fff_fffc, 24);
  store<u64>(S, load<u64>(key, 16));
  store<u64>(S, load<u64>(key, 24), 8);
}

/** Takes in the whole blocks in [from, end). */
export function absorb(from: usize, end: usize): void {
  let h0 = load<u64>(H);
  let h1 = load<u64>(H, 8);
  let h2 = load<u64>(H, 16);
  let h3 = load<u64>(H, 24);
  const r0 = load<u64>(R);
  const r1 = load<u64>(R, 8);
  const r2 = load<u64>(R, 16);
  const r3 = load<u64>(R, 24);
  const s1 = r1 + (r1 >> 2);
  const s2 = r2 + (r2 >> 2);
  const s3 = r3 + (r3 >> 2);
  for (; from < end; from += 16) {
    h0 += load<u32>(from);
    h1 += load<u32>(from, 4);
    h2 += load<u32>(from, 8);
    h3 += load<u32>(from, 12) + BIT_128;
    const d0 = h0 * r0 + h1 * s3 + h2 * s2 + h3 * s1;
    const d1 = h0 * r1 + h1 * r0 + h2 * s3 + h3 * s2 + (d0 >> 32);
    const d2 = h0 * r2 + h1 * r1 + h2 * r0 + h3 * s3 + (d1 >> 32);
    const d3 = h0 * r3 + h1 * r2 + h2 * r1 + h3 * r0 + (d2 >> 32);
    h0 = (d0 & BITS_32) + (d3 >> 34) * 5;
    h1 = d1 & BITS_32;
    h2 = d2 & BITS_32;
    h3 = d3 & BITS_34;
  }
  store<u64>(H, h0);
  store<u64>(H, h1, 8);
  store<u64>(H, h2, 16);
  store<u64>(H, h3, 24);
}

/**
 * Takes in what is left in [from, end), less than a block, padded with zeros, and the lengths that close
 * an AEAD message without additional data (RFC 8439 §2.8). The tag is then there to write or compare.
 */
export function finish(from: usize, end: usize, length: usize): void {
  if (from < end) {
    store<u64>(BLOCK, 0);
    store<u64>(BLOCK, 0, 8);
    for (let to = BLOCK; from < end; from++, to++) store<u8>(to, load<u8>(from));
    absorb(BLOCK, BLOCK + 16);
  }
  store<u64>(BLOCK, 0);
  store<u64>(BLOCK, length, 8);
  absorb(BLOCK, BLOCK + 16);
  reduce();
}

export function writeTag(to: usize): void {
  store<u64>(to, load<u64>(BLOCK));
  store<u64>(to, load<u64>(BLOCK, 8), 8);
}

/** Compares without a branch that depends on where the bytes differ. */
export function isTag(at: usize): bool {
  return ((load<u64>(at) ^ load<u64>(BLOCK)) | (load<u64>(at, 8) ^ load<u64>(BLOCK, 8))) == 0;
}

/** Stores (h mod p) + s. */
function reduce(): void {
  let h0 = load<u64>(H);
  let h1 = load<u64>(H, 8) + (h0 >> 32);
  let h2 = load<u64>(H, 16) + (h1 >> 32);
  let h3 = load<u64>(H, 24) + (h2 >> 32);
  h0 = (h0 & BITS_32) + (h3 >> 34) * 5;
  h1 = (h1 & BITS_32) + (h0 >> 32);
  h2 = (h2 & BITS_32) + (h1 >> 32);
  h3 = (h3 & BITS_34) + (h2 >> 32);
  let low = (h0 & BITS_32) | (h1 << 32);
  let high = (h2 & BITS_32) | (h3 << 32);
  // h >= p exactly when h + 5 reaches bit 130.
  const low5 = low + 5;
  const carry = u64(low5 < low);
  const high5 = high + carry;
  const reached: u64 = 0 - (((h3 >> 32) + u64(high5 < carry)) >> 2);
  low = (low & ~reached) | (low5 & reached);
  high = (high & ~reached) | (high5 & reached);
  const s = load<u64>(S);
  low += s;
  high += load<u64>(S, 8) + u64(low < s);
  store<u64>(BLOCK, low);
  store<u64>(BLOCK, high, 8);
}
