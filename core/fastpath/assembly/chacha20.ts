/** ChaCha20 (RFC 8439 §2.3): four blocks at a time with SIMD, one at a time without. */
import { MESSAGE_COUNTER_HIGH, MESSAGE_COUNTER_LOW, MESSAGE_KEY } from '../layout';
import { BIT_128, BITS_32, BITS_34, H, R } from './poly1305';

const SIGMA0: i32 = 0x61707865;
const SIGMA1: i32 = 0x3320646e;
const SIGMA2: i32 = 0x79622d32;
const SIGMA3: i32 = 0x6b206574;

/** What becomes of the key stream: it is stored, or the bytes that lie there are XORed with it. */
export const STORE: bool = false;
export const XOR: bool = true;

/** How many Poly1305 blocks `fourBlocks` can take in. */
export const MOST_BLOCKS: usize = 20;

/**
 * Makes the 256 bytes of key stream of a message that begin with block `counter`, at `to`, and meanwhile
 * takes [from, end), an even number of blocks, into the Poly1305 state.
 *
 * ChaCha20 keeps the vector units busy and Poly1305 the integer units: side by side, two blocks in each
 * of ten double rounds, Poly1305 costs a quarter of what it costs alone. This is why the loop of `absorb`
 * stands here again, and twice: as a call, or as a loop in the loop, it would lose most of that.
 */
export function fourBlocks(
  message: usize,
  counter: i32,
  to: usize,
  xor: bool,
  from: usize,
  end: usize,
): void {
  const key = load<usize>(message, MESSAGE_KEY);
  const nonceLow = v128.load32_splat(message, MESSAGE_COUNTER_LOW);
  const nonceHigh = v128.load32_splat(message, MESSAGE_COUNTER_HIGH);
  // x0 holds the first word of all four blocks, and so on.
  const counters = i32x4.add(i32x4.splat(counter), i32x4(0, 1, 2, 3));
  let x0 = i32x4.splat(SIGMA0);
  let x1 = i32x4.splat(SIGMA1);
  let x2 = i32x4.splat(SIGMA2);
  let x3 = i32x4.splat(SIGMA3);
  let x4 = v128.load32_splat(key);
  let x5 = v128.load32_splat(key, 4);
  let x6 = v128.load32_splat(key, 8);
  let x7 = v128.load32_splat(key, 12);
  let x8 = v128.load32_splat(key, 16);
  let x9 = v128.load32_splat(key, 20);
  let x10 = v128.load32_splat(key, 24);
  let x11 = v128.load32_splat(key, 28);
  let x12 = counters;
  let x13 = i32x4.splat(0);
  let x14 = nonceLow;
  let x15 = nonceHigh;

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

  for (let i = 0; i < 10; i++) {
    if (from < end) {
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

      h0 += load<u32>(from, 16);
      h1 += load<u32>(from, 20);
      h2 += load<u32>(from, 24);
      h3 += load<u32>(from, 28) + BIT_128;
      const e0 = h0 * r0 + h1 * s3 + h2 * s2 + h3 * s1;
      const e1 = h0 * r1 + h1 * r0 + h2 * s3 + h3 * s2 + (e0 >> 32);
      const e2 = h0 * r2 + h1 * r1 + h2 * r0 + h3 * s3 + (e1 >> 32);
      const e3 = h0 * r3 + h1 * r2 + h2 * r1 + h3 * r0 + (e2 >> 32);
      h0 = (e0 & BITS_32) + (e3 >> 34) * 5;
      h1 = e1 & BITS_32;
      h2 = e2 & BITS_32;
      h3 = e3 & BITS_34;
      from += 32;
    }

    x0 = i32x4.add(x0, x4);
    x1 = i32x4.add(x1, x5);
    x12 = rotate16(v128.xor(x12, x0));
    x13 = rotate16(v128.xor(x13, x1));
    x8 = i32x4.add(x8, x12);
    x9 = i32x4.add(x9, x13);
    x4 = rotate(v128.xor(x4, x8), 12);
    x5 = rotate(v128.xor(x5, x9), 12);
    x0 = i32x4.add(x0, x4);
    x1 = i32x4.add(x1, x5);
    x12 = rotate8(v128.xor(x12, x0));
    x13 = rotate8(v128.xor(x13, x1));
    x8 = i32x4.add(x8, x12);
    x9 = i32x4.add(x9, x13);
    x4 = rotate(v128.xor(x4, x8), 7);
    x5 = rotate(v128.xor(x5, x9), 7);

    x2 = i32x4.add(x2, x6);
    x3 = i32x4.add(x3, x7);
    x14 = rotate16(v128.xor(x14, x2));
    x15 = rotate16(v128.xor(x15, x3));
    x10 = i32x4.add(x10, x14);
    x11 = i32x4.add(x11, x15);
    x6 = rotate(v128.xor(x6, x10), 12);
    x7 = rotate(v128.xor(x7, x11), 12);
    x2 = i32x4.add(x2, x6);
    x3 = i32x4.add(x3, x7);
    x14 = rotate8(v128.xor(x14, x2));
    x15 = rotate8(v128.xor(x15, x3));
    x10 = i32x4.add(x10, x14);
    x11 = i32x4.add(x11, x15);
    x6 = rotate(v128.xor(x6, x10), 7);
    x7 = rotate(v128.xor(x7, x11), 7);

    x0 = i32x4.add(x0, x5);
    x1 = i32x4.add(x1, x6);
    x15 = rotate16(v128.xor(x15, x0));
    x12 = rotate16(v128.xor(x12, x1));
    x10 = i32x4.add(x10, x15);
    x11 = i32x4.add(x11, x12);
    x5 = rotate(v128.xor(x5, x10), 12);
    x6 = rotate(v128.xor(x6, x11), 12);
    x0 = i32x4.add(x0, x5);
    x1 = i32x4.add(x1, x6);
    x15 = rotate8(v128.xor(x15, x0));
    x12 = rotate8(v128.xor(x12, x1));
    x10 = i32x4.add(x10, x15);
    x11 = i32x4.add(x11, x12);
    x5 = rotate(v128.xor(x5, x10), 7);
    x6 = rotate(v128.xor(x6, x11), 7);

    x2 = i32x4.add(x2, x7);
    x3 = i32x4.add(x3, x4);
    x13 = rotate16(v128.xor(x13, x2));
    x14 = rotate16(v128.xor(x14, x3));
    x8 = i32x4.add(x8, x13);
    x9 = i32x4.add(x9, x14);
    x7 = rotate(v128.xor(x7, x8), 12);
    x4 = rotate(v128.xor(x4, x9), 12);
    x2 = i32x4.add(x2, x7);
    x3 = i32x4.add(x3, x4);
    x13 = rotate8(v128.xor(x13, x2));
    x14 = rotate8(v128.xor(x14, x3));
    x8 = i32x4.add(x8, x13);
    x9 = i32x4.add(x9, x14);
    x7 = rotate(v128.xor(x7, x8), 7);
    x4 = rotate(v128.xor(x4, x9), 7);
  }

  store<u64>(H, h0);
  store<u64>(H, h1, 8);
  store<u64>(H, h2, 16);
  store<u64>(H, h3, 24);

  x0 = i32x4.add(x0, i32x4.splat(SIGMA0));
  x1 = i32x4.add(x1, i32x4.splat(SIGMA1));
  x2 = i32x4.add(x2, i32x4.splat(SIGMA2));
  x3 = i32x4.add(x3, i32x4.splat(SIGMA3));
  putRow(to, xor, x0, x1, x2, x3);
  x4 = i32x4.add(x4, v128.load32_splat(key));
  x5 = i32x4.add(x5, v128.load32_splat(key, 4));
  x6 = i32x4.add(x6, v128.load32_splat(key, 8));
  x7 = i32x4.add(x7, v128.load32_splat(key, 12));
  putRow(to + 16, xor, x4, x5, x6, x7);
  x8 = i32x4.add(x8, v128.load32_splat(key, 16));
  x9 = i32x4.add(x9, v128.load32_splat(key, 20));
  x10 = i32x4.add(x10, v128.load32_splat(key, 24));
  x11 = i32x4.add(x11, v128.load32_splat(key, 28));
  putRow(to + 32, xor, x8, x9, x10, x11);
  x12 = i32x4.add(x12, counters);
  x14 = i32x4.add(x14, nonceLow);
  x15 = i32x4.add(x15, nonceHigh);
  putRow(to + 48, xor, x12, x13, x14, x15);
}

