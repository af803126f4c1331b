/**
 * The ICE agent of one peer, for one component (RFC 8445), trickled (RFC 8838), without policy: it forms
 * pairs, checks them and answers checks. The owner selects among the valid pairs (`nominate`, controlling
 * side), asks for liveness checks (`probe`) and decides what silence means.
 *
 * A pair waits, is in progress, and is then valid or failed. Checks leave one each CHECK_PACING, the first
 * in the call that made its pair; an unanswered one is repeated until ICE_TIMEOUT after its pair was made.
 * A check of the peer revives a failed pair, which is how two sides meet that start at different times. When
 * no pair is valid ICE_TIMEOUT after the newest was made the agent says `failed`, and goes on answering.
 *
 * Credentials are known from the start and stay, so the peer's checks may come before its candidates do, and
 * before ours are known to it. Nothing that does not authenticate changes any state, nor is it answered: the
 * sources of datagrams are forged, and an error answer would go to whom a third party pleases.
 *
 * Deviations from RFC 8445: reflexive local candidates exist for signalling only, so no pairs are pruned to
 * their base and no new ones come out of mapped addresses (§7.2.5.3.1): what leaves, leaves from the base.
 * An answer from another address than was asked is ignored and fails no pair (§7.2.5.2.1): who sees a check
 * could end its pair that way. The controlling side may nominate again (§8.1.1): the newest nomination counts.
 * A check says nothing of when it was sent, so a replayed USE-CANDIDATE counts too: it moves the controlled side
 * to another pair that works, until the next nominating check at most, which is what liveness and keepalives are.
 */
import type { SocketAddress } from '../net/socket-address.ts';
import { sooner, type Deadline } from '../sansio/agent.ts';
import { BoundedQueue } from '../sansio/bounded-queue.ts';
import { after, elapsed, type Instant } from '../sansio/instant.ts';
import type { Random } from '../sansio/random.ts';
import type { ReceivedStun } from '../stun/message.ts';
import {
  encodeAnswer,
  isAuthenticAnswer,
  isAuthenticRequest,
  type BindingContext,
} from './binding.ts';
import type { Candidate } from './candidate.ts';
import { CheckList } from './check-list.ts';
import { Checks } from './checks.ts';
import {
  CHECK_PACING,
  EVENT_LIMIT,
  FIRST_RETRANSMISSION,
  ICE_TIMEOUT,
  TRANSMIT_LIMIT,
  WITHDRAWN_LIFETIME,
} from './constants.ts';
import { LocalCandidates } from './local-candidates.ts';
import type { IceDropReason, IceEvent, IceTransmit } from './outputs.ts';
import {
  canPair,
  FAILED,
  heardAt,
  noteAnswer,
  pairIdOf,
  validPairOf,
  triedUntil,
  validState,
  type BaseId,
  type Check,
  type LocalCandidate,
  type Pair,
  type PairId,
  type RemoteCandidate,
  type ValidPair,
  type WaitingState,
} from './pair.ts';
import { unprovenInExcess, validInExcess } from './peer-reflexive.ts';
import { RemoteCandidates } from './remote-candidates.ts';
import { otherRole, settleRole, type IceRole } from './role.ts';

export type { IceCredentials } from './binding.ts';
export { ICE_TIMEOUT } from './constants.ts';
export type { IceDropReason, IceEvent, IceTransmit } from './outputs.ts';
export type { BaseId, PairId, ValidPair } from './pair.ts';
export type { IceRole } from './role.ts';

export interface IceOptions extends BindingContext {
  readonly role: IceRole;
  readonly random: Random;
}

