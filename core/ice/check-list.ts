import type { SocketAddress } from '../net/socket-address.ts';
import type { Deadline } from '../sansio/agent.ts';
import type { Instant } from '../sansio/instant.ts';
import { PAIR_LIMIT } from './constants.ts';
import {
  byPriority,
  triedUntil,
  type BaseId,
  type Check,
  type Pair,
  type RemoteCandidate,
} from './pair.ts';
import type { IceRole } from './role.ts';

/**
 * The pairs of an agent, and which of them is checked next (RFC 8445 §6.1.4.2): those that a check of the
 * peer triggered, in the order in which they were; then those that wait, by priority; then the repetitions
 * that are due, the longest due first. So each pair has its first check soon, however many are repeated.
 */
export class CheckList {
  readonly #pairs: Pair[] = [];
  /** First in, first out, each pair once (§6.1.4.1). */
  readonly #triggered: Pair[] = [];

  get pairs(): readonly Pair[] {
    return this.#pairs;
  }

  find(base: BaseId, remote: SocketAddress): Pair | undefined {
    return this.#pairs.find(
      (pair) => pair.local.base === base && pair.remote.candidate.address === remote,
    );
  }

  /** The pairs of a remote candidate. */
  of(remote: RemoteCandidate): readonly Pair[] {
    return this.#pairs.filter((pair) => pair.remote === remote);
  }

  /**
   * Adds a pair and returns the one that a full list dropped for it, which may be the same: the lowest of
   * the failed, else of the waiting ones. One that is triggered or in progress stays.
   */
  add(pair: Pair, role: IceRole): Pair | undefined {
    this.#pairs.push(pair);
    if (this.#pairs.length <= PAIR_LIMIT) return undefined;
    const dropped = this.#lowest('failed', role) ?? this.#lowest('waiting', role) ?? pair;
    this.remove(dropped);
    return dropped;
  }

  remove(pair: Pair): void {
    removeFrom(this.#pairs, pair);
    this.settle(pair);
  }

  trigger(pair: Pair): void {
    if (!this.#triggered.includes(pair)) this.#triggered.push(pair);
  }

  /** The pair needs no triggered check any more. */
  settle(pair: Pair): void {
    removeFrom(this.#triggered, pair);
  }

  takeTriggered(): Pair | undefined {
    return this.#triggered.shift();
  }

  highestWaiting(role: IceRole): Pair | undefined {
    let highest: Pair | undefined;
    for (const pair of this.#pairs) {
      if (pair.state.type !== 'waiting') continue;
      if (highest === undefined || byPriority(pair, highest, role) < 0) highest = pair;
    }
    return highest;
  }

  /** Returns the check that is to be repeated first, be it due or not. */
  firstRetransmission(): Check | undefined {
    let first: Check | undefined;
    for (const { state } of this.#pairs) {
      if (state.type !== 'in-progress') continue;
      if (first === undefined || state.check.retransmitAt < first.retransmitAt) first = state.check;
    }
    return first;
  }

  hasValid(): boolean {
    return this.#pairs.some((pair) => pair.state.type === 'valid');
  }

  /** When something is to be done, where no check may be sent before `nextCheckAt`. */
  deadline(nextCheckAt: Instant): Deadline | undefined {
    let deadline: Deadline | undefined;
    const repeated = this.firstRetransmission()?.retransmitAt;
    if (this.#triggered.length > 0 || this.#pairs.some(isWaiting)) {
      deadline = { at: nextCheckAt, reason: 'check' };
    } else if (repeated !== undefined) {
      const at = repeated > nextCheckAt ? repeated : nextCheckAt;
      deadline = { at, reason: 'repeat check' };
    }
    for (const pair of this.#pairs) {
      const at = triedUntil(pair);
      if (at === undefined || (deadline !== undefined && deadline.at <= at)) continue;
      deadline = { at, reason: 'pair fails' };
    }
    return deadline;
  }

  #lowest(state: Pair['state']['type'], role: IceRole): Pair | undefined {
    let lowest: Pair | undefined;
    for (const pair of this.#pairs) {
      if (pair.state.type !== state || this.#triggered.includes(pair)) continue;
      if (lowest === undefined || byPriority(pair, lowest, role) > 0) lowest = pair;
    }
    return lowest;
  }
}

function isWaiting(pair: Pair): boolean {
  return pair.state.type === 'waiting';
}

function removeFrom(pairs: Pair[], pair: Pair): void {
  const index = pairs.indexOf(pair);
  if (index >= 0) pairs.splice(index, 1);
}
