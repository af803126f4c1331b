import { frameTrain } from '../stun/stream-framing.ts';
import { SEND_LENGTH, SEND_OFFSET, SEND_PATH, SEND_SEGMENT } from './layout.ts';
import { readPath, streamOfDescriptor } from './path.ts';

/** The bytes of a send record in the form in which its stream carries them. */
export interface StreamTrain {
  readonly stream: number;
  /** Lent until the arena changes. */
  readonly bytes: Uint8Array;
}

/**
 * Reads a send record whose path is a stream; `undefined` for one of a socket. Through a relay the messages
 * have the headers of their channel already, as multiples of 4 they need no padding (RFC 8656 §12.5), and
 * follow each other as they are; between peers each goes in a frame (RFC 4571).
 */
export function streamTrainOf(arena: ArrayBuffer, record: number): StreamTrain | undefined {
  const view = new DataView(arena, record);
  const path = readPath(arena, view.getUint32(SEND_PATH, true));
  const stream = path === undefined ? undefined : streamOfDescriptor(path.fd);
  if (path === undefined || stream === undefined) return undefined;
  const length = view.getUint32(SEND_LENGTH, true);
  const train = new Uint8Array(arena, view.getUint32(SEND_OFFSET, true), length);
  if (path.channel !== undefined) return { stream, bytes: train };
  const segment = view.getUint32(SEND_SEGMENT, true) & 0xffff || length;
  return { stream, bytes: frameTrain(train, segment) };
}
