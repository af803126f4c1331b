import {
  Connection,
  type ConnectionEvent,
  type ConnectionFailure,
} from '../../../core/connection/connection.ts';
import { derivePairSecrets } from '../../../core/connection/pair-secrets.ts';
import { isSamePair } from '../../../core/connection/path-choice.ts';
import type { BaseId, PairId } from '../../../core/ice/agent.ts';
import { candidatePriority, foundationOf } from '../../../core/ice/candidate-priority.ts';
import type { Candidate } from '../../../core/ice/candidate.ts';
import { ipFamily } from '../../../core/net/ip-address.ts';
import {
  parseSocketAddress,
  socketAddressIp,
  type SocketAddress,
} from '../../../core/net/socket-address.ts';
import { instantAt, type Instant } from '../../../core/sansio/instant.ts';
import { decodeStun } from '../../../core/stun/message.ts';
import { createNobleCrypto } from '../../../plugins/crypto-noble/index.ts';
import { createNodeCrypto } from '../../../plugins/crypto-node/index.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';
import { SimulatedTunnel, type Tunnel, type TunnelMessage } from './tunnels.ts';

/*
 * Two connections on a virtual clock, with a direct path, one over a relay of the left side and one over a
 * stream that the left side dials. Each path delays, loses and blocks for itself, in each direction.
 */

export const crypto = createNodeCrypto(createNobleCrypto());

export type PathName = 'direct' | 'relayed' | 'stream';
export type SideName = 'left' | 'right';

/** What one path does to datagrams that leave from one side. */
export interface Way {
  delay: number;
  /** Added to the delay, uniformly. */
  jitter: number;
  loss: number;
  isBlocked: boolean;
}

export type Message = { readonly type: 'stun'; readonly payload: Uint8Array } | TunnelMessage;

interface Flying {
  readonly at: Instant;
  readonly from: SocketAddress;
  readonly to: SocketAddress;
  readonly message: Message;
}

const ADDRESSES: Record<SideName, Partial<Record<PathName, string>>> = {
  left: { direct: '192.0.2.1:1000', relayed: '203.0.113.1:5000', stream: '192.0.2.1:50000' },
  right: { direct: '198.51.100.1:2000', stream: '198.51.100.1:443' },
};

export class Side {
  readonly name: SideName;
  readonly bench: Bench;
  readonly sockets = new Map<BaseId, SocketAddress>();
  readonly candidates: Candidate[] = [];
  readonly events: { readonly at: Instant; readonly event: ConnectionEvent }[] = [];
  /** Data that arrived: when, and on which path. */
  readonly received: { readonly at: Instant; readonly path: PathName }[] = [];
  readonly sent: { readonly at: Instant; readonly to: SocketAddress; readonly message: Message }[] =
    [];
  connection: Connection;
  tunnel: Tunnel;
  /** Added to the clock of this side. */
  offset = 0;
  isAsleep = false;
  /** Sends a packet this often, beginning at `nextPacketAt`. */
  packetInterval = Infinity;
  nextPacketAt: number = Infinity;

  constructor(name: SideName, bench: Bench) {
    this.name = name;
    this.bench = bench;
    this.connection = this.#connect();
    this.tunnel = new SimulatedTunnel();
  }

  get now(): Instant {
    return instantAt(this.bench.now + this.offset);
  }

  get other(): Side {
    return this.bench[this.name === 'left' ? 'right' : 'left'];
  }

  /** The path in use. */
  get path(): PathName | undefined {
    const pair = this.connection.selected;
    return pair && pathOf(this.sockets.get(pair.base) ?? pair.remote, pair.remote);
  }

  /** Begins anew, as after a restart of the daemon. */
  restart(paths: readonly PathName[]): void {
    this.connection = this.#connect();
    this.tunnel = new SimulatedTunnel();
    this.sockets.clear();
    this.candidates.length = 0;
    for (const path of paths) this.open(path);
  }

