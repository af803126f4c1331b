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
  NOTE_SIZE,
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
} from '../layout.ts';
import { checksum, pseudoSum, sum, writeHeaderChecksum } from './checksum.ts';
import { lookup } from './flows.ts';
import type { Memory } from './memory.ts';
import { clampMss } from './mss.ts';
import { isUnfragmentable, parse, TCP, trafficClass, UDP, type Packet } from './packet.ts';
import { countDrop, peerAt, report } from './peers.ts';
import { REJECT_AFTER_MESSAGES } from './replay.ts';
import { checksumField, noteFlow, rewrite } from './rewrite.ts';

/** Empties the OUT region. */
export function startOut(memory: Memory): void {
  memory.setU32(CONTROL_OUT, OUT);
  memory.setU32(CONTROL_OUT_MESSAGES, 0);
  memory.increase(CONTROL_BATCH, 1);
}

/** Splits the reads [first, count). Returns the index of the one at which it stopped, for CONTROL_STOP. */
export function split(memory: Memory, first: number, count: number): number {
  for (let i = first; i < count; i++) {
    const packet = packetOfRead(memory, i);
    const stop = packet === undefined ? STOP_END : splitOne(memory, packet);
    memory.setU32(CONTROL_STOP, stop);
    if (stop !== STOP_END) return i;
  }
  memory.setU32(CONTROL_STOP, STOP_END);
  return count;
}

/** Splits one read for a peer, whatever the flow table says, as it is. Leaves why not in CONTROL_STOP. */
export function splitFor(memory: Memory, index: number, peer: number): void {
  const packet = packetOfRead(memory, index);
  const stop = packet === undefined ? STOP_END : emit(memory, packet, peer, 0);
  memory.setU32(CONTROL_STOP, stop);
  if (packet !== undefined && stop !== STOP_END) noteStop(memory, packet, peer);
}

/** Makes an empty message, if the peer has a session and a path. */
export function keepalive(memory: Memory, peer: number): void {
  const isPossible = isReady(memory, peer, 1);
  memory.setU32(CONTROL_STOP, isPossible ? STOP_END : STOP_STAGE);
  if (!isPossible || !hasRoom(memory, peer, 1, 0)) return;
  appendMessage(memory, peer, 0, 0);
  report(memory, peer, FACT_SENT_KEEPALIVE);
}

const NEEDS_CHECKSUM = 1;
const GSO_TCPV4 = 1;
const GSO_TCPV6 = 4;
const GSO_UDP = 5;

const FIN_PUSH = 0x09;
const CWR = 0x80;

const TRANSPORT_MESSAGE = 4;

function packetOfRead(memory: Memory, index: number): Packet | undefined {
  const read = READS + index * READ_SIZE;
  const at = memory.u32(read + READ_OFFSET) + VNET_HEADER_SIZE;
  const packet = parse(memory, at, memory.u32(read + READ_LENGTH) - VNET_HEADER_SIZE);
  if (packet === undefined) countDrop(memory, DROP_MALFORMED);
  return packet;
}

function splitOne(memory: Memory, packet: Packet): number {
  const flow = lookup(memory, 0);
  let stop = STOP_MISS;
  let peer = 0;
  if (flow !== undefined) {
    memory.setU32(flow + FLOW_BATCH, memory.u32(CONTROL_BATCH));
    memory.setU32(flow + FLOW_GROUP, 0);
    const verdict = memory.u8(flow + FLOW_VERDICT);
    const detail = memory.u8(flow + FLOW_VERDICT + 1);
    peer = memory.u16(flow + FLOW_VERDICT + 2);
    if (verdict === VERDICT_FORWARD) {
      stop = emit(memory, packet, peer, memory.u32(flow + FLOW_REWRITE));
    } else if (verdict === VERDICT_DROP) {
      stop = STOP_END;
      countDrop(memory, detail);
    } else {
      stop = verdict === VERDICT_LOCAL ? STOP_LOCAL : STOP_REFUSED;
      memory.setU32(CONTROL_DETAIL, detail);
    }
  }
  if (stop !== STOP_END) noteStop(memory, packet, peer);
  return stop;
}

function noteStop(memory: Memory, packet: Packet, peer: number): void {
  memory.setU32(CONTROL_PACKET, packet.at);
  memory.setU32(CONTROL_LENGTH, packet.length);
  memory.setU32(CONTROL_PEER, peer);
}

/**
 * Makes the messages of a packet. Returns STOP_END, also when it was dropped, or why not. The packet is
 * rewritten where it was read, so that a copy kept for later is what will be sent; one that is too big is
 * not, as its sender is told about the packet that he knows.
 */
function emit(memory: Memory, packet: Packet, peer: number, row: number): number {
  // The top bit of the type only says that the flow speaks ECN.
  const gso = memory.u8(packet.at - VNET_HEADER_SIZE + 1) & 0x7f;
  return gso === 0
    ? emitWhole(memory, packet, peer, row)
    : emitSegments(memory, packet, gso, peer, row);
}

