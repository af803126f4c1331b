/**
 * How many peer-reflexive candidates there are (RFC 8445 §7.3.1.3). A copy of an authentic check is an
 * authentic check from wherever it is sent, so those that answered nothing yet replace only one another. A
 * peer behind a NAT that moves, however, is valid at ever new addresses.
 */
import type { CheckList } from './check-list.ts';
import { PEER_REFLEXIVE_LIMIT } from './constants.ts';
import { heardAt, type Pair, type RemoteCandidate } from './pair.ts';
import type { RemoteCandidates } from './remote-candidates.ts';

/** Returns the unproven one that has to go before another comes: the oldest. */
export function unprovenInExcess(
  remotes: RemoteCandidates,
  checkList: CheckList,
): RemoteCandidate | undefined {
  const unproven = remotes.all.filter(
    (remote) =>
      remote.origin === 'peer-reflexive' &&
      checkList.of(remote).every((pair) => pair.state.type !== 'valid'),
  );
  return unproven.length < PEER_REFLEXIVE_LIMIT ? undefined : unproven[0];
}

/** Returns the valid pair that has to go after `newest` came: the one silent for longest. */
export function validInExcess(checkList: CheckList, newest: Pair): Pair | undefined {
  const valid = checkList.pairs.filter(
    ({ state, remote }) => state.type === 'valid' && remote.origin === 'peer-reflexive',
  );
  if (valid.length <= PEER_REFLEXIVE_LIMIT) return undefined;
  const others = valid.filter((pair) => pair !== newest);
  return others.reduce((a, b) => (heardAt(b) < heardAt(a) ? b : a));
}