  open(path: PathName): void {
    const address = ADDRESSES[this.name][path];
    if (address === undefined) return;
    const { candidate, base } = localCandidate(this.name, path, address);
    this.sockets.set(base, candidate.address);
    this.candidates.push(candidate);
    this.connection.addLocalCandidate(candidate, base, this.now);
    this.settle();
  }

  startTraffic(interval: number): void {
    this.packetInterval = interval;
    this.nextPacketAt = this.bench.now;
  }

  stopTraffic(): void {
    this.nextPacketAt = Infinity;
  }

  /** Sends a packet on the path in use; without one it waits, and asks for one. */
  sendPacket(): void {
    const pair = this.connection.selected;
    if (pair === undefined || !this.tunnel.hasSession) {
      this.connection.wake(this.now);
    } else {
      this.send(pair, { type: 'data' });
      this.connection.handleTransport({ sent: true, received: false, elsewhere: false }, this.now);
    }
    this.settle();
  }

  send({ base, remote }: PairId, message: Message): void {
    this.sent.push({ at: this.bench.now, to: remote, message });
    const from = this.sockets.get(base);
    if (from !== undefined) this.bench.transmit(this, { from, to: remote, message });
  }

  receive(base: BaseId, { from, to, message }: Flying): void {
    const { now, connection } = this;
    if (message.type === 'stun') {
      const decoded = decodeStun(message.payload);
      if (decoded.ok) connection.handleStun({ message: decoded.value, base, from }, now);
    } else {
      const elsewhere = !isSamePair({ base, remote: from }, connection.selected);
      this.tunnel.receive(message, from, now);
      const isTransport = message.type === 'data' || message.type === 'confirm';
      if (isTransport && this.tunnel.hasSession) {
        if (message.type === 'data')
          this.received.push({ at: this.bench.now, path: pathOf(from, to) });
        connection.handleTransport({ sent: false, received: true, elsewhere }, now);
      }
    }
    this.settle();
  }

  handleTimeout(): void {
    this.connection.handleTimeout(this.now);
    this.settle();
    this.tunnel.handleTimeout(this.now);
    this.settle();
  }

  /** Carries outputs until there are none. */
  settle(): void {
    const { connection, tunnel, now } = this;
    for (let worked = true; worked;) {
      worked = false;
      for (let sent = connection.pollTransmit(); sent; sent = connection.pollTransmit()) {
        this.send({ base: sent.base, remote: sent.to }, { type: 'stun', payload: sent.payload });
        worked = true;
      }
      for (let event = connection.pollEvent(); event; event = connection.pollEvent()) {
        this.events.push({ at: this.bench.now, event });
        this.#handleEvent(event);
        worked = true;
      }
      for (let message = tunnel.poll(); message; message = tunnel.poll()) {
        const pair = connection.selected;
        if (pair !== undefined) this.send(pair, message);
        worked = true;
      }
      for (let outcome = tunnel.pollOutcome(); outcome; outcome = tunnel.pollOutcome()) {
        if (outcome === 'session') connection.handleSession(now);
        else connection.handleHandshakeFailed(outcome, now);
        worked = true;
      }
    }
  }

  deadline(): number {
    const at = Math.min(this.connection.pollTimeout()?.at ?? Infinity, this.tunnel.deadline());
    return at - this.offset;
  }

  eventsOf<T extends ConnectionEvent['type']>(
    type: T,
  ): (Extract<ConnectionEvent, { type: T }> & { readonly at: Instant })[] {
    return this.events.flatMap(({ at, event }) =>
      event.type === type ? [{ ...(event as Extract<ConnectionEvent, { type: T }>), at }] : [],
    );
  }

  /** What is told of the failures: WireGuard may know more than the connection. */
  readonly causes: ConnectionFailure[] = [];

  get failures(): readonly { readonly at: Instant; readonly why: ConnectionFailure }[] {
    return this.eventsOf('failed').map(({ at, why }) => ({ at, why }));
  }

  /** The paths that were taken, in order. */
  get selections(): readonly string[] {
    return this.eventsOf('path-selected').map(({ pair, why }) => {
      return `${pathOf(this.sockets.get(pair.base) ?? pair.remote, pair.remote)}: ${why}`;
    });
  }

