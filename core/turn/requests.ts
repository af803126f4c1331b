import type { Deadline } from '../sansio/agent.ts';
import type { BackoffOptions } from '../sansio/backoff.ts';
import { BoundedQueue } from '../sansio/bounded-queue.ts';
import type { Crypto } from '../sansio/crypto.ts';
import { ExpiringMap } from '../sansio/expiring-map.ts';
import type { Instant, Millis } from '../sansio/instant.ts';
import { randomBytes, type Random } from '../sansio/random.ts';
import {
  encodeStun,
  type ReceivedStun,
  type StunAttributes,
  type StunMethod,
} from '../stun/message.ts';
import { SmoothedRtt } from '../stun/smoothed-rtt.ts';
import { STREAM_PATIENCE, Transaction, transactionKey, UDP_PATIENCE } from '../stun/transaction.ts';
import { Authentication, type AuthenticationOptions, type Proof } from './authentication.ts';
import { MOST_CHANNELS } from './channels.ts';

/** What a request is for; a number binds that channel. At most one for each is under way. */
export type Purpose = 'allocate' | 'give-back' | 'refresh' | 'keepalive' | number;

export interface Request {
  readonly purpose: Purpose;
  readonly method: StunMethod;
  readonly attributes: StunAttributes;
  /** That of the transport where absent. */
  readonly patience?: BackoffOptions;
}

export type Answer = { readonly purpose: Purpose } & (
  | { readonly type: 'success'; readonly attributes: StunAttributes }
  /** 401 means that the server does not take our credentials, and 438 that no nonce pleases it. */
  | { readonly type: 'error'; readonly code: number; readonly attributes: StunAttributes }
  /** `code` is of an error that came without MESSAGE-INTEGRITY: the likely reason, if nobody forged it. */
  | { readonly type: 'none'; readonly code?: number }
);

/** Why a message changed nothing. */
export type DropReason = 'malformed' | 'unsolicited' | 'unauthenticated';

export interface RequestOptions extends AuthenticationOptions {
  readonly transport: 'udp' | 'stream';
  readonly software: string;
  readonly random: Random;
  readonly crypto: Pick<Crypto, 'hmacSha1' | 'md5'>;
}

/**
 * The requests to one TURN server that await their answers: repeats them, proves who we are, follows the
 * server's challenges (401, 438), and believes no other answer that does not authenticate. One that
 * cannot be believed is remembered, and names the failure when time is up.
 *
 * Two answers need no proof. That to a binding request, which goes without: it may tell a round trip and
 * raise a question, but nothing hangs on it. And 437 to an Allocate, which coturn says before it looks at
 * credentials: it makes us give back an allocation, which needs proof again.
 */
export class Requests {
  readonly #options: RequestOptions;
  readonly #authentication: Authentication;
  /** Each expires when it is due to be repeated or given up. */
  readonly #pending = new ExpiringMap<Purpose, Pending>(MOST_REQUESTS, 'request unanswered');
  readonly #byId = new Map<string, Pending>();
  readonly #transmits = new BoundedQueue<Uint8Array>(MOST_TRANSMITS, 'oldest');
  readonly #rtt = new SmoothedRtt();

  constructor(options: RequestOptions, now: Instant) {
    this.#options = options;
    this.#authentication = new Authentication(options, now);
  }

  get rtt(): Millis | undefined {
    return this.#rtt.value;
  }

  /** To be called before an allocation is made: credentials may change then, and only then. */
  renewCredentials(now: Instant): void {
    this.#authentication.renew(now);
  }

  /** Returns the request for this purpose that awaits its answer. */
  find(purpose: Purpose): Request | undefined {
    return this.#pending.get(purpose)?.request;
  }

  /** Begins a request, in place of one for the same purpose. */
  send(request: Request, now: Instant): void {
    this.cancel(request.purpose);
    this.#begin(request, 0, now);
  }

  /** Sends a request once, whose answer is of no interest, if the server would take it at all. */
  tell(request: Request): void {
    const proof = this.#authentication.proof;
    if (proof === undefined) return;
    this.#push(request, randomBytes(this.#options.random, 12), proof);
  }

  cancel(purpose: Purpose): void {
    const pending = this.#pending.get(purpose);
    if (pending !== undefined) this.#finish(pending);
  }

