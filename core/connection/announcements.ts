import { LIMITS } from '../config/defaults.ts';
import type { Candidate } from '../ice/candidate.ts';
import type { Deadline } from '../sansio/agent.ts';
import { ExpiringMap } from '../sansio/expiring-map.ts';
import type { Instant, Millis } from '../sansio/instant.ts';
import { randomFraction, type Random } from '../sansio/random.ts';
import type { PeerIndex } from '../wireguard/outputs.ts';

/** What concerns more peers than this at one instant is told to the others within SPREAD. */
const MOST_AT_ONCE = 10;
const SPREAD: Millis = 2_000;

/**
 * When each peer is told our candidates. A list that it has is not told again. To seal one for each of
 * thousands of peers takes a while, so what concerns them all, as a relay that comes or goes, is told to
 * a few at once and to the others in the time after that, each of them what is true by then.
 */
export class Announcements {
  readonly #random: Random;
  readonly #told = new Map<PeerIndex, readonly Candidate[]>();
  /** Peers that are told later. There are no more peers than it holds. */
  readonly #due = new ExpiringMap<PeerIndex, true>(LIMITS.peers, 'candidates to tell');
  #instant: Instant | undefined;
  #toldAtInstant = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  /** Returns whether the peer is to be told this list now. If it is news for later, that becomes due. */
  offer(peer: PeerIndex, candidates: readonly Candidate[], now: Instant): boolean {
    if (isSame(this.#told.get(peer), candidates)) return false;
    if (this.#instant !== now) this.#toldAtInstant = 0;
    this.#instant = now;
    if (this.#toldAtInstant >= MOST_AT_ONCE) {
      const delay = SPREAD * randomFraction(this.#random);
      if (!this.#due.has(peer)) this.#due.set(peer, true, now, delay);
      return false;
    }
    this.#toldAtInstant++;
    this.onTold(peer, candidates);
    return true;
  }

  onTold(peer: PeerIndex, candidates: readonly Candidate[]): void {
    this.#due.delete(peer);
    this.#told.set(peer, candidates);
  }

  /** The peer may have lost what it was told: the same is news to it. */
  forget(peer: PeerIndex): void {
    this.#told.delete(peer);
  }

  removePeer(peer: PeerIndex): void {
    this.#told.delete(peer);
    this.#due.delete(peer);
  }

  /** Returns the peers that are to be told now. */
  handleTimeout(now: Instant): readonly PeerIndex[] {
    return this.#due.handleTimeout(now).map(([peer]) => peer);
  }

  pollTimeout(): Deadline | undefined {
    return this.#due.pollTimeout();
  }
}

/** Foundations and related addresses follow from the rest. */
function isSame(a: readonly Candidate[] | undefined, b: readonly Candidate[]): boolean {
  return (
    a !== undefined && a.length === b.length && a.every((one, i) => keyOf(one) === keyOf(b[i]))
  );
}

function keyOf(candidate: Candidate | undefined): string {
  if (candidate === undefined) return '';
  const { type, address, priority } = candidate;
  const protocol = candidate.transport === 'tcp' ? candidate.protocol : 'udp';
  return `${type} ${address} ${priority} ${protocol}`;
}
