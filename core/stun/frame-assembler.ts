import { BugError } from '../sansio/outcome.ts';

/** How frames of one protocol lie in a stream. */
export interface Framing {
  /** The most bytes that `measure` looks at. */
  readonly headerLength: number;
  /**
   * Returns the length of the frame that starts with these bytes, at least one; `undefined` when they are
   * too few to tell, and 0 when no frame starts like that.
   */
  measure(start: Uint8Array): number | undefined;
}

/**
 * Cuts a stream into frames. Those that lie whole within a chunk are returned as subarrays of it; one
 * that spans chunks is gathered in memory of its own length, so no more than one frame is ever held.
 *
 * Where the bytes cannot be the start of a frame the stream is broken: nothing tells where the next
 * frame would begin.
 */
export class FrameAssembler {
  readonly #framing: Framing;
  #chunk: Uint8Array = NOTHING;
  /** A frame that began in an earlier chunk: as long as the whole once its length is known. */
  #partial: Uint8Array = NOTHING;
  #partialLength = 0;
  #isBroken = false;

  constructor(framing: Framing) {
    this.#framing = framing;
  }

  get isBroken(): boolean {
    return this.#isBroken;
  }

  /** Lends the next bytes, until `next` has returned `undefined`, which must come before the next push. */
  push(bytes: Uint8Array): void {
    if (this.#chunk.length > 0) throw new BugError('pushed before all frames were taken');
    if (!this.#isBroken) this.#chunk = bytes;
  }

  /** Returns the next frame, lent until the next push. */
  next(): Uint8Array | undefined {
    if (this.#partialLength > 0) return this.#completePartial();
    const length = this.#framing.measure(this.#chunk);
    if (length === 0) return this.#break();
    if (length !== undefined && length <= this.#chunk.length) return this.#take(length);
    if (this.#chunk.length > 0) {
      this.#partial = new Uint8Array(length ?? this.#framing.headerLength);
      this.#move(this.#chunk.length);
    }
    return undefined;
  }

  #completePartial(): Uint8Array | undefined {
    // The header may come byte by byte, and how much of it is needed only the protocol knows.
    for (;;) {
      const length = this.#framing.measure(this.#partial.subarray(0, this.#partialLength));
      if (length === 0) return this.#break();
      if (length !== undefined && this.#partial.length !== length) this.#resize(length);
      if (length === this.#partialLength) break;
      if (this.#chunk.length === 0) return undefined;
      this.#move(length === undefined ? 1 : length - this.#partialLength);
    }
    const frame = this.#partial;
    this.#partial = NOTHING;
    this.#partialLength = 0;
    return frame;
  }

  #resize(length: number): void {
    const gathered = this.#partial.subarray(0, this.#partialLength);
    this.#partial = new Uint8Array(length);
    this.#partial.set(gathered);
  }

  /** Moves up to `count` bytes from the chunk to the partial frame. */
  #move(count: number): void {
    const moved = this.#take(Math.min(count, this.#chunk.length));
    this.#partial.set(moved, this.#partialLength);
    this.#partialLength += moved.length;
  }

  #take(length: number): Uint8Array {
    const taken = this.#chunk.subarray(0, length);
    this.#chunk = length === this.#chunk.length ? NOTHING : this.#chunk.subarray(length);
    return taken;
  }

  #break(): undefined {
    this.#isBroken = true;
    this.#chunk = this.#partial = NOTHING;
    this.#partialLength = 0;
  }
}

const NOTHING = new Uint8Array(0);
