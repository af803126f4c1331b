/** Inbound, after opening: replay, facts, ECN, verdict; what passes goes to be coalesced. */
import {
  CONTROL_BATCH,
  CONTROL_DETAIL,
  CONTROL_FD,
  CONTROL_LENGTH,
  CONTROL_PACKET,
  CONTROL_PEER,
  CONTROL_STOP,
  DATAGRAMS,
  DATAGRAM_IFINDEX,
  DATAGRAM_LOCAL,
  DATAGRAM_REMOTE,
  DATAGRAM_SIZE,
  DATAGRAM_TOS,
  DROP_CONGESTION_MARK_LOST,
  DROP_MALFORMED,
  DROP_NOT_AUTHENTIC,
  DROP_REPLAYED,
  DROP_UNKNOWN_SESSION,
  FACT_RECEIVED_DATA,
  FACT_RECEIVED_KEEPALIVE,
  FACT_RECEIVED_ON_SLOT_0,
  FACT_ROAMED,
  FLOW_BATCH,
  FLOW_GROUP,
  FLOW_REWRITE,
  FLOW_VERDICT,
  IN_MESSAGES,
  MESSAGE_AUTHENTIC,
  MESSAGE_COUNTER_LOW,
  MESSAGE_HEADER_SIZE,
  MESSAGE_LENGTH,
  MESSAGE_OFFSET,
  MESSAGE_PEER,
  MESSAGE_SESSION,
  MESSAGE_SIZE,
  IN_NOTES,
  NOTE_SIZE,
  PATH_CHANNEL,
  PATH_FD,
  PATH_IFINDEX,
  PATH_LOCAL,
  PATH_REMOTE,
  PATH_REMOTE_LENGTH,
  PEER_FACTS,
  PEER_PATH,
  PEER_RECEIVED_BYTES,
  PEER_RECEIVED_PACKETS,
  PEER_ROAMED,
  SESSIONS_PER_PEER,
  STOP_END,
  STOP_LOCAL,
  STOP_MISS,
  STOP_REFUSED,
  TAG_SIZE,
  VERDICT_DROP,
  VERDICT_FORWARD,
  VERDICT_LOCAL,
} from '../layout.ts';
import { writeHeaderChecksum } from './checksum.ts';
import { coalesce } from './coalesce.ts';
import { lookup } from './flows.ts';
import type { Memory } from './memory.ts';
import { clampMss } from './mss.ts';
import { parse, trafficClass, type Packet } from './packet.ts';
import { countDrop, peerAt, report, sessionAt } from './peers.ts';
import { acceptCounter } from './replay.ts';
import { noteFlow, rewrite } from './rewrite.ts';

/** Takes the opened messages [first, count). Returns the index of the one at which it stopped, for CONTROL_STOP. */
export function accept(memory: Memory, first: number, count: number): number {
  for (let i = first; i < count; i++) {
    const note = memory.u32(IN_NOTES + i * NOTE_SIZE);
    const stop = acceptOne(memory, IN_MESSAGES + i * MESSAGE_SIZE, note);
    memory.setU32(CONTROL_STOP, stop);
    if (stop !== STOP_END) return i;
  }
  memory.setU32(CONTROL_STOP, STOP_END);
  return count;
}

/** A message that passed the replay window waits for the verdict of its flow: beside 0 and 1 of the cipher. */
const ACCEPTED = 2;
const AF_INET = 2;

const NOT_ECT = 0;
const ECT_1 = 1;
const ECT_0 = 2;
const CE = 3;

function acceptOne(memory: Memory, message: number, note: number): number {
  const peer = memory.u32(message + MESSAGE_PEER);
  const datagram = DATAGRAMS + (note & 0xffff) * DATAGRAM_SIZE;
  const size = memory.u32(message + MESSAGE_LENGTH);
  if (memory.u32(message + MESSAGE_AUTHENTIC) !== ACCEPTED) {
    const refusal = refusalOf(memory, message);
    if (refusal !== undefined) return drop(memory, refusal);
    memory.setU32(message + MESSAGE_AUTHENTIC, ACCEPTED);
    noteReceived(memory, peer, memory.u32(message + MESSAGE_SESSION), size);
    noteSource(memory, peer, datagram, note >>> 16);
  }
  if (size === 0) return STOP_END;

  const at = memory.u32(message + MESSAGE_OFFSET) + MESSAGE_HEADER_SIZE;
  const packet = parse(memory, at, size);
  if (packet === undefined) return drop(memory, DROP_MALFORMED);
  const flow = lookup(memory, peer + 1);
  memory.setU32(CONTROL_PACKET, at);
  memory.setU32(CONTROL_LENGTH, packet.length);
  memory.setU32(CONTROL_PEER, peer);
  if (flow === undefined) return STOP_MISS;
  if (memory.u32(flow + FLOW_BATCH) !== memory.u32(CONTROL_BATCH)) {
    memory.setU32(flow + FLOW_BATCH, memory.u32(CONTROL_BATCH));
    memory.setU32(flow + FLOW_GROUP, 0);
  }
  const verdict = memory.u8(flow + FLOW_VERDICT);
  const detail = memory.u8(flow + FLOW_VERDICT + 1);
  if (verdict === VERDICT_DROP) return drop(memory, detail);
  if (verdict === VERDICT_LOCAL) return STOP_LOCAL;
  if (verdict !== VERDICT_FORWARD) {
    memory.setU32(CONTROL_DETAIL, detail);
    return STOP_REFUSED;
  }
  if (!combineEcn(memory, packet, memory.u32(datagram + DATAGRAM_TOS) & 3)) {
    return drop(memory, DROP_CONGESTION_MARK_LOST);
  }
  const row = memory.u32(flow + FLOW_REWRITE);
  if (row !== 0) {
    noteFlow(memory, row, packet, 1, packet.length);
    rewrite(memory, row, packet, false);
  }
  clampMss(memory, packet, at);
  coalesce(memory, packet, flow);
  return STOP_END;
}

