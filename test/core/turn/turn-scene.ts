import type { SocketAddress } from '../../../core/net/socket-address.ts';
import type { Deadline } from '../../../core/sansio/agent.ts';
import { instantAt, type Instant } from '../../../core/sansio/instant.ts';
import { nullLog } from '../../../core/sansio/log.ts';
import { encodeUtf8 } from '../../../core/sansio/utf8.ts';
import {
  decodeStun,
  encodeStun,
  type ReceivedStun,
  type StunAttributes,
} from '../../../core/stun/message.ts';
import {
  Allocation,
  type AllocationEvent,
  type AllocationOptions,
} from '../../../core/turn/allocation.ts';
import { createNobleCrypto } from '../../../plugins/crypto-noble/index.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';

/** An allocation, the server it talks to, and the time between them. */

export const crypto = createNobleCrypto();
export const SECOND = 1_000;
export const MINUTE = 60_000;
export const RELAYED_4 = '198.51.100.1:50000' as SocketAddress;
export const RELAYED_6 = '[2001:db8::1]:50000' as SocketAddress;
export const MAPPED = '203.0.113.9:4711' as SocketAddress;
export const PEER = '192.0.2.7:51820' as SocketAddress;
export const OTHER_PEER = '192.0.2.8:51820' as SocketAddress;
/** 2026-01-01. */
export const UNIX_MS = 1_767_225_600_000;

export interface Reply {
  readonly code?: number;
  readonly attributes?: StunAttributes;
  /** Whether it has MESSAGE-INTEGRITY; it has where the request had, by default. */
  readonly isSigned?: boolean;
}

/** What a test wants of a request instead of the usual answer. */
export type Script = (request: ReceivedStun) => Reply | 'silence' | undefined;

export class TurnServer {
  realm = 'relay.test';
  nonce = 'nonce-1';
  lifetime = 600;
  mapped = MAPPED;
  relayed: readonly SocketAddress[] = [RELAYED_4, RELAYED_6];
  readonly passwords = new Map([['alice', 'secret']]);
  allocation: { username: string; channels: Map<number, SocketAddress> } | undefined;
  script: Script = () => undefined;

  answer(message: Uint8Array): Uint8Array | undefined {
    const decoded = decodeStun(message);
    if (!decoded.ok) throw new Error('malformed request');
    const request = decoded.value;
    const reply = this.script(request) ?? this.#usual(request);
    return reply === 'silence' ? undefined : this.encode(request, reply);
  }

  encode(request: ReceivedStun, { code, attributes = {}, isSigned }: Reply): Uint8Array {
    const { method, transactionId, hasIntegrity } = request;
    const isChallenge = code === 401 || code === 438;
    const error = code === undefined ? {} : { errorCode: { code, reason: `error ${code}` } };
    const key = (isSigned ?? (hasIntegrity && !isChallenge)) ? this.keyOf(request) : undefined;
    return encodeStun(
      {
        class: code === undefined ? 'success' : 'error',
        method,
        transactionId: transactionId.slice(),
        attributes: { ...error, ...attributes },
      },
      { crypto, ...(key && { integrityKey: key }) },
    );
  }

  keyOf({ attributes: { username = '' } }: ReceivedStun): Uint8Array {
    const password = this.passwords.get(username) ?? '';
    return crypto.md5(encodeUtf8(`${username}:${this.realm}:${password}`));
  }

  #usual(request: ReceivedStun): Reply {
    const { method, attributes } = request;
    if (method === 'binding') return { attributes: { xorMappedAddress: this.mapped } };
    const challenge = { realm: this.realm, nonce: this.nonce };
    const isOurs = attributes.realm === this.realm;
    if (!request.hasIntegrity || !isOurs) return { code: 401, attributes: challenge };
    if (attributes.nonce !== this.nonce) return { code: 438, attributes: challenge };
    const username = attributes.username ?? '';
    const isKnown = this.passwords.has(username);
    if (!isKnown || !request.hasValidIntegrity(this.keyOf(request), crypto)) {
      return { code: 401, attributes: challenge };
    }
    if (this.allocation !== undefined && this.allocation.username !== username) {
      return { code: 441 };
    }
    return this.#serve(method, attributes, username);
  }

  #serve(method: ReceivedStun['method'], attributes: StunAttributes, username: string): Reply {
    const { lifetime } = this;
    if (method === 'allocate') {
      if (this.allocation !== undefined) return { code: 437 };
      this.allocation = { username, channels: new Map() };
      const isDualStack = attributes.additionalAddressFamily === 6;
      const relayed = isDualStack ? this.relayed : this.relayed.slice(0, 1);
      return {
        attributes: { xorRelayedAddresses: relayed, xorMappedAddress: this.mapped, lifetime },
      };
    }
    if (this.allocation === undefined) return { code: 437 };
    if (method === 'refresh') {
      if (attributes.lifetime === 0) this.allocation = undefined;
      return { attributes: { lifetime: attributes.lifetime ?? lifetime } };
    }
    const [peer] = attributes.xorPeerAddresses ?? [];
    if (method !== 'channel-bind' || peer === undefined) return { code: 400 };
    this.allocation.channels.set(attributes.channelNumber ?? 0, peer);
    return {};
  }
}