function emitWhole(memory: Memory, packet: Packet, peer: number, row: number): number {
  const vnet = packet.at - VNET_HEADER_SIZE;
  const needsChecksum = (memory.u8(vnet) & NEEDS_CHECKSUM) !== 0;
  const start = memory.u16(vnet + 6);
  const field = start + memory.u16(vnet + 8);
  if (needsChecksum && (start < packet.transport || field + 2 > packet.length)) {
    return malformed(memory);
  }
  if (packet.length > memory.u32(CONTROL_MTU)) return tooBig(memory, packet);
  if (row !== 0) {
    // Where another checksum is wanted, that of a packet inside, the transport's own is complete.
    const isOwn = start === packet.transport && field - start === checksumField(packet);
    noteFlow(memory, row, packet, 1, packet.length);
    rewrite(memory, row, packet, needsChecksum && isOwn);
  }
  if (!isReady(memory, peer, 1)) return STOP_STAGE;
  if (!hasRoom(memory, peer, 1, packet.length)) return STOP_END;
  const to = nextPayload(memory, peer);
  memory.copy(to, packet.at, packet.length);
  if (needsChecksum) {
    // The field holds the sum of the pseudo-header.
    const result = checksum(sum(memory, to + start, packet.length - start));
    memory.setN16(to + field, result === 0 && packet.protocol === UDP ? 0xffff : result);
  }
  clampMss(memory, packet, to);
  appendMessage(memory, peer, packet.length, trafficClass(memory, to));
  report(memory, peer, FACT_SENT_DATA);
  return STOP_END;
}

function emitSegments(
  memory: Memory,
  packet: Packet,
  gso: number,
  peer: number,
  row: number,
): number {
  const { at, family, transport, protocol } = packet;
  if (!isSuperPacket(memory, packet, gso)) return malformed(memory);
  const isTcp = protocol === TCP;
  const headers = transport + (isTcp ? (memory.u8(at + transport + 12) >> 4) * 4 : 8);
  const payload = packet.length - headers;
  const segment = memory.u16(at - VNET_HEADER_SIZE + 4);
  if (segment === 0 || payload < 0 || headers < transport + (isTcp ? 20 : 8)) {
    return malformed(memory);
  }
  const count = Math.max(1, Math.ceil(payload / segment));
  const largest = headers + Math.min(segment, payload);
  if (largest > memory.u32(CONTROL_MTU)) return tooBig(memory, packet);
  if (row !== 0) {
    noteFlow(memory, row, packet, count, payload + headers * count);
    rewrite(memory, row, packet, true);
  }
  if (!isReady(memory, peer, count)) return STOP_STAGE;
  if (!hasRoom(memory, peer, count, largest)) return STOP_END;

  for (let i = 0; i < count; i++) {
    const done = i * segment;
    const chunk = Math.min(segment, payload - done);
    const to = nextPayload(memory, peer);
    memory.copy(to, at, headers);
    memory.copy(to + headers, at + headers + done, chunk);
    const header = to + transport;
    const size = headers - transport + chunk;
    if (family === 4) {
      memory.setN16(to + 2, transport + size);
      memory.setN16(to + 4, memory.n16(at + 4) + i);
      writeHeaderChecksum(memory, to, transport);
    } else {
      memory.setN16(to + 4, transport + size - 40);
    }
    if (isTcp) {
      memory.setN32(header + 4, memory.n32(header + 4) + done);
      const cleared = (i > 0 ? CWR : 0) | (i < count - 1 ? FIN_PUSH : 0);
      memory.setU8(header + 13, memory.u8(header + 13) & ~cleared);
    } else {
      memory.setN16(header + 4, size);
    }
    const field = header + superField(protocol);
    memory.setN16(field, 0);
    const total = sum(memory, header, size) + pseudoSum(memory, to, family, protocol, size);
    const result = checksum(total);
    memory.setN16(field, result === 0 && !isTcp ? 0xffff : result);
    appendMessage(memory, peer, transport + size, trafficClass(memory, to));
  }
  report(memory, peer, FACT_SENT_DATA);
  return STOP_END;
}

/** Whether the virtio-net header fits to the packet. */
function isSuperPacket(memory: Memory, packet: Packet, gso: number): boolean {
  const vnet = packet.at - VNET_HEADER_SIZE;
  const isUdp = gso === GSO_UDP;
  const isKnown =
    isUdp ||
    (gso === GSO_TCPV4 && packet.family === 4) ||
    (gso === GSO_TCPV6 && packet.family === 6);
  return (
    isKnown &&
    !packet.fragment &&
    packet.protocol === (isUdp ? UDP : TCP) &&
    packet.length >= packet.transport + (isUdp ? 8 : 20) &&
    (memory.u8(vnet) & NEEDS_CHECKSUM) !== 0 &&
    memory.u16(vnet + 6) === packet.transport &&
    memory.u16(vnet + 8) === superField(packet.protocol)
  );
}

