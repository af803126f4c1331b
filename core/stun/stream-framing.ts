import { readUint16, writeUint16 } from '../packet/big-endian.ts';
import { BugError } from '../sansio/outcome.ts';
import { FrameAssembler } from './frame-assembler.ts';

/**
 * Datagrams in a stream as RFC 4571 §2 frames them, which ICE-TCP uses (RFC 6544 §3):
 *
 *     { length u16, datagram[length] }
 *
 * An empty frame carries nothing and is skipped. Any bytes are frames, so nothing but `longest` breaks this
 * stream; what is no datagram of ours is seen by whoever reads it.
 */
export class StreamFraming {
  readonly #assembler = new FrameAssembler({
    headerLength: LENGTH_FIELD,
    measure: (start) => this.#measure(start),
  });
  /** Bytes of the longest datagram that is taken: a longer one breaks the stream. */
  longest = 0xffff;

  get isBroken(): boolean {
    return this.#assembler.isBroken;
  }

  /** Lends the next bytes, until `next` has returned `undefined`, which must come before the next push. */
  push(bytes: Uint8Array): void {
    this.#assembler.push(bytes);
  }

  /** Returns the next datagram, lent until the next push. */
  next(): Uint8Array | undefined {
    for (;;) {
      const frame = this.#assembler.next();
      if (frame === undefined) return undefined;
      if (frame.length > LENGTH_FIELD) return frame.subarray(LENGTH_FIELD);
    }
  }

  #measure(start: Uint8Array): number | undefined {
    if (start.length < LENGTH_FIELD) return undefined;
    const length = readUint16(start, 0);
    return length > this.longest ? 0 : LENGTH_FIELD + length;
  }
}

/** Returns a copy of the datagram, up to 65535 bytes, with its length in front. */
export function frame(payload: Uint8Array): Uint8Array {
  if (payload.length > 0xffff) throw new BugError(`frame of ${payload.length} bytes`);
  const framed = new Uint8Array(LENGTH_FIELD + payload.length);
  writeUint16(framed, 0, payload.length);
  framed.set(payload, LENGTH_FIELD);
  return framed;
}

const LENGTH_FIELD = 2;

/** Returns the datagrams of a train, all of `segment` bytes but the last, each in its frame. */
export function frameTrain(train: Uint8Array, segment: number): Uint8Array {
  const count = Math.ceil(train.length / segment);
  const framed = new Uint8Array(train.length + count * LENGTH_FIELD);
  for (let i = 0; i < count; i++) {
    const datagram = train.subarray(i * segment, (i + 1) * segment);
    const at = i * (segment + LENGTH_FIELD);
    writeUint16(framed, at, datagram.length);
    framed.set(datagram, at + LENGTH_FIELD);
  }
  return framed;
}
