/** Reads the headers of an IP packet, as far as flows, checksums and splitting need them. */
import { CONTROL_KEY, FLOW_DESTINATION, FLOW_KIND, FLOW_PORTS, FLOW_SOURCE } from '../layout';
import { swap } from './checksum';

export const TCP: i32 = 6;
export const UDP: i32 = 17;
export const ICMP: i32 = 1;
export const ICMPV6: i32 = 58;
const SCTP: i32 = 132;
export const UDP_LITE: i32 = 136;

const HOP_BY_HOP: i32 = 0;
const ROUTING: i32 = 43;
const FRAGMENT: i32 = 44;
const AUTHENTICATION: i32 = 51;
const DESTINATION_OPTIONS: i32 = 60;
/** A packet with more IPv6 extension headers is malformed to us. */
const MOST_EXTENSIONS: i32 = 8;

/* What `parse` found; valid until its next call. */

export let family: i32 = 0;
/** Length of the packet by its IP header: less than what was received where there is padding. */
export let length: i32 = 0;
/** Length of the IP header with its options and extensions. */
export let transport: i32 = 0;
export let protocol: i32 = 0;
/** Whether it is one, the first included. */
export let fragment: bool = false;
/** Whether it is one that is not the first. */
export let later: bool = false;

/**
 * Parses the packet in [packet, packet + size) and fills the flow key at CONTROL_KEY, but for who.
 * Returns false for what is truncated or contradicts itself.
 */
export function parse(packet: i32, size: i32): bool {
  if (size < 20) return false;
  family = load<u8>(packet) >> 4;
  fragment = false;
  later = false;
  if (family == 4) {
    if (!parseIpv4(packet, size)) return false;
  } else if (family == 6) {
    if (size < 40 || !parseIpv6(packet, size)) return false;
  } else {
    return false;
  }
  return fillPorts(packet + transport);
}

/** Whether routers may not fragment it: IPv6, or IPv4 with DF. */
export function isUnfragmentable(packet: i32): bool {
  return family == 6 || (load<u8>(packet, 6) & 0x40) != 0;
}

/** Returns the type of service or traffic class. */
export function trafficClass(packet: i32): u32 {
  const first = load<u8>(packet);
  const second = load<u8>(packet, 1);
  return first >> 4 == 4 ? second : ((first & 15) << 4) | (second >> 4);
}

function parseIpv4(packet: i32, size: i32): bool {
  transport = (load<u8>(packet) & 15) << 2;
  length = swap(load<u16>(packet, 2));
  if (transport < 20 || length < transport || length > size) return false;
  protocol = load<u8>(packet, 9);
  const position = swap(load<u16>(packet, 6));
  // More fragments, or an offset.
  fragment = (position & 0x3fff) != 0;
  later = (position & 0x1fff) != 0;
  store<u64>(CONTROL_KEY, load<u32>(packet, 12), FLOW_SOURCE);
  store<u64>(CONTROL_KEY, 0, FLOW_SOURCE + 8);
  store<u64>(CONTROL_KEY, load<u32>(packet, 16), FLOW_DESTINATION);
  store<u64>(CONTROL_KEY, 0, FLOW_DESTINATION + 8);
  return true;
}

function parseIpv6(packet: i32, size: i32): bool {
  length = 40 + swap(load<u16>(packet, 4));
  if (length > size) return false;
  memory.copy(CONTROL_KEY + FLOW_SOURCE, packet + 8, 32);
  let next: i32 = load<u8>(packet, 6);
  let at = 40;
  for (let n = 0; n <= MOST_EXTENSIONS; n++) {
    let extension = 8;
    if (next == HOP_BY_HOP || next == ROUTING || next == DESTINATION_OPTIONS) {
      if (at + 8 > length) return false;
      extension = (<i32>load<u8>(packet + at, 1) + 1) << 3;
    } else if (next == AUTHENTICATION) {
      if (at + 8 > length) return false;
      extension = (<i32>load<u8>(packet + at, 1) + 2) << 2;
    } else if (next == FRAGMENT) {
      if (at + 8 > length) return false;
      const position = swap(load<u16>(packet + at, 2));
      fragment = (position & 0xfff9) != 0;
      later = (position & 0xfff8) != 0;
    } else {
      protocol = next;
      transport = at;
      return true;
    }
    next = load<u8>(packet + at);
    at += extension;
    if (at > length) return false;
    if (fragment) {
      protocol = next;
      transport = at;
      return true;
    }
  }
  return false;
}

function fillPorts(header: i32): bool {
  const available = length - transport;
  let ports: u32 = 0;
  if (!fragment || (protocol == UDP && !later)) {
    if (protocol == TCP || protocol == UDP || protocol == SCTP || protocol == UDP_LITE) {
      if (available < 4) return false;
      ports = load<u32>(header);
    } else if (protocol == ICMP || protocol == ICMPV6) {
      if (available < 8) return false;
      const type = load<u8>(header);
      const isEcho = protocol == ICMP ? type == 8 || type == 0 : type == 128 || type == 129;
      ports = ((<u32>load<u16>(header)) << 16) | (isEcho ? <u32>load<u16>(header, 4) : 0);
    }
  }
  store<u32>(CONTROL_KEY, family | (protocol << 8) | ((<i32>fragment) << 16), FLOW_KIND);
  store<u32>(CONTROL_KEY, ports, FLOW_PORTS);
  return true;
}
