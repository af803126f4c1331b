/**
 * Inbound, last: joins consecutive packets of a flow into super-packets for the TUN, as GRO does in the
 * kernel. Each becomes one write whose pieces are the first packet and the payloads of the others.
 */
import {
  CONTROL_GROUPS,
  CONTROL_OFFLOADS,
  CONTROL_PIECES,
  FLOW_GROUP,
  GROUPS,
  GROUP_COUNT,
  GROUP_FIRST_PIECE,
  GROUP_HEADERS,
  GROUP_IDENTIFICATION,
  GROUP_LAST_PIECE,
  GROUP_LENGTH,
  GROUP_OPEN,
  GROUP_PACKET,
  GROUP_PUSH,
  GROUP_SEGMENT,
  GROUP_SEQUENCE,
  GROUP_SIZE,
  GROUP_TRANSPORT,
  IOVECS,
  IOVEC_SIZE,
  MOST_SEGMENTS,
  OFFLOAD_TCP,
  OFFLOAD_UDP,
  PIECES,
  PIECE_NEXT,
  PIECE_SIZE,
  VNET_HEADER_SIZE,
  WRITES,
  WRITE_COUNT,
  WRITE_IOVECS,
  WRITE_RESULT,
  WRITE_SIZE,
} from '../layout.ts';
import { fold, pseudoSum, sum, writeHeaderChecksum } from './checksum.ts';
import type { Memory } from './memory.ts';
import { TCP, UDP, type Packet } from './packet.ts';

export function coalesce(memory: Memory, packet: Packet, flow: number): void {
  const headers = joinableHeaders(memory, packet);
  const open = memory.u32(flow + FLOW_GROUP);
  if (headers > 0 && open !== 0 && canJoin(memory, packet, headers, open)) {
    join(memory, packet, headers, open);
  } else {
    memory.setU32(flow + FLOW_GROUP, newGroup(memory, packet, headers));
  }
}

/** Makes the write records of the groups. Returns their number. */
export function finish(memory: Memory): number {
  const count = memory.u32(CONTROL_GROUPS);
  let iovec = IOVECS;
  for (let i = 0; i < count; i++) {
    const group = GROUPS + i * GROUP_SIZE;
    const write = WRITES + i * WRITE_SIZE;
    memory.setU32(write + WRITE_IOVECS, iovec);
    memory.setU32(write + WRITE_COUNT, memory.u32(group + GROUP_COUNT));
    memory.setU32(write + WRITE_RESULT, 0);
    let piece = memory.u32(group + GROUP_FIRST_PIECE);
    for (; piece !== 0; piece = memory.u32(piece + PIECE_NEXT)) {
      memory.copy(iovec, piece, IOVEC_SIZE);
      iovec += IOVEC_SIZE;
    }
    writeHeaders(memory, group);
  }
  return count;
}

const ACK = 0x10;
const PUSH = 0x08;
const NEEDS_CHECKSUM = 1;
const GSO_TCPV4 = 1;
const GSO_TCPV6 = 4;
const GSO_UDP = 5;
const LARGEST_PACKET = 65_535;

/** Returns the length of the headers of a packet that may share a write, or 0. */
function joinableHeaders(memory: Memory, packet: Packet): number {
  const { at, family, transport, length, protocol, fragment } = packet;
  if (fragment || transport !== (family === 4 ? 20 : 40)) return 0;
  const offloads = memory.u32(CONTROL_OFFLOADS);
  let headers = 0;
  if (protocol === TCP && (offloads & OFFLOAD_TCP) !== 0) headers = tcpHeaders(memory, packet);
  if (protocol === UDP && (offloads & OFFLOAD_UDP) !== 0) headers = udpHeaders(memory, packet);
  if (headers === 0 || headers >= length) return 0;
  const size = length - transport;
  const total = sum(memory, at + transport, size) + pseudoSum(memory, at, family, protocol, size);
  return fold(total) === 0xffff ? headers : 0;
}

