import type { SocketAddress } from '../net/socket-address.ts';
import type { Deadline } from '../sansio/agent.ts';
import type { Crypto } from '../sansio/crypto.ts';
import type { Instant, Millis } from '../sansio/instant.ts';
import { BugError } from '../sansio/outcome.ts';
import type { Random } from '../sansio/random.ts';
import type { ReceivedStun } from '../stun/message.ts';
import type { Candidate } from './candidate.ts';

/**
 * Where datagrams of a candidate really leave from (RFC 8445 §4 "base"), named by the owner of the
 * sockets: `udp 192.0.2.1`, `relay eu 4`, `stream`. A pair is one base and one remote address.
 */
export type BaseId = string;

export interface IceCredentials {
  readonly usernameFragment: string;
  readonly password: string;
}

export interface IceOptions {
  readonly role: 'controlling' | 'controlled';
  readonly local: IceCredentials;
  readonly remote: IceCredentials;
  readonly random: Random;
  readonly crypto: Pick<Crypto, 'hmacSha1'>;
}

export interface IceTransmit {
  readonly base: BaseId;
  readonly to: SocketAddress;
  readonly payload: Uint8Array;
}

export interface PairId {
  readonly base: BaseId;
  readonly remote: SocketAddress;
}

/** A pair on which a check of ours was answered. */
export interface ValidPair extends PairId {
  readonly local: Candidate;
  readonly remoteCandidate: Candidate;
  /** Smoothed round trip of checks. */
  readonly rtt: Millis;
  /** When an answer to a check of ours, or an authentic check of the peer, last came on it. */
  readonly heardAt: Instant;
  /** When an answer to a check of ours last came on it: both directions work. */
  readonly answeredAt: Instant;
}

export type IceEvent =
  /** A check of ours was answered on a pair that was not valid before. */
  | { readonly type: 'pair-valid'; readonly pair: ValidPair }
  /** Every later answer to a check or probe. */
  | { readonly type: 'pair-answered'; readonly pair: ValidPair }
  /** Controlled: the peer nominates this pair, told with each nominating check; it is valid. */
  | { readonly type: 'nominated'; readonly pair: ValidPair }
  /** The pair is no more: refused (403), base gone, remote candidate gone and silent. */
  | { readonly type: 'pair-gone'; readonly pair: PairId }
  /** No check was answered for ICE_TIMEOUT, and no pair is valid. Told once per start. */
  | { readonly type: 'failed' };

/**
 * The ICE agent of one peer (RFC 8445, trickled as in RFC 8838), without policy: it forms pairs, checks
 * them, answers checks. The owner selects among valid pairs (`nominate`, controlling side) and asks for
 * liveness probes (`probe`). Full file comment by its author.
 */
export class IceAgent {
  constructor(_options: IceOptions, _now: Instant) {
    throw new BugError('not written');
  }

  get role(): 'controlling' | 'controlled' {
    throw new BugError('not written');
  }

  /** Begins (again): all pairs waiting, ICE_TIMEOUT counts from here. Candidates stay. */
  restart(_now: Instant): void {
    throw new BugError('not written');
  }

  /** Adds a local candidate on a base; a reflexive one shares the base of its host and makes no pairs. */
  addLocalCandidate(_candidate: Candidate, _base: BaseId, _now: Instant): void {
    throw new BugError('not written');
  }

  /** The base is gone, with its candidates and pairs. */
  removeBase(_base: BaseId, _now: Instant): void {
    throw new BugError('not written');
  }

  /** Takes the complete list; unknown ones are paired, missing ones dropped unless their pair answers. */
  setRemoteCandidates(_candidates: readonly Candidate[], _now: Instant): void {
    throw new BugError('not written');
  }

  /** A STUN binding message that came on a base. Anything that does not authenticate changes nothing. */
  handleStun(
    _received: {
      readonly message: ReceivedStun;
      readonly base: BaseId;
      readonly from: SocketAddress;
    },
    _now: Instant,
  ): void {
    throw new BugError('not written');
  }

  /** Controlling: sends one nominating check on a valid pair; all later checks on it nominate too. */
  nominate(_pair: PairId, _now: Instant): void {
    throw new BugError('not written');
  }

  /** Sends one check on a pair, not repeated. Its answer shows as `pair-answered`. */
  probe(_pair: PairId, _now: Instant): void {
    throw new BugError('not written');
  }

  /** Forgets that the pair is valid; it is checked again as if it were new. */
  invalidate(_pair: PairId, _now: Instant): void {
    throw new BugError('not written');
  }

  validPairs(): readonly ValidPair[] {
    throw new BugError('not written');
  }

  /** Whether this transaction id is of a check of ours that awaits its answer. */
  owns(_transactionId: Uint8Array): boolean {
    throw new BugError('not written');
  }

  handleTimeout(_now: Instant): void {
    throw new BugError('not written');
  }

  pollTransmit(): IceTransmit | undefined {
    throw new BugError('not written');
  }

  pollEvent(): IceEvent | undefined {
    throw new BugError('not written');
  }

  pollTimeout(): Deadline | undefined {
    throw new BugError('not written');
  }
}
