/**
 * The Internet checksum (RFC 1071). Sums are taken over 16-bit words in machine order: the one's
 * complement sum does not care, as long as the result is stored in machine order too.
 */

/** Returns the sum of the bytes as 16-bit words, an odd last byte padded with zero. */
export function sum(at: i32, length: i32): u64 {
  let total: u64 = 0;
  if (ASC_FEATURE_SIMD) {
    // Each lane grows by at most 2 * 65535 a step: 64 KB cannot overflow it.
    let even = i32x4.splat(0);
    let odd = i32x4.splat(0);
    for (; length >= 32; length -= 32, at += 32) {
      even = i32x4.add(even, i32x4.extadd_pairwise_i16x8_u(v128.load(at)));
      odd = i32x4.add(odd, i32x4.extadd_pairwise_i16x8_u(v128.load(at, 16)));
    }
    total = lanes(i32x4.add(even, odd));
  }
  for (; length >= 8; length -= 8, at += 8) total += <u64>load<u32>(at) + <u64>load<u32>(at, 4);
  return total + tail(at, length);
}

/** Copies the bytes and returns the sum of them. */
export function copySum(to: i32, from: i32, length: i32): u64 {
  let total: u64 = 0;
  if (ASC_FEATURE_SIMD) {
    let even = i32x4.splat(0);
    let odd = i32x4.splat(0);
    for (; length >= 32; length -= 32, from += 32, to += 32) {
      const a = v128.load(from);
      const b = v128.load(from, 16);
      v128.store(to, a);
      v128.store(to, b, 16);
      even = i32x4.add(even, i32x4.extadd_pairwise_i16x8_u(a));
      odd = i32x4.add(odd, i32x4.extadd_pairwise_i16x8_u(b));
    }
    total = lanes(i32x4.add(even, odd));
  }
  for (; length >= 8; length -= 8, from += 8, to += 8) {
    const word = load<u64>(from);
    store<u64>(to, word);
    total += (word & 0xffffffff) + (word >> 32);
  }
  memory.copy(to, from, length);
  return total + tail(to, length);
}

/** Returns the sum of the TCP or UDP pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1). */
export function pseudoSum(packet: i32, family: i32, protocol: i32, length: i32): u64 {
  const addresses = family == 4 ? sum(packet + 12, 8) : sum(packet + 8, 32);
  return addresses + swap(protocol) + swap(length);
}

/** Folds to the 16-bit one's complement sum. */
export function fold(total: u64): u32 {
  total = (total >> 32) + (total & 0xffffffff);
  total = (total >> 16) + (total & 0xffff);
  total = (total >> 16) + (total & 0xffff);
  total = (total >> 16) + (total & 0xffff);
  return <u32>total;
}

/** Returns the checksum field, in machine order, for the sum of everything else. */
export function checksum(total: u64): u32 {
  return ~fold(total) & 0xffff;
}

/** Writes the header checksum of the IPv4 packet. */
export function writeHeaderChecksum(packet: i32, length: i32): void {
  store<u16>(packet, 0, 10);
  store<u16>(packet, checksum(sum(packet, length)), 10);
}

/** Corrects the checksum at `field` for a word that changed from `before` to `after` (RFC 1624). */
export function adjustChecksum(field: i32, before: u32, after: u32): void {
  const total = <u64>(~load<u16>(field) & 0xffff) + <u64>(~before & 0xffff) + <u64>after;
  store<u16>(field, checksum(total));
}

/** Turns a 16-bit number between network and machine order. */
export function swap(value: u32): u32 {
  return ((value & 0xff) << 8) | ((value >> 8) & 0xff);
}

function tail(at: i32, length: i32): u64 {
  let total: u64 = 0;
  if (length & 4) {
    total += load<u32>(at);
    at += 4;
  }
  if (length & 2) {
    total += load<u16>(at);
    at += 2;
  }
  if (length & 1) total += load<u8>(at);
  return total;
}

function lanes(sums: v128): u64 {
  return (
    <u64>(<u32>i32x4.extract_lane(sums, 0)) +
    <u64>(<u32>i32x4.extract_lane(sums, 1)) +
    <u64>(<u32>i32x4.extract_lane(sums, 2)) +
    <u64>(<u32>i32x4.extract_lane(sums, 3))
  );
}