  #handleEvent(event: ConnectionEvent): void {
    const { now, tunnel, bench } = this;
    switch (event.type) {
      case 'path-selected':
        return tunnel.setRemote(event.pair.remote, now);
      case 'path-lost':
        return tunnel.setRemote(undefined, now);
      case 'handshake-due':
        return tunnel.request(now);
      case 'signal-due':
        if (bench.hasBroker) bench.signals.push({ at: bench.now + bench.signalDelay, from: this });
        return;
      case 'failed':
        this.causes.push(event.why === 'no-session' ? (tunnel.suspicion ?? event.why) : event.why);
        return;
      case 'streams-wanted':
        return;
    }
  }

  #connect(): Connection {
    const secrets = derivePairSecrets(
      KEYS[this.name],
      KEYS[OTHER[this.name]].publicKey,
      '',
      crypto,
    );
    if (secrets === undefined) throw new Error('no secrets');
    const role = this.bench.controlling === this.name ? 'controlling' : 'controlled';
    const random = this.bench.random;
    const options = { secrets: { ...secrets, role } as const, isStream, random, crypto };
    return new Connection(options, instantAt(this.bench.now + (this.offset ?? 0)));
  }
}

export interface BenchOptions {
  readonly seed?: number;
  readonly paths?: readonly PathName[];
  readonly controlling?: SideName;
  readonly loss?: number;
  readonly jitter?: number;
}

export class Bench {
  now: Instant = instantAt(1000);
  readonly random: SeededRandom;
  readonly controlling: SideName;
  readonly left: Side;
  readonly right: Side;
  readonly ways: Record<SideName, Record<PathName, Way>>;
  readonly signals: { readonly at: number; readonly from: Side }[] = [];
  hasBroker = true;
  /** Drivers come this late at most; 0: in time. */
  tick = 0;
  signalDelay = 100;
  /** What becomes of a message beside what its way does to it: it is delayed by this much, or lost. */
  fate: (from: Side, message: Message) => number | undefined = () => 0;
  readonly #sides: readonly Side[];
  #flying: Flying[] = [];

  constructor(options: BenchOptions = {}) {
    const { seed = 1, loss = 0, jitter = 0, controlling = 'left' } = options;
    this.random = new SeededRandom(seed);
    this.controlling = controlling;
    const way = (delay: number): Way => ({ delay, jitter, loss, isBlocked: false });
    const ways = () => ({ direct: way(10), relayed: way(30), stream: way(40) });
    this.ways = { left: ways(), right: ways() };
    this.left = new Side('left', this);
    this.right = new Side('right', this);
    this.#sides = [this.left, this.right];
    for (const path of options.paths ?? ['direct', 'relayed']) {
      this.left.open(path);
      this.right.open(path);
    }
  }

