import type { BaseId, PairId, ValidPair } from '../ice/agent.ts';
import { ipFamily } from '../net/ip-address.ts';
import { socketAddressIp } from '../net/socket-address.ts';
import type { PathKind } from '../peering/message.ts';
import type { Millis } from '../sansio/instant.ts';

/** Whether the datagrams of a base travel in a stream; a relay may be reached by one. */
export type IsStream = (base: BaseId) => boolean;

/** Among pairs of the same tier one must be faster by both of these to take over. */
const FASTER_BY: Millis = 10;
const FASTER_BY_SHARE = 0.2;

/** Returns what people call the path. */
export function pathKindOf(pair: ValidPair, isStream: IsStream): PathKind {
  if (isRelayed(pair)) return 'relayed';
  return isStream(pair.base) ? 'stream' : 'direct';
}

/**
 * Orders paths before their speed is looked at, the better the lower: direct IPv6, direct IPv4, over one
 * relay, over two, over a stream, over a relay that is reached by a stream.
 */
export function tierOf(pair: ValidPair, isStream: IsStream): number {
  const hops = (isLocalRelay(pair) ? 1 : 0) + (isRemoteRelay(pair) ? 1 : 0);
  if (isStream(pair.base)) return hops === 0 ? 4 : 5;
  if (hops > 0) return 1 + hops;
  return ipFamily(socketAddressIp(pair.remote)) === 6 ? 0 : 1;
}

/** Whether tier and speed of the pair are worth leaving the other one for. */
export function isBetter(pair: ValidPair, than: ValidPair, isStream: IsStream): boolean {
  const difference = tierOf(pair, isStream) - tierOf(than, isStream);
  if (difference !== 0) return difference < 0;
  return than.rtt - pair.rtt >= Math.max(FASTER_BY, than.rtt * FASTER_BY_SHARE);
}

/** Returns the best of the pairs: the lowest tier, and in it the fastest. */
export function bestOf(pairs: readonly ValidPair[], isStream: IsStream): ValidPair | undefined {
  let best: ValidPair | undefined;
  for (const pair of pairs) {
    if (best === undefined || rank(pair, isStream) < rank(best, isStream)) best = pair;
  }
  return best;
}

export function isSamePair(a: PairId | undefined, b: PairId | undefined): boolean {
  return a !== undefined && a.base === b?.base && a.remote === b.remote;
}

function rank(pair: ValidPair, isStream: IsStream): number {
  return tierOf(pair, isStream) * 1e6 + Math.min(pair.rtt, 1e6 - 1);
}

function isRelayed(pair: ValidPair): boolean {
  return isLocalRelay(pair) || isRemoteRelay(pair);
}

function isLocalRelay({ local }: ValidPair): boolean {
  return local.type === 'relay';
}

function isRemoteRelay({ remoteCandidate }: ValidPair): boolean {
  return remoteCandidate.type === 'relay';
}