function tcpHeaders(memory: Memory, packet: Packet): number {
  const header = packet.at + packet.transport;
  if (packet.length < packet.transport + 20) return 0;
  const size = (memory.u8(header + 12) >> 4) * 4;
  const hasOnlyAck =
    (memory.u8(header + 12) & 15) === 0 && (memory.u8(header + 13) & ~PUSH) === ACK;
  return size >= 20 && hasOnlyAck ? packet.transport + size : 0;
}

function udpHeaders(memory: Memory, packet: Packet): number {
  const header = packet.at + packet.transport;
  const size = packet.length - packet.transport;
  if (size < 8 || memory.n16(header + 4) !== size || memory.n16(header + 6) === 0) return 0;
  return packet.transport + 8;
}

/** Whether the packet continues the group, so that splitting the whole would give both again. */
function canJoin(memory: Memory, packet: Packet, headers: number, group: number): boolean {
  const payload = packet.length - headers;
  const first = memory.u32(group + GROUP_PACKET);
  const isSameNetwork = packet.family === 4 ? isSameIpv4 : isSameIpv6;
  return (
    memory.u32(group + GROUP_OPEN) === packet.protocol &&
    memory.u32(group + GROUP_HEADERS) === headers &&
    memory.u32(group + GROUP_COUNT) < MOST_SEGMENTS &&
    payload <= memory.u32(group + GROUP_SEGMENT) &&
    memory.u32(group + GROUP_LENGTH) + payload <= LARGEST_PACKET &&
    isSameNetwork(memory, packet.at, first, group) &&
    (packet.protocol === UDP || isSameTcp(memory, packet, headers, group))
  );
}

/** Same type of service, time to live and DF. Without DF the identification counts up, with it it means nothing (RFC 6864 §4.1). */
function isSameIpv4(memory: Memory, at: number, first: number, group: number): boolean {
  for (const field of [1, 6, 8]) {
    if (memory.u8(at + field) !== memory.u8(first + field)) return false;
  }
  if ((memory.u8(at + 6) & 0x40) !== 0) return true;
  const expected = memory.u32(group + GROUP_IDENTIFICATION) + memory.u32(group + GROUP_COUNT);
  return memory.n16(at + 4) === (expected & 0xffff);
}

/** Same traffic class, flow label and hop limit. */
function isSameIpv6(memory: Memory, at: number, first: number): boolean {
  return memory.n32(at) === memory.n32(first) && memory.u8(at + 7) === memory.u8(first + 7);
}

/** The next sequence number, the same acknowledgement, flags but for PSH, window, urgent pointer and options. */
function isSameTcp(memory: Memory, packet: Packet, headers: number, group: number): boolean {
  const header = packet.at + packet.transport;
  const first = memory.u32(group + GROUP_PACKET) + packet.transport;
  return (
    memory.n32(header + 4) === memory.u32(group + GROUP_SEQUENCE) &&
    memory.n32(header + 8) === memory.n32(first + 8) &&
    memory.n16(header + 14) === memory.n16(first + 14) &&
    memory.n16(header + 18) === memory.n16(first + 18) &&
    memory.isEqual(header + 20, first + 20, headers - packet.transport - 20)
  );
}

function join(memory: Memory, packet: Packet, headers: number, group: number): void {
  const payload = packet.length - headers;
  const piece = newPiece(memory, packet.at + headers, payload);
  memory.setU32(memory.u32(group + GROUP_LAST_PIECE) + PIECE_NEXT, piece);
  memory.setU32(group + GROUP_LAST_PIECE, piece);
  memory.increase(group + GROUP_COUNT, 1);
  memory.increase(group + GROUP_LENGTH, payload);
  noteTcp(memory, packet, group, payload);
  // Only the last packet may be shorter.
  if (payload < memory.u32(group + GROUP_SEGMENT)) memory.setU32(group + GROUP_OPEN, 0);
}