function rotate(x: v128, bits: i32): v128 {
  return v128.or(i32x4.shl(x, bits), i32x4.shr_u(x, 32 - bits));
}

function rotate16(x: v128): v128 {
  return v128.shuffle<u8>(x, x, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
}

function rotate8(x: v128): v128 {
  return i8x16.swizzle(x, i8x16(3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14));
}

/** Puts the same four words of all four blocks where they belong, 64 bytes apart. */
function putRow(to: usize, xor: bool, a: v128, b: v128, c: v128, d: v128): void {
  const ab = v128.shuffle<u32>(a, b, 0, 4, 1, 5);
  const cd = v128.shuffle<u32>(c, d, 0, 4, 1, 5);
  const abHigh = v128.shuffle<u32>(a, b, 2, 6, 3, 7);
  const cdHigh = v128.shuffle<u32>(c, d, 2, 6, 3, 7);
  let row0 = v128.shuffle<u64>(ab, cd, 0, 2);
  let row1 = v128.shuffle<u64>(ab, cd, 1, 3);
  let row2 = v128.shuffle<u64>(abHigh, cdHigh, 0, 2);
  let row3 = v128.shuffle<u64>(abHigh, cdHigh, 1, 3);
  if (xor) {
    row0 = v128.xor(row0, v128.load(to));
    row1 = v128.xor(row1, v128.load(to, 64));
    row2 = v128.xor(row2, v128.load(to, 128));
    row3 = v128.xor(row3, v128.load(to, 192));
  }
  v128.store(to, row0);
  v128.store(to, row1, 64);
  v128.store(to, row2, 128);
  v128.store(to, row3, 192);
}

/** Stores the 64 bytes of key stream of a message's block `counter` at `to`. */
export function oneBlock(message: usize, counter: i32, to: usize): void {
  const key = load<usize>(message, MESSAGE_KEY);
  const nonceLow = load<i32>(message, MESSAGE_COUNTER_LOW);
  const nonceHigh = load<i32>(message, MESSAGE_COUNTER_HIGH);
  let x0 = SIGMA0;
  let x1 = SIGMA1;
  let x2 = SIGMA2;
  let x3 = SIGMA3;
  let x4 = load<i32>(key);
  let x5 = load<i32>(key, 4);
  let x6 = load<i32>(key, 8);
  let x7 = load<i32>(key, 12);
  let x8 = load<i32>(key, 16);
  let x9 = load<i32>(key, 20);
  let x10 = load<i32>(key, 24);
  let x11 = load<i32>(key, 28);
  let x12 = counter;
  let x13 = 0;
  let x14 = nonceLow;
  let x15 = nonceHigh;

  for (let i = 0; i < 10; i++) {
    x0 = x0 + x4;
    x12 = rotl(x12 ^ x0, 16);
    x8 = x8 + x12;
    x4 = rotl(x4 ^ x8, 12);
    x0 = x0 + x4;
    x12 = rotl(x12 ^ x0, 8);
    x8 = x8 + x12;
    x4 = rotl(x4 ^ x8, 7);

    x1 = x1 + x5;
    x13 = rotl(x13 ^ x1, 16);
    x9 = x9 + x13;
    x5 = rotl(x5 ^ x9, 12);
    x1 = x1 + x5;
    x13 = rotl(x13 ^ x1, 8);
    x9 = x9 + x13;
    x5 = rotl(x5 ^ x9, 7);

    x2 = x2 + x6;
    x14 = rotl(x14 ^ x2, 16);
    x10 = x10 + x14;
    x6 = rotl(x6 ^ x10, 12);
    x2 = x2 + x6;
    x14 = rotl(x14 ^ x2, 8);
    x10 = x10 + x14;
    x6 = rotl(x6 ^ x10, 7);

    x3 = x3 + x7;
    x15 = rotl(x15 ^ x3, 16);
    x11 = x11 + x15;
    x7 = rotl(x7 ^ x11, 12);
    x3 = x3 + x7;
    x15 = rotl(x15 ^ x3, 8);
    x11 = x11 + x15;
    x7 = rotl(x7 ^ x11, 7);

    x0 = x0 + x5;
    x15 = rotl(x15 ^ x0, 16);
    x10 = x10 + x15;
    x5 = rotl(x5 ^ x10, 12);
    x0 = x0 + x5;
    x15 = rotl(x15 ^ x0, 8);
    x10 = x10 + x15;
    x5 = rotl(x5 ^ x10, 7);

    x1 = x1 + x6;
    x12 = rotl(x12 ^ x1, 16);
    x11 = x11 + x12;
    x6 = rotl(x6 ^ x11, 12);
    x1 = x1 + x6;
    x12 = rotl(x12 ^ x1, 8);
    x11 = x11 + x12;
    x6 = rotl(x6 ^ x11, 7);

    x2 = x2 + x7;
    x13 = rotl(x13 ^ x2, 16);
    x8 = x8 + x13;
    x7 = rotl(x7 ^ x8, 12);
    x2 = x2 + x7;
    x13 = rotl(x13 ^ x2, 8);
    x8 = x8 + x13;
    x7 = rotl(x7 ^ x8, 7);

    x3 = x3 + x4;
    x14 = rotl(x14 ^ x3, 16);
    x9 = x9 + x14;
    x4 = rotl(x4 ^ x9, 12);
    x3 = x3 + x4;
    x14 = rotl(x14 ^ x3, 8);
    x9 = x9 + x14;
    x4 = rotl(x4 ^ x9, 7);
  }

  store<i32>(to, x0 + SIGMA0);
  store<i32>(to, x1 + SIGMA1, 4);
  store<i32>(to, x2 + SIGMA2, 8);
  store<i32>(to, x3 + SIGMA3, 12);
  store<i32>(to, x4 + load<i32>(key), 16);
  store<i32>(to, x5 + load<i32>(key, 4), 20);
  store<i32>(to, x6 + load<i32>(key, 8), 24);
  store<i32>(to, x7 + load<i32>(key, 12), 28);
  store<i32>(to, x8 + load<i32>(key, 16), 32);
  store<i32>(to, x9 + load<i32>(key, 20), 36);
  store<i32>(to, x10 + load<i32>(key, 24), 40);
  store<i32>(to, x11 + load<i32>(key, 28), 44);
  store<i32>(to, x12 + counter, 48);
  store<i32>(to, x13, 52);
  store<i32>(to, x14 + nonceLow, 56);
  store<i32>(to, x15 + nonceHigh, 60);
}