  clear(): void {
    for (const [purpose] of this.#pending.entries()) this.cancel(purpose);
    this.#transmits.clear();
  }

  /** Takes a response. Where it is a challenge the request is on its way again. */
  handleResponse(received: ReceivedStun, now: Instant): Answer | DropReason | 'challenged' {
    const pending = this.#byId.get(transactionKey(received.transactionId));
    if (pending === undefined || pending.request.method !== received.method) return 'unsolicited';
    const { purpose } = pending.request;
    const { attributes, unknownRequired } = received;
    const code = received.class === 'error' ? attributes.errorCode?.code : undefined;
    // RFC 8489 §6.3.3: what must be understood and is not.
    if (unknownRequired.length > 0) return 'malformed';
    if (received.class === 'error' && code === undefined) return 'malformed';
    const isChallenge = (code === 401 || code === 438) && purpose !== 'keepalive';
    if (isChallenge) return this.#handleChallenge(pending, code, attributes, now);
    if (!this.#isAuthentic(received, pending) && !needsNoProof(purpose, code)) {
      if (!received.hasIntegrity) pending.unauthenticatedCode = code;
      return 'unauthenticated';
    }
    this.#sample(pending, now);
    this.#finish(pending);
    return code === undefined
      ? { purpose, type: 'success', attributes }
      : { purpose, type: 'error', code, attributes };
  }

  /** Repeats what is due and returns what is given up, as answered by nobody. */
  handleTimeout(now: Instant): readonly Answer[] {
    const givenUp: Answer[] = [];
    for (const [purpose, pending] of this.#pending.handleTimeout(now)) {
      if (pending.transaction.handleTimeout(now) === 'give-up') {
        this.#finish(pending);
        const code = pending.unauthenticatedCode;
        givenUp.push({ purpose, type: 'none', ...(code !== undefined && { code }) });
      } else {
        this.#transmit(pending);
      }
    }
    return givenUp;
  }

  pollTransmit(): Uint8Array | undefined {
    return this.#transmits.shift();
  }

  get hasTransmits(): boolean {
    return this.#transmits.length > 0;
  }

  pollTimeout(): Deadline | undefined {
    return this.#pending.pollTimeout();
  }

  #handleChallenge(
    pending: Pending,
    code: 401 | 438,
    attributes: StunAttributes,
    now: Instant,
  ): Answer | DropReason | 'challenged' {
    const { request, challenges, proof } = pending;
    const verdict =
      code === 401
        ? this.#authentication.handleUnauthorized(attributes, proof, now)
        : this.#authentication.handleStaleNonce(attributes);
    if (verdict === 'malformed') return verdict;
    this.#sample(pending, now);
    this.#finish(pending);
    if (verdict === 'retry' && challenges < MOST_CHALLENGES) {
      this.#begin(request, challenges + 1, now);
      return 'challenged';
    }
    return { purpose: request.purpose, type: 'error', code, attributes };
  }

  #isAuthentic(received: ReceivedStun, { proof }: Pending): boolean {
    return proof !== undefined && received.hasValidIntegrity(proof.key, this.#options.crypto);
  }

  #begin(request: Request, challenges: number, now: Instant): void {
    const usual = this.#options.transport === 'udp' ? UDP_PATIENCE : STREAM_PATIENCE;
    // RFC 8656 §7.2: another id on our 5-tuple is another allocation, which is refused with 437.
    const repeats = request.purpose === 'allocate' ? 'same' : 'fresh';
    const transaction = new Transaction(request.patience ?? usual, now, repeats);
    const fresh = { proof: undefined, unauthenticatedCode: undefined };
    this.#transmit({ request, transaction, challenges, ...fresh });
  }

  #transmit(pending: Pending): void {
    const { request, transaction } = pending;
    // The nonce of the day: another request may have been told that the one used before is stale.
    pending.proof = request.purpose === 'keepalive' ? undefined : this.#authentication.proof;
    const id = transaction.nextId(this.#options.random);
    this.#byId.set(transactionKey(id), pending);
    this.#pending.set(request.purpose, pending, transaction.nextTrigger(), 0);
    this.#push(request, id, pending.proof);
  }

  #push(request: Request, transactionId: Uint8Array, proof: Proof | undefined): void {
    const { software, crypto } = this.#options;
    const attributes = { software, ...request.attributes, ...proof?.attributes };
    const message = {
      class: 'request',
      method: request.method,
      transactionId,
      attributes,
    } as const;
    const integrity = proof && { integrityKey: proof.key };
    this.#transmits.push(encodeStun(message, { ...integrity, crypto }));
  }

  #sample(pending: Pending, now: Instant): void {
    const roundTrip = pending.transaction.roundTrip(now);
    if (roundTrip !== undefined) this.#rtt.add(roundTrip);
  }

  #finish(pending: Pending): void {
    this.#pending.delete(pending.request.purpose);
    for (const id of pending.transaction.ids) this.#byId.delete(id);
  }
}

interface Pending {
  readonly request: Request;
  readonly transaction: Transaction;
  /** How many challenges led to it. */
  readonly challenges: number;
  /** Of the last message sent. */
  proof: Proof | undefined;
  unauthenticatedCode: number | undefined;
}

function needsNoProof(purpose: Purpose, code: number | undefined): boolean {
  return purpose === 'keepalive' || (purpose === 'allocate' && code === 437);
}

/** The first 401, a stale nonce, another realm, and one more for a server that changes its mind. */
const MOST_CHALLENGES = 4;
/** One for each purpose. */
const MOST_REQUESTS = MOST_CHANNELS + 4;
/** Each request may be sent and challenged before the owner polls. */
const MOST_TRANSMITS = 2 * MOST_REQUESTS;