function drop(memory: Memory, reason: number): number {
  countDrop(memory, reason);
  return STOP_END;
}

/** Returns why the message is not taken, or `undefined` when it is authentic and fresh. */
function refusalOf(memory: Memory, message: number): number | undefined {
  if (memory.u32(message + MESSAGE_AUTHENTIC) !== 1) return DROP_NOT_AUTHENTIC;
  const session = sessionAt(memory, memory.u32(message + MESSAGE_SESSION));
  // JavaScript may have ended it since, in answer to an earlier message of the batch.
  if (session === undefined) return DROP_UNKNOWN_SESSION;
  const isFresh = acceptCounter(memory, session, memory.u64(message + MESSAGE_COUNTER_LOW));
  return isFresh ? undefined : DROP_REPLAYED;
}

function noteReceived(memory: Memory, peer: number, localIndex: number, size: number): void {
  const row = peerAt(peer);
  memory.add(row + PEER_RECEIVED_BYTES, MESSAGE_HEADER_SIZE + size + TAG_SIZE);
  memory.add(row + PEER_RECEIVED_PACKETS, 1);
  const slot = localIndex % SESSIONS_PER_PEER;
  const fact = size === 0 ? FACT_RECEIVED_KEEPALIVE : FACT_RECEIVED_DATA;
  report(memory, peer, fact | (FACT_RECEIVED_ON_SLOT_0 << slot));
}

/** Reports where the peer is, when that is not its path. The last message counts: it takes back what one before it said. */
function noteSource(memory: Memory, peer: number, datagram: number, channel: number): void {
  const row = peerAt(peer);
  if (isFrom(memory, row + PEER_PATH, datagram, channel)) {
    memory.setU32(row + PEER_FACTS, memory.u32(row + PEER_FACTS) & ~FACT_ROAMED);
    return;
  }
  const roamed = row + PEER_ROAMED;
  const isIpv4 = memory.u16(datagram + DATAGRAM_REMOTE) === AF_INET;
  memory.setU32(roamed + PATH_FD, memory.u32(CONTROL_FD));
  memory.setU32(roamed + PATH_REMOTE_LENGTH, isIpv4 ? 16 : 28);
  memory.copy(roamed + PATH_REMOTE, datagram + DATAGRAM_REMOTE, 28);
  memory.copy(roamed + PATH_LOCAL, datagram + DATAGRAM_LOCAL, 16);
  memory.setU32(roamed + PATH_IFINDEX, memory.u32(datagram + DATAGRAM_IFINDEX));
  memory.setU32(roamed + PATH_CHANNEL, channel);
  report(memory, peer, FACT_ROAMED);
}

/** Whether the datagram came over the path. Flow info and scope are no part of an address, and no local address means any. */
function isFrom(memory: Memory, path: number, datagram: number, channel: number): boolean {
  const remote = datagram + DATAGRAM_REMOTE;
  const isIpv4 = memory.u16(remote) === AF_INET;
  const [address, size] = isIpv4 ? [4, 4] : [8, 16];
  return (
    memory.u32(path + PATH_REMOTE_LENGTH) !== 0 &&
    memory.u32(path + PATH_FD) === memory.u32(CONTROL_FD) &&
    memory.u32(path + PATH_CHANNEL) === channel &&
    memory.isEqual(path + PATH_REMOTE, remote, 4) &&
    memory.isEqual(path + PATH_REMOTE + address, remote + address, size) &&
    (memory.isZero(path + PATH_LOCAL, 16) ||
      memory.isEqual(path + PATH_LOCAL, datagram + DATAGRAM_LOCAL, 16))
  );
}

/** Combines the outer ECN field into the inner one (RFC 6040 §4.2). Returns false for the packet to drop. */
function combineEcn(memory: Memory, packet: Packet, outer: number): boolean {
  const { at, family, transport } = packet;
  const inner = trafficClass(memory, at) & 3;
  if (outer === CE && inner === NOT_ECT) return false;
  const isMarked = (outer === CE && inner !== CE) || (outer === ECT_1 && inner === ECT_0);
  if (!isMarked) return true;
  if (family === 4) {
    memory.setU8(at + 1, (memory.u8(at + 1) & ~3) | outer);
    writeHeaderChecksum(memory, at, transport);
  } else {
    memory.setU8(at + 1, (memory.u8(at + 1) & ~0x30) | (outer << 4));
  }
  return true;
}
