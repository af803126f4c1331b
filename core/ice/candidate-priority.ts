import type { IpFamily } from '../net/ip-address.ts';
import { socketAddressIp, type SocketAddress } from '../net/socket-address.ts';
import type { Candidate, CandidateType } from './candidate.ts';

/**
 * Returns the priority of a local candidate (RFC 8445 §5.1.2.1), component 1:
 *
 *     2^24 × type preference + 2^8 × local preference + 255
 *
 * IPv6 is preferred to IPv4. `index` (from 0) tells the candidates of one type and family apart, the
 * preferred one first. The direction preference of RFC 6544 §4.2 is left out: it ranks an active against a
 * passive candidate for the same pair of addresses, and ours never dial each other both ways.
 */
export function candidatePriority(
  type: CandidateType,
  transport: Candidate['transport'],
  family: IpFamily,
  index: number,
): number {
  const preference = family === 6 ? IPV6_PREFERENCE : IPV4_PREFERENCE;
  const localPreference = preference - Math.min(index, IPV4_PREFERENCE - 1);
  return TYPE_PREFERENCE[transport][type] * 2 ** 24 + localPreference * 2 ** 8 + 255;
}

/** Returns the priority that the candidate would have if the peer learnt it from a check (§7.1.1). */
export function peerReflexivePriority(candidate: Candidate): number {
  return TYPE_PREFERENCE[candidate.transport].prflx * 2 ** 24 + (candidate.priority % 2 ** 24);
}

/**
 * Returns the foundation (RFC 8445 §5.1.1.3): equal for candidates of the same type, base address,
 * transport and server. `server` is the STUN or TURN server of a reflexive or relayed candidate.
 */
export function foundationOf(
  type: CandidateType,
  baseAddress: SocketAddress,
  transport: Candidate['transport'],
  server = '',
): string {
  return fnv1a(`${type} ${socketAddressIp(baseAddress)} ${transport} ${server}`).toString(16);
}

/**
 * RFC 8445 §5.1.2.2; for streams RFC 6544 §4.2 wants less than for datagrams of the same type, and they are
 * below all direct datagrams here.
 */
const TYPE_PREFERENCE = {
  udp: { host: 126, prflx: 110, srflx: 100, relay: 0 },
  tcp: { host: 90, prflx: 80, srflx: 70, relay: 0 },
} as const;

const IPV6_PREFERENCE = 65_535;
const IPV4_PREFERENCE = 32_767;

/** FNV-1a, 32 bits. Foundations are compared within one session only; a collision costs nothing here. */
function fnv1a(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) {
    hash = Math.imul(hash ^ text.charCodeAt(i), 0x0100_0193);
  }
  return hash >>> 0;
}
