import { ipFamily, parseIpAddress, type IpAddress } from '../net/ip-address.ts';
import {
  socketAddress,
  socketAddressIp,
  socketAddressPort,
  type SocketAddress,
} from '../net/socket-address.ts';

/** RFC 8445 §5.1.1; a stream candidate is one of RFC 6544. */
export type CandidateType = 'host' | 'srflx' | 'prflx' | 'relay';

export type Candidate = UdpCandidate | StreamCandidate;

interface CommonCandidate {
  readonly type: CandidateType;
  /** 1 to 32 letters, digits, `+` and `/`. */
  readonly foundation: string;
  /** RFC 8445 §5.1.2, 1 to 2^31 - 1. */
  readonly priority: number;
  readonly address: SocketAddress;
}

export interface UdpCandidate extends CommonCandidate {
  readonly transport: 'udp';
  /** The base of a reflexive or relayed candidate, for diagnosis. */
  readonly related?: SocketAddress;
}

export interface StreamCandidate extends CommonCandidate {
  readonly transport: 'tcp';
  /** RFC 6544 §4.5: who dials. An active one has port 9. */
  readonly tcpType: 'active' | 'passive';
  /** What is spoken at a passive one: RFC 4571 frames over this. */
  readonly protocol?: StreamProtocol;
}

export type StreamProtocol = 'tcp' | 'tls' | 'ws' | 'wss';

/** The port of what cannot be called (RFC 863, RFC 6544 §4.5). */
export const DISCARD_PORT = 9;

/** Formats `candidate:…` of RFC 8839 §5.1 (and RFC 6544 §4.5), component 1, without the `a=`. */
export function formatCandidate(candidate: Candidate): string {
  const { foundation, priority, address, type } = candidate;
  const ip = socketAddressIp(address);
  const transport = candidate.transport.toUpperCase();
  const port = socketAddressPort(address);
  const common = `candidate:${foundation} 1 ${transport} ${priority} ${ip} ${port} typ ${type}`;
  if (candidate.transport === 'udp') {
    return type === 'host' ? common : `${common} ${formatRelated(candidate.related, ip)}`;
  }
  const protocol = candidate.protocol === undefined ? '' : ` protocol ${candidate.protocol}`;
  const related = type === 'host' ? '' : ` ${formatRelated(undefined, ip)}`;
  return `${common}${related} tcptype ${candidate.tcpType}${protocol}`;
}

/**
 * Reads what `formatCandidate` and other implementations write; `undefined` for anything else, which
 * includes names instead of addresses, other components, and simultaneous-open TCP.
 */
export function parseCandidate(text: string): Candidate | undefined {
  const match = text.length <= TEXT_LIMIT ? GRAMMAR.exec(text) : null;
  if (match === null) return undefined;
  const [, foundation = '', transport = '', priorityText, ipText = '', portText, typeText] = match;
  const type = TYPES.find((known) => known === typeText);
  const ip = parseIpAddress(ipText);
  const priority = Number(priorityText);
  const port = Number(portText);
  if (type === undefined || !ip.ok || isMapped(ip.value)) return undefined;
  if (!isPort(port) || !(priority >= 1 && priority <= PRIORITY_LIMIT)) return undefined;

  const extensions = parseExtensions(match[7] ?? '');
  const common = { type, foundation, priority };
  if (transport.toLowerCase() === 'udp') {
    const related = parseRelated(extensions);
    const udp = { ...common, transport: 'udp', address: socketAddress(ip.value, port) } as const;
    return related === undefined ? udp : { ...udp, related };
  }
  const tcpType = TCP_TYPES.find((known) => known === extensions.get('tcptype'));
  if (tcpType === undefined) return undefined;
  const address = socketAddress(ip.value, tcpType === 'active' ? DISCARD_PORT : port);
  const stream = { ...common, transport: 'tcp', tcpType, address } as const;
  const protocol = STREAM_PROTOCOLS.find((known) => known === extensions.get('protocol'));
  return protocol === undefined ? stream : { ...stream, protocol };
}

const TYPES: readonly CandidateType[] = ['host', 'srflx', 'prflx', 'relay'];
const TCP_TYPES = ['active', 'passive'] as const;
const STREAM_PROTOCOLS: readonly StreamProtocol[] = ['tcp', 'tls', 'ws', 'wss'];

/** RFC 8445 §5.1.2. */
const PRIORITY_LIMIT = 2 ** 31 - 1;

/** Several times what anybody writes. */
const TEXT_LIMIT = 512;

/** Foundation, transport, priority, address, port, type, and the rest: attributes as pairs of words. */
const GRAMMAR =
  /^candidate:([A-Za-z0-9+/]{1,32}) 1 (udp|tcp) (\d{1,10}) ([0-9A-Fa-f:.]{2,45}) (\d{1,5}) typ (\w+)((?: \S+ \S+)*)$/i;

/** Unknown attributes stay in the map and mean nothing (RFC 8839 §5.1). */
function parseExtensions(text: string): ReadonlyMap<string, string> {
  const words = text.split(' ');
  const extensions = new Map<string, string>();
  for (let i = 1; i + 1 < words.length; i += 2) extensions.set(words[i] ?? '', words[i + 1] ?? '');
  return extensions;
}

function formatRelated(related: SocketAddress | undefined, ip: IpAddress): string {
  // RFC 8839 §5.1: the attributes must be there, and this says that they tell nothing.
  if (related === undefined) {
    return `raddr ${ipFamily(ip) === 4 ? '0.0.0.0' : '::'} rport ${DISCARD_PORT}`;
  }
  return `raddr ${socketAddressIp(related)} rport ${socketAddressPort(related)}`;
}

/** A related address that is of no use, or none, is left out: it is only for diagnosis. */
function parseRelated(extensions: ReadonlyMap<string, string>): SocketAddress | undefined {
  const ip = parseIpAddress(extensions.get('raddr') ?? '');
  const portText = extensions.get('rport') ?? '';
  const port = /^\d{1,5}$/.test(portText) ? Number(portText) : 0;
  if (!ip.ok || !isPort(port)) return undefined;
  return ip.value === '0.0.0.0' || ip.value === '::' ? undefined : socketAddress(ip.value, port);
}

/** RFC 8445 §5.1.1.1: an IPv4-mapped IPv6 address is no candidate. */
function isMapped(ip: IpAddress): boolean {
  return ip.startsWith('::ffff:');
}

function isPort(port: number): boolean {
  return port >= 1 && port <= 65_535;
}
