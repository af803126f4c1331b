/** Joins sealed messages into as few sends as possible. */
import {
  CHANNEL_HEADER_SIZE,
  CONTROL_OUT_MESSAGES,
  LARGEST_SEND,
  OUT_MESSAGES,
  MESSAGE_HEADER_SIZE,
  MESSAGE_LENGTH,
  MESSAGE_OFFSET,
  MESSAGE_PEER,
  MESSAGE_SIZE,
  MOST_SEGMENTS,
  OUT_NOTES,
  PATH_CHANNEL,
  PEER_PATH,
  SENDS,
  SEND_LENGTH,
  SEND_OFFSET,
  SEND_PATH,
  SEND_RESULT,
  SEND_SEGMENT,
  SEND_SIZE,
  SEND_TOS,
  TAG_SIZE,
} from '../layout';
import { peerAt } from './peers';

/** The ECN field: all that the outer header takes over from the inner one. */
const ECN: u32 = 3;

/**
 * Makes the send records of all messages in OUT. Neighbours on the same path share a send while all but
 * the last have the same length. The outer header takes the inner ECN field (RFC 6040 §4.1) and nothing
 * else of the type of service. Returns the number of records.
 */
export function train(): i32 {
  const messages = load<i32>(CONTROL_OUT_MESSAGES);
  let send = SENDS - SEND_SIZE;
  let segments = 0;
  let last = 0;
  for (let i = 0; i < messages; i++) {
    const message = OUT_MESSAGES + i * MESSAGE_SIZE;
    const path = peerAt(load<i32>(message, MESSAGE_PEER)) + PEER_PATH;
    const headroom = load<u32>(path, PATH_CHANNEL) == 0 ? 0 : CHANNEL_HEADER_SIZE;
    const start = load<i32>(message, MESSAGE_OFFSET) - headroom;
    const size = headroom + MESSAGE_HEADER_SIZE + load<i32>(message, MESSAGE_LENGTH) + TAG_SIZE;
    const tos = load<u32>(OUT_NOTES + (i << 2)) & ECN;
    if (segments > 0 && segments < MOST_SEGMENTS) {
      const length = load<i32>(send, SEND_LENGTH);
      const first = segments == 1 ? length : load<i32>(send, SEND_SEGMENT);
      if (
        load<i32>(send, SEND_PATH) == path &&
        load<u32>(send, SEND_TOS) == tos &&
        last == first &&
        size <= first &&
        length + size <= LARGEST_SEND
      ) {
        store<u32>(send, length + size, SEND_LENGTH);
        store<u32>(send, first, SEND_SEGMENT);
        segments++;
        last = size;
        continue;
      }
    }
    send += SEND_SIZE;
    store<u32>(send, start, SEND_OFFSET);
    store<u32>(send, size, SEND_LENGTH);
    store<u32>(send, 0, SEND_SEGMENT);
    store<u32>(send, path, SEND_PATH);
    store<u32>(send, tos, SEND_TOS);
    store<u32>(send, 0, SEND_RESULT);
    segments = 1;
    last = size;
  }
  return (send + SEND_SIZE - SENDS) / SEND_SIZE;
}
