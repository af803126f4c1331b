import { readUint16, readUint32 } from '../packet/big-endian.ts';
import { MAGIC_COOKIE } from '../stun/attributes.ts';
import { FrameAssembler, type Framing } from '../stun/frame-assembler.ts';
import { CHANNEL_HEADER_LENGTH, isChannelData, paddedLength } from './channel-data.ts';

/**
 * The messages of a TURN server over TCP or TLS: STUN and ChannelData follow each other, each with its own
 * length (RFC 8656 §12.5, RFC 8489 §6.2.2). Anything else breaks the stream. To send, a STUN message
 * goes out as it is, and ChannelData padded.
 */
export class TurnStreamFraming {
  readonly #assembler = new FrameAssembler(TURN);

  get isBroken(): boolean {
    return this.#assembler.isBroken;
  }

  /** Lends the next bytes, until `next` has returned `undefined`, which must come before the next push. */
  push(bytes: Uint8Array): void {
    this.#assembler.push(bytes);
  }

  /** Returns the next STUN message or ChannelData, the latter with its padding; lent until the next push. */
  next(): Uint8Array | undefined {
    return this.#assembler.next();
  }
}

const STUN_HEADER_LENGTH = 20;
const COOKIE_END = 8;

const TURN: Framing = {
  headerLength: COOKIE_END,

  measure(start) {
    if (start.length === 0) return undefined;
    if (isChannelData(start)) {
      if (start.length < CHANNEL_HEADER_LENGTH) return undefined;
      return paddedLength(CHANNEL_HEADER_LENGTH + readUint16(start, 2));
    }
    if ((start[0] ?? 0) >= 0x40) return 0;
    if (start.length < COOKIE_END) return undefined;
    const length = readUint16(start, 2);
    const isStun = length % 4 === 0 && readUint32(start, 4) === MAGIC_COOKIE;
    return isStun ? STUN_HEADER_LENGTH + length : 0;
  },
};
