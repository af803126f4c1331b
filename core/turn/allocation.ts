/**
 * Our allocation at one TURN server (RFC 8656) over one transport: makes it, keeps it and its channels
 * alive, and makes it anew when the server has lost it. Data go through channels only, written and read
 * elsewhere (`channelTo`, `peerOf`).
 *
 * - `allocating`: Allocate, first without credentials, as only the server's challenge (401) tells realm and
 *   nonce. It asks for IPv4 and IPv6 and takes what it gets. Where the server sees an allocation on
 *   this transport already (437), that one is given back first. If it is still seen then, we wait: coturn
 *   takes a second to let go of it (and of the connection, where the transport is a stream).
 * - `allocated`: refreshed at half of its lifetime. A server that answers 437 has lost it: back to
 *   `allocating`, and the channels in use are bound again, with the same numbers, a few at a time.
 * - `failed`: for good. Requests unanswered for 8 s, errors without a cure, the end of the lifetime.
 *
 * Timers:
 * - `allocate`: time to ask again for what the server could not give yet.
 * - `refresh` at half of the lifetime that the server granted last.
 * - `lifetime` at its end: the relayed addresses are void whatever else is under way.
 * - `bind`: time to bind more of the channels that wait.
 * - `keepalive` 25 s after the last answer or datagram. It sends one binding request. Its answer is not
 *   authentic, so it decides nothing: silence, or another mapped address, leads to a refresh.
 * - Each request has its own (`Requests`), and each channel (`Channels`).
 *
 * No CreatePermission is sent: binding a channel makes the permission (RFC 8656 §12.2).
 */
import { ipFamily } from '../net/ip-address.ts';
import { socketAddressIp, socketAddressPort, type SocketAddress } from '../net/socket-address.ts';
import { earliest, type Deadline } from '../sansio/agent.ts';
import { BoundedQueue } from '../sansio/bounded-queue.ts';
import type { Crypto } from '../sansio/crypto.ts';
import { after, elapsed, type Instant, type Millis } from '../sansio/instant.ts';
import type { Log } from '../sansio/log.ts';
import type { Random } from '../sansio/random.ts';
import { TimerTable } from '../sansio/timer-table.ts';
import { decodeStun, type StunAttributes } from '../stun/message.ts';
import { BRIEF_PATIENCE } from '../stun/transaction.ts';
import { Channels, MOST_CHANNELS, type Channel } from './channels.ts';
import type { TurnCredentials } from './credentials.ts';
import { Requests, type Answer, type DropReason, type Request } from './requests.ts';

export type { TurnCredentials } from './credentials.ts';

export interface AllocationOptions {
  readonly credentials: TurnCredentials;
  /** Whether messages go over UDP, and are repeated, or over a stream that does so itself. */
  readonly transport: 'udp' | 'stream';
  readonly software: string;
  /** The calendar, for minted credentials. */
  unixMs(now: Instant): number;
  readonly random: Random;
  readonly crypto: Crypto;
  readonly log: Log;
}

export type AllocationState = 'allocating' | 'allocated' | 'failed';

export type AllocationFailure =
  /** 441: our port has an allocation there that was made with another name. It ends by itself. */
  | 'held-by-another-login'
  | 'no-response'
  | 'wrong-credentials'
  | 'quota-reached'
  | 'out-of-capacity'
  /** Any other error, which `code` tells: 300 points to another server, which is not followed. */
  | 'refused'
  | 'closed';

export type AllocationEvent =
  /** Also after relayed addresses changed. `relayed` has at most one address of each family. */
  | {
      readonly type: 'allocated';
      readonly relayed: readonly SocketAddress[];
      /** Our address as the relay sees it: a server-reflexive one where the transport is UDP. */
      readonly mapped: SocketAddress;
    }
  /** The relayed addresses are void. The owner decides when to make another allocation. */
  | { readonly type: 'failed'; readonly why: AllocationFailure; readonly code?: number }
  /** Told once for each allocation, not when a binding is prolonged. */
  | { readonly type: 'channel-bound'; readonly peer: SocketAddress; readonly channel: number }
  /** 400, 403 or 443: no datagram gets to this peer this way. */
  | { readonly type: 'channel-refused'; readonly peer: SocketAddress }
  /** A datagram that came as a Data indication, from a peer with a permission but no channel. */
  | { readonly type: 'data'; readonly peer: SocketAddress; readonly payload: Uint8Array };

