import { ipFamily } from '../net/ip-address.ts';
import { socketAddressIp, type SocketAddress } from '../net/socket-address.ts';
import type { Candidate } from './candidate.ts';
import type { BaseId, LocalCandidate } from './pair.ts';

/** Our candidates that make pairs: one for each base, address and direction. */
export class LocalCandidates {
  readonly #all: LocalCandidate[] = [];

  get all(): readonly LocalCandidate[] {
    return this.#all;
  }

  /** Returns the candidate if it is new and makes pairs; checks of a reflexive one would leave from its host. */
  add(candidate: Candidate, base: BaseId): LocalCandidate | undefined {
    if (candidate.type === 'srflx' || candidate.type === 'prflx') return undefined;
    const isKnown = this.#all.some(
      (known) =>
        known.base === base &&
        known.candidate.address === candidate.address &&
        isActive(known.candidate) === isActive(candidate),
    );
    if (isKnown) return undefined;
    const local = { base, candidate };
    this.#all.push(local);
    return local;
  }

  removeBase(base: BaseId): void {
    for (let i = this.#all.length - 1; i >= 0; i--) {
      if (this.#all[i]?.base === base) this.#all.splice(i, 1);
    }
  }

  /** Returns the candidate that a peer called which came to a base: on a stream it is a passive one. */
  calledBy(remote: SocketAddress, base: BaseId): LocalCandidate | undefined {
    const family = ipFamily(socketAddressIp(remote));
    const suitable = this.#all.filter(
      (local) =>
        local.base === base && ipFamily(socketAddressIp(local.candidate.address)) === family,
    );
    return suitable.find(({ candidate }) => !isActive(candidate)) ?? suitable[0];
  }
}

function isActive(candidate: Candidate): boolean {
  return candidate.transport === 'tcp' && candidate.tcpType === 'active';
}
