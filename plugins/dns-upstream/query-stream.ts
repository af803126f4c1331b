import { EXCHANGE_PATIENCE } from '../../core/dns/forwarder.ts';
import { readUint16 } from '../../core/packet/big-endian.ts';
import type { Clock } from '../../core/plugin/clock.ts';
import { after, elapsed, type Instant, type Millis } from '../../core/sansio/instant.ts';

/** What carries messages to one server and back: a connection that is up or in the making. */
export interface Carrier {
  /** The bytes are the carrier's from now on. */
  send(query: Uint8Array): void;
  /** Bytes that the kernel has not taken. */
  readonly waiting: number;
  /** Ends it. Nothing is told after it. */
  destroy(): void;
}

/** Not called from within `send` or the constructor of a carrier. */
export interface CarrierEvents {
  /** The bytes are lent for the call. */
  onAnswer(bytes: Uint8Array): void;
  /** There will be no answer to the query with this id; others are not affected. */
  onRefused(id: number, why: string): void;
  /** It takes no more queries, and answers no more. The carrier has destroyed itself. */
  onClosed(why: string): void;
}

export type Connect = (events: CarrierEvents) => Carrier;

export interface QueryStreamEvents {
  /** The bytes are lent for the call. */
  onAnswer(bytes: Uint8Array): void;
  /** The server cannot be used; with an id, only this query failed. */
  onFailure(why: string, id?: number): void;
  /** Nothing of it is left. */
  onIdle(): void;
}

/** Queries that wait for answers. One more is refused. */
export const MOST_OPEN = 1_000;
/** Bytes that wait for a slow server. */
export const MOST_WAITING_BYTES = 256 << 10;
/** How long a server may say nothing at all: to connect, to agree upon TLS, and to answer. */
export const STREAM_PATIENCE: Millis = 3_000;
/** Without an open query. Servers close after 10 s (RFC 7766 §6.2.3) to minutes. */
export const STREAM_IDLE: Millis = 20_000;

interface OpenQuery {
  readonly bytes: Uint8Array;
  readonly askedAt: Instant;
  /** Later where it was sent again. */
  readonly sentAt: Instant;
}

/**
 * The queries to one server over one connection at a time, many in flight (RFC 7766 §6.2.1.1).
 *
 * A server may close at any time, and many do after some number of queries or when idle. If it had
 * answered something on the connection, what it left open goes over a new one (§6.2.4); each such
 * connection has answered a query, so this ends. If not, the server has failed.
 */
export class QueryStream {
  readonly #connect: Connect;
  readonly #clock: Clock;
  readonly #events: QueryStreamEvents;
  /** By message id; the longest open one first. */
  readonly #open = new Map<number, OpenQuery>();
  #carrier: Carrier | undefined;
  /** On the present connection. */
  #lastAnswerAt: Instant | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(connect: Connect, clock: Clock, events: QueryStreamEvents) {
    this.#connect = connect;
    this.#clock = clock;
    this.#events = events;
  }

  /** Returns false where too many wait. */
  send(bytes: Uint8Array): boolean {
    const waiting = this.#carrier?.waiting ?? 0;
    if (this.#open.size >= MOST_OPEN || waiting > MOST_WAITING_BYTES) return false;
    const now = this.#clock.now();
    this.#transmit({ bytes, askedAt: now, sentAt: now });
    if (this.#open.size === 1) this.#setTimer();
    return true;
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#carrier?.destroy();
    this.#carrier = undefined;
    this.#open.clear();
  }

  #transmit(query: OpenQuery): void {
    const id = readUint16(query.bytes, 0);
    this.#open.delete(id);
    this.#open.set(id, query);
    this.#carrier ??= this.#newCarrier();
    this.#carrier.send(query.bytes);
  }

  #newCarrier(): Carrier {
    this.#lastAnswerAt = undefined;
    return this.#connect({
      onAnswer: (bytes) => {
        if (this.#close(readUint16(bytes, 0))) this.#lastAnswerAt = this.#clock.now();
        this.#events.onAnswer(bytes);
      },
      onRefused: (id, why) => {
        if (this.#close(id)) this.#events.onFailure(why, id);
      },
      onClosed: (why) => this.#onClosed(why),
    });
  }

  /** Returns whether the query was open. */
  #close(id: number): boolean {
    const isOpen = this.#open.delete(id);
    if (isOpen && this.#open.size === 0) this.#setTimer();
    return isOpen;
  }

  #onClosed(why: string): void {
    this.#carrier = undefined;
    const unanswered = [...this.#open.values()];
    this.#open.clear();
    const now = this.#clock.now();
    const isProven = this.#lastAnswerAt !== undefined;
    const awaited = unanswered.filter(({ askedAt }) => elapsed(askedAt, now) < EXCHANGE_PATIENCE);
    if (isProven) for (const query of awaited) this.#transmit({ ...query, sentAt: now });
    if (this.#open.size > 0) return this.#setTimer();
    clearTimeout(this.#timer);
    this.#events.onIdle();
    if (!isProven && unanswered.length > 0) this.#events.onFailure(why);
  }

  /** To when the longest open query has waited long enough, or the connection has been idle so long. */
  #setTimer(): void {
    clearTimeout(this.#timer);
    const now = this.#clock.now();
    const [longest] = this.#open.values();
    const wait =
      longest === undefined ? STREAM_IDLE : elapsed(now, after(longest.sentAt, STREAM_PATIENCE));
    this.#timer = setTimeout(() => this.#onTimeout(), Math.max(0, wait));
  }

  #onTimeout(): void {
    if (this.#open.size === 0) {
      this.stop();
      return this.#events.onIdle();
    }
    const now = this.#clock.now();
    for (const [id, { sentAt }] of this.#open) {
      if (elapsed(sentAt, now) < STREAM_PATIENCE) break;
      if (this.#lastAnswerAt === undefined || this.#lastAnswerAt < sentAt) {
        this.#carrier?.destroy();
        return this.#onClosed('silence');
      }
      // Others were answered meanwhile: only this query is lost. A late answer is still passed on.
      this.#open.delete(id);
    }
    this.#setTimer();
  }
}