const KEEPALIVE_INTERVAL: Millis = 25_000;
/** A longer lifetime than that of any server is not believed (RFC 8656 §7.2 recommends 1 h at most). */
const LONGEST_LIFETIME: Millis = 3_600_000;
/** Allocations found in our way, or lost, in a row, before we stop fighting. */
const MOST_MISMATCHES = 4;
/** Time for a server to let go of an allocation. */
const MISMATCH_PAUSE: Millis = 2_000;

/** Data that wait for the owner: newer ones are dropped, as the network would. */
const MOST_DATA = 64;
/** More than one message or timeout can cause. */
const MOST_EVENTS = 2 * MOST_CHANNELS;

const REQUESTED_TRANSPORT_UDP = 17;

/** Channels are bound this many at a time: a server, and the way to it, has others to serve. */
export const MOST_BINDS = 32;
export const BIND_INTERVAL: Millis = 100;

const TIMERS = ['lifetime', 'allocate', 'refresh', 'bind', 'keepalive'] as const;

type State =
  | { readonly type: 'allocating' }
  | {
      readonly type: 'allocated';
      readonly relayed: readonly SocketAddress[];
      readonly mapped: SocketAddress;
    }
  | { readonly type: 'failed' };

export class Allocation {
  readonly #log: Log;
  readonly #requests: Requests;
  readonly #channels = new Channels();
  readonly #timers = new TimerTable<(typeof TIMERS)[number]>(TIMERS);
  readonly #events = new BoundedQueue<AllocationEvent>(MOST_EVENTS, 'oldest');
  readonly #data = new BoundedQueue<AllocationEvent>(MOST_DATA, 'newest');
  readonly #drops: Record<DropReason, number> = {
    malformed: 0,
    unsolicited: 0,
    unauthenticated: 0,
  };
  #now: Instant;
  #state: State = { type: 'allocating' };
  #isDualStack = true;
  /** 437s since a request last confirmed an allocation. */
  #mismatches = 0;
  /** The last channels to be bound within one BIND_INTERVAL. */
  #binds: { readonly since: Instant; count: number };

  constructor(options: AllocationOptions, now: Instant) {
    this.#log = options.log;
    this.#now = now;
    this.#binds = { since: now, count: 0 };
    this.#requests = new Requests(options, now);
    this.#allocate(now);
  }

  get state(): AllocationState {
    return this.#state.type;
  }

  /** Smoothed round trip of answered requests that were sent once; `undefined` before the first. */
  get rtt(): Millis | undefined {
    return this.#requests.rtt;
  }

  /** Empty unless allocated. */
  get relayed(): readonly SocketAddress[] {
    return this.#state.type === 'allocated' ? this.#state.relayed : [];
  }

  /** Messages that changed nothing, by why. */
  get drops(): Readonly<Record<DropReason, number>> {
    return this.#drops;
  }

  /**
   * A STUN message from the server, whole. What does not authenticate changes nothing, but for 401, 438
   * and, to an Allocate, 437.
   */
  handleMessage(message: Uint8Array, now: Instant): void {
    if (this.#state.type === 'failed') return;
    this.#now = now;
    const decoded = decodeStun(message);
    if (!decoded.ok) return this.#drop('malformed');
    const { class: messageClass, method, attributes } = decoded.value;
    if (messageClass === 'indication' && method === 'data') return this.#handleData(attributes);
    if (messageClass !== 'success' && messageClass !== 'error') return this.#drop('unsolicited');
    const answer = this.#requests.handleResponse(decoded.value, now);
    if (answer === 'challenged') return;
    if (typeof answer === 'string') return this.#drop(answer);
    this.#handleAnswer(answer, now);
    if (this.state === 'allocated') this.#timers.set('keepalive', after(now, KEEPALIVE_INTERVAL));
  }

  /**
   * Returns the channel to the peer, binding one if there is none yet; usable at once, although what
   * overtakes the request that binds it is lost. A channel that nobody asks for or uses for 4 min is
   * given up. `undefined` for a peer that was refused in the last 5 min, and when there are too many.
   * At most MOST_BINDS are bound in BIND_INTERVAL, the others after that.
   */
  channelTo(peer: SocketAddress, now: Instant): number | undefined {
    if (this.#state.type === 'failed') return undefined;
    const channel = this.#channels.to(peer, now);
    if (channel === undefined) this.#log.debug('too many channels at a relay');
    if (channel === undefined || channel.state === 'refused') return undefined;
    this.#now = now;
    this.#bindIfNeeded(channel, now);
    return channel.number;
  }

  /** Returns whose channel it is; `undefined` where nothing can come from it, as after an allocation was lost. */
  peerOf(number: number): SocketAddress | undefined {
    const channel = this.#channels.get(number);
    if (channel === undefined || this.#state.type !== 'allocated') return undefined;
    // The answer to the request may be lost.
    return channel.wasBound || channel.state === 'binding' ? channel.peer : undefined;
  }

  /** Data went through a channel, either way, which keeps it, the relay and its NAT awake. */
  handleTraffic(channel: number, now: Instant): void {
    if (this.#state.type !== 'allocated') return;
    this.#now = now;
    this.#channels.handleTraffic(channel, now);
    this.#timers.set('keepalive', after(now, KEEPALIVE_INTERVAL));
    const used = this.#channels.get(channel);
    if (used !== undefined) this.#bindIfNeeded(used, now);
  }

  /** Asks whether the allocation is still there, unless that is being asked: with all patience. */
  refresh(now: Instant): void {
    if (this.#state.type !== 'allocated') return;
    this.#now = now;
    this.#refresh(now);
  }

  /** Gives the allocation back (refresh with lifetime 0, once, unanswered). */
  close(now: Instant): void {
    if (this.#state.type === 'failed') return;
    this.#now = now;
    this.#fail('closed');
    this.#requests.tell(GIVE_BACK);
  }

  handleTimeout(now: Instant): void {
    if (this.#state.type === 'failed') return;
    this.#now = now;
    for (const answer of this.#requests.handleTimeout(now)) this.#handleAnswer(answer, now);
    for (const channel of this.#channels.handleTimeout(now)) this.#bind(channel, now);
    if (this.#timers.isDue('lifetime', now)) this.#fail('no-response');
    if (this.#timers.isDue('allocate', now)) this.#allocate(now);
    if (this.#timers.isDue('refresh', now)) this.#refresh(now);
    if (this.#timers.isDue('bind', now)) this.#bindWaiting(now);
    if (this.#timers.isDue('keepalive', now)) {
      this.#requests.send(KEEPALIVE, now);
      this.#timers.set('keepalive', after(now, KEEPALIVE_INTERVAL));
    }
  }

  /** Messages for the server. */
  pollTransmit(): Uint8Array | undefined {
    return this.#requests.pollTransmit();
  }

  pollEvent(): AllocationEvent | undefined {
    return this.#events.shift() ?? this.#data.shift();
  }

  pollTimeout(): Deadline | undefined {
    const isQueued =
      this.#requests.hasTransmits || this.#events.length > 0 || this.#data.length > 0;
    return earliest(
      isQueued ? { at: this.#now, reason: 'queued' } : undefined,
      this.#timers.next(),
      this.#requests.pollTimeout(),
      this.#channels.pollTimeout(),
    );
  }

  #handleAnswer(answer: Answer, now: Instant): void {
    // An earlier answer of the same timeout may have been the end.
    if (this.#state.type === 'failed') return;
    if (answer.type === 'error') this.#logError(answer);
    switch (answer.purpose) {
      case 'allocate':
        return this.#handleAllocateAnswer(answer, now);
      case 'give-back':
        // 437: there was nothing to give back after all.
        if (answer.type === 'success' || codeOf(answer) === 437) return this.#allocate(now);
        return this.#failWith(answer);
      case 'refresh':
        return this.#handleRefreshAnswer(answer, now);
      case 'keepalive':
        return this.#handleKeepaliveAnswer(answer, now);
      default:
        return this.#handleBindAnswer(answer.purpose, answer, now);
    }
  }

  #allocate(now: Instant): void {
    this.#state = { type: 'allocating' };
    for (const timer of TIMERS) this.#timers.clear(timer);
    this.#requests.clear();
    this.#requests.renewCredentials(now);
    const attributes: StunAttributes = {
      requestedTransport: REQUESTED_TRANSPORT_UDP,
      ...(this.#isDualStack && { additionalAddressFamily: 6, draftAdditionalAddressFamily: 6 }),
    };
    this.#requests.send({ purpose: 'allocate', method: 'allocate', attributes }, now);
  }

  #handleAllocateAnswer(answer: Answer, now: Instant): void {
    if (answer.type === 'success') return this.#onAllocated(answer.attributes, now);
    const code = codeOf(answer);
    if (answer.type === 'error' && (code === 440 || code === 420) && this.#isDualStack) {
      this.#isDualStack = false;
      this.#allocate(now);
    } else if (answer.type === 'error' && code === 437 && this.#countMismatch()) {
      if (this.#mismatches % 2 === 1) this.#requests.send(GIVE_BACK, now);
      else this.#timers.set('allocate', after(now, MISMATCH_PAUSE));
    } else {
      this.#failWith(answer);
    }
  }

  #onAllocated(attributes: StunAttributes, now: Instant): void {
    const { xorRelayedAddresses = [], xorMappedAddress: mapped, addressErrorCode } = attributes;
    const relayed = ([4, 6] as const).flatMap((family) => {
      // coturn fills the place of a family that it does not have with 0.0.0.0:0.
      const one = xorRelayedAddresses.find(
        (address) => familyOf(address) === family && socketAddressPort(address) !== 0,
      );
      return one === undefined ? [] : [one];
    });
    const hasLifetime = this.#setLifetime(attributes, now);
    if (relayed.length === 0 || mapped === undefined || !hasLifetime) {
      this.#log.warn('the relay does not keep to the protocol');
      return this.#fail('refused');
    }
    if (addressErrorCode !== undefined) {
      this.#log.debug('the relay has one address family', { code: addressErrorCode.code });
    }
    this.#state = { type: 'allocated', relayed, mapped };
    this.#events.push({ type: 'allocated', relayed, mapped });
    this.#bindWaiting(now);
  }

  /** Whether it is worth another attempt. */
  #countMismatch(): boolean {
    return ++this.#mismatches <= MOST_MISMATCHES;
  }

  /** The server does not know our allocation: it was restarted, or our mapped address changed. */
  #onAllocationLost(answer: Answer, now: Instant): void {
    if (!this.#countMismatch()) return this.#failWith(answer);
    this.#log.info('the relay has lost the allocation');
    this.#channels.onAllocationLost(now);
    this.#allocate(now);
  }

  #handleRefreshAnswer(answer: Answer, now: Instant): void {
    if (answer.type === 'error' && answer.code === 437) return this.#onAllocationLost(answer, now);
    if (answer.type !== 'success') return this.#failWith(answer);
    this.#mismatches = 0;
    if (!this.#setLifetime(answer.attributes, now)) this.#fail('refused');
  }

  #handleKeepaliveAnswer(answer: Answer, now: Instant): void {
    if (this.#state.type !== 'allocated') return;
    const mapped = answer.type === 'success' ? answer.attributes.xorMappedAddress : undefined;
    const isMoved = mapped !== undefined && mapped !== this.#state.mapped;
    if (answer.type === 'none' || isMoved) this.#refresh(now);
  }

  #handleBindAnswer(number: number, answer: Answer, now: Instant): void {
    const channel = this.#channels.get(number);
    if (channel === undefined) return;
    const code = codeOf(answer);
    if (answer.type === 'success') {
      const { peer, wasBound } = channel;
      this.#mismatches = 0;
      this.#channels.onBound(number, now);
      if (!wasBound) this.#events.push({ type: 'channel-bound', peer, channel: number });
    } else if (answer.type === 'error' && code === 437) {
      this.#onAllocationLost(answer, now);
    } else if (code === 401 || code === 438 || code === 441) {
      this.#failWith(answer);
    } else if (code === 400 || code === 403 || code === 443) {
      this.#channels.onRefused(number, now);
      this.#events.push({ type: 'channel-refused', peer: channel.peer });
    } else {
      this.#channels.onFailed(number, now);
      // Perhaps the relay is gone altogether.
      if (answer.type === 'none') this.#refresh(now);
    }
  }

  #bindIfNeeded(channel: Channel, now: Instant): void {
    if (channel.state === 'waiting' || channel.state === 'idle') this.#bind(channel, now);
  }

  /** Those that are asked for meanwhile go first. */
  #bindWaiting(now: Instant): void {
    this.#timers.clear('bind');
    for (const channel of this.#channels.waiting()) if (!this.#bind(channel, now)) return;
  }

  /** Returns whether it was its turn. */
  #bind({ number, peer }: Channel, now: Instant): boolean {
    if (this.#state.type !== 'allocated') return false;
    if (elapsed(this.#binds.since, now) >= BIND_INTERVAL) this.#binds = { since: now, count: 0 };
    if (this.#binds.count >= MOST_BINDS) {
      this.#channels.onWaiting(number, now);
      this.#timers.set('bind', after(this.#binds.since, BIND_INTERVAL));
      return false;
    }
    this.#binds.count++;
    const attributes = { channelNumber: number, xorPeerAddresses: [peer] };
    this.#requests.send({ purpose: number, method: 'channel-bind', attributes }, now);
    this.#channels.onBinding(number, now);
    return true;
  }

  /** Refreshes with all patience, unless an answer to another refresh is awaited. */
  #refresh(now: Instant): void {
    this.#timers.clear('refresh');
    if (this.#requests.find('refresh') === undefined) this.#requests.send(REFRESH, now);
  }

  /** Returns whether the server said how long the allocation lives. */
  #setLifetime({ lifetime = 0 }: StunAttributes, now: Instant): boolean {
    const ms = Math.min(lifetime * 1000, LONGEST_LIFETIME);
    this.#timers.set('refresh', after(now, ms / 2));
    this.#timers.set('lifetime', after(now, ms));
    return ms > 0;
  }

  #handleData({ xorPeerAddresses, data }: StunAttributes): void {
    const peer = xorPeerAddresses?.[0];
    if (peer === undefined || data === undefined) return this.#drop('malformed');
    if (this.#state.type !== 'allocated') return this.#drop('unsolicited');
    this.#data.push({ type: 'data', peer, payload: data.slice() });
  }

  #failWith(answer: Answer): void {
    const code = codeOf(answer);
    this.#fail(code === undefined ? 'no-response' : (FAILURES[code] ?? 'refused'), code);
  }

  #fail(why: AllocationFailure, code?: number): void {
    this.#state = { type: 'failed' };
    for (const timer of TIMERS) this.#timers.clear(timer);
    this.#requests.clear();
    this.#channels.clear();
    this.#data.clear();
    this.#events.push({ type: 'failed', why, ...(code !== undefined && { code }) });
  }

  #drop(why: DropReason): void {
    this.#drops[why]++;
  }

  #logError({ purpose, code, attributes }: Answer & { readonly type: 'error' }): void {
    const request = typeof purpose === 'number' ? 'channel-bind' : purpose;
    const reason = attributes.errorCode?.reason;
    this.#log.debug('the relay answers with an error', { request, code, reason });
  }
}

const REFRESH: Request = { purpose: 'refresh', method: 'refresh', attributes: {} };
const GIVE_BACK: Request = {
  purpose: 'give-back',
  method: 'refresh',
  attributes: { lifetime: 0 },
};
const KEEPALIVE: Request = {
  purpose: 'keepalive',
  method: 'binding',
  attributes: {},
  patience: BRIEF_PATIENCE,
};

/** RFC 8489 §14.8, RFC 8656 §19. */
const FAILURES: Readonly<Record<number, AllocationFailure>> = {
  401: 'wrong-credentials',
  441: 'held-by-another-login',
  486: 'quota-reached',
  508: 'out-of-capacity',
};

function codeOf(answer: Answer): number | undefined {
  return answer.type === 'success' ? undefined : answer.code;
}

function familyOf(address: SocketAddress): 4 | 6 {
  return ipFamily(socketAddressIp(address));
}