  /** Each side gets what the other one signals. */
  introduce(): void {
    for (const side of this.#sides) this.#tell(side);
  }

  block(path: PathName, from: SideName | 'both' = 'both', isBlocked = true): void {
    for (const name of ['left', 'right'] as const) {
      if (from === 'both' || from === name) this.ways[name][path].isBlocked = isBlocked;
    }
  }

  unblock(path: PathName): void {
    this.block(path, 'both', false);
  }

  transmit(side: Side, { from, to, message }: Omit<Flying, 'at'>): void {
    const way = this.ways[side.name][pathOf(from, to)];
    const isLost = way.isBlocked || (way.loss > 0 && this.random.fraction() < way.loss);
    const held = this.fate(side, message);
    if (isLost || held === undefined) return;
    const delay = held + way.delay + (way.jitter > 0 ? this.random.fraction() * way.jitter : 0);
    this.#flying.push({ at: instantAt(this.now + delay), from, to, message });
  }

  /** Lets `ms` pass, going from one thing that happens to the next. */
  run(ms: number): void {
    const end = this.now + ms;
    let idleSteps = 0;
    for (;;) {
      let next = this.#nextDue();
      for (const { at } of this.#flying) next = Math.min(next, at);
      if (next > end) break;
      if (next < this.now) throw new Error(`a deadline in the past: ${next} < ${this.now}`);
      idleSteps = next === this.now ? idleSteps + 1 : 0;
      if (idleSteps > 1000) throw new Error('no end of steps');
      this.now = instantAt(this.tick === 0 ? next : Math.ceil(next / this.tick) * this.tick);
      this.#step();
    }
    this.now = instantAt(end);
  }

  #step(): void {
    const arrived = this.#flying.filter(({ at }) => at <= this.now);
    if (arrived.length > 0) this.#flying = this.#flying.filter(({ at }) => at > this.now);
    for (const datagram of arrived) {
      for (const side of this.#sides) {
        if (side.isAsleep) continue;
        for (const [base, address] of side.sockets) {
          if (address === datagram.to) side.receive(base, datagram);
        }
      }
    }
    while (this.signals[0] !== undefined && this.signals[0].at <= this.now) {
      const signal = this.signals.shift();
      if (signal !== undefined) this.#tell(signal.from);
    }
    for (const side of this.#sides) {
      if (side.isAsleep) continue;
      if (side.nextPacketAt <= this.now) {
        side.nextPacketAt += side.packetInterval;
        side.sendPacket();
      }
      if (side.deadline() > this.now) continue;
      side.handleTimeout();
      const left = side.connection.pollTimeout();
      if (left !== undefined && left.at < side.now) throw new Error(`late for ${left.reason}`);
    }
  }

  #nextDue(): number {
    let due = this.signals[0]?.at ?? Infinity;
    for (const side of this.#sides) {
      if (!side.isAsleep) due = Math.min(due, side.deadline(), side.nextPacketAt);
    }
    return due;
  }

  #tell(side: Side): void {
    const { other } = side;
    if (other.isAsleep) return;
    other.connection.setRemoteCandidates(side.candidates, other.now);
    other.settle();
  }
}

/** Two connections that have found their best path and have a session. */
export function connected(options: BenchOptions = {}): Bench {
  const bench = new Bench(options);
  bench.introduce();
  bench.run(3000);
  return bench;
}

export function isStream(base: BaseId): boolean {
  return base === 'dialled' || base === 'accepted';
}

export function localCandidate(
  side: SideName,
  path: PathName,
  address: string,
): { readonly candidate: Candidate; readonly base: BaseId } {
  const parsed = at(address);
  const family = ipFamily(socketAddressIp(parsed));
  if (path === 'stream') {
    const tcpType = side === 'left' ? 'active' : 'passive';
    const base = side === 'left' ? 'dialled' : 'accepted';
    const priority = candidatePriority('host', 'tcp', family, 0);
    const foundation = 'stream';
    return {
      base,
      candidate: { type: 'host', transport: 'tcp', tcpType, foundation, priority, address: parsed },
    };
  }
  const type = path === 'relayed' ? 'relay' : 'host';
  const foundation = foundationOf(type, parsed, 'udp');
  const priority = candidatePriority(type, 'udp', family, 0);
  return {
    base: `${path} ${address}`,
    candidate: { type, transport: 'udp', foundation, priority, address: parsed },
  };
}

export function at(address: string): SocketAddress {
  const parsed = parseSocketAddress(address);
  if (!parsed.ok) throw new Error(`${parsed.why}: ${address}`);
  return parsed.value;
}

function pathOf(from: SocketAddress, to: SocketAddress): PathName {
  if (from.startsWith('203.0.113.') || to.startsWith('203.0.113.')) return 'relayed';
  return from.endsWith(':443') || to.endsWith(':443') ? 'stream' : 'direct';
}

const OTHER = { left: 'right', right: 'left' } as const;

export const KEYS: Record<SideName, { privateKey: Uint8Array; publicKey: Uint8Array }> = {
  left: keyPair(1),
  right: keyPair(2),
};

export function keyPair(fill: number): { privateKey: Uint8Array; publicKey: Uint8Array } {
  const privateKey = new Uint8Array(32).fill(fill);
  return { privateKey, publicKey: crypto.x25519.publicKey(privateKey) };
}
