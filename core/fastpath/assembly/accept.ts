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
} from '../layout';
import { writeHeaderChecksum } from './checksum';
import { coalesce } from './coalesce';
import { lookup } from './flows';
import { sessionAt } from './gather';
import { clampMss } from './mss';
import * as packet from './packet';
import { parse, trafficClass } from './packet';
import { add, countDrop, peerAt, report } from './peers';
import { acceptCounter } from './replay';
import { noteFlow, rewrite } from './rewrite';

/** A message that passed the replay window waits for the verdict of its flow: beside 0 and 1 of the cipher. */
const ACCEPTED: u32 = 2;
const AF_INET: u32 = 2;

const NOT_ECT: u32 = 0;
const ECT_1: u32 = 1;
const ECT_0: u32 = 2;
const CE: u32 = 3;

/** Takes the opened messages [first, count). Returns the index of the one at which it stopped, for CONTROL_STOP. */
export function accept(first: i32, count: i32): i32 {
  for (let i = first; i < count; i++) {
    const stop = acceptOne(IN_MESSAGES + i * MESSAGE_SIZE, load<u32>(IN_NOTES + (i << 2)));
    if (stop != STOP_END) {
      store<u32>(CONTROL_STOP, stop);
      return i;
    }
  }
  store<u32>(CONTROL_STOP, STOP_END);
  return count;
}

function acceptOne(message: i32, note: u32): i32 {
  const peer = load<i32>(message, MESSAGE_PEER);
  const datagram = DATAGRAMS + (note & 0xffff) * DATAGRAM_SIZE;
  const size = load<i32>(message, MESSAGE_LENGTH);
  if (load<u32>(message, MESSAGE_AUTHENTIC) != ACCEPTED) {
    if (!isFresh(message)) return STOP_END;
    store<u32>(message, ACCEPTED, MESSAGE_AUTHENTIC);
    noteReceived(peer, load<u32>(message, MESSAGE_SESSION), size);
    noteSource(peer, datagram, note >> 16);
  }
  if (size == 0) return STOP_END;

  const at = load<i32>(message, MESSAGE_OFFSET) + MESSAGE_HEADER_SIZE;
  if (!parse(at, size)) return drop(DROP_MALFORMED);
  const flow = lookup(peer + 1);
  store<u32>(CONTROL_PACKET, at);
  store<u32>(CONTROL_LENGTH, packet.length);
  store<u32>(CONTROL_PEER, peer);
  if (flow == 0) return STOP_MISS;
  const batch = load<u32>(CONTROL_BATCH);
  if (load<u32>(flow, FLOW_BATCH) != batch) {
    store<u32>(flow, batch, FLOW_BATCH);
    store<u32>(flow, 0, FLOW_GROUP);
  }
  const verdict = load<u32>(flow, FLOW_VERDICT);
  const kind: i32 = verdict & 0xff;
  if (kind == VERDICT_DROP) return drop((verdict >> 8) & 0xff);
  if (kind == VERDICT_LOCAL) return STOP_LOCAL;
  if (kind != VERDICT_FORWARD) {
    store<u32>(CONTROL_DETAIL, (verdict >> 8) & 0xff);
    return STOP_REFUSED;
  }
  if (!combineEcn(at, load<u32>(datagram, DATAGRAM_TOS) & 3)) {
    return drop(DROP_CONGESTION_MARK_LOST);
  }
  const row = load<i32>(flow, FLOW_REWRITE);
  if (row != 0) {
    noteFlow(row, at, 1, packet.length);
    rewrite(row, at, false);
  }
  clampMss(at);
  coalesce(at, flow);
  return STOP_END;
}

function drop(reason: i32): i32 {
  countDrop(reason);
  return STOP_END;
}

function isFresh(message: i32): bool {
  let reason = DROP_NOT_AUTHENTIC;
  if (load<u32>(message, MESSAGE_AUTHENTIC) == 1) {
    const session = sessionAt(load<u32>(message, MESSAGE_SESSION));
    // JavaScript may have ended it since, in answer to an earlier message of the batch.
    if (session == 0) reason = DROP_UNKNOWN_SESSION;
    else if (acceptCounter(session, load<u64>(message, MESSAGE_COUNTER_LOW))) return true;
    else reason = DROP_REPLAYED;
  }
  countDrop(reason);
  return false;
}

