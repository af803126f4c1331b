import {
  IceAgent,
  type BaseId,
  type IceCredentials,
  type IceEvent,
  type IceRole,
  type PairId,
} from '../../../core/ice/agent.ts';
import { candidatePriority, foundationOf } from '../../../core/ice/candidate-priority.ts';
import type { Candidate } from '../../../core/ice/candidate.ts';
import { ipFamily } from '../../../core/net/ip-address.ts';
import {
  parseSocketAddress,
  socketAddressIp,
  type SocketAddress,
} from '../../../core/net/socket-address.ts';
import { instantAt, type Instant } from '../../../core/sansio/instant.ts';
import { decodeStun, type ReceivedStun } from '../../../core/stun/message.ts';
import { createNobleCrypto } from '../../../plugins/crypto-noble/index.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';

/*
 * Agents on a virtual clock. Each has sockets, one for each base, and may have a NAT in front of them; links
 * delay and lose datagrams.
 */

export const crypto = createNobleCrypto();

export const LEFT: IceCredentials = {
  usernameFragment: 'left',
  password: 'left password of peers',
};
export const RIGHT: IceCredentials = {
  usernameFragment: 'rght',
  password: 'right password of peers',
};

export interface Datagram {
  readonly from: SocketAddress;
  readonly to: SocketAddress;
  readonly payload: Uint8Array;
}

/** When a datagram arrives, in milliseconds from its sending; never if it is lost. */
export type Link = (datagram: Datagram) => number | undefined;

export const FAST: Link = () => 10;

export function lossyLink(random: SeededRandom, loss: number): Link {
  return () => (random.fraction() < loss ? undefined : 5 + random.fraction() * 60);
}

/** Translates and filters by address and port (RFC 4787); `symmetric`: a mapping for each destination. */
export class Nat {
  readonly #ip: string;
  readonly #isSymmetric: boolean;
  readonly #mappings = new Map<
    string,
    { outside: SocketAddress; inside: SocketAddress; asked: Set<string> }
  >();
  #nextPort = 40_000;

  constructor(ip: string, options: { readonly isSymmetric?: boolean } = {}) {
    this.#ip = ip;
    this.#isSymmetric = options.isSymmetric ?? false;
  }

  outward(from: SocketAddress, to: SocketAddress): SocketAddress {
    const key = this.#isSymmetric ? `${from} ${to}` : from;
    const mapping = this.#mappings.get(key) ?? {
      outside: at(`${this.#ip}:${this.#nextPort++}`),
      inside: from,
      asked: new Set(),
    };
    mapping.asked.add(to);
    this.#mappings.set(key, mapping);
    return mapping.outside;
  }

  inward(to: SocketAddress, from: SocketAddress): SocketAddress | undefined {
    for (const { outside, inside, asked } of this.#mappings.values()) {
      if (outside === to && asked.has(from)) return inside;
    }
    return undefined;
  }

  /** All mappings are lost, as when it restarts: what goes out next comes from other ports. */
  forget(): void {
    this.#mappings.clear();
  }
}

export interface Sent {
  readonly at: Instant;
  readonly base: BaseId;
  readonly to: SocketAddress;
  readonly payload: Uint8Array;
  readonly message: ReceivedStun;
}

export class Peer {
  readonly agent: IceAgent;
  readonly sockets = new Map<BaseId, SocketAddress>();
  readonly candidates: Candidate[] = [];
  readonly events: { readonly at: Instant; readonly event: IceEvent }[] = [];
  readonly sent: Sent[] = [];
  nat: Nat | undefined;
  #out: Sent[] = [];

  constructor(role: IceRole, side: 'left' | 'right', now: Instant, seed: number) {
    const [local, remote] = side === 'left' ? [LEFT, RIGHT] : [RIGHT, LEFT];
    const random = new SeededRandom(seed);
    this.agent = new IceAgent({ role, local, remote, random, crypto }, now);
  }

  /** Opens a socket on this address and adds it as a host candidate; its base is the address. */
  open(address: string, now: Instant, index = 0): Candidate {
    const candidate = host(address, index);
    this.sockets.set(address, candidate.address);
    this.candidates.push(candidate);
    this.agent.addLocalCandidate(candidate, address, now);
    this.settle(now);
    return candidate;
  }

  receive(payload: Uint8Array, base: BaseId, from: SocketAddress, now: Instant): void {
    const decoded = decodeStun(payload);
    if (!decoded.ok) return;
    this.agent.handleStun({ message: decoded.value, base, from }, now);
    this.settle(now);
  }

  settle(now: Instant): void {
    for (;;) {
      const transmit = this.agent.pollTransmit();
      if (transmit !== undefined) {
        const sent = { at: now, ...transmit, message: decoded(transmit.payload) };
        this.sent.push(sent);
        this.#out.push(sent);
      }
      const event = this.agent.pollEvent();
      if (event !== undefined) this.events.push({ at: now, event });
      if (transmit === undefined && event === undefined) return;
    }
  }

  takeSent(): readonly Sent[] {
    const out = this.#out;
    this.#out = [];
    return out;
  }

  get checks(): readonly Sent[] {
    return this.sent.filter(({ message }) => message.class === 'request');
  }

  get answers(): readonly Sent[] {
    return this.sent.filter(({ message }) => message.class !== 'request');
  }