/** Starts a group; with headers of 0 one that nothing may join. */
function newGroup(memory: Memory, packet: Packet, headers: number): number {
  const { at, family, length, transport, protocol } = packet;
  const isJoinable = headers > 0;
  const group = GROUPS + memory.u32(CONTROL_GROUPS) * GROUP_SIZE;
  memory.increase(CONTROL_GROUPS, 1);
  const piece = newPiece(memory, at - VNET_HEADER_SIZE, length + VNET_HEADER_SIZE);
  memory.setU32(group + GROUP_PACKET, at);
  memory.setU32(group + GROUP_TRANSPORT, transport);
  memory.setU32(group + GROUP_HEADERS, headers);
  memory.setU32(group + GROUP_LENGTH, length);
  memory.setU32(group + GROUP_SEGMENT, isJoinable ? length - headers : 0);
  memory.setU32(group + GROUP_SEQUENCE, 0);
  memory.setU32(group + GROUP_OPEN, isJoinable ? protocol : 0);
  memory.setU32(group + GROUP_COUNT, 1);
  memory.setU32(group + GROUP_FIRST_PIECE, piece);
  memory.setU32(group + GROUP_LAST_PIECE, piece);
  memory.setU32(group + GROUP_PUSH, 0);
  memory.setU32(group + GROUP_IDENTIFICATION, family === 4 ? memory.n16(at + 4) : 0);
  if (isJoinable) noteTcp(memory, packet, group, length - headers);
  return group;
}

/** What a TCP packet says about the one that may follow it. */
function noteTcp(memory: Memory, packet: Packet, group: number, payload: number): void {
  if (packet.protocol !== TCP) return;
  const header = packet.at + packet.transport;
  memory.setU32(group + GROUP_SEQUENCE, memory.n32(header + 4) + payload);
  if ((memory.u8(header + 13) & PUSH) === 0) return;
  memory.setU32(group + GROUP_PUSH, 1);
  memory.setU32(group + GROUP_OPEN, 0);
}

function newPiece(memory: Memory, at: number, length: number): number {
  const piece = PIECES + memory.u32(CONTROL_PIECES) * PIECE_SIZE;
  memory.increase(CONTROL_PIECES, 1);
  memory.setU32(piece, at);
  memory.setU32(piece + 4, length);
  memory.setU32(piece + PIECE_NEXT, 0);
  return piece;
}

/** Writes the virtio-net header and, over several packets, the headers of the whole. */
function writeHeaders(memory: Memory, group: number): void {
  const at = memory.u32(group + GROUP_PACKET);
  const vnet = at - VNET_HEADER_SIZE;
  memory.fill(vnet, 0, VNET_HEADER_SIZE);
  if (memory.u32(group + GROUP_COUNT) === 1) return;

  const transport = memory.u32(group + GROUP_TRANSPORT);
  const length = memory.u32(group + GROUP_LENGTH);
  const header = at + transport;
  const family = transport === 20 ? 4 : 6;
  const protocol = memory.u8(at + (family === 4 ? 9 : 6));
  const field = protocol === TCP ? 16 : 6;
  if (family === 4) {
    memory.setN16(at + 2, length);
    writeHeaderChecksum(memory, at, transport);
  } else {
    memory.setN16(at + 4, length - 40);
  }
  if (protocol === UDP) {
    memory.setN16(header + 4, length - transport);
  } else if (memory.u32(group + GROUP_PUSH) !== 0) {
    memory.setU8(header + 13, memory.u8(header + 13) | PUSH);
  }
  const pseudo = pseudoSum(memory, at, family, protocol, length - transport);
  memory.setN16(header + field, fold(pseudo));

  memory.setU8(vnet, NEEDS_CHECKSUM);
  memory.setU8(vnet + 1, protocol === UDP ? GSO_UDP : family === 4 ? GSO_TCPV4 : GSO_TCPV6);
  memory.setU16(vnet + 2, memory.u32(group + GROUP_HEADERS));
  memory.setU16(vnet + 4, memory.u32(group + GROUP_SEGMENT));
  memory.setU16(vnet + 6, transport);
  memory.setU16(vnet + 8, field);
}
