import type { BaseId } from '../ice/agent.ts';
import { DISCARD_PORT, type Candidate, type StreamProtocol } from '../ice/candidate.ts';
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

/**
 * The candidates of this device that do not depend on the peer: on the UDP socket at each of our addresses,
 * and on the stream listener.
 */
export class LocalCandidates {
  #addresses: readonly IpAddress[] = [];
  #port = 0;
  #listener: StreamListener | undefined;
  #hosts: readonly LocalCandidate[] = [];
  #passive: readonly LocalCandidate[] = [];

  /** Where the UDP socket is bound. Returns whether that is news, and the bases that are gone. */
  setLocal(
    addresses: readonly IpAddress[],
    port: number,
  ): { readonly isNew: boolean; readonly gone: readonly BaseId[] } {
    if (port === this.#port && addresses.join() === this.#addresses.join()) {
      return { isNew: false, gone: [] };
    }
    const before = this.#hosts;
    // A pair is one base and one remote address: under another port it is another one.
    const isMoved = port !== this.#port;
    this.#addresses = addresses;
    this.#port = port;
    this.#hosts = hostCandidates(addresses, port);
    this.setListener(this.#listener);
    const kept = isMoved ? [] : this.#hosts.map(({ base }) => base);
    const gone = before.map(({ base }) => base).filter((base) => !kept.includes(base));
    return { isNew: true, gone };
  }

  /** Where streams are accepted; `undefined` where they are not. */
  setListener(listener: StreamListener | undefined): void {
    this.#listener = listener;
    this.#passive =
      listener === undefined
        ? []
        : passiveCandidates(this.#addresses, listener.port, listener.protocol);
  }

  get isListening(): boolean {
    return this.#listener !== undefined;
  }

  /** Those that make pairs. */
  get all(): readonly LocalCandidate[] {
    return [...this.#hosts, ...this.#passive];
  }

  /** Whether a candidate of a peer is an address of ours: where networks overlap, or somebody jokes. */
  isOurs(address: SocketAddress): boolean {
    return this.all.some(({ candidate }) => candidate.address === address);
  }

  /** The base of a datagram that came on the UDP socket; `local` is its destination, where that is known. */
  baseOf(local: IpAddress | undefined): BaseId {
    if (local !== undefined) return formatBase({ type: 'udp', local });
    return this.#hosts[0]?.base ?? '';
  }

  /** Returns the complete list that a peer is told, the best first. */
  toTell(
    mapped: readonly SocketAddress[],
    relayed: readonly LocalCandidate[],
  ): readonly Candidate[] {
    return [
      ...this.#hosts.map(({ candidate }) => candidate),
      ...reflexiveCandidates(mapped, this.#hosts, this.#port),
      ...relayed.map(({ candidate }) => candidate),
      ...this.#passive.map(({ candidate }) => candidate),
    ];
  }
}

export interface StreamListener {
  readonly port: number;
  /** What peers are told to speak there. */
  readonly protocol: StreamProtocol;
}

/** Returns the candidates on the UDP socket: our own addresses. */
function hostCandidates(addresses: readonly IpAddress[], port: number): readonly LocalCandidate[] {
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
function reflexiveCandidates(
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
function passiveCandidates(
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
    candidate: { ...streamCandidate(socketAddress(ip, DISCARD_PORT), index), tcpType: 'active' },
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
