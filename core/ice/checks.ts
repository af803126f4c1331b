import type { Deadline } from '../sansio/agent.ts';
import { after, type Instant } from '../sansio/instant.ts';
import { randomBytes, type Random } from '../sansio/random.ts';
import { transactionKey } from '../stun/transaction.ts';
import { encodeCheck, type BindingContext } from './binding.ts';
import { peerReflexivePriority } from './candidate-priority.ts';
import {
  FIRST_RETRANSMISSION,
  RETRANSMISSION_LIMIT,
  TRANSACTION_LIFETIME,
  TRANSACTION_LIMIT,
} from './constants.ts';
import type { Check, Pair } from './pair.ts';
import type { IceRole } from './role.ts';

/** The checks that await their answers. */
export class Checks {
  readonly #options: BindingContext & { readonly random: Random };
  /** RFC 8445 §5.2: 64 bits, of which the larger ones control. */
  readonly tieBreaker: Uint8Array;
  /** By transaction id, the oldest first. */
  readonly #awaited = new Map<string, Check>();

  constructor(options: BindingContext & { readonly random: Random }) {
    this.#options = options;
    this.tieBreaker = randomBytes(options.random, 8);
  }

  /** Makes a check that is to be sent now. */
  start(
    pair: Pair,
    how: { readonly role: IceRole; readonly nominates: boolean; readonly isTriggered: boolean },
    now: Instant,
  ): Check {
    const { role, nominates, isTriggered } = how;
    const { tieBreaker } = this;
    const transactionId = randomBytes(this.#options.random, 12);
    const priority = peerReflexivePriority(pair.local.candidate);
    const request = { transactionId, role, tieBreaker, priority, nominates };
    const check: Check = {
      pair,
      role,
      payload: encodeCheck(request, this.#options),
      sentAt: now,
      nominates,
      isTriggered,
      transmissions: 1,
      retransmitAt: after(now, FIRST_RETRANSMISSION),
      retransmitAfter: FIRST_RETRANSMISSION,
    };
    const [oldest] = this.#awaited.keys();
    if (oldest !== undefined && this.#awaited.size >= TRANSACTION_LIMIT) {
      this.#awaited.delete(oldest);
    }
    this.#awaited.set(transactionKey(transactionId), check);
    return check;
  }

  /** Notes that a check is sent once more, with its transaction id (RFC 8489 §6.2.1), so byte for byte. */
  repeat(check: Check, now: Instant): void {
    check.transmissions++;
    check.retransmitAfter = Math.min(check.retransmitAfter * 2, RETRANSMISSION_LIMIT);
    check.retransmitAt = after(now, check.retransmitAfter);
  }

  find(transactionId: Uint8Array): Check | undefined {
    return this.#awaited.get(transactionKey(transactionId));
  }

  /** The check is answered. */
  delete(transactionId: Uint8Array): void {
    this.#awaited.delete(transactionKey(transactionId));
  }

  /** Answers to the checks of this pair mean nothing any more. */
  forget(pair: Pair): void {
    for (const [key, check] of this.#awaited) {
      if (check.pair === pair) this.#awaited.delete(key);
    }
  }

  expire(now: Instant): void {
    for (const [key, check] of this.#awaited) {
      // Compared as the deadline is computed: a difference of fractions may round to less.
      if (after(check.sentAt, TRANSACTION_LIFETIME) > now) return;
      this.#awaited.delete(key);
    }
  }

  pollTimeout(): Deadline | undefined {
    for (const { sentAt } of this.#awaited.values()) {
      return { at: after(sentAt, TRANSACTION_LIFETIME), reason: 'check expires' };
    }
    return undefined;
  }
}
