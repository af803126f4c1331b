/** Inbound, before opening: finds the transport messages in the datagrams received. */
import {
  CHANNEL_HEADER_SIZE,
  CONTROL_BATCH,
  CONTROL_GROUPS,
  CONTROL_IN_MESSAGES,
  CONTROL_OTHERS,
  CONTROL_PIECES,
  DATAGRAMS,
  DATAGRAM_LENGTH,
  DATAGRAM_OFFSET,
  DATAGRAM_SEGMENT,
  DATAGRAM_SIZE,
  DROP_ARENA_FULL,
  DROP_UNKNOWN_SESSION,
  IN_MESSAGES,
  MESSAGE_AUTHENTIC,
  MESSAGE_COUNTER_LOW,
  MESSAGE_HEADER_SIZE,
  MESSAGE_KEY,
  MESSAGE_LENGTH,
  MESSAGE_OFFSET,
  MESSAGE_PEER,
  MESSAGE_SESSION,
  MESSAGE_SIZE,
  MOST_MESSAGES,
  MOST_OTHERS,
  MOST_PEERS,
  IN_NOTES,
  OTHERS,
  OTHER_DATAGRAM,
  OTHER_SIZE,
  SESSIONS,
  SESSIONS_PER_PEER,
  SESSION_INSTALLED,
  SESSION_LOCAL_INDEX,
  SESSION_RECEIVE_KEY,
  SESSION_SIZE,
  TAG_SIZE,
} from '../layout';
import { swap } from './checksum';
import { countDrop, peerAt } from './peers';

const TRANSPORT_MESSAGE: u32 = 4;

/** Makes the message records of `count` datagram records; the rest is listed for JavaScript. Returns the number of messages. */
export function gather(count: i32): i32 {
  store<u32>(CONTROL_BATCH, load<u32>(CONTROL_BATCH) + 1);
  store<u32>(CONTROL_IN_MESSAGES, 0);
  store<u32>(CONTROL_OTHERS, 0);
  store<u32>(CONTROL_GROUPS, 0);
  store<u32>(CONTROL_PIECES, 0);
  for (let i = 0; i < count; i++) {
    const datagram = DATAGRAMS + i * DATAGRAM_SIZE;
    const length = load<i32>(datagram, DATAGRAM_LENGTH);
    const segment = load<i32>(datagram, DATAGRAM_SEGMENT);
    const start = load<i32>(datagram, DATAGRAM_OFFSET);
    const step = segment > 0 ? segment : length;
    for (let done = 0; done < length; done += step) {
      gatherOne(start + done, min<i32>(step, length - done), i);
    }
  }
  return load<i32>(CONTROL_IN_MESSAGES);
}

/** Returns the installed session with this local index, or 0. */
export function sessionAt(localIndex: u32): i32 {
  const peer = localIndex >> 8;
  if (peer >= <u32>MOST_PEERS) return 0;
  const slot: i32 = localIndex & (SESSIONS_PER_PEER - 1);
  const session = SESSIONS + (peer * SESSIONS_PER_PEER + slot) * SESSION_SIZE;
  const isIt =
    load<u32>(session, SESSION_INSTALLED) != 0 &&
    load<u32>(session, SESSION_LOCAL_INDEX) == localIndex;
  return isIt ? session : 0;
}

function gatherOne(start: i32, size: i32, datagram: i32): void {
  let at = start;
  let length = size;
  let channel: u32 = 0;
  // Channel data (RFC 8656 §12.4): only what a transport message does not start with, 0x4000 to 0x4fff.
  if (length > CHANNEL_HEADER_SIZE && load<u8>(at) >> 4 == 4) {
    const inner: i32 = swap(load<u16>(at, 2));
    if (CHANNEL_HEADER_SIZE + inner <= length) {
      channel = swap(load<u16>(at));
      at += CHANNEL_HEADER_SIZE;
      length = inner;
    }
  }
  if (length < MESSAGE_HEADER_SIZE + TAG_SIZE || load<u32>(at) != TRANSPORT_MESSAGE) {
    listOther(start, size, datagram);
    return;
  }
  const session = sessionAt(load<u32>(at, 4));
  if (session == 0) {
    countDrop(DROP_UNKNOWN_SESSION);
    return;
  }
  const index = load<i32>(CONTROL_IN_MESSAGES);
  if (index == MOST_MESSAGES) {
    countDrop(DROP_ARENA_FULL);
    return;
  }
  const localIndex = load<u32>(session, SESSION_LOCAL_INDEX);
  const message = IN_MESSAGES + index * MESSAGE_SIZE;
  store<u32>(message, at, MESSAGE_OFFSET);
  store<u32>(message, length - MESSAGE_HEADER_SIZE - TAG_SIZE, MESSAGE_LENGTH);
  store<u64>(message, load<u64>(at, 8), MESSAGE_COUNTER_LOW);
  store<u32>(message, session + SESSION_RECEIVE_KEY, MESSAGE_KEY);
  store<u32>(message, 0, MESSAGE_AUTHENTIC);
  store<u32>(message, localIndex >> 8, MESSAGE_PEER);
  store<u32>(message, localIndex, MESSAGE_SESSION);
  store<u32>(IN_NOTES + (index << 2), datagram | (channel << 16));
  store<u32>(CONTROL_IN_MESSAGES, index + 1);
}

function listOther(at: i32, length: i32, datagram: i32): void {
  const index = load<i32>(CONTROL_OTHERS);
  if (index == MOST_OTHERS) {
    countDrop(DROP_ARENA_FULL);
    return;
  }
  const other = OTHERS + index * OTHER_SIZE;
  store<u32>(other, at);
  store<u32>(other, length, 4);
  store<u32>(other, DATAGRAMS + datagram * DATAGRAM_SIZE, OTHER_DATAGRAM);
  store<u32>(CONTROL_OTHERS, index + 1);
}
