/** The arena as numbers: little-endian in our records, big-endian (`n` for network) in packets. */
export class Memory {
  readonly buffer: ArrayBuffer;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;

  constructor(buffer: ArrayBuffer) {
    this.buffer = buffer;
    this.#bytes = new Uint8Array(buffer);
    this.#view = new DataView(buffer);
  }

  u8(at: number): number {
    return this.#view.getUint8(at);
  }

  setU8(at: number, value: number): void {
    this.#view.setUint8(at, value);
  }

  u16(at: number): number {
    return this.#view.getUint16(at, true);
  }

  setU16(at: number, value: number): void {
    this.#view.setUint16(at, value, true);
  }

  u32(at: number): number {
    return this.#view.getUint32(at, true);
  }

  setU32(at: number, value: number): void {
    this.#view.setUint32(at, value, true);
  }

  u64(at: number): bigint {
    return this.#view.getBigUint64(at, true);
  }

  setU64(at: number, value: bigint): void {
    this.#view.setBigUint64(at, value, true);
  }

  n16(at: number): number {
    return this.#view.getUint16(at);
  }

  setN16(at: number, value: number): void {
    this.#view.setUint16(at, value);
  }

  n32(at: number): number {
    return this.#view.getUint32(at);
  }

  setN32(at: number, value: number): void {
    this.#view.setUint32(at, value);
  }

  /** Adds to a u32. */
  increase(at: number, amount: number): void {
    this.setU32(at, this.u32(at) + amount);
  }

  /** Adds to a u64 counter. */
  add(at: number, amount: number): void {
    this.setU64(at, this.u64(at) + BigInt(amount));
  }

  copy(to: number, from: number, length: number): void {
    this.#bytes.copyWithin(to, from, from + length);
  }

  fill(at: number, value: number, length: number): void {
    this.#bytes.fill(value, at, at + length);
  }

  isEqual(a: number, b: number, length: number): boolean {
    for (let i = 0; i < length; i++) {
      if (this.#bytes[a + i] !== this.#bytes[b + i]) return false;
    }
    return true;
  }

  isZero(at: number, length: number): boolean {
    return this.#bytes.subarray(at, at + length).every((byte) => byte === 0);
  }
}
