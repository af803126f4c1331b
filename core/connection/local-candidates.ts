import type { BaseId } from '../ice/agent.ts';
import type { Candidate, StreamProtocol } from '../ice/candidate.ts';
import { candidatePriority, foundationOf } from '../ice/candidate-priority.ts';
import { ipFamily, type IpAddress } from '../net/ip-address.ts';
import { socketAddress, socketAddressIp, type SocketAddress } from '../net/socket-address.ts';
import { formatBase } from './base.ts';
import type { Relay } from './relay.ts';

/** A candidate of ours with the base it stands on. */
export interface LocalCandidate {
  readonly candidate: Candidate;
  readonly base: BaseId;
}

/** Addresses of this machine that make candidates. */
const MOST_HOSTS = 8;
const MOST_REFLEXIVE = 8;
/** Guesses at the mapping of a NAT that keeps ports. */
const MOST_GUESSES = 2;
/** Streams that we dial have no port of their own yet (RFC 6544 §4.1). */
const ACTIVE_PORT = 9;

/** Returns the candidates on the UDP socket: our own addresses. */
export function hostCandidates(
  addresses: readonly IpAddress[],
  port: number,
): readonly LocalCandidate[] {
  return addresses.slice(0, MOST_HOSTS).map((ip, index) => {
    const address = socketAddress(ip, port);
    return {
      base: formatBase({ type: 'udp', local: ip }),
      candidate: {
        type: 'host',
        transport: 'udp',
        foundation: foundationOf('host', address, 'udp'),
        priority: candidatePriority('host', 'udp', ipFamily(ip), index),
        address,
      },
    };
  });
}

/**
 * Returns what relays see of us, for the peer alone: these make no pairs of ours (RFC 8445 §6.1.2.4). Many
 * NATs keep the port of the first who uses it, so the mapped address with our own port is a guess worth
 * two checks of the peer.
 */
export function reflexiveCandidates(
  mapped: readonly SocketAddress[],
  hosts: readonly LocalCandidate[],
  port: number,
): readonly Candidate[] {
  const known = new Set<string>(hosts.map(({ candidate }) => candidate.address));
  const guessed = mapped
    .filter((address) => ipFamily(socketAddressIp(address)) === 4)
    .map((address) => socketAddress(socketAddressIp(address), port));
  const found = unique(mapped).filter((address) => !known.has(address));
  const guesses = unique(guessed)
    .filter((address) => !known.has(address) && !found.includes(address))
    .slice(0, MOST_GUESSES);
  return [...found.slice(0, MOST_REFLEXIVE), ...guesses].map((address, index) => {
    const ip = socketAddressIp(address);
    const related = hosts.find(
      ({ candidate }) => ipFamily(socketAddressIp(candidate.address)) === ipFamily(ip),
    );
    return {
      type: 'srflx',
      transport: 'udp',
      foundation: foundationOf('srflx', address, 'udp'),
      priority: candidatePriority('srflx', 'udp', ipFamily(ip), index),
      address,
      ...(related === undefined ? {} : { related: related.candidate.address }),
    };
  });
}

/** Returns the candidates on an allocation. */
export function relayedCandidates(relay: Relay): readonly LocalCandidate[] {
  return relay.relayed.map((address) => {
    const family = ipFamily(socketAddressIp(address));
    return {
      base: formatBase({ type: 'relay', relay: relay.id, family }),
      candidate: {
        type: 'relay',
        transport: 'udp',
        foundation: foundationOf('relay', address, 'udp', relay.id),
        priority: candidatePriority('relay', 'udp', family, 0),
        address,
        ...(relay.mapped === undefined ? {} : { related: relay.mapped }),
      },
    };
  });
}

/** Returns the candidates of our stream listener (RFC 6544 §4.1). */
export function passiveCandidates(
  addresses: readonly IpAddress[],
  port: number,
  protocol: StreamProtocol,
): readonly LocalCandidate[] {
  return addresses.slice(0, MOST_HOSTS).map((ip, index) => ({
    base: formatBase({ type: 'accepted' }),
    candidate: {
      ...streamCandidate(socketAddress(ip, port), index),
      tcpType: 'passive',
      protocol,
    },
  }));
}

/** Returns the candidates for the streams that we dial, one of each family. */
export function activeCandidates(): readonly LocalCandidate[] {
  return UNSPECIFIED.map((ip, index) => ({
    base: formatBase({ type: 'dialled' }),
    candidate: { ...streamCandidate(socketAddress(ip, ACTIVE_PORT), index), tcpType: 'active' },
  }));
}

function streamCandidate(address: SocketAddress, index: number) {
  return {
    type: 'host',
    transport: 'tcp',
    foundation: foundationOf('host', address, 'tcp'),
    priority: candidatePriority('host', 'tcp', ipFamily(socketAddressIp(address)), index),
    address,
  } as const;
}

const UNSPECIFIED = ['0.0.0.0', '::'] as readonly string[] as readonly IpAddress[];

function unique<T>(values: readonly T[]): readonly T[] {
  return [...new Set(values)];
}