export class IceAgent {
  readonly #options: IceOptions;
  readonly #locals = new LocalCandidates();
  readonly #remotes = new RemoteCandidates();
  readonly #checkList = new CheckList();
  readonly #checks: Checks;
  readonly #transmits = new BoundedQueue<IceTransmit>(TRANSMIT_LIMIT, 'oldest');
  readonly #events = new BoundedQueue<IceEvent>(EVENT_LIMIT, 'oldest');
  readonly #drops: Record<IceDropReason, number> = {
    'request-not-authentic': 0,
    'request-to-unknown-base': 0,
    'answer-unexpected': 0,
    'answer-not-authentic': 0,
    'answer-from-elsewhere': 0,
  };
  #role: IceRole;
  /** Controlling: the pair whose checks nominate. Controlled: one that is nominated and not valid yet. */
  #nominated: Pair | undefined;
  /** Then the agent fails if no pair is valid. A failed pair that the peer revives is no new hope. */
  #hopesUntil: Instant;
  #hasFailed = false;
  #nextCheckAt: Instant;
  #lastCallAt: Instant;
  #deadline: Deadline | undefined;

  /** Starts: `failed` comes ICE_TIMEOUT from here at the earliest. */
  constructor(options: IceOptions, now: Instant) {
    this.#options = options;
    this.#role = options.role;
    this.#checks = new Checks(options);
    this.#hopesUntil = after(now, ICE_TIMEOUT);
    this.#nextCheckAt = now;
    this.#lastCallAt = now;
    this.#advance(now);
  }

  /** Our role; it differs from the one in the options after a role conflict (RFC 8445 §7.3.1.1). */
  get role(): IceRole {
    return this.#role;
  }

  get drops(): Readonly<Record<IceDropReason, number>> {
    return this.#drops;
  }

  /** Tries what is not valid again, for ICE_TIMEOUT; what is valid stays so. */
  recheck(now: Instant): void {
    this.#hasFailed = false;
    this.#hopesUntil = after(now, ICE_TIMEOUT);
    for (const pair of this.#checkList.pairs) {
      if (pair.state.type === 'failed') this.#beginAnew(pair);
    }
    this.#advance(now);
  }

  /** Gives all pairs up and tells nothing of it; a check of the peer revives its pair. */
  stop(now: Instant): void {
    this.#hasFailed = true;
    for (const pair of this.#checkList.pairs) {
      this.#checks.forget(pair);
      this.#fail(pair);
    }
    this.#advance(now);
  }

  /**
   * Adds a local candidate on a base. A reflexive one shares the base of its host, and makes no pairs.
   */
  addLocalCandidate(candidate: Candidate, base: BaseId, now: Instant): void {
    const local = this.#locals.add(candidate, base);
    if (local === undefined) return;
    for (const remote of this.#remotes.all) {
      if (remote.origin !== 'withdrawn') this.#pairUp(local, remote, now);
    }
    this.#advance(now);
  }

  /** The base is gone, with its candidates and pairs. */
  removeBase(base: BaseId, now: Instant): void {
    this.#locals.removeBase(base);
    for (const pair of this.#checkList.pairs.slice()) {
      if (pair.local.base === base) this.#removePair(pair, now);
    }
    this.#advance(now);
  }

  /** Takes the complete list; unknown ones are paired, missing ones dropped unless their pair answers. */
  setRemoteCandidates(candidates: readonly Candidate[], now: Instant): void {
    for (const remote of this.#remotes.setSignalled(candidates)) {
      for (const local of this.#locals.all) this.#pairUp(local, remote, now);
    }
    this.#advance(now);
  }

  /** A STUN binding message that came on a base. Anything that does not authenticate changes nothing. */
  handleStun(received: ReceivedBinding, now: Instant): void {
    const { message } = received;
    if (message.method !== 'binding' || message.class === 'indication') return;
    const refusal =
      message.class === 'request'
        ? this.#handleRequest(received, now)
        : this.#handleAnswer(received, now);
    if (refusal === undefined) this.#advance(now);
    else this.#drops[refusal]++;
  }

  /** Controlling: sends one nominating check on a valid pair; all later checks on it nominate too. */
  nominate(id: PairId, now: Instant): void {
    const pair = this.#checkList.find(id.base, id.remote);
    if (this.#role !== 'controlling' || pair?.state.type !== 'valid') return;
    this.#nominated = pair;
    this.#sendCheck(pair, now, false);
    this.#advance(now);
  }

  /** Sends one check on a pair, at once, not repeated. Its answer shows as `pair-answered`. */
  probe(id: PairId, now: Instant): void {
    const pair = this.#checkList.find(id.base, id.remote);
    if (pair === undefined) return;
    this.#sendCheck(pair, now, false);
    this.#advance(now);
  }

  /**
   * Forgets what is known of the pair, and checks it again: one that was valid as if it were new, another
   * as long as ever. A stream that never opens would put off the failure for ever. Tells no event.
   */
  invalidate(id: PairId, now: Instant): void {
    const pair = this.#checkList.find(id.base, id.remote);
    if (pair === undefined) return;
    if (this.#nominated === pair) this.#nominated = undefined;
    if (pair.state.type === 'valid') this.#hopesUntil = after(now, ICE_TIMEOUT);
    this.#beginAnew(pair);
    this.#advance(now);
  }

  validPairs(): readonly ValidPair[] {
    const valid: ValidPair[] = [];
    for (const pair of this.#checkList.pairs) {
      if (pair.state.type === 'valid') valid.push(validPairOf(pair, pair.state));
    }
    return valid;
  }

  /** Whether this transaction id is of a check of ours that awaits its answer. */
  owns(transactionId: Uint8Array): boolean {
    return this.#checks.find(transactionId) !== undefined;
  }

  handleTimeout(now: Instant): void {
    this.#advance(now);
  }

  pollTransmit(): IceTransmit | undefined {
    return this.#transmits.shift();
  }

  pollEvent(): IceEvent | undefined {
    return this.#events.shift();
  }

  pollTimeout(): Deadline | undefined {
    const hasOutput = this.#transmits.length > 0 || this.#events.length > 0;
    return hasOutput ? { at: this.#lastCallAt, reason: 'output' } : this.#deadline;
  }

  /** Does what is due. However late it is called, at most one check leaves. */
  #advance(now: Instant): void {
    this.#checks.expire(now);
    for (const pair of this.#checkList.pairs) {
      if ((triedUntil(pair) ?? Infinity) <= now) this.#fail(pair);
    }
    this.#dropWithdrawn(now);
    if (now >= this.#nextCheckAt) this.#checkNext(now);
    if (this.#hopesUntil <= now && !this.#hasFailed && !this.#checkList.hasValid()) {
      this.#hasFailed = true;
      this.#events.push({ type: 'failed' });
    }
    this.#lastCallAt = now;
    this.#deadline = this.#nextDeadline();
  }

  #nextDeadline(): Deadline | undefined {
    let deadline = sooner(this.#checkList.deadline(this.#nextCheckAt), this.#checks.pollTimeout());
    for (const pair of this.#checkList.pairs) {
      if (pair.remote.origin !== 'withdrawn' || pair.state.type !== 'valid') continue;
      const at = after(pair.state.heardAt, WITHDRAWN_LIFETIME);
      deadline = sooner(deadline, { at, reason: 'withdrawn candidate goes' });
    }
    if (this.#hasFailed || this.#checkList.hasValid()) return deadline;
    return sooner(deadline, { at: this.#hopesUntil, reason: 'failed' });
  }

  #checkNext(now: Instant): void {
    const triggered = this.#checkList.takeTriggered();
    const pair = triggered ?? this.#checkList.highestWaiting(this.#role);
    const repeated = this.#checkList.firstRetransmission();
    if (pair !== undefined) {
      const check = this.#sendCheck(pair, now, triggered !== undefined);
      pair.state = { type: 'in-progress', triedUntil: triedUntil(pair) ?? now, check };
    } else if (repeated !== undefined && repeated.retransmitAt <= now) {
      this.#checks.repeat(repeated, now);
      this.#transmit(repeated);
    } else return;
    this.#nextCheckAt = after(now, CHECK_PACING);
  }

  #sendCheck(pair: Pair, now: Instant, isTriggered: boolean): Check {
    const role = this.#role;
    const nominates = role === 'controlling' && this.#nominated === pair;
    const check = this.#checks.start(pair, { role, nominates, isTriggered }, now);
    this.#transmit(check);
    return check;
  }

  #transmit({ pair, payload }: Check): void {
    const { base, remote } = pairIdOf(pair);
    this.#transmits.push({ base, to: remote, payload });
  }

  #handleRequest(received: ReceivedBinding, now: Instant): IceDropReason | undefined {
    const { message, base, from } = received;
    if (!isAuthenticRequest(message, this.#options)) return 'request-not-authentic';
    const known = this.#checkList.find(base, from);
    const local = known?.local ?? this.#locals.calledBy(from, base);
    if (local === undefined) return 'request-to-unknown-base';

    const { priority, useCandidate } = message.attributes;
    const answer = (content: Parameters<typeof encodeAnswer>[1]) => {
      const payload = encodeAnswer(message, content, this.#options);
      this.#transmits.push({ base, to: from, payload });
      return undefined;
    };
    const unknown = message.unknownRequired;
    if (unknown.length > 0) return answer({ class: 'error', code: 420, unknown });
    if (priority === undefined) return answer({ class: 'error', code: 400 });
    const settled = settleRole(this.#role, this.#checks.tieBreaker, message.attributes);
    if (settled === 'conflict') return answer({ class: 'error', code: 487 });
    if (settled === 'switch') this.#switchRole();
    answer({ class: 'success', from });

    const pair = known ?? this.#pairHeard(local, from, priority, now);
    if (pair === undefined) return undefined;
    if (pair.state.type === 'valid') pair.state.heardAt = now;
    else this.#trigger(pair, now);
    if (useCandidate === true && this.#role === 'controlled') this.#handleNomination(pair);
    return undefined;
  }

  #switchRole(): void {
    this.#role = otherRole(this.#role);
    this.#nominated = undefined;
  }

  /** Makes the pair on which the peer was heard, with a peer-reflexive candidate unless it is known. */
  #pairHeard(
    local: LocalCandidate,
    from: SocketAddress,
    priority: number,
    now: Instant,
  ): Pair | undefined {
    const { transport } = local.candidate;
    let remote = this.#remotes.find(transport, from);
    if (remote === undefined) {
      const excess = unprovenInExcess(this.#remotes, this.#checkList);
      if (excess !== undefined) this.#removeRemote(excess, now);
      remote = this.#remotes.addPeerReflexive(local.candidate, from, priority);
    } else if (remote.origin === 'withdrawn') {
      remote.origin = 'peer-reflexive';
    }
    return this.#addPair(local, remote, now);
  }

  /** RFC 8445 §7.3.1.4. */
  #trigger(pair: Pair, now: Instant): void {
    if (pair.state.type === 'in-progress') {
      // Once the peer has sent, our next check passes its NAT. But two sides that answer checks with
      // checks for as long as the answers are lost must not do so at the speed of the network.
      const { isTriggered, sentAt } = pair.state.check;
      if (isTriggered && elapsed(sentAt, now) < FIRST_RETRANSMISSION) return;
    }
    this.#checkAgain(pair, now);
  }

  /** Checks the pair before others. The time for which it is tried begins only if it was over. */
  #checkAgain(pair: Pair, now: Instant): void {
    pair.state = waiting(triedUntil(pair) ?? after(now, ICE_TIMEOUT));
    this.#checkList.trigger(pair);
  }

  /** RFC 8445 §7.3.1.5: at once on a valid pair, else when it is. */
  #handleNomination(pair: Pair): void {
    if (pair.state.type === 'valid') {
      this.#nominated = undefined;
      this.#events.push({ type: 'nominated', pair: validPairOf(pair, pair.state) });
    } else {
      this.#nominated = pair;
    }
  }

  #handleAnswer(received: ReceivedBinding, now: Instant): IceDropReason | undefined {
    const { message, base, from } = received;
    const check = this.#checks.find(message.transactionId);
    if (check === undefined) return 'answer-unexpected';
    if (!isAuthenticAnswer(message, this.#options)) return 'answer-not-authentic';
    const asked = pairIdOf(check.pair);
    if (base !== asked.base || from !== asked.remote) return 'answer-from-elsewhere';

    this.#checks.delete(message.transactionId);
    if (message.class === 'success') this.#validate(check, now);
    else if (message.attributes.errorCode?.code === 487) this.#handleRoleConflict(check, now);
    else this.#refuse(check.pair, now);
    return undefined;
  }

  #validate(check: Check, now: Instant): void {
    const { pair } = check;
    if (pair.state.type === 'valid') {
      noteAnswer(pair.state, check, now);
      const { nominates } = check;
      this.#events.push({ type: 'pair-answered', pair: validPairOf(pair, pair.state), nominates });
      return;
    }
    const state = validState(check, now);
    pair.state = state;
    this.#hasFailed = false;
    this.#checkList.settle(pair);
    this.#events.push({ type: 'pair-valid', pair: validPairOf(pair, state) });
    if (this.#role === 'controlled' && this.#nominated === pair) this.#handleNomination(pair);
    const excess = validInExcess(this.#checkList, pair);
    if (excess !== undefined) this.#removeRemote(excess.remote, now);
  }

  /** RFC 8445 §7.2.5.1: we were told to take the other role, unless we have already. */
  #handleRoleConflict(check: Check, now: Instant): void {
    if (check.role === this.#role) this.#switchRole();
    if (triedUntil(check.pair) !== undefined) this.#checkAgain(check.pair, now);
  }

  /** RFC 8445 §7.2.5.2.4. The pair stays, failed, so that the next list of candidates does not revive it. */
  #refuse(pair: Pair, now: Instant): void {
    this.#loseValidity(pair, now);
    this.#fail(pair);
  }

  #fail(pair: Pair): void {
    pair.state = FAILED;
    this.#checkList.settle(pair);
    if (this.#nominated === pair) this.#nominated = undefined;
  }

  /** Makes the pair that a local and a remote candidate are, if they are one and it is not there. */
  #pairUp(local: LocalCandidate, remote: RemoteCandidate, now: Instant): void {
    if (!canPair(local.candidate, remote.candidate)) return;
    // Two candidates of one base send the same datagrams (RFC 8445 §6.1.2.4).
    if (this.#checkList.find(local.base, remote.candidate.address) !== undefined) return;
    this.#addPair(local, remote, now);
  }

  /** Returns the new pair, unless the list is full of better ones. */
  #addPair(local: LocalCandidate, remote: RemoteCandidate, now: Instant): Pair | undefined {
    this.#hopesUntil = after(now, ICE_TIMEOUT);
    const pair: Pair = { local, remote, state: waiting(this.#hopesUntil) };
    const dropped = this.#checkList.add(pair, this.#role);
    if (dropped !== undefined) this.#forget(dropped);
    return dropped === pair ? undefined : pair;
  }

  #beginAnew(pair: Pair): void {
    this.#checks.forget(pair);
    this.#checkList.settle(pair);
    pair.state = waiting(this.#hopesUntil);
  }

  #removeRemote(remote: RemoteCandidate, now: Instant): void {
    for (const pair of this.#checkList.of(remote)) this.#removePair(pair, now);
    this.#remotes.remove(remote);
  }

  #removePair(pair: Pair, now: Instant): void {
    this.#loseValidity(pair, now);
    this.#forget(pair);
  }

  #loseValidity(pair: Pair, now: Instant): void {
    if (pair.state.type !== 'valid') return;
    this.#events.push({ type: 'pair-gone', pair: pairIdOf(pair) });
    this.#hopesUntil = after(now, ICE_TIMEOUT);
  }

  #forget(pair: Pair): void {
    this.#checkList.remove(pair);
    this.#checks.forget(pair);
    if (this.#nominated === pair) this.#nominated = undefined;
  }

  #dropWithdrawn(now: Instant): void {
    for (const remote of this.#remotes.all.slice()) {
      if (remote.origin !== 'withdrawn') continue;
      const pairs = this.#checkList.of(remote);
      const silent = pairs.filter((pair) => !isAlive(pair, now));
      for (const pair of silent) this.#removePair(pair, now);
      if (silent.length === pairs.length) this.#remotes.remove(remote);
    }
  }
}

interface ReceivedBinding {
  readonly message: ReceivedStun;
  readonly base: BaseId;
  readonly from: SocketAddress;
}

function waiting(triedUntil: Instant): WaitingState {
  return { type: 'waiting', triedUntil };
}

function isAlive(pair: Pair, now: Instant): boolean {
  // Compared as the deadline is computed: a difference of fractions may round to less.
  return heardAt(pair) + WITHDRAWN_LIFETIME > now;
}
