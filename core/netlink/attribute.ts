import { decodeUtf8 } from '../sansio/utf8.ts';
import { aligned, HOST_IS_LITTLE_ENDIAN } from './byte-order.ts';
import { ATTRIBUTE_HEADER, ATTRIBUTE_TYPE_MASK } from './constants.ts';

/**
 * Walks the attributes in a range of bytes: `while (reader.next()) switch (reader.type) { ... }`.
 * It never throws: a value shorter than its type reads as `undefined`, and a header that does not fit
 * ends the walk and sets `malformed`. Nothing is copied.
 */
export class AttributeReader {
  /** Of the attribute that `next` moved to, without flags. */
  type = 0;
  /** The bytes are not attributes from some point on; what was read before stands. */
  malformed = false;
  readonly #bytes: Uint8Array;
  #lazyView: DataView | undefined;
  #start = 0;
  #end = 0;
  #next = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  next(): boolean {
    const at = this.#next;
    const left = this.#bytes.length - at;
    if (left <= 0) return false;
    const length = left < ATTRIBUTE_HEADER ? 0 : this.#headerNumber(at);
    if (length < ATTRIBUTE_HEADER || length > left) {
      this.malformed = true;
      this.#next = this.#bytes.length;
      return false;
    }
    this.type = this.#headerNumber(at + 2) & ATTRIBUTE_TYPE_MASK;
    this.#start = at + ATTRIBUTE_HEADER;
    this.#end = at + length;
    this.#next = at + aligned(length);
    return true;
  }

  /** The value's bytes, borrowed from the message. */
  get value(): Uint8Array {
    return this.#bytes.subarray(this.#start, this.#end);
  }

  u8(): number | undefined {
    return this.#has(1) ? this.#view.getUint8(this.#start) : undefined;
  }

  u16(): number | undefined {
    return this.#has(2) ? this.#view.getUint16(this.#start, HOST_IS_LITTLE_ENDIAN) : undefined;
  }

  u32(): number | undefined {
    return this.#has(4) ? this.#view.getUint32(this.#start, HOST_IS_LITTLE_ENDIAN) : undefined;
  }

  /** Inexact above 2^53, as `be64` is. */
  u64(): number | undefined {
    if (!this.#has(8)) return undefined;
    const first = this.#view.getUint32(this.#start, HOST_IS_LITTLE_ENDIAN);
    const second = this.#view.getUint32(this.#start + 4, HOST_IS_LITTLE_ENDIAN);
    const [high, low] = HOST_IS_LITTLE_ENDIAN ? [second, first] : [first, second];
    return high * 0x1_0000_0000 + low;
  }

  /** An integer in network order. */
  be16(): number | undefined {
    return this.#has(2) ? this.#view.getUint16(this.#start) : undefined;
  }

  be32(): number | undefined {
    return this.#has(4) ? this.#view.getUint32(this.#start) : undefined;
  }

  /** Inexact above 2^53, which no counter of ours reaches. */
  be64(): number | undefined {
    if (!this.#has(8)) return undefined;
    const high = this.#view.getUint32(this.#start);
    return high * 0x1_0000_0000 + this.#view.getUint32(this.#start + 4);
  }

  /** The text up to the first NUL. Names may hold any bytes: what is not UTF-8 reads as Latin-1. */
  text(): string {
    const value = this.value;
    const nul = value.indexOf(0);
    const bytes = nul < 0 ? value : value.subarray(0, nul);
    return decodeUtf8(bytes) ?? Array.from(bytes, (byte) => String.fromCharCode(byte)).join('');
  }

  /** The attributes inside this one. */
  nested(): AttributeReader {
    return new AttributeReader(this.value);
  }

  get #view(): DataView {
    const { buffer, byteOffset, byteLength } = this.#bytes;
    return (this.#lazyView ??= new DataView(buffer, byteOffset, byteLength));
  }

  /** Sixteen bits without a view: there are readers in tens of thousands, for the elements of sets. */
  #headerNumber(at: number): number {
    const first = this.#bytes[at] ?? 0;
    const second = this.#bytes[at + 1] ?? 0;
    return HOST_IS_LITTLE_ENDIAN ? first | (second << 8) : (first << 8) | second;
  }

  #has(length: number): boolean {
    return this.#end - this.#start >= length;
  }
}