export interface Sent {
  readonly at: number;
  readonly request: ReceivedStun;
  readonly bytes: Uint8Array;
}

/** What a scene drives. */
export interface Agent {
  handleMessage(message: Uint8Array, now: Instant): void;
  handleTimeout(now: Instant): void;
  pollTransmit(): Uint8Array | undefined;
  pollEvent(): unknown;
  pollTimeout(): Deadline | undefined;
}

/** Runs one agent against `answer` on a virtual clock. */
export class Timeline<A extends Agent, Event> {
  readonly agent: A;
  readonly sent: Sent[] = [];
  readonly events: { readonly at: number; readonly event: Event }[] = [];
  latency = 20;
  /** Where set, the agent hears of the time only at multiples of this. */
  tick: number | undefined;
  #now: number;
  readonly #answer: (message: Uint8Array) => Uint8Array | undefined;
  readonly #underWay: { readonly at: number; readonly message: Uint8Array }[] = [];

  constructor(
    make: (now: Instant) => A,
    answer: (message: Uint8Array) => Uint8Array | undefined,
    start = 0,
  ) {
    this.#now = start;
    this.agent = make(instantAt(start));
    this.#answer = answer;
    this.settle();
  }

  get now(): Instant {
    return instantAt(this.#now);
  }

  /** Lets time pass without anybody being told. */
  sleep(ms: number): void {
    this.#now += ms;
  }

  run(ms: number): this {
    const end = this.#now + ms;
    for (let rounds = 0; ; rounds++) {
      if (rounds > 100_000) throw new Error('the agent spins');
      this.settle();
      const deadline = this.agent.pollTimeout();
      const arrival = Math.min(...this.#underWay.map(({ at }) => at));
      let due: number = deadline?.at ?? Infinity;
      if (this.tick !== undefined) due = Math.ceil(due / this.tick) * this.tick;
      const next = Math.min(due, arrival);
      if (next > end) break;
      this.#now = Math.max(this.#now, next);
      const index = this.#underWay.findIndex(({ at }) => at <= this.#now);
      const [arrived] = index < 0 ? [] : this.#underWay.splice(index, 1);
      if (arrived !== undefined) this.agent.handleMessage(arrived.message, this.now);
      else this.timeout();
    }
    this.#now = end;
    return this;
  }

  /** Calls `handleTimeout` now and asserts that nothing stays due. */
  timeout(): void {
    this.agent.handleTimeout(this.now);
    this.settle();
    const next = this.agent.pollTimeout();
    if (next !== undefined && next.at <= this.#now) {
      throw new Error(`${next.reason} is due at ${next.at}, and it is ${this.#now}`);
    }
  }

  settle(): void {
    for (let bytes; (bytes = this.agent.pollTransmit()) !== undefined;) {
      const decoded = decodeStun(bytes);
      if (!decoded.ok) throw new Error('sent what does not decode');
      this.sent.push({ at: this.#now, request: decoded.value, bytes });
      const answer = this.#answer(bytes);
      if (answer !== undefined) {
        this.#underWay.push({ at: this.#now + this.latency, message: answer });
      }
    }
    for (let event; (event = this.agent.pollEvent()) !== undefined;) {
      this.events.push({ at: this.#now, event: event as Event });
    }
  }

  /** Method, and code letters of what is of interest, of all that was sent since the last call. */
  takeSent(): readonly Sent[] {
    return this.sent.splice(0);
  }

  takeEvents(): readonly Event[] {
    return this.events.splice(0).map(({ event }) => event);
  }
}

export class Scene extends Timeline<Allocation, AllocationEvent> {
  readonly server: TurnServer;

  constructor(options: Partial<AllocationOptions> = {}, server = new TurnServer(), seed = 1) {
    const random = new SeededRandom(seed);
    super(
      (now) =>
        new Allocation(
          {
            credentials: { type: 'long-term', username: 'alice', password: 'secret' },
            transport: 'udp',
            software: 'culvert',
            unixMs: (at) => UNIX_MS + at,
            random,
            crypto,
            log: nullLog,
            ...options,
          },
          now,
        ),
      (message) => server.answer(message),
    );
    this.server = server;
  }

  /** One that is allocated, with what led to it forgotten. */
  static allocated(options: Partial<AllocationOptions> = {}, server = new TurnServer()): Scene {
    const scene = new Scene(options, server);
    scene.run(SECOND);
    if (scene.agent.state !== 'allocated') throw new Error(`is ${scene.agent.state}`);
    scene.takeSent();
    scene.takeEvents();
    return scene;
  }
}

/** `allocate`, or `refresh:0` with a lifetime. */
export function methods(sent: readonly Sent[]): readonly string[] {
  return sent.map(({ request: { method, attributes } }) =>
    attributes.lifetime === undefined ? method : `${method}:${attributes.lifetime}`,
  );
}
