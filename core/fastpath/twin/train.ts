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
  NOTE_SIZE,
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
} from '../layout.ts';
import type { Memory } from './memory.ts';
import { peerAt } from './peers.ts';

/** One send in the making. */
interface Train {
  readonly offset: number;
  readonly path: number;
  readonly tos: number;
  /** Lengths of its datagrams. */
  readonly sizes: number[];
}

/** The ECN field: all that the outer header takes over from the inner one. */
const ECN = 3;

/**
 * Makes the send records of all messages in OUT. Neighbours on the same path share a send while all but
 * the last have the same length. The outer header takes the inner ECN field (RFC 6040 §4.1) and nothing
 * else of the type of service. Returns the number of records.
 */
export function train(memory: Memory): number {
  const trains: Train[] = [];
  for (let i = 0; i < memory.u32(CONTROL_OUT_MESSAGES); i++) {
    const message = OUT_MESSAGES + i * MESSAGE_SIZE;
    const path = peerAt(memory.u32(message + MESSAGE_PEER)) + PEER_PATH;
    const headroom = memory.u32(path + PATH_CHANNEL) === 0 ? 0 : CHANNEL_HEADER_SIZE;
    const offset = memory.u32(message + MESSAGE_OFFSET) - headroom;
    const length = memory.u32(message + MESSAGE_LENGTH);
    const size = headroom + MESSAGE_HEADER_SIZE + length + TAG_SIZE;
    const tos = memory.u32(OUT_NOTES + i * NOTE_SIZE) & ECN;
    const last = trains.at(-1);
    const hasSameOuter = last?.path === path && last.tos === tos;
    if (hasSameOuter && canAppend(last.sizes, size)) last.sizes.push(size);
    else trains.push({ offset, path, tos, sizes: [size] });
  }
  for (const [i, { offset, path, tos, sizes }] of trains.entries()) {
    const send = SENDS + i * SEND_SIZE;
    memory.setU32(send + SEND_OFFSET, offset);
    memory.setU32(send + SEND_LENGTH, total(sizes));
    memory.setU32(send + SEND_SEGMENT, sizes.length > 1 ? (sizes[0] ?? 0) : 0);
    memory.setU32(send + SEND_PATH, path);
    memory.setU32(send + SEND_TOS, tos);
    memory.setU32(send + SEND_RESULT, 0);
  }
  return trains.length;
}

function canAppend(sizes: readonly number[], size: number): boolean {
  const segment = sizes[0] ?? 0;
  return (
    sizes.length < MOST_SEGMENTS &&
    sizes.at(-1) === segment &&
    size <= segment &&
    total(sizes) + size <= LARGEST_SEND
  );
}

function total(sizes: readonly number[]): number {
  return sizes.reduce((sum, size) => sum + size, 0);
}
