import { CONTROL_KEY, FLOW_DESTINATION, FLOW_KIND, FLOW_PORTS, FLOW_SOURCE } from '../layout.ts';
import type { Memory } from './memory.ts';

/** An IP packet in the arena. */
export interface Packet {
  readonly at: number;
  readonly family: 4 | 6;
  /** By its IP header: less than what was received where there is padding. */
  readonly length: number;
  /** Length of the IP header with its options and extensions. */
  readonly transport: number;
  readonly protocol: number;
  /** Whether it is one, the first included. */
  readonly fragment: boolean;
  /** Whether it is one that is not the first. */
  readonly later: boolean;
}

export const TCP = 6;
export const UDP = 17;
export const ICMP = 1;
export const ICMPV6 = 58;
export const UDP_LITE = 136;

/**
 * Parses the packet in [at, at + size) and fills the flow key at CONTROL_KEY, but for who. Returns
 * `undefined` for what is truncated or contradicts itself.
 */
export function parse(memory: Memory, at: number, size: number): Packet | undefined {
  if (size < 20) return undefined;
  const version = memory.u8(at) >> 4;
  const packet =
    version === 4
      ? parseIpv4(memory, at, size)
      : version === 6 && size >= 40
        ? parseIpv6(memory, at, size)
        : undefined;
  if (packet === undefined) return undefined;
  const ports = portsOf(memory, packet);
  if (ports === undefined) return undefined;
  memory.setU32(
    CONTROL_KEY + FLOW_KIND,
    packet.family | (packet.protocol << 8) | (packet.fragment ? 0x10000 : 0),
  );
  memory.setN16(CONTROL_KEY + FLOW_PORTS, ports.source);
  memory.setN16(CONTROL_KEY + FLOW_PORTS + 2, ports.destination);
  memory.fill(CONTROL_KEY + FLOW_SOURCE, 0, 32);
  const [source, destination, length] = packet.family === 4 ? [12, 16, 4] : [8, 24, 16];
  memory.copy(CONTROL_KEY + FLOW_SOURCE, at + source, length);
  memory.copy(CONTROL_KEY + FLOW_DESTINATION, at + destination, length);
  return packet;
}

/** Whether routers may not fragment it: IPv6, or IPv4 with DF. */
export function isUnfragmentable(memory: Memory, packet: Packet): boolean {
  return packet.family === 6 || (memory.u8(packet.at + 6) & 0x40) !== 0;
}

/** Returns the type of service or traffic class. */
export function trafficClass(memory: Memory, at: number): number {
  return memory.u8(at) >> 4 === 4 ? memory.u8(at + 1) : (memory.n16(at) >> 4) & 0xff;
}

const SCTP = 132;

const HOP_BY_HOP = 0;
const ROUTING = 43;
const FRAGMENT = 44;
const AUTHENTICATION = 51;
const DESTINATION_OPTIONS = 60;
/** A packet with more IPv6 extension headers is malformed to us. */
const MOST_EXTENSIONS = 8;

function parseIpv4(memory: Memory, at: number, size: number): Packet | undefined {
  const transport = (memory.u8(at) & 15) * 4;
  const length = memory.n16(at + 2);
  if (transport < 20 || length < transport || length > size) return undefined;
  const position = memory.n16(at + 6);
  const fragment = (position & 0x3fff) !== 0;
  const later = (position & 0x1fff) !== 0;
  return { at, family: 4, length, transport, protocol: memory.u8(at + 9), fragment, later };
}

function parseIpv6(memory: Memory, at: number, size: number): Packet | undefined {
  const length = 40 + memory.n16(at + 4);
  if (length > size) return undefined;
  let protocol = memory.u8(at + 6);
  let transport = 40;
  let fragment = false;
  let later = false;
  for (let n = 0; n <= MOST_EXTENSIONS; n++) {
    const isExtension = EXTENSIONS.includes(protocol);
    if (!isExtension || fragment) {
      return { at, family: 6, length, transport, protocol, fragment, later };
    }
    if (transport + 8 > length) return undefined;
    const header = at + transport;
    const units = memory.u8(header + 1);
    if (protocol === FRAGMENT) {
      const position = memory.n16(header + 2);
      fragment = (position & 0xfff9) !== 0;
      later = (position & 0xfff8) !== 0;
      transport += 8;
    } else transport += protocol === AUTHENTICATION ? (units + 2) * 4 : (units + 1) * 8;
    protocol = memory.u8(header);
    if (transport > length) return undefined;
  }
  return fragment ? { at, family: 6, length, transport, protocol, fragment, later } : undefined;
}

const EXTENSIONS = [HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION_OPTIONS];

function portsOf(
  memory: Memory,
  packet: Packet,
): { source: number; destination: number } | undefined {
  const { protocol, fragment, later } = packet;
  const header = packet.at + packet.transport;
  const available = packet.length - packet.transport;
  if (fragment && (protocol !== UDP || later)) return { source: 0, destination: 0 };
  if (protocol === TCP || protocol === UDP || protocol === SCTP || protocol === UDP_LITE) {
    if (available < 4) return undefined;
    return { source: memory.n16(header), destination: memory.n16(header + 2) };
  }
  if (protocol === ICMP || protocol === ICMPV6) {
    if (available < 8) return undefined;
    const type = memory.u8(header);
    const isEcho = protocol === ICMP ? type === 0 || type === 8 : type === 128 || type === 129;
    return { source: isEcho ? memory.n16(header + 4) : 0, destination: memory.n16(header) };
  }
  return { source: 0, destination: 0 };
}
