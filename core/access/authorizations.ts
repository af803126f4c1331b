import type { IpPrefix } from '../net/ip-prefix.ts';
import type { Deadline } from '../sansio/agent.ts';
import { BoundedQueue } from '../sansio/bounded-queue.ts';
import { instantAt, type Instant } from '../sansio/instant.ts';
import { failed, ok, type Outcome } from '../sansio/outcome.ts';
import type { Filter } from './filter.ts';

/** That a peer may use a resource. */
export interface Authorization {
  readonly peer: string;
  readonly resource: string;
  /** From where; any address of the peer if absent. */
  readonly sources?: readonly IpPrefix[];
  /** What of that which the resource offers; none means all of it. */
  readonly filters: readonly Filter[];
  /** Milliseconds since 1970; never if absent. */
  readonly expiresAt?: number;
}

export type EndOfAuthorization = 'expired' | 'revoked' | 'omitted';

export type AuthorizationEvent =
  | {
      readonly type: 'authorization-ended';
      readonly peer: string;
      readonly resource: string;
      readonly why: EndOfAuthorization;
    }
  /** The peer has no authorization any more: it gets a goodbye. */
  | {
      readonly type: 'last-authorization-ended';
      readonly peer: string;
      readonly why: EndOfAuthorization;
    };

export const MOST_AUTHORIZATIONS = 100_000;
/** Events that wait to be polled; a state may omit everything. */
const MOST_EVENTS = 2 * MOST_AUTHORIZATIONS;

/**
 * Who may use what. An authorization ends by its expiry, by revocation, or by a desired state that omits
 * it, and by nothing else: what happens to connections is not known here.
 *
 * Expiry is a matter of the calendar. When the clock of the device is set, the deadlines move.
 */
export class Authorizations {
  readonly #byPeer = new Map<string, Map<string, Authorization>>();
  readonly #events = new BoundedQueue<AuthorizationEvent>(MOST_EVENTS, 'oldest');
  /** What the calendar shows at instant 0. */
  #epoch: number;
  #size = 0;
  /** The earliest expiry; `undefined` if there is none. */
  #nextExpiry: number | undefined;

  constructor(unixMs: number, now: Instant) {
    this.#epoch = unixMs - now;
  }

  get size(): number {
    return this.#size;
  }

  /** What the peer may use, by the id of the resource. */
  of(peer: string): ReadonlyMap<string, Authorization> | undefined {
    return this.#byPeer.get(peer);
  }

  *entries(): IterableIterator<Authorization> {
    for (const grants of this.#byPeer.values()) yield* grants.values();
  }

  /** Takes the authorizations of a newer desired state: those that it omits end, temporary ones too. */
  replace(authorizations: readonly Authorization[], now: Instant): void {
    const before = Array.from(this.entries());
    this.#byPeer.clear();
    this.#size = 0;
    const taken = authorizations.filter((each) => !this.#hasExpired(each, now));
    for (const each of taken.slice(0, MOST_AUTHORIZATIONS)) this.#put(each);
    const expired = new Set(
      authorizations.filter((each) => this.#hasExpired(each, now)).map(keyOf),
    );
    const unauthorized = new Map<string, EndOfAuthorization>();
    for (const each of before) {
      const { peer, resource } = each;
      if (this.#byPeer.get(peer)?.has(resource) === true) continue;
      const isOver = this.#hasExpired(each, now) || expired.has(keyOf(each));
      const why = isOver ? 'expired' : 'omitted';
      this.#events.push({ type: 'authorization-ended', peer, resource, why });
      if (!this.#byPeer.has(peer)) unauthorized.set(peer, why);
    }
    for (const [peer, why] of unauthorized) {
      this.#events.push({ type: 'last-authorization-ended', peer, why });
    }
    this.#findNextExpiry();
  }

  /** Adds one for a time, or replaces what the peer had for the resource. */
  grant(
    authorization: Authorization,
    now: Instant,
  ): Outcome<void, 'expired' | 'too-many-authorizations'> {
    if (this.#hasExpired(authorization, now)) return failed('expired');
    const { peer, resource } = authorization;
    const isNew = this.#byPeer.get(peer)?.has(resource) !== true;
    if (isNew && this.#size >= MOST_AUTHORIZATIONS) return failed('too-many-authorizations');
    this.#put(authorization);
    this.#findNextExpiry();
    return ok(undefined);
  }

  /** Returns whether there was one. */
  revoke(peer: string, resource: string): boolean {
    if (this.#byPeer.get(peer)?.has(resource) !== true) return false;
    this.#end(peer, resource, 'revoked');
    this.#findNextExpiry();
    return true;
  }

  /** The calendar of the device was read again, or set. */
  handleWallClock(unixMs: number, now: Instant): void {
    this.#epoch = unixMs - now;
    this.handleTimeout(now);
  }

  handleTimeout(now: Instant): void {
    if (this.#nextExpiry === undefined || this.#nextExpiry > this.#calendar(now)) return;
    for (const each of Array.from(this.entries())) {
      if (this.#hasExpired(each, now)) this.#end(each.peer, each.resource, 'expired');
    }
    this.#findNextExpiry();
  }

  pollTimeout(): Deadline | undefined {
    if (this.#nextExpiry === undefined) return undefined;
    return { at: instantAt(this.#nextExpiry - this.#epoch), reason: 'authorization expires' };
  }

  pollEvent(): AuthorizationEvent | undefined {
    return this.#events.shift();
  }

  #put(authorization: Authorization): void {
    const { peer, resource } = authorization;
    const grants = this.#byPeer.get(peer) ?? new Map<string, Authorization>();
    this.#byPeer.set(peer, grants);
    if (!grants.has(resource)) this.#size++;
    grants.set(resource, authorization);
  }

  #end(peer: string, resource: string, why: EndOfAuthorization): void {
    const grants = this.#byPeer.get(peer);
    if (grants?.delete(resource) !== true) return;
    this.#size--;
    this.#events.push({ type: 'authorization-ended', peer, resource, why });
    if (grants.size > 0) return;
    this.#byPeer.delete(peer);
    this.#events.push({ type: 'last-authorization-ended', peer, why });
  }

  #hasExpired({ expiresAt }: Authorization, now: Instant): boolean {
    return expiresAt !== undefined && expiresAt <= this.#calendar(now);
  }

  #calendar(now: Instant): number {
    return this.#epoch + now;
  }

  #findNextExpiry(): void {
    this.#nextExpiry = undefined;
    for (const { expiresAt } of this.entries()) {
      if (expiresAt === undefined) continue;
      if (this.#nextExpiry === undefined || expiresAt < this.#nextExpiry) {
        this.#nextExpiry = expiresAt;
      }
    }
  }
}

/** Ids have no blanks. */
function keyOf({ peer, resource }: Authorization): string {
  return `${peer} ${resource}`;
}
