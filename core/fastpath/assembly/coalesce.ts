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
} from '../layout';
import { fold, pseudoSum, sum, swap, writeHeaderChecksum } from './checksum';
import * as packet from './packet';
import { TCP, UDP } from './packet';

const ACK: u32 = 0x10;
const PUSH: u32 = 0x08;
const NEEDS_CHECKSUM: u32 = 1;
const GSO_TCPV4: u32 = 1;
const GSO_TCPV6: u32 = 4;
const GSO_UDP: u32 = 5;
const LARGEST_PACKET: i32 = 65_535;

/** Takes the packet that `parse` read and whose flow this is. */
export function coalesce(at: i32, flow: i32): void {
  const headers = joinableHeaders(at);
  const open = load<i32>(flow, FLOW_GROUP);
  if (headers > 0 && open != 0 && canJoin(at, headers, open)) {
    join(at, headers, open);
    return;
  }
  store<u32>(flow, newGroup(at, headers), FLOW_GROUP);
}

/** Makes the write records of the groups. Returns their number. */
export function finish(): i32 {
  const count = load<i32>(CONTROL_GROUPS);
  let iovec = IOVECS;
  for (let i = 0; i < count; i++) {
    const group = GROUPS + i * GROUP_SIZE;
    const write = WRITES + i * WRITE_SIZE;
    store<u32>(write, iovec, WRITE_IOVECS);
    store<u32>(write, load<u32>(group, GROUP_COUNT), WRITE_COUNT);
    store<u32>(write, 0, WRITE_RESULT);
    for (let piece = load<i32>(group, GROUP_FIRST_PIECE); piece != 0; iovec += IOVEC_SIZE) {
      store<u64>(iovec, load<u64>(piece));
      piece = load<i32>(piece, PIECE_NEXT);
    }
    writeHeaders(group);
  }
  return count;
}

/** Returns the length of the headers of a packet that may share a write, or 0. */
function joinableHeaders(at: i32): i32 {
  const transport = packet.transport;
  const length = packet.length;
  if (packet.fragment || transport != (packet.family == 4 ? 20 : 40)) return 0;
  const offloads = load<u32>(CONTROL_OFFLOADS);
  const header = at + transport;
  let headers = transport + 8;
  if (packet.protocol == TCP) {
    if (!(offloads & OFFLOAD_TCP) || length < transport + 20) return 0;
    const offset = load<u8>(header, 12);
    headers = transport + ((offset >> 4) << 2);
    if (headers < transport + 20 || (offset & 15) != 0) return 0;
    if ((load<u8>(header, 13) & ~PUSH) != ACK) return 0;
  } else if (packet.protocol == UDP) {
    if (!(offloads & OFFLOAD_UDP) || length < headers) return 0;
    if (swap(load<u16>(header, 4)) != length - transport || load<u16>(header, 6) == 0) return 0;
  } else {
    return 0;
  }
  if (headers >= length) return 0;
  const size = length - transport;
  const total = sum(header, size) + pseudoSum(at, packet.family, packet.protocol, size);
  return fold(total) == 0xffff ? headers : 0;
}

/** Whether the packet continues the group, so that splitting the whole would give both again. */
function canJoin(at: i32, headers: i32, group: i32): bool {
  const transport = packet.transport;
  const payload = packet.length - headers;
  const count = load<i32>(group, GROUP_COUNT);
  if (
    load<i32>(group, GROUP_OPEN) != packet.protocol ||
    load<i32>(group, GROUP_HEADERS) != headers ||
    count >= MOST_SEGMENTS ||
    payload > load<i32>(group, GROUP_SEGMENT) ||
    load<i32>(group, GROUP_LENGTH) + payload > LARGEST_PACKET
  ) {
    return false;
  }
  const first = load<i32>(group, GROUP_PACKET);
  if (!(packet.family == 4 ? isSameIpv4(at, first, group, count) : isSameIpv6(at, first))) {
    return false;
  }
  return (
    packet.protocol == UDP ||
    isSameTcp(at + transport, first + transport, headers - transport, group)
  );
}

/** Same type of service, time to live and DF. Without DF the identification counts up, with it it means nothing (RFC 6864 §4.1). */
function isSameIpv4(at: i32, first: i32, group: i32, count: i32): bool {
  if (load<u8>(at, 1) != load<u8>(first, 1) || load<u8>(at, 8) != load<u8>(first, 8)) return false;
  const flags = load<u8>(at, 6);
  if (flags != load<u8>(first, 6)) return false;
  if (flags & 0x40) return true;
  const expected: u32 = (load<u32>(group, GROUP_IDENTIFICATION) + count) & 0xffff;
  return swap(load<u16>(at, 4)) == expected;
}

/** Same traffic class, flow label and hop limit. */
function isSameIpv6(at: i32, first: i32): bool {
  return load<u32>(at) == load<u32>(first) && load<u8>(at, 7) == load<u8>(first, 7);
}