function noteReceived(peer: i32, localIndex: u32, size: i32): void {
  const row = peerAt(peer);
  add(row + PEER_RECEIVED_BYTES, MESSAGE_HEADER_SIZE + size + TAG_SIZE);
  add(row + PEER_RECEIVED_PACKETS, 1);
  const slot = localIndex & (SESSIONS_PER_PEER - 1);
  const fact = size == 0 ? FACT_RECEIVED_KEEPALIVE : FACT_RECEIVED_DATA;
  report(peer, fact | (FACT_RECEIVED_ON_SLOT_0 << slot));
}

/** Reports where the peer is, when that is not its path. The last message counts: it takes back what one before it said. */
function noteSource(peer: i32, datagram: i32, channel: u32): void {
  const row = peerAt(peer);
  if (isFrom(row + PEER_PATH, datagram, channel)) {
    store<u32>(row, load<u32>(row, PEER_FACTS) & ~FACT_ROAMED, PEER_FACTS);
    return;
  }
  const roamed = row + PEER_ROAMED;
  const isIpv4 = <u32>load<u16>(datagram, DATAGRAM_REMOTE) == AF_INET;
  store<u32>(roamed, load<u32>(CONTROL_FD), PATH_FD);
  store<u32>(roamed, isIpv4 ? 16 : 28, PATH_REMOTE_LENGTH);
  memory.copy(roamed + PATH_REMOTE, datagram + DATAGRAM_REMOTE, 28);
  memory.copy(roamed + PATH_LOCAL, datagram + DATAGRAM_LOCAL, 16);
  store<u32>(roamed, load<u32>(datagram, DATAGRAM_IFINDEX), PATH_IFINDEX);
  store<u32>(roamed, channel, PATH_CHANNEL);
  report(peer, FACT_ROAMED);
}

/** Whether the datagram came over the path. Flow info and scope are no part of an address, and no local address means any. */
function isFrom(path: i32, datagram: i32, channel: u32): bool {
  const expected = path + PATH_REMOTE;
  const remote = datagram + DATAGRAM_REMOTE;
  if (
    load<u32>(path, PATH_REMOTE_LENGTH) == 0 ||
    load<u32>(path, PATH_FD) != load<u32>(CONTROL_FD) ||
    load<u32>(path, PATH_CHANNEL) != channel ||
    load<u32>(expected) != load<u32>(remote)
  ) {
    return false;
  }
  if (<u32>load<u16>(remote) == AF_INET) {
    if (load<u32>(expected, 4) != load<u32>(remote, 4)) return false;
  } else if (
    load<u64>(expected, 8) != load<u64>(remote, 8) ||
    load<u64>(expected, 16) != load<u64>(remote, 16)
  ) {
    return false;
  }
  const low = load<u64>(path, PATH_LOCAL);
  const high = load<u64>(path, PATH_LOCAL + 8);
  if ((low | high) == 0) return true;
  return (
    low == load<u64>(datagram, DATAGRAM_LOCAL) && high == load<u64>(datagram, DATAGRAM_LOCAL + 8)
  );
}

/** Combines the outer ECN field into the inner one (RFC 6040 §4.2). Returns false for the packet to drop. */
function combineEcn(at: i32, outer: u32): bool {
  const inner = trafficClass(at) & 3;
  if (outer == CE && inner == NOT_ECT) return false;
  const isMarked = (outer == CE && inner != CE) || (outer == ECT_1 && inner == ECT_0);
  if (!isMarked) return true;
  if (packet.family == 4) {
    store<u8>(at, (load<u8>(at, 1) & 0xfc) | outer, 1);
    writeHeaderChecksum(at, packet.transport);
  } else {
    store<u8>(at, (load<u8>(at, 1) & 0xcf) | (outer << 4), 1);
  }
  return true;
}