  eventsOf<T extends IceEvent['type']>(type: T): Extract<IceEvent, { type: T }>[] {
    const all = this.events.map(({ event }) => event);
    return all.filter((event): event is Extract<IceEvent, { type: T }> => event.type === type);
  }

  /** Valid pairs as text, `base → remote`. */
  get valid(): readonly string[] {
    return this.agent.validPairs().map(({ base, remote }) => `${base} → ${remote}`);
  }
}

export class Network {
  now: Instant = instantAt(1000);
  link: Link;
  readonly peers: Peer[] = [];
  #flying: { readonly at: Instant; readonly sequence: number; readonly datagram: Datagram }[] = [];
  #sequence = 0;

  constructor(link: Link = FAST) {
    this.link = link;
  }

  addPeer(role: IceRole, side: 'left' | 'right', seed = 1): Peer {
    const peer = new Peer(role, side, this.now, seed * 2 + (side === 'left' ? 0 : 1));
    this.peers.push(peer);
    return peer;
  }

  /** Lets `ms` pass, going from one deadline or arrival to the next. */
  run(ms: number): void {
    const end = this.now + ms;
    for (let steps = 0; ; steps++) {
      if (steps > 100_000) throw new Error('no end of steps');
      this.#collect();
      const next = Math.min(this.#nextArrival(), this.#nextDeadline());
      if (next > end) break;
      if (next < this.now) throw new Error('a deadline in the past');
      this.now = instantAt(next);
      this.#deliver();
      for (const peer of this.peers) {
        const due = peer.agent.pollTimeout();
        if (due === undefined || due.at > this.now) continue;
        peer.agent.handleTimeout(this.now);
        peer.settle(this.now);
        const left = peer.agent.pollTimeout();
        if (left !== undefined && left.at <= this.now) throw new Error(`spins on ${left.reason}`);
      }
    }
    this.now = instantAt(end);
  }

  #collect(): void {
    for (const peer of this.peers) {
      peer.settle(this.now);
      for (const { base, to, payload } of peer.takeSent()) {
        const inside = peer.sockets.get(base);
        if (inside === undefined) continue;
        const from = peer.nat?.outward(inside, to) ?? inside;
        const datagram = { from, to, payload };
        const delay = this.link(datagram);
        if (delay === undefined) continue;
        const sequence = this.#sequence++;
        this.#flying.push({ at: instantAt(this.now + delay), sequence, datagram });
      }
    }
  }

  #deliver(): void {
    const arrived = this.#flying.filter(({ at }) => at <= this.now);
    this.#flying = this.#flying.filter(({ at }) => at > this.now);
    arrived.sort((a, b) => a.at - b.at || a.sequence - b.sequence);
    for (const { datagram } of arrived) {
      for (const peer of this.peers) {
        const to =
          peer.nat === undefined ? datagram.to : peer.nat.inward(datagram.to, datagram.from);
        for (const [base, address] of peer.sockets) {
          if (address === to) peer.receive(datagram.payload, base, datagram.from, this.now);
        }
      }
    }
  }

  #nextArrival(): number {
    return Math.min(...this.#flying.map(({ at }) => at));
  }

  #nextDeadline(): number {
    return Math.min(...this.peers.map(({ agent }) => agent.pollTimeout()?.at ?? Infinity));
  }
}

/** A controlling peer at 192.0.2.1:1000 and a controlled one at 198.51.100.1:2000 that know each other. */
export function createPair(options: { readonly seed?: number; readonly link?: Link } = {}): {
  network: Network;
  left: Peer;
  right: Peer;
} {
  const network = new Network(options.link);
  const left = network.addPeer('controlling', 'left', options.seed);
  const right = network.addPeer('controlled', 'right', options.seed);
  left.open('192.0.2.1:1000', network.now);
  right.open('198.51.100.1:2000', network.now);
  introduce(network, left, right);
  return { network, left, right };
}

/** Each gets the candidates of the other. */
export function introduce(network: Network, left: Peer, right: Peer): void {
  left.agent.setRemoteCandidates(right.candidates, network.now);
  right.agent.setRemoteCandidates(left.candidates, network.now);
}

export const LEFT_PAIR: PairId = { base: '192.0.2.1:1000', remote: at('198.51.100.1:2000') };
export const RIGHT_PAIR: PairId = { base: '198.51.100.1:2000', remote: at('192.0.2.1:1000') };

export function host(address: string, index = 0): Candidate {
  return candidate('host', address, index);
}

export function candidate(type: Candidate['type'], address: string, index = 0): Candidate {
  const parsed = at(address);
  const family = ipFamily(socketAddressIp(parsed));
  return {
    type,
    transport: 'udp',
    foundation: foundationOf(type, parsed, 'udp'),
    priority: candidatePriority(type, 'udp', family, index),
    address: parsed,
  };
}

export function stream(tcpType: 'active' | 'passive', address: string): Candidate {
  return {
    type: 'host',
    transport: 'tcp',
    tcpType,
    foundation: '1',
    priority: candidatePriority('host', 'tcp', 4, 0),
    address: at(address),
  };
}

export function decoded(payload: Uint8Array): ReceivedStun {
  const outcome = decodeStun(payload);
  if (!outcome.ok) throw new Error('an agent sent what is no STUN message');
  return outcome.value;
}

export function at(address: string): SocketAddress {
  const parsed = parseSocketAddress(address);
  if (!parsed.ok) throw new Error(`${parsed.why}: ${address}`);
  return parsed.value;
}