/** The next sequence number, the same acknowledgement, flags but for PSH, window, urgent pointer and options. */
function isSameTcp(header: i32, first: i32, size: i32, group: i32): bool {
  if (bswap<u32>(load<u32>(header, 4)) != load<u32>(group, GROUP_SEQUENCE)) return false;
  if (load<u32>(header, 8) != load<u32>(first, 8)) return false;
  if (load<u16>(header, 14) != load<u16>(first, 14)) return false;
  if (load<u16>(header, 18) != load<u16>(first, 18)) return false;
  for (let i = 20; i < size; i += 4) {
    if (load<u32>(header + i) != load<u32>(first + i)) return false;
  }
  return true;
}

function join(at: i32, headers: i32, group: i32): void {
  const payload = packet.length - headers;
  const piece = newPiece(at + headers, payload);
  store<u32>(load<i32>(group, GROUP_LAST_PIECE), piece, PIECE_NEXT);
  store<u32>(group, piece, GROUP_LAST_PIECE);
  store<u32>(group, load<u32>(group, GROUP_COUNT) + 1, GROUP_COUNT);
  store<u32>(group, load<u32>(group, GROUP_LENGTH) + payload, GROUP_LENGTH);
  const isLast = payload < load<i32>(group, GROUP_SEGMENT);
  noteTcp(at, group, payload);
  if (isLast) store<u32>(group, 0, GROUP_OPEN);
}

/** Starts a group; with headers of 0 one that nothing may join. */
function newGroup(at: i32, headers: i32): i32 {
  const index = load<i32>(CONTROL_GROUPS);
  store<u32>(CONTROL_GROUPS, index + 1);
  const group = GROUPS + index * GROUP_SIZE;
  const piece = newPiece(at - VNET_HEADER_SIZE, packet.length + VNET_HEADER_SIZE);
  const payload = headers > 0 ? packet.length - headers : 0;
  store<u32>(group, at, GROUP_PACKET);
  store<u32>(group, packet.transport, GROUP_TRANSPORT);
  store<u32>(group, headers, GROUP_HEADERS);
  store<u32>(group, packet.length, GROUP_LENGTH);
  store<u32>(group, payload, GROUP_SEGMENT);
  store<u32>(group, 0, GROUP_SEQUENCE);
  store<u32>(group, headers > 0 ? packet.protocol : 0, GROUP_OPEN);
  store<u32>(group, 1, GROUP_COUNT);
  store<u32>(group, piece, GROUP_FIRST_PIECE);
  store<u32>(group, piece, GROUP_LAST_PIECE);
  store<u32>(group, 0, GROUP_PUSH);
  store<u32>(group, packet.family == 4 ? swap(load<u16>(at, 4)) : 0, GROUP_IDENTIFICATION);
  if (headers > 0) noteTcp(at, group, payload);
  return group;
}

/** What a TCP packet says about the one that may follow it. */
function noteTcp(at: i32, group: i32, payload: i32): void {
  if (packet.protocol != TCP) return;
  const header = at + packet.transport;
  store<u32>(group, bswap<u32>(load<u32>(header, 4)) + payload, GROUP_SEQUENCE);
  if (!(load<u8>(header, 13) & PUSH)) return;
  store<u32>(group, 1, GROUP_PUSH);
  store<u32>(group, 0, GROUP_OPEN);
}

function newPiece(at: i32, length: i32): i32 {
  const index = load<i32>(CONTROL_PIECES);
  store<u32>(CONTROL_PIECES, index + 1);
  const piece = PIECES + index * PIECE_SIZE;
  store<u32>(piece, at);
  store<u32>(piece, length, 4);
  store<u32>(piece, 0, PIECE_NEXT);
  return piece;
}

/** Writes the virtio-net header and, over several packets, the headers of the whole. */
function writeHeaders(group: i32): void {
  const at = load<i32>(group, GROUP_PACKET);
  const vnet = at - VNET_HEADER_SIZE;
  store<u64>(vnet, 0);
  store<u16>(vnet, 0, 8);
  if (load<i32>(group, GROUP_COUNT) == 1) return;

  const transport = load<i32>(group, GROUP_TRANSPORT);
  const length = load<i32>(group, GROUP_LENGTH);
  const header = at + transport;
  const isIpv4 = transport == 20;
  const protocol: i32 = load<u8>(at + (isIpv4 ? 9 : 6));
  const field = protocol == TCP ? 16 : 6;
  if (isIpv4) {
    store<u16>(at, swap(length), 2);
    writeHeaderChecksum(at, transport);
  } else {
    store<u16>(at, swap(length - 40), 4);
  }
  if (protocol == UDP) store<u16>(header, swap(length - transport), 4);
  else if (load<u32>(group, GROUP_PUSH)) store<u8>(header, load<u8>(header, 13) | PUSH, 13);
  const family = isIpv4 ? 4 : 6;
  store<u16>(header + field, fold(pseudoSum(at, family, protocol, length - transport)));

  const gso = protocol == UDP ? GSO_UDP : isIpv4 ? GSO_TCPV4 : GSO_TCPV6;
  store<u8>(vnet, NEEDS_CHECKSUM);
  store<u8>(vnet, gso, 1);
  store<u16>(vnet, load<u32>(group, GROUP_HEADERS), 2);
  store<u16>(vnet, load<u32>(group, GROUP_SEGMENT), 4);
  store<u16>(vnet, transport, 6);
  store<u16>(vnet, field, 8);
}
