import type { SocketAddress } from '../net/socket-address.ts';
import type { Deadline } from '../sansio/agent.ts';
import { ExpiringMap } from '../sansio/expiring-map.ts';
import { after, elapsed, type Instant, type Millis } from '../sansio/instant.ts';
import { FIRST_CHANNEL, LAST_CHANNEL } from './channel-data.ts';

/** Channels of one allocation, those counted in whose numbers must rest. A full table takes no more peers. */
export const MOST_CHANNELS = 1_024;

/**
 * - `waiting` for an allocation, or for its turn;
 * - `binding`: a request is under way, and data are sent in the hope that it will succeed;
 * - `bound`;
 * - `resting`: the server does not answer or cannot at present, and is asked again after a while;
 * - `idle`: nobody used it, so it is not prolonged and may be over at the server;
 * - `refused`: the server never will.
 */
export type ChannelState = 'waiting' | 'binding' | 'bound' | 'resting' | 'idle' | 'refused';

export interface Channel {
  readonly number: number;
  readonly peer: SocketAddress;
  readonly state: ChannelState;
  /** Whether the server has bound it, at this allocation. */
  readonly wasBound: boolean;
}

/**
 * Which channel is whose, and when it has to be bound again.
 *
 * A number stays with its peer for 15 min after it was last bound: 10 that a binding lasts, and 5 in
 * which it must not go to another peer (RFC 8656 §12). Until then the peer gets the same number again,
 * which a server allows at any time.
 *
 * Deviation from the 5 min that others take to prolong a binding: a binding makes a permission, which
 * lasts 5 min (§9), and a server may drop the channel with it. So it is prolonged after 4.
 */
export class Channels {
  readonly #byPeer = new Map<SocketAddress, Entry>();
  /** Each expires when something is to be decided about it. */
  readonly #byNumber = new ExpiringMap<number, Entry>(MOST_CHANNELS, 'channel');
  #nextNumber = FIRST_CHANNEL;

  /** Returns the channel of the peer, making one if need be; `undefined` when there are too many. */
  to(peer: SocketAddress, now: Instant): Channel | undefined {
    const existing = this.#byPeer.get(peer);
    if (existing !== undefined) {
      existing.usedAt = now;
      if (existing.state === 'refused' && elapsed(existing.since, now) >= REFUSAL_TIME) {
        this.#change(existing, 'waiting', now);
      }
      return existing;
    }
    if (this.#byNumber.size >= MOST_CHANNELS) return undefined;
    const number = this.#freeNumber();
    const entry: Entry = {
      number,
      peer,
      state: 'waiting',
      wasBound: false,
      failures: 0,
      since: now,
      usedAt: now,
    };
    this.#byPeer.set(peer, entry);
    this.#change(entry, 'waiting', now);
    return entry;
  }

  get(number: number): Channel | undefined {
    return this.#byNumber.get(number);
  }

  handleTraffic(number: number, now: Instant): void {
    const entry = this.#byNumber.get(number);
    if (entry !== undefined) entry.usedAt = now;
  }

  /** It is to be bound as soon as that is allowed. */
  onWaiting(number: number, now: Instant): void {
    this.#update(number, 'waiting', now);
  }

  /** A request to bind it is under way. */
  onBinding(number: number, now: Instant): void {
    this.#update(number, 'binding', now);
  }

  onBound(number: number, now: Instant): void {
    const entry = this.#update(number, 'bound', now);
    if (entry === undefined) return;
    entry.wasBound = true;
    entry.failures = 0;
  }

  /** No answer, or one that may be another the next time. What was bound before may still be. */
  onFailed(number: number, now: Instant): void {
    const entry = this.#byNumber.get(number);
    if (entry === undefined) return;
    entry.failures = Math.min(entry.failures + 1, MOST_DOUBLINGS);
    this.#change(entry, 'resting', now);
  }

  onRefused(number: number, now: Instant): void {
    const entry = this.#update(number, 'refused', now);
    if (entry !== undefined) entry.wasBound = false;
  }

  /** The allocation is gone, and with it every binding. Those in use wait for the next. */
  onAllocationLost(now: Instant): void {
    for (const [, entry] of this.#byNumber.entries()) {
      entry.wasBound = false;
      if (entry.state !== 'idle' && entry.state !== 'refused') this.#change(entry, 'waiting', now);
    }
  }

  waiting(): readonly Channel[] {
    return [...this.#byPeer.values()].filter(({ state }) => state === 'waiting');
  }

  /** Forgets what is over and returns the channels that are to be bound again. */
  handleTimeout(now: Instant): readonly Channel[] {
    const toRebind: Channel[] = [];
    for (const [, entry] of this.#byNumber.handleTimeout(now)) {
      if (entry.state === 'bound' && entry.usedAt > entry.since) {
        this.#change(entry, 'bound', now);
        toRebind.push(entry);
      } else if (entry.state === 'resting') {
        // Who still wants it has asked for it, or used it, since it failed.
        const isUsed = entry.usedAt > entry.since;
        this.#change(entry, isUsed ? 'waiting' : 'idle', now);
        if (isUsed) toRebind.push(entry);
      } else if (entry.state === 'bound' && elapsed(entry.since, now) < REST_AFTER) {
        this.#change(entry, 'idle', entry.since);
      } else {
        this.#byPeer.delete(entry.peer);
      }
    }
    return toRebind;
  }

  clear(): void {
    for (const [number] of this.#byNumber.entries()) this.#byNumber.delete(number);
    this.#byPeer.clear();
  }

  pollTimeout(): Deadline | undefined {
    return this.#byNumber.pollTimeout();
  }

  #change(entry: Entry, state: ChannelState, since: Instant): void {
    entry.state = state;
    entry.since = since;
    this.#byNumber.set(entry.number, entry, after(since, timeIn(entry)), 0);
  }

  #update(number: number, state: ChannelState, now: Instant): Entry | undefined {
    const entry = this.#byNumber.get(number);
    if (entry !== undefined) this.#change(entry, state, now);
    return entry;
  }

  /** Numbers are taken in turn, so that one which was given up rests as long as can be. */
  #freeNumber(): number {
    for (;;) {
      const number = this.#nextNumber;
      this.#nextNumber = number === LAST_CHANNEL ? FIRST_CHANNEL : number + 1;
      if (!this.#byNumber.has(number)) return number;
    }
  }
}

interface Entry extends Channel {
  state: ChannelState;
  wasBound: boolean;
  /** Requests in a row that failed. */
  failures: number;
  /** When it came into this state; of an idle one, when it was last bound. */
  since: Instant;
  usedAt: Instant;
}

const PROLONG_AFTER: Millis = 4 * 60_000;
const REST_AFTER: Millis = 15 * 60_000;
/** A peer that was refused is not asked for again before this has passed. */
const REFUSAL_TIME: Millis = 5 * 60_000;
/** Between requests that fail, doubling from the first to the last. */
const FIRST_RETRY: Millis = 2_000;
const LAST_RETRY: Millis = 60_000;
const MOST_DOUBLINGS = Math.ceil(Math.log2(LAST_RETRY / FIRST_RETRY)) + 1;

/** Returns how long it stays in its state if nothing happens. */
function timeIn({ state, failures }: Entry): Millis {
  if (state === 'bound') return PROLONG_AFTER;
  if (state === 'resting') return Math.min(FIRST_RETRY * 2 ** (failures - 1), LAST_RETRY);
  return REST_AFTER;
}
