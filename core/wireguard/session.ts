import { after, type Instant } from '../sansio/instant.ts';
import { REJECT_AFTER_TIME, SESSION_SLOTS } from './constants.ts';

export type Role = 'initiator' | 'responder';

/** What the protocol knows of a session; its keys and counters are with the packet path. */
export interface Session {
  /** What the peer writes as receiver: our peer index in the upper 24 bits, a counter in the lower 8. */
  readonly localIndex: number;
  readonly remoteIndex: number;
  readonly role: Role;
  readonly createdAt: Instant;
}

/**
 * The sessions of one peer, in a ring of slots: a session lies in slot (local index mod 4), and a new
 * one takes the place of the oldest.
 *
 * - *current*: the one we send with.
 * - *next*: a responder's session that becomes current when its first message authenticates, since only
 *   then do we know that the initiator has the keys.
 * - The others are previous ones: they only receive what was under way when they were replaced. The
 *   kernel keeps one of these; keeping all that fit saves packets when both sides initiate at once.
 *
 * No session outlives REJECT_AFTER_TIME.
 */
export class SessionRing {
  readonly #base: number;
  readonly #slots: (Session | undefined)[] = Array.from({ length: SESSION_SLOTS });
  #counter: number;
  #current: Session | undefined;
  #next: Session | undefined;
  /** The index that our own pending initiation has announced. */
  #reserved: number | undefined;

  /** `firstCounter` is 0 to 255; a random one tells the lives of a daemon apart. */
  constructor(peer: number, firstCounter: number) {
    this.#base = peer * COUNTERS;
    this.#counter = firstCounter;
  }

  get current(): Session | undefined {
    return this.#current;
  }

  /** Returns the local index for a new initiation of ours, which replaces an earlier one. */
  reserve(): number {
    this.#reserved = this.#freeIndex([this.#current, this.#next]);
    return this.#reserved;
  }

  release(): void {
    this.#reserved = undefined;
  }

  /** Returns the local index for a session in which we respond. */
  indexForResponse(): number {
    return this.#freeIndex([this.#current]);
  }

  /** Adds an initiator's session, which is current at once. Returns the session whose slot it took. */
  addInitiated(session: Session): Session | undefined {
    this.#reserved = undefined;
    this.#next = undefined;
    const replaced = this.#put(session);
    this.#current = session;
    return replaced;
  }

  /** Adds a responder's session, to be confirmed. Returns the session whose slot it took. */
  addResponded(session: Session): Session | undefined {
    const replaced = this.#put(session);
    this.#next = session;
    return replaced;
  }

  /** Makes the session current if it waits for its first authentic message; returns whether it did. */
  confirm(localIndex: number): boolean {
    if (this.#next?.localIndex !== localIndex) return false;
    this.#current = this.#next;
    this.#next = undefined;
    return true;
  }

  /** Removes and returns the sessions that have reached their age. */
  takeExpired(now: Instant): readonly Session[] {
    return this.#takeWhere((session) => expiryOf(session) <= now);
  }

  takeAll(): readonly Session[] {
    return this.#takeWhere(() => true);
  }

  /** Returns when the next session reaches its age. */
  nextExpiry(): Instant | undefined {
    let next: Instant | undefined;
    for (const session of this.#slots) {
      if (session === undefined) continue;
      const expiry = expiryOf(session);
      if (next === undefined || expiry < next) next = expiry;
    }
    return next;
  }

  #put(session: Session): Session | undefined {
    const slot = slotOf(session.localIndex);
    const replaced = this.#slots[slot];
    this.#slots[slot] = session;
    return replaced;
  }

  /** Counts on to an index whose slot neither one of these sessions nor our initiation needs. */
  #freeIndex(needed: readonly (Session | undefined)[]): number {
    const taken = needed.map((session) => session?.localIndex);
    taken.push(this.#reserved);
    const slots = taken.map((index) => (index === undefined ? undefined : slotOf(index)));
    while (slots.includes(this.#counter % SESSION_SLOTS)) this.#count();
    const index = this.#base + this.#counter;
    this.#count();
    return index;
  }

  #count(): void {
    this.#counter = (this.#counter + 1) % COUNTERS;
  }

  #takeWhere(predicate: (session: Session) => boolean): readonly Session[] {
    const taken: Session[] = [];
    for (const [slot, session] of this.#slots.entries()) {
      if (session === undefined || !predicate(session)) continue;
      this.#slots[slot] = undefined;
      if (session === this.#current) this.#current = undefined;
      if (session === this.#next) this.#next = undefined;
      taken.push(session);
    }
    return taken;
  }
}

/** Returns the peer that a receiver index names. */
export function peerOfIndex(localIndex: number): number {
  return Math.floor(localIndex / COUNTERS);
}

/** Values of the session counter in an index. */
const COUNTERS = 256;

function slotOf(localIndex: number): number {
  return localIndex % SESSION_SLOTS;
}

function expiryOf(session: Session): Instant {
  return after(session.createdAt, REJECT_AFTER_TIME);
}
