/** Outbound: packets read from the TUN become transport messages in the OUT region, ready to be sealed. */
import {
  CHANNEL_HEADER_SIZE,
  CONTROL_BATCH,
  CONTROL_DETAIL,
  CONTROL_LENGTH,
  CONTROL_OUT_MESSAGES,
  CONTROL_MTU,
  CONTROL_OUT,
  CONTROL_PACKET,
  CONTROL_PEER,
  CONTROL_STOP,
  DROP_ARENA_FULL,
  DROP_MALFORMED,
  DROP_OVERSIZED,
  FACT_SENT_DATA,
  FACT_SENT_KEEPALIVE,
  FLOW_BATCH,
  FLOW_GROUP,
  FLOW_REWRITE,
  FLOW_VERDICT,
  OUT_MESSAGES,
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
  OUT_NOTES,
  OUT,
  OUT_END,
  PATH_CHANNEL,
  PATH_REMOTE_LENGTH,
  PEER_CURRENT,
  PEER_PATH,
  PEER_SENT_BYTES,
  PEER_SENT_PACKETS,
  READS,
  READ_LENGTH,
  READ_OFFSET,
  READ_SIZE,
  SESSION_LOCAL_INDEX,
  SESSION_REMOTE_INDEX,
  SESSION_SEND_COUNTER,
  SESSION_SEND_KEY,
  STOP_END,
  STOP_LOCAL,
  STOP_MISS,
  STOP_REFUSED,
  STOP_STAGE,
  STOP_TOO_BIG,
  TAG_SIZE,
  VERDICT_DROP,
  VERDICT_FORWARD,
  VERDICT_LOCAL,
  VNET_HEADER_SIZE,
} from '../layout';
import { checksum, copySum, pseudoSum, sum, swap, writeHeaderChecksum } from './checksum';
import { lookup } from './flows';
import { clampMss } from './mss';
import * as packet from './packet';
import { TCP, UDP, isUnfragmentable, parse, trafficClass } from './packet';
import { add, countDrop, peerAt, report } from './peers';
import { REJECT_AFTER_MESSAGES } from './replay';
import { checksumField, noteFlow, rewrite } from './rewrite';

const NEEDS_CHECKSUM: u32 = 1;
const GSO_TCPV4: u32 = 1;
const GSO_TCPV6: u32 = 4;
const GSO_UDP: u32 = 5;

const FIN_PUSH: u32 = 0x09;
const CWR: u32 = 0x80;

const TRANSPORT_MESSAGE: u32 = 4;

/** Empties the OUT region. */
export function startOut(): void {
  store<u32>(CONTROL_OUT, OUT);
  store<u32>(CONTROL_OUT_MESSAGES, 0);
  store<u32>(CONTROL_BATCH, load<u32>(CONTROL_BATCH) + 1);
}

/** Splits the reads [first, count). Returns the index of the one at which it stopped, for CONTROL_STOP. */
export function split(first: i32, count: i32): i32 {
  for (let i = first; i < count; i++) {
    const read = READS + i * READ_SIZE;
    const at = load<i32>(read, READ_OFFSET) + VNET_HEADER_SIZE;
    const size = load<i32>(read, READ_LENGTH) - VNET_HEADER_SIZE;
    if (!parse(at, size)) {
      countDrop(DROP_MALFORMED);
      continue;
    }
    const flow = lookup(0);
    let stop = STOP_MISS;
    let peer: i32 = 0;
    if (flow != 0) {
      store<u32>(flow, load<u32>(CONTROL_BATCH), FLOW_BATCH);
      store<u32>(flow, 0, FLOW_GROUP);
      const verdict = load<u32>(flow, FLOW_VERDICT);
      const detail: i32 = (verdict >> 8) & 0xff;
      const kind: i32 = verdict & 0xff;
      peer = verdict >> 16;
      if (kind == VERDICT_FORWARD) {
        stop = emit(at, size, peer, load<i32>(flow, FLOW_REWRITE));
      } else if (kind == VERDICT_DROP) {
        countDrop(detail);
        stop = STOP_END;
      } else {
        stop = kind == VERDICT_LOCAL ? STOP_LOCAL : STOP_REFUSED;
        store<u32>(CONTROL_DETAIL, detail);
      }
    }
    if (stop != STOP_END) {
      halt(stop, at, peer);
      return i;
    }
  }
  store<u32>(CONTROL_STOP, STOP_END);
  return count;
}

/** Splits one read for a peer, whatever the flow table says, as it is. Leaves why not in CONTROL_STOP. */
export function splitFor(index: i32, peer: i32): void {
  const read = READS + index * READ_SIZE;
  const at = load<i32>(read, READ_OFFSET) + VNET_HEADER_SIZE;
  const size = load<i32>(read, READ_LENGTH) - VNET_HEADER_SIZE;
  store<u32>(CONTROL_STOP, STOP_END);
  if (!parse(at, size)) {
    countDrop(DROP_MALFORMED);
    return;
  }
  const stop = emit(at, size, peer, 0);
  if (stop != STOP_END) halt(stop, at, peer);
}

