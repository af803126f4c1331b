/** The source of randomness: the kernel's in production, seeded in tests. */
export interface Random {
  /** Overwrites all of `out` with random bytes. */
  fill(out: Uint8Array): void;
}

/** Returns `length` fresh random bytes. */
export function randomBytes(random: Random, length: number): Uint8Array {
  const out = new Uint8Array(length);
  random.fill(out);
  return out;
}

/** Returns a uniformly distributed number in [0, 1) with 32 bits of resolution. */
export function randomFraction(random: Random): number {
  const word = randomBytes(random, 4);
  return new DataView(word.buffer).getUint32(0) / 2 ** 32;
}
