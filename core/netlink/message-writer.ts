import { BugError } from '../sansio/outcome.ts';
import { encodeUtf8 } from '../sansio/utf8.ts';
import { aligned, HOST_IS_LITTLE_ENDIAN } from './byte-order.ts';
import {
  ATTRIBUTE_HEADER,
  ATTRIBUTE_NESTED,
  LARGEST_ATTRIBUTE,
  MESSAGE_HEADER,
} from './constants.ts';

/** The most bytes that one writer holds, unless it is told otherwise. */
export const LARGEST_REQUEST: number = 1024 * 1024;

/**
 * Builds netlink messages: `begin`, the family's header with `fixed`, attributes, `end`. Sequence and
 * port stay zero; the socket stamps the sequence. Outgrowing the limit, or an attribute of more than
 * 65,535 bytes, is a bug of the caller, who must split.
 */
export class MessageWriter {
  readonly #limit: number;
  #bytes = new Uint8Array(256);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;
  #message = 0;

  constructor(limit: number = LARGEST_REQUEST) {
    this.#limit = limit;
  }

  begin(type: number, flags: number): this {
    this.#message = this.#length;
    const header = this.fixed(MESSAGE_HEADER);
    header.setUint16(4, type, HOST_IS_LITTLE_ENDIAN);
    header.setUint16(6, flags, HOST_IS_LITTLE_ENDIAN);
    return this;
  }

  end(): this {
    this.#view.setUint32(this.#message, this.#length - this.#message, HOST_IS_LITTLE_ENDIAN);
    return this;
  }

  /** Appends zeros and returns a view of them, to be filled before the next call. */
  fixed(length: number): DataView {
    const at = this.#grow(length);
    return new DataView(this.#bytes.buffer, at, length);
  }

  u8(type: number, value: number): this {
    const at = this.#attribute(type, 1);
    this.#view.setUint8(at, value);
    return this;
  }

  u16(type: number, value: number): this {
    const at = this.#attribute(type, 2);
    this.#view.setUint16(at, value, HOST_IS_LITTLE_ENDIAN);
    return this;
  }

  u32(type: number, value: number): this {
    const at = this.#attribute(type, 4);
    this.#view.setUint32(at, value, HOST_IS_LITTLE_ENDIAN);
    return this;
  }

  /** Appends an integer in network order, as netfilter has them. */
  be16(type: number, value: number): this {
    const at = this.#attribute(type, 2);
    this.#view.setUint16(at, value);
    return this;
  }

  be32(type: number, value: number): this {
    const at = this.#attribute(type, 4);
    this.#view.setUint32(at, value);
    return this;
  }

  /** `value` is an integer below 2^53. */
  be64(type: number, value: number): this {
    const at = this.#attribute(type, 8);
    this.#view.setUint32(at, Math.floor(value / 0x1_0000_0000));
    this.#view.setUint32(at + 4, value % 0x1_0000_0000);
    return this;
  }

  bytes(type: number, value: Uint8Array): this {
    const at = this.#attribute(type, value.length);
    this.#bytes.set(value, at);
    return this;
  }

  /** Appends the text without a NUL, as kinds are written. */
  text(type: number, value: string): this {
    return this.bytes(type, encodeUtf8(value));
  }

  /** Appends the text and a NUL, as names are written. */
  name(type: number, value: string): this {
    return this.text(type, `${value}\0`);
  }

  /** Appends an attribute that holds those written by `content`. */
  nested(type: number, content: () => void): this {
    const start = this.#attribute(type | ATTRIBUTE_NESTED, 0) - ATTRIBUTE_HEADER;
    content();
    this.#setAttributeLength(start, this.#length - start);
    return this;
  }

  /** Returns a copy of what was written and starts over. */
  take(): Uint8Array {
    const taken = this.#bytes.slice(0, this.#length);
    this.#length = 0;
    return taken;
  }

  /** Returns where the value starts. */
  #attribute(type: number, length: number): number {
    const at = this.#grow(ATTRIBUTE_HEADER + length);
    this.#setAttributeLength(at, ATTRIBUTE_HEADER + length);
    this.#view.setUint16(at + 2, type, HOST_IS_LITTLE_ENDIAN);
    return at + ATTRIBUTE_HEADER;
  }

  #setAttributeLength(at: number, length: number): void {
    if (length > LARGEST_ATTRIBUTE) throw new BugError('netlink attribute too large');
    this.#view.setUint16(at, length, HOST_IS_LITTLE_ENDIAN);
  }

  /** Appends zeros up to the next multiple of four; returns where they start. */
  #grow(length: number): number {
    const at = this.#length;
    const end = at + aligned(length);
    if (end > this.#limit) throw new BugError('netlink request too large');
    if (end > this.#bytes.length) {
      const grown = new Uint8Array(Math.min(Math.max(end, this.#bytes.length * 2), this.#limit));
      grown.set(this.#bytes.subarray(0, at));
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    } else {
      this.#bytes.fill(0, at, end);
    }
    this.#length = end;
    return at;
  }
}