/** Makes an empty message, if the peer has a session and a path. */
export function keepalive(peer: i32): void {
  if (!isReady(peer, 1)) {
    store<u32>(CONTROL_STOP, STOP_STAGE);
    return;
  }
  store<u32>(CONTROL_STOP, STOP_END);
  if (!hasRoom(1, 0, peer)) return;
  appendMessage(peer, 0, 0);
  report(peer, FACT_SENT_KEEPALIVE);
}

function halt(stop: i32, at: i32, peer: i32): void {
  store<u32>(CONTROL_STOP, stop);
  store<u32>(CONTROL_PACKET, at);
  store<u32>(CONTROL_LENGTH, packet.length);
  store<u32>(CONTROL_PEER, peer);
}

/**
 * Makes the messages of the packet just parsed. Returns STOP_END, also when it was dropped, or why not.
 * The packet is rewritten where it was read, so that a copy kept for later is what will be sent; one that
 * is too big is not, as its sender is told about the packet that he knows.
 */
function emit(at: i32, size: i32, peer: i32, row: i32): i32 {
  const vnet = at - VNET_HEADER_SIZE;
  // The top bit of the type only says that the flow speaks ECN.
  const gso: u32 = load<u8>(vnet, 1) & 0x7f;
  return gso == 0 ? emitWhole(vnet, at, peer, row) : emitSegments(vnet, at, size, gso, peer, row);
}

function emitWhole(vnet: i32, from: i32, peer: i32, row: i32): i32 {
  const length = packet.length;
  const needsChecksum = (load<u8>(vnet) & NEEDS_CHECKSUM) != 0;
  const start: i32 = load<u16>(vnet, 6);
  const field: i32 = start + <i32>load<u16>(vnet, 8);
  if (needsChecksum && (start < packet.transport || field + 2 > length)) return malformed();
  if (length > load<i32>(CONTROL_MTU)) return tooBig(from);
  if (row != 0) {
    // Where another checksum is wanted, that of a packet inside, the transport's own is complete.
    const isPartial =
      needsChecksum && start == packet.transport && field == start + checksumField();
    noteFlow(row, from, 1, length);
    rewrite(row, from, isPartial);
  }
  if (!isReady(peer, 1)) return STOP_STAGE;
  if (!hasRoom(1, length, peer)) return STOP_END;
  const to = nextPayload(peer);
  if (needsChecksum) {
    memory.copy(to, from, start);
    // The field holds the sum of the pseudo-header.
    const total = checksum(copySum(to + start, from + start, length - start));
    store<u16>(to + field, total == 0 && packet.protocol == UDP ? 0xffff : total);
  } else {
    memory.copy(to, from, length);
  }
  clampMss(to);
  appendMessage(peer, length, trafficClass(to));
  report(peer, FACT_SENT_DATA);
  return STOP_END;
}

function emitSegments(vnet: i32, from: i32, size: i32, gso: u32, peer: i32, row: i32): i32 {
  const transport = packet.transport;
  const family = packet.family;
  const isTcp = gso != GSO_UDP;
  const field = isTcp ? 16 : 6;
  const isKnown =
    (gso == GSO_TCPV4 && family == 4) || (gso == GSO_TCPV6 && family == 6) || gso == GSO_UDP;
  if (
    !isKnown ||
    packet.fragment ||
    packet.protocol != (isTcp ? TCP : UDP) ||
    packet.length < transport + (isTcp ? 20 : 8) ||
    !(load<u8>(vnet) & NEEDS_CHECKSUM) ||
    <i32>load<u16>(vnet, 6) != transport ||
    <i32>load<u16>(vnet, 8) != field
  ) {
    return malformed();
  }
  const headers = transport + (isTcp ? ((<i32>load<u8>(from + transport, 12)) >> 4) << 2 : 8);
  const payload = packet.length - headers;
  const segment: i32 = load<u16>(vnet, 4);
  if (segment == 0 || payload < 0 || headers < transport + 8) return malformed();
  if (isTcp && headers < transport + 20) return malformed();
  const count = max<i32>(1, (payload + segment - 1) / segment);
  if (headers + min<i32>(segment, payload) > load<i32>(CONTROL_MTU)) return tooBig(from);
  if (row != 0) {
    noteFlow(row, from, count, payload + headers * count);
    rewrite(row, from, true);
  }
  if (!isReady(peer, count)) return STOP_STAGE;
  if (!hasRoom(count, headers + min<i32>(segment, payload), peer)) return STOP_END;

  const protocol = packet.protocol;
  const tos = trafficClass(from);
  const identification = swap(load<u16>(from, 4));
  const sequence = bswap<u32>(load<u32>(from + transport, 4));
  for (let i = 0; i < count; i++) {
    const done = i * segment;
    const chunk = min<i32>(segment, payload - done);
    const length = headers + chunk;
    const to = nextPayload(peer);
    memory.copy(to, from, headers);
    let total = copySum(to + headers, from + headers + done, chunk);
    if (family == 4) {
      store<u16>(to, swap(length), 2);
      store<u16>(to, swap(identification + i), 4);
      writeHeaderChecksum(to, transport);
    } else {
      store<u16>(to, swap(length - 40), 4);
    }
    const header = to + transport;
    if (isTcp) {
      store<u32>(header, bswap<u32>(sequence + done), 4);
      let flags: u32 = load<u8>(header, 13);
      if (i > 0) flags &= ~CWR;
      if (i < count - 1) flags &= ~FIN_PUSH;
      store<u8>(header, flags, 13);
    } else {
      store<u16>(header, swap(length - transport), 4);
    }
    store<u16>(header + field, 0);
    total += sum(header, headers - transport);
    total += pseudoSum(to, family, protocol, length - transport);
    const result = checksum(total);
    store<u16>(header + field, result == 0 && !isTcp ? 0xffff : result);
    appendMessage(peer, length, tos);
  }
  report(peer, FACT_SENT_DATA);
  return STOP_END;
}

