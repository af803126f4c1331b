import type { SocketAddress } from '../net/socket-address.ts';
import { sooner, type Deadline } from '../sansio/agent.ts';
import { BoundedQueue } from '../sansio/bounded-queue.ts';
import type { Crypto } from '../sansio/crypto.ts';
import { after, type Instant, type Millis } from '../sansio/instant.ts';
import { randomFraction, type Random } from '../sansio/random.ts';
import { decodeStun, encodeStun, type ReceivedStun } from './message.ts';
import { SmoothedRtt } from './smoothed-rtt.ts';
import { Transaction, transactionKey, UDP_PATIENCE } from './transaction.ts';

export interface BindingOptions {
  readonly software: string;
  readonly random: Random;
  readonly crypto: Pick<Crypto, 'hmacSha1'>;
}

export type BindingEvent =
  /** Our address as the server sees it: told first, when it changed, and after a failure. */
  | { readonly type: 'mapped'; readonly address: SocketAddress }
  /** The server does not answer, or with an error. Told once until it answers again. */
  | { readonly type: 'failed'; readonly why: 'no-response' | 'refused' };

/**
 * Asks a plain STUN server (RFC 8489) over UDP for our address, again each 25 s, which also keeps the NAT
 * awake. A server that fails is asked for ever, after a random time of up to 1 s, then 2 s, up to 60 s.
 *
 * The server has no key, so nothing is authentic: only who saw a request can answer it.
 *
 * - `asking`: a request is under way, repeated until it is answered or given up.
 * - `resting` until the next.
 */
export class BindingClient {
  readonly #options: BindingOptions;
  readonly #rtt = new SmoothedRtt();
  readonly #transmits = new BoundedQueue<Uint8Array>(MOST_TRANSMITS, 'oldest');
  readonly #events = new BoundedQueue<BindingEvent>(MOST_EVENTS, 'oldest');
  #now: Instant;
  #state: State;
  #mapped: SocketAddress | undefined;
  /** Attempts that failed in a row. */
  #failures = 0;
  #isFailureTold = false;

  constructor(options: BindingOptions, now: Instant) {
    this.#options = options;
    this.#now = now;
    this.#state = this.#ask(now);
  }

  /** Smoothed round trip of answered requests that were sent once; `undefined` before the first. */
  get rtt(): Millis | undefined {
    return this.#rtt.value;
  }

  /** `undefined` before the first answer, and while the server fails. */
  get mapped(): SocketAddress | undefined {
    return this.#mapped;
  }

  /** A STUN message from the server, whole. What answers no request of ours changes nothing. */
  handleMessage(message: Uint8Array, now: Instant): void {
    const decoded = decodeStun(message);
    if (!decoded.ok || this.#state.type !== 'asking') return;
    const received = decoded.value;
    const isAnswer =
      received.method === 'binding' &&
      (received.class === 'success' || received.class === 'error') &&
      this.#state.transaction.ids.includes(transactionKey(received.transactionId));
    if (!isAnswer) return;
    this.#now = now;
    const address = mappedAddressOf(received);
    if (address === undefined) return this.#fail('refused', now);
    const roundTrip = this.#state.transaction.roundTrip(now);
    if (roundTrip !== undefined) this.#rtt.add(roundTrip);
    this.#failures = 0;
    this.#isFailureTold = false;
    if (address !== this.#mapped) this.#events.push({ type: 'mapped', address });
    this.#mapped = address;
    this.#state = { type: 'resting', until: after(now, BINDING_INTERVAL) };
  }

  /** Asks at once, and begins anew with the times between attempts. What is known stays so meanwhile. */
  ask(now: Instant): void {
    this.#failures = 0;
    if (this.#state.type === 'asking') return;
    this.#now = now;
    this.#state = this.#ask(now);
  }

  handleTimeout(now: Instant): void {
    this.#now = now;
    if (this.#state.type === 'resting') {
      if (now >= this.#state.until) this.#state = this.#ask(now);
      return;
    }
    const due = this.#state.transaction.handleTimeout(now);
    if (due === 'repeat') this.#transmit(this.#state.transaction);
    else if (due === 'give-up') this.#fail('no-response', now);
  }

  /** Messages for the server. */
  pollTransmit(): Uint8Array | undefined {
    return this.#transmits.shift();
  }

  pollEvent(): BindingEvent | undefined {
    return this.#events.shift();
  }

  pollTimeout(): Deadline {
    const isQueued = this.#transmits.length > 0 || this.#events.length > 0;
    const next: Deadline =
      this.#state.type === 'asking'
        ? { at: this.#state.transaction.nextTrigger(), reason: 'binding request unanswered' }
        : { at: this.#state.until, reason: 'binding request' };
    return sooner(next, isQueued ? { at: this.#now, reason: 'queued' } : undefined) ?? next;
  }

  #ask(now: Instant): State {
    const transaction = new Transaction(UDP_PATIENCE, now);
    this.#transmit(transaction);
    return { type: 'asking', transaction };
  }

  #transmit(transaction: Transaction): void {
    const { software, random, crypto } = this.#options;
    const transactionId = transaction.nextId(random);
    const message = { class: 'request', method: 'binding', transactionId } as const;
    this.#transmits.push(encodeStun({ ...message, attributes: { software } }, { crypto }));
  }

  #fail(why: 'no-response' | 'refused', now: Instant): void {
    if (!this.#isFailureTold) this.#events.push({ type: 'failed', why });
    this.#isFailureTold = true;
    this.#mapped = undefined;
    const longest = Math.min(FIRST_BACKOFF * 2 ** this.#failures, LONGEST_BACKOFF);
    this.#failures++;
    // Never no time at all: a server that refuses at once must not make us spin.
    const rest = Math.max(randomFraction(this.#options.random) * longest, LEAST_BACKOFF);
    this.#state = { type: 'resting', until: after(now, rest) };
  }
}

type State =
  | { readonly type: 'asking'; readonly transaction: Transaction }
  | { readonly type: 'resting'; readonly until: Instant };

const BINDING_INTERVAL: Millis = 25_000;
const FIRST_BACKOFF: Millis = 1_000;
const LONGEST_BACKOFF: Millis = 60_000;
const LEAST_BACKOFF: Millis = 100;
/** One is queued at a time, and drained. */
const MOST_TRANSMITS = 4;
const MOST_EVENTS = 4;

/**
 * Servers of RFC 3489 send the plain address, beside attributes that nobody knows any more; RFC 8489
 * §6.3.3 would discard those answers.
 */
function mappedAddressOf({ class: messageClass, attributes }: ReceivedStun) {
  if (messageClass !== 'success') return undefined;
  return attributes.xorMappedAddress ?? attributes.mappedAddress;
}