/** Returns where the checksum lies in the header of TCP or UDP. */
function superField(protocol: number): number {
  return protocol === TCP ? 16 : 6;
}

function malformed(memory: Memory): number {
  countDrop(memory, DROP_MALFORMED);
  return STOP_END;
}

/** The sender learns of it where the network may not fragment; the TUN's own MTU keeps the rest from here. */
function tooBig(memory: Memory, packet: Packet): number {
  if (isUnfragmentable(memory, packet)) return STOP_TOO_BIG;
  countDrop(memory, DROP_OVERSIZED);
  return STOP_END;
}

/** Whether the peer has a path and a session that may send `count` more messages. */
function isReady(memory: Memory, peer: number, count: number): boolean {
  const row = peerAt(peer);
  const session = memory.u32(row + PEER_CURRENT);
  if (session === 0 || memory.u32(row + PEER_PATH + PATH_REMOTE_LENGTH) === 0) return false;
  return memory.u64(session + SESSION_SEND_COUNTER) + BigInt(count) <= REJECT_AFTER_MESSAGES;
}

/** Whether `count` messages of packets up to `length` fit; counts the drop if not. */
function hasRoom(memory: Memory, peer: number, count: number, length: number): boolean {
  const stride = headroom(memory, peer) + MESSAGE_HEADER_SIZE + padded(memory, length) + TAG_SIZE;
  const isFull =
    memory.u32(CONTROL_OUT_MESSAGES) + count > MOST_MESSAGES ||
    memory.u32(CONTROL_OUT) + count * stride > OUT_END;
  if (isFull) countDrop(memory, DROP_ARENA_FULL);
  return !isFull;
}

function headroom(memory: Memory, peer: number): number {
  return memory.u32(peerAt(peer) + PEER_PATH + PATH_CHANNEL) === 0 ? 0 : CHANNEL_HEADER_SIZE;
}

/** Where the packet of the next message for the peer goes. */
function nextPayload(memory: Memory, peer: number): number {
  return memory.u32(CONTROL_OUT) + headroom(memory, peer) + MESSAGE_HEADER_SIZE;
}

/** Rounds up to 16 bytes, but not above the MTU (whitepaper §5.4.6, and the Linux kernel for the bound). */
function padded(memory: Memory, length: number): number {
  return Math.max(length, Math.min(memory.u32(CONTROL_MTU), Math.ceil(length / 16) * 16));
}

/** Completes the message around the packet of `length` bytes at the end of OUT. */
function appendMessage(memory: Memory, peer: number, length: number, tos: number): void {
  const row = peerAt(peer);
  const session = memory.u32(row + PEER_CURRENT);
  const start = memory.u32(CONTROL_OUT);
  const channel = memory.u32(row + PEER_PATH + PATH_CHANNEL);
  const at = start + headroom(memory, peer);
  const payload = padded(memory, length);
  const size = MESSAGE_HEADER_SIZE + payload + TAG_SIZE;
  const counter = memory.u64(session + SESSION_SEND_COUNTER);
  memory.setU64(session + SESSION_SEND_COUNTER, counter + 1n);

  if (channel !== 0) {
    memory.setN16(start, channel);
    memory.setN16(start + 2, size);
  }
  memory.setU32(at, TRANSPORT_MESSAGE);
  memory.setU32(at + 4, memory.u32(session + SESSION_REMOTE_INDEX));
  memory.setU64(at + 8, counter);
  memory.fill(at + MESSAGE_HEADER_SIZE + length, 0, payload - length);

  const index = memory.u32(CONTROL_OUT_MESSAGES);
  const message = OUT_MESSAGES + index * MESSAGE_SIZE;
  memory.setU32(message + MESSAGE_OFFSET, at);
  memory.setU32(message + MESSAGE_LENGTH, payload);
  memory.setU64(message + MESSAGE_COUNTER_LOW, counter);
  memory.setU32(message + MESSAGE_KEY, session + SESSION_SEND_KEY);
  memory.setU32(message + MESSAGE_AUTHENTIC, 0);
  memory.setU32(message + MESSAGE_PEER, peer);
  memory.setU32(message + MESSAGE_SESSION, memory.u32(session + SESSION_LOCAL_INDEX));
  memory.setU32(OUT_NOTES + index * NOTE_SIZE, tos);
  memory.setU32(CONTROL_OUT_MESSAGES, index + 1);
  memory.setU32(CONTROL_OUT, at + size);

  memory.add(row + PEER_SENT_BYTES, size);
  memory.add(row + PEER_SENT_PACKETS, 1);
}
