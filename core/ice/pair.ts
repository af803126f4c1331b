import { ipFamily, isLinkLocal } from '../net/ip-address.ts';
import { socketAddressIp, type SocketAddress } from '../net/socket-address.ts';
import { elapsed, type Instant, type Millis } from '../sansio/instant.ts';
import type { Candidate } from './candidate.ts';
import type { IceRole } from './role.ts';

/**
 * Where datagrams of a candidate really leave from (RFC 8445 §4 "base"), named by the owner of the
 * sockets: `udp 192.0.2.1`, `relay eu 4`, `stream`. A pair is one base and one remote address.
 */
export type BaseId = string;

export interface PairId {
  readonly base: BaseId;
  readonly remote: SocketAddress;
}

/** A pair on which a check of ours was answered. */
export interface ValidPair extends PairId {
  readonly local: Candidate;
  readonly remoteCandidate: Candidate;
  /** Smoothed round trip of checks; no more than a bound while all that were answered had been repeated. */
  readonly rtt: Millis;
  /** When an answer to a check of ours, or an authentic check of the peer, last came on it. */
  readonly heardAt: Instant;
  /** When an answer to a check of ours last came on it: both directions work. */
  readonly answeredAt: Instant;
}

/** A local candidate that makes pairs. */
export interface LocalCandidate {
  readonly base: BaseId;
  readonly candidate: Candidate;
}

export interface RemoteCandidate {
  /** Replaced in place when the peer signals what we had learnt from a check. */
  candidate: Candidate;
  /** `withdrawn`: the peer signalled it, then no more, but a pair with it still works. */
  origin: 'signalled' | 'peer-reflexive' | 'withdrawn';
}

export interface Pair {
  readonly local: LocalCandidate;
  readonly remote: RemoteCandidate;
  state: PairState;
}

/**
 * RFC 8445 §6.1.2.6. No pair is ever frozen: that would save checks between streams and components, and
 * there is one of each.
 */
export type PairState =
  | WaitingState
  | { readonly type: 'in-progress'; readonly triedUntil: Instant; readonly check: Check }
  /** Succeeded, and on the valid list (§7.2.5.3.2). */
  | ValidState
  | { readonly type: 'failed' };

export interface WaitingState {
  readonly type: 'waiting';
  readonly triedUntil: Instant;
}

export interface ValidState {
  readonly type: 'valid';
  rtt: Millis;
  /** Whether a check that was sent once gave `rtt`. */
  isMeasured: boolean;
  heardAt: Instant;
  answeredAt: Instant;
}

/** A check of which the answer is awaited: one STUN transaction. */
export interface Check {
  readonly pair: Pair;
  /** Our role in it. */
  readonly role: IceRole;
  readonly payload: Uint8Array;
  readonly sentAt: Instant;
  /** Whether it carries USE-CANDIDATE. */
  readonly nominates: boolean;
  readonly isTriggered: boolean;
  transmissions: number;
  /** When it is repeated; a probe is not, and neither is a check that a newer one replaced. */
  retransmitAt: Instant;
  /** From the last transmission to the next one. */
  retransmitAfter: Millis;
}

/** Shared: most pairs of most agents have failed for good. */
export const FAILED: PairState = { type: 'failed' };

/** Whether a local and a remote candidate make a pair (RFC 8445 §6.1.2.2, RFC 6544 §6.2). */
export function canPair(local: Candidate, remote: Candidate): boolean {
  const [localIp, remoteIp] = [socketAddressIp(local.address), socketAddressIp(remote.address)];
  if (ipFamily(localIp) !== ipFamily(remoteIp)) return false;
  if (isLinkLocal(localIp) !== isLinkLocal(remoteIp)) return false;
  if (local.transport === 'udp' || remote.transport === 'udp') {
    return local.transport === remote.transport;
  }
  // The passive side gets its pairs when the other one has dialled and checks.
  return local.tcpType === 'active' && remote.tcpType === 'passive';
}

/**
 * Orders pairs by falling priority (RFC 8445 §6.1.2.3). With G of the controlling and D of the controlled
 * side it is 2^32 × min(G, D) + 2 × max(G, D) + (G > D), which has 63 bits, so its parts are compared.
 */
export function byPriority(a: Pair, b: Pair, role: IceRole): number {
  const [localA, remoteA] = [a.local.candidate.priority, a.remote.candidate.priority];
  const [localB, remoteB] = [b.local.candidate.priority, b.remote.candidate.priority];
  const byMinimum = Math.min(localB, remoteB) - Math.min(localA, remoteA);
  const byMaximum = Math.max(localB, remoteB) - Math.max(localA, remoteA);
  if (byMinimum !== 0 || byMaximum !== 0) return byMinimum || byMaximum;
  const byGreaterLocal = Number(localB > remoteB) - Number(localA > remoteA);
  return role === 'controlling' ? byGreaterLocal : -byGreaterLocal;
}

/** What becomes of a pair when its first check is answered. */
export function validState(check: Check, now: Instant): ValidState {
  return {
    type: 'valid',
    rtt: elapsed(check.sentAt, now),
    isMeasured: isMeasure(check),
    heardAt: now,
    answeredAt: now,
  };
}

/** Takes the answer to a later check into account (RFC 6298 §2), one that was faster the more so. */
export function noteAnswer(state: ValidState, check: Check, now: Instant): void {
  state.heardAt = now;
  state.answeredAt = now;
  if (!isMeasure(check)) return;
  const sample = elapsed(check.sentAt, now);
  // What is slower than before may have waited for us, as the first ones do while the daemon starts.
  const share = sample < state.rtt ? 1 / 2 : 1 / 8;
  state.rtt = state.isMeasured ? state.rtt + share * (sample - state.rtt) : sample;
  state.isMeasured = true;
}

/** The answer to a check that was repeated may be to any of its copies (RFC 6298 §3). */
function isMeasure(check: Check): boolean {
  return check.transmissions === 1;
}

/** Until when a pair is tried, if it still is. */
export function triedUntil({ state }: Pair): Instant | undefined {
  return state.type === 'waiting' || state.type === 'in-progress' ? state.triedUntil : undefined;
}

/** When the peer was last heard on a valid pair; nothing counts on another. */
export function heardAt({ state }: Pair): number {
  return state.type === 'valid' ? state.heardAt : -Infinity;
}

export function pairIdOf(pair: Pair): PairId {
  return { base: pair.local.base, remote: pair.remote.candidate.address };
}

export function validPairOf(pair: Pair, state: ValidState): ValidPair {
  // Spelt out: spreading is slow, and this is asked for with each check.
  return {
    base: pair.local.base,
    remote: pair.remote.candidate.address,
    local: pair.local.candidate,
    remoteCandidate: pair.remote.candidate,
    rtt: state.rtt,
    heardAt: state.heardAt,
    answeredAt: state.answeredAt,
  };
}
