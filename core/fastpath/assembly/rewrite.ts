/** Changes addresses and ports of packets, with the checksums over them, and counts what sessions carry. */
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
} from '../layout';
import { checksum, fold } from './checksum';
import * as packet from './packet';
import { ICMP, ICMPV6, TCP, UDP, UDP_LITE } from './packet';

/** Counts `packets` packets of `bytes` bytes, of which the one that `parse` read, at `at`, is the first or the whole. */
export function noteFlow(row: i32, at: i32, packets: u32, bytes: i32): void {
  if (load<u32>(row, REWRITE_SESSION) == 0) return;
  store<u32>(row, load<u32>(row, REWRITE_PACKETS) + packets, REWRITE_PACKETS);
  store<u64>(row, load<u64>(row, REWRITE_BYTES) + <u64>bytes, REWRITE_BYTES);
  let facts: u32 = load<u16>(row, REWRITE_FACTS);
  if (!(facts & FACT_FLOW_LISTED)) {
    const touched = load<u32>(CONTROL_TOUCHED_FLOWS);
    store<u32>(TOUCHED_FLOWS + (touched << 2), row);
    store<u32>(CONTROL_TOUCHED_FLOWS, touched + 1);
  }
  if (packet.protocol == TCP && !packet.fragment && packet.length >= packet.transport + 20) {
    const flags: u32 = load<u8>(at + packet.transport, 13);
    if (flags & FACT_SYN) facts &= ~(FACT_FIN | FACT_RST);
    facts |= flags & (FACT_FIN | FACT_SYN | FACT_RST);
  }
  store<u16>(row, facts | FACT_FLOW_LISTED, REWRITE_FACTS);
}

/**
 * Changes the packet that `parse` read, which lies at `at`. A checksum stays as right as it was (RFC 1624);
 * `isPartial` says that its field holds the sum of the pseudo-header alone.
 */
export function rewrite(row: i32, at: i32, isPartial: bool): void {
  const what: u32 = load<u16>(row, REWRITE_WHAT);
  if (!(what & (NEW_SOURCE | NEW_DESTINATION | NEW_SOURCE_PORT | NEW_DESTINATION_PORT))) return;
  const addresses: u32 = load<u16>(row, REWRITE_GROWTH);
  if (packet.family == 4) {
    if (what & NEW_SOURCE) store<u32>(at, load<u32>(row, REWRITE_SOURCE), 12);
    if (what & NEW_DESTINATION) store<u32>(at, load<u32>(row, REWRITE_DESTINATION), 16);
    grow(at + 10, addresses);
  } else {
    if (what & NEW_SOURCE) memory.copy(at + 8, row + REWRITE_SOURCE, 16);
    if (what & NEW_DESTINATION) memory.copy(at + 24, row + REWRITE_DESTINATION, 16);
  }
  if (!packet.later) rewriteTransport(row, what, at + packet.transport, addresses, isPartial);
}

/** Returns where the checksum lies in the transport header, or -1 where there is none that covers addresses or ports. */
export function checksumField(): i32 {
  const protocol = packet.protocol;
  if (protocol == TCP) return 16;
  if (protocol == UDP || protocol == UDP_LITE) return 6;
  const isIcmp = packet.family == 4 ? protocol == ICMP : protocol == ICMPV6;
  return isIcmp ? 2 : -1;
}

function rewriteTransport(row: i32, what: u32, header: i32, addresses: u32, isPartial: bool): void {
  const isIcmp = packet.protocol == ICMP || packet.protocol == ICMPV6;
  if (what & NEW_SOURCE_PORT) {
    store<u16>(header + (isIcmp ? 4 : 0), load<u16>(row, REWRITE_PORTS));
  }
  if (what & NEW_DESTINATION_PORT) store<u16>(header, load<u16>(row, REWRITE_PORTS + 2), 2);
  const offset = checksumField();
  if (offset < 0 || packet.transport + offset + 2 > packet.length) return;
  const field = header + offset;
  // The ICMP of IPv4 has no pseudo-header.
  const pseudo = packet.protocol == ICMP ? 0 : addresses;
  if (isPartial) {
    store<u16>(field, fold(<u64>load<u16>(field) + <u64>pseudo));
    return;
  }
  const isUdp = packet.protocol == UDP || packet.protocol == UDP_LITE;
  // Of UDP zero says that there is none, and must not come about (RFC 768).
  if (isUdp && load<u16>(field) == 0) return;
  grow(field, pseudo + <u32>load<u16>(row, REWRITE_GROWTH + 2));
  if (isUdp && load<u16>(field) == 0) store<u16>(field, 0xffff);
}

/** Corrects a checksum for words whose sum grew. */
function grow(field: i32, growth: u32): void {
  store<u16>(field, checksum(<u64>(~load<u16>(field) & 0xffff) + <u64>growth));
}
