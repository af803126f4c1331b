import {
  CONTROL_TOUCHED_FLOWS,
  FACT_FIN,
  FACT_FLOW_LISTED,
  FACT_RST,
  FACT_SYN,
  NEW_DESTINATION,
  NEW_DESTINATION_PORT,
  NEW_SOURCE,
  NEW_SOURCE_PORT,
  REWRITE_BYTES,
  REWRITE_DESTINATION,
  REWRITE_FACTS,
  REWRITE_GROWTH,
  REWRITE_PACKETS,
  REWRITE_PORTS,
  REWRITE_SESSION,
  REWRITE_SOURCE,
  REWRITE_WHAT,
  TOUCHED_FLOWS,
} from '../layout.ts';
import { checksum, fold } from './checksum.ts';
import type { Memory } from './memory.ts';
import { ICMP, ICMPV6, TCP, UDP, UDP_LITE, type Packet } from './packet.ts';

/** Counts `packets` packets of `bytes` bytes, of which this is the first or the whole. */
export function noteFlow(
  memory: Memory,
  row: number,
  packet: Packet,
  packets: number,
  bytes: number,
): void {
  if (memory.u32(row + REWRITE_SESSION) === 0) return;
  memory.increase(row + REWRITE_PACKETS, packets);
  memory.add(row + REWRITE_BYTES, bytes);
  let facts = memory.u16(row + REWRITE_FACTS);
  if ((facts & FACT_FLOW_LISTED) === 0) {
    memory.setU32(TOUCHED_FLOWS + memory.u32(CONTROL_TOUCHED_FLOWS) * 4, row);
    memory.increase(CONTROL_TOUCHED_FLOWS, 1);
  }
  const { protocol, fragment, length, transport } = packet;
  if (protocol === TCP && !fragment && length >= transport + 20) {
    const flags = memory.u8(packet.at + transport + 13);
    if ((flags & FACT_SYN) !== 0) facts &= ~(FACT_FIN | FACT_RST);
    facts |= flags & (FACT_FIN | FACT_SYN | FACT_RST);
  }
  memory.setU16(row + REWRITE_FACTS, facts | FACT_FLOW_LISTED);
}

/**
 * Changes addresses and ports of the packet. A checksum stays as right as it was (RFC 1624); `isPartial`
 * says that its field holds the sum of the pseudo-header alone.
 */
export function rewrite(memory: Memory, row: number, packet: Packet, isPartial: boolean): void {
  const { at, family, later } = packet;
  const what = memory.u16(row + REWRITE_WHAT);
  const anything = NEW_SOURCE | NEW_DESTINATION | NEW_SOURCE_PORT | NEW_DESTINATION_PORT;
  if ((what & anything) === 0) return;
  const [source, destination, size] = family === 4 ? [12, 16, 4] : [8, 24, 16];
  if ((what & NEW_SOURCE) !== 0) memory.copy(at + source, row + REWRITE_SOURCE, size);
  if ((what & NEW_DESTINATION) !== 0) {
    memory.copy(at + destination, row + REWRITE_DESTINATION, size);
  }
  if (family === 4) grow(memory, at + 10, memory.n16(row + REWRITE_GROWTH));
  if (!later) rewriteTransport(memory, row, packet, what, isPartial);
}

/**
 * Returns where the checksum lies in the transport header; `undefined` where there is none that covers
 * addresses or ports.
 */
export function checksumField({ protocol, family }: Packet): number | undefined {
  switch (protocol) {
    case TCP:
      return 16;
    case UDP:
    case UDP_LITE:
      return 6;
    case family === 4 ? ICMP : ICMPV6:
      return 2;
    default:
      return undefined;
  }
}

function rewriteTransport(
  memory: Memory,
  row: number,
  packet: Packet,
  what: number,
  isPartial: boolean,
): void {
  const { protocol, transport, length } = packet;
  const header = packet.at + transport;
  const isIcmp = protocol === ICMP || protocol === ICMPV6;
  if ((what & NEW_SOURCE_PORT) !== 0) {
    memory.copy(header + (isIcmp ? 4 : 0), row + REWRITE_PORTS, 2);
  }
  if ((what & NEW_DESTINATION_PORT) !== 0) memory.copy(header + 2, row + REWRITE_PORTS + 2, 2);
  const offset = checksumField(packet);
  if (offset === undefined || transport + offset + 2 > length) return;
  const field = header + offset;
  // The ICMP of IPv4 has no pseudo-header.
  const pseudo = protocol === ICMP ? 0 : memory.n16(row + REWRITE_GROWTH);
  if (isPartial) {
    memory.setN16(field, fold(memory.n16(field) + pseudo));
    return;
  }
  const isUdp = protocol === UDP || protocol === UDP_LITE;
  // Of UDP zero says that there is none, and must not come about (RFC 768).
  if (isUdp && memory.n16(field) === 0) return;
  grow(memory, field, pseudo + memory.n16(row + REWRITE_GROWTH + 2));
  if (isUdp && memory.n16(field) === 0) memory.setN16(field, 0xffff);
}

/** Corrects a checksum for words whose sum grew. */
function grow(memory: Memory, field: number, growth: number): void {
  memory.setN16(field, checksum(0xffff - memory.n16(field) + growth));
}
