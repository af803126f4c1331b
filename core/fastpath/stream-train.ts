import { frameTrain } from '../stun/stream-framing.ts';
import {
  PATH_CHANNEL,
  PATH_FD,
  SEND_LENGTH,
  SEND_OFFSET,
  SEND_PATH,
  SEND_SEGMENT,
  SEND_SIZE,
} from './layout.ts';
import { streamOfDescriptor } from './path.ts';

/**
 * Takes the send records whose path is a stream out of the `count` at `sends`, and gives their bytes to
 * `carry`, lent for the call, in the form in which a stream carries them. Returns how many records are left,
 * in their order.
 *
 * Through a relay the messages have the headers of their channel already; as multiples of 4 bytes they need
 * no padding (RFC 8656 §12.5), and follow each other as they are. Between peers each goes in a frame
 * (RFC 4571).
 */
export function takeStreamTrains(
  arena: ArrayBuffer,
  sends: number,
  count: number,
  carry: (stream: number, bytes: Uint8Array) => void,
): number {
  const view = new DataView(arena);
  const bytes = new Uint8Array(arena);
  let left = 0;
  for (let i = 0; i < count; i++) {
    const record = sends + i * SEND_SIZE;
    const path = view.getUint32(record + SEND_PATH, true);
    const stream = streamOfDescriptor(view.getInt32(path + PATH_FD, true));
    if (stream === undefined) {
      const kept = sends + left++ * SEND_SIZE;
      if (kept !== record) bytes.copyWithin(kept, record, record + SEND_SIZE);
      continue;
    }
    const offset = view.getUint32(record + SEND_OFFSET, true);
    const length = view.getUint32(record + SEND_LENGTH, true);
    const train = bytes.subarray(offset, offset + length);
    const isChannel = view.getUint32(path + PATH_CHANNEL, true) !== 0;
    const segment = view.getUint32(record + SEND_SEGMENT, true) & 0xffff || length;
    carry(stream, isChannel ? train : frameTrain(train, segment));
  }
  return left;
}
