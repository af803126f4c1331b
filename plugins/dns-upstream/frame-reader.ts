/**
 * Cuts a stream into messages at the two bytes of length before each (RFC 1035 §4.2.2). Keeps one message
 * at most, however small the pieces are in which it comes.
 */
export class FrameReader {
  /** Each message is the receiver's. */
  readonly #onMessage: (message: Uint8Array) => void;
  #firstLengthByte: number | undefined;
  #message: Uint8Array | undefined;
  #filled = 0;

  constructor(onMessage: (message: Uint8Array) => void) {
    this.#onMessage = onMessage;
  }

  /** The bytes are borrowed for the call. */
  push(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      if (this.#message === undefined) this.#readLength(bytes[at++] ?? 0);
      else at += this.#fill(this.#message, bytes.subarray(at));
      if (this.#message?.length === this.#filled) this.#finish(this.#message);
    }
  }

  #readLength(byte: number): void {
    if (this.#firstLengthByte === undefined) {
      this.#firstLengthByte = byte;
      return;
    }
    this.#message = new Uint8Array((this.#firstLengthByte << 8) | byte);
    this.#firstLengthByte = undefined;
    this.#filled = 0;
  }

  /** Returns how many bytes were taken. */
  #fill(message: Uint8Array, bytes: Uint8Array): number {
    const taken = bytes.subarray(0, message.length - this.#filled);
    message.set(taken, this.#filled);
    this.#filled += taken.length;
    return taken.length;
  }

  #finish(message: Uint8Array): void {
    this.#message = undefined;
    this.#onMessage(message);
  }
}