function malformed(): i32 {
  countDrop(DROP_MALFORMED);
  return STOP_END;
}

/** The sender learns of it where the network may not fragment; the TUN's own MTU keeps the rest from here. */
function tooBig(at: i32): i32 {
  if (isUnfragmentable(at)) return STOP_TOO_BIG;
  countDrop(DROP_OVERSIZED);
  return STOP_END;
}

/** Whether the peer has a path and a session that may send `count` more messages. */
function isReady(peer: i32, count: i32): bool {
  const row = peerAt(peer);
  const session = load<i32>(row, PEER_CURRENT);
  if (session == 0 || load<u32>(row + PEER_PATH, PATH_REMOTE_LENGTH) == 0) return false;
  return load<u64>(session, SESSION_SEND_COUNTER) <= REJECT_AFTER_MESSAGES - <u64>count;
}

/** Whether `count` messages of packets up to `length` fit; counts the drop if not. */
function hasRoom(count: i32, length: i32, peer: i32): bool {
  const stride = headroom(peer) + MESSAGE_HEADER_SIZE + padded(length) + TAG_SIZE;
  const isFull =
    load<i32>(CONTROL_OUT_MESSAGES) + count > MOST_MESSAGES ||
    load<i32>(CONTROL_OUT) + count * stride > OUT_END;
  if (isFull) countDrop(DROP_ARENA_FULL);
  return !isFull;
}

function headroom(peer: i32): i32 {
  return load<u32>(peerAt(peer) + PEER_PATH, PATH_CHANNEL) == 0 ? 0 : CHANNEL_HEADER_SIZE;
}

/** Where the packet of the next message for the peer goes. */
function nextPayload(peer: i32): i32 {
  return load<i32>(CONTROL_OUT) + headroom(peer) + MESSAGE_HEADER_SIZE;
}

/** Rounds up to 16 bytes, but not above the MTU (whitepaper §5.4.6, and the Linux kernel for the bound). */
function padded(length: i32): i32 {
  return max<i32>(length, min<i32>(load<i32>(CONTROL_MTU), (length + 15) & ~15));
}

/** Completes the message around the packet of `length` bytes at the end of OUT. */
function appendMessage(peer: i32, length: i32, tos: u32): void {
  const row = peerAt(peer);
  const session = load<i32>(row, PEER_CURRENT);
  const start = load<i32>(CONTROL_OUT);
  const channel = load<u32>(row + PEER_PATH, PATH_CHANNEL);
  const at = start + headroom(peer);
  const payload = padded(length);
  const size = MESSAGE_HEADER_SIZE + payload + TAG_SIZE;
  const counter = load<u64>(session, SESSION_SEND_COUNTER);
  store<u64>(session, counter + 1, SESSION_SEND_COUNTER);

  if (channel != 0) {
    store<u16>(start, swap(channel));
    store<u16>(start, swap(size), 2);
  }
  store<u32>(at, TRANSPORT_MESSAGE);
  store<u32>(at, load<u32>(session, SESSION_REMOTE_INDEX), 4);
  store<u64>(at, counter, 8);
  memory.fill(at + MESSAGE_HEADER_SIZE + length, 0, payload - length);

  const index = load<i32>(CONTROL_OUT_MESSAGES);
  const message = OUT_MESSAGES + index * MESSAGE_SIZE;
  store<u32>(message, at, MESSAGE_OFFSET);
  store<u32>(message, payload, MESSAGE_LENGTH);
  store<u64>(message, counter, MESSAGE_COUNTER_LOW);
  store<u32>(message, session + SESSION_SEND_KEY, MESSAGE_KEY);
  store<u32>(message, 0, MESSAGE_AUTHENTIC);
  store<u32>(message, peer, MESSAGE_PEER);
  store<u32>(message, load<u32>(session, SESSION_LOCAL_INDEX), MESSAGE_SESSION);
  store<u32>(OUT_NOTES + (index << 2), tos);
  store<u32>(CONTROL_OUT_MESSAGES, index + 1);
  store<u32>(CONTROL_OUT, at + size);

  add(row + PEER_SENT_BYTES, size);
  add(row + PEER_SENT_PACKETS, 1);
}
