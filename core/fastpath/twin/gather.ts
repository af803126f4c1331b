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
  IN_NOTES,
  NOTE_SIZE,
  OTHERS,
  OTHER_DATAGRAM,
  OTHER_SIZE,
  SESSION_LOCAL_INDEX,
  SESSION_RECEIVE_KEY,
  TAG_SIZE,
} from '../layout.ts';
import type { Memory } from './memory.ts';
import { countDrop, sessionAt } from './peers.ts';

const TRANSPORT_MESSAGE = 4;

/** Makes the message records of `count` datagram records; the rest is listed for JavaScript. Returns the number of messages. */
export function gather(memory: Memory, count: number): number {
  memory.increase(CONTROL_BATCH, 1);
  for (const counter of [CONTROL_IN_MESSAGES, CONTROL_OTHERS, CONTROL_GROUPS, CONTROL_PIECES]) {
    memory.setU32(counter, 0);
  }
  for (let i = 0; i < count; i++) {
    const datagram = DATAGRAMS + i * DATAGRAM_SIZE;
    const start = memory.u32(datagram + DATAGRAM_OFFSET);
    const length = memory.u32(datagram + DATAGRAM_LENGTH);
    const step = memory.u32(datagram + DATAGRAM_SEGMENT) || length;
    for (let done = 0; done < length; done += step) {
      gatherOne(memory, start + done, Math.min(step, length - done), i);
    }
  }
  return memory.u32(CONTROL_IN_MESSAGES);
}

function gatherOne(memory: Memory, start: number, size: number, datagram: number): void {
  const { at, length, channel } = unwrapChannelData(memory, start, size);
  if (length < MESSAGE_HEADER_SIZE + TAG_SIZE || memory.u32(at) !== TRANSPORT_MESSAGE) {
    listOther(memory, start, size, datagram);
    return;
  }
  const session = sessionAt(memory, memory.u32(at + 4));
  const index = memory.u32(CONTROL_IN_MESSAGES);
  if (session === undefined || index === MOST_MESSAGES) {
    countDrop(memory, session === undefined ? DROP_UNKNOWN_SESSION : DROP_ARENA_FULL);
    return;
  }
  const localIndex = memory.u32(session + SESSION_LOCAL_INDEX);
  const message = IN_MESSAGES + index * MESSAGE_SIZE;
  memory.setU32(message + MESSAGE_OFFSET, at);
  memory.setU32(message + MESSAGE_LENGTH, length - MESSAGE_HEADER_SIZE - TAG_SIZE);
  memory.setU64(message + MESSAGE_COUNTER_LOW, memory.u64(at + 8));
  memory.setU32(message + MESSAGE_KEY, session + SESSION_RECEIVE_KEY);
  memory.setU32(message + MESSAGE_AUTHENTIC, 0);
  memory.setU32(message + MESSAGE_PEER, localIndex >>> 8);
  memory.setU32(message + MESSAGE_SESSION, localIndex);
  memory.setU32(IN_NOTES + index * NOTE_SIZE, datagram | (channel << 16));
  memory.setU32(CONTROL_IN_MESSAGES, index + 1);
}

/** RFC 8656 §12.4. Channels are 0x4000 to 0x4fff, which no WireGuard message starts with. */
function unwrapChannelData(
  memory: Memory,
  at: number,
  length: number,
): { at: number; length: number; channel: number } {
  if (length > CHANNEL_HEADER_SIZE && memory.u8(at) >> 4 === 4) {
    const inner = memory.n16(at + 2);
    if (CHANNEL_HEADER_SIZE + inner <= length) {
      return { at: at + CHANNEL_HEADER_SIZE, length: inner, channel: memory.n16(at) };
    }
  }
  return { at, length, channel: 0 };
}

function listOther(memory: Memory, at: number, length: number, datagram: number): void {
  const index = memory.u32(CONTROL_OTHERS);
  if (index === MOST_OTHERS) {
    countDrop(memory, DROP_ARENA_FULL);
    return;
  }
  const other = OTHERS + index * OTHER_SIZE;
  memory.setU32(other, at);
  memory.setU32(other + 4, length);
  memory.setU32(other + OTHER_DATAGRAM, DATAGRAMS + datagram * DATAGRAM_SIZE);
  memory.setU32(CONTROL_OTHERS, index + 1);
}
