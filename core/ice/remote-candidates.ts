import type { SocketAddress } from '../net/socket-address.ts';
import { foundationOf } from './candidate-priority.ts';
import type { Candidate } from './candidate.ts';
import { REMOTE_CANDIDATE_LIMIT } from './constants.ts';
import type { RemoteCandidate } from './pair.ts';

/** The candidates of the peer: those that it signalled, and those that only its checks showed. */
export class RemoteCandidates {
  /** The oldest first. */
  readonly #all: RemoteCandidate[] = [];

  get all(): readonly RemoteCandidate[] {
    return this.#all;
  }

  find(transport: Candidate['transport'], address: SocketAddress): RemoteCandidate | undefined {
    return this.#all.find(
      ({ candidate }) => candidate.transport === transport && candidate.address === address,
    );
  }

  /**
   * Takes the complete list of the peer and returns what there is to pair. What is missing in the list
   * counts as withdrawn from here on. One that was known as peer-reflexive is promoted in place.
   */
  setSignalled(candidates: readonly Candidate[]): readonly RemoteCandidate[] {
    const added: RemoteCandidate[] = [];
    const listed = new Set<RemoteCandidate>();
    for (const candidate of callable(candidates)) {
      let remote = this.find(candidate.transport, candidate.address);
      if (remote !== undefined && listed.has(remote)) continue;
      if (remote === undefined) {
        remote = { candidate, origin: 'signalled' };
        this.#all.push(remote);
        added.push(remote);
      } else if (remote.origin !== 'signalled') {
        remote.origin = 'signalled';
        added.push(remote);
      }
      remote.candidate = candidate;
      listed.add(remote);
    }
    for (const remote of this.#all) {
      if (remote.origin === 'signalled' && !listed.has(remote)) remote.origin = 'withdrawn';
    }
    return added;
  }

  /** Adds what a check of the peer showed (RFC 8445 §7.3.1.3); `local` is what it came to. */
  addPeerReflexive(local: Candidate, address: SocketAddress, priority: number): RemoteCandidate {
    const type = 'prflx';
    const common = {
      type,
      priority,
      address,
      foundation: foundationOf(type, address, local.transport),
    } as const;
    const candidate: Candidate =
      local.transport === 'udp'
        ? { ...common, transport: 'udp' }
        : {
            ...common,
            transport: 'tcp',
            tcpType: local.tcpType === 'active' ? 'passive' : 'active',
          };
    const remote: RemoteCandidate = { candidate, origin: 'peer-reflexive' };
    this.#all.push(remote);
    return remote;
  }

  remove(remote: RemoteCandidate): void {
    const index = this.#all.indexOf(remote);
    if (index >= 0) this.#all.splice(index, 1);
  }
}

/** Those that a check can be sent to; nobody can call an active one. */
function callable(candidates: readonly Candidate[]): readonly Candidate[] {
  const all = candidates.filter((each) => each.transport === 'udp' || each.tcpType === 'passive');
  if (all.length <= REMOTE_CANDIDATE_LIMIT) return all;
  return all.sort((a, b) => b.priority - a.priority).slice(0, REMOTE_CANDIDATE_LIMIT);
}
