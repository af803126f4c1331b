import type { ConnectionStatus, PathStatus as FoundPath } from '../connection/peer.ts';
import type { RelayStatus as ConnectionRelayStatus } from '../connection/relays.ts';
import type { StreamProtocol } from '../ice/candidate.ts';
import { socketAddressIp, type SocketAddress } from '../net/socket-address.ts';
import type { PathKind } from '../peering/message.ts';
import type { Millis } from '../sansio/instant.ts';
import type { StreamFacts } from './stream-facts.ts';

/** What of a path the peer at its other end tells. */
export interface PathReport {
  readonly kind: PathKind;
  readonly rttMs?: number | undefined;
}

/** A way to a peer. Our end of it is not known where the kernel chose it. */
interface Way {
  readonly local: SocketAddress | undefined;
  readonly remote: SocketAddress | undefined;
  /** What is spoken on it, where it is a stream. */
  readonly protocol?: StreamProtocol;
  readonly rttMs: Millis | undefined;
}

export interface PathsStatus extends Omit<ConnectionStatus, 'rtt' | 'alternatives'>, Way {
  /** Other paths that were answered, the best first. */
  readonly alternatives: readonly ({ readonly kind: PathKind } & Way)[];
  /** What the peer says of its side; `undefined` before it did. */
  readonly report: PathReport | undefined;
}

export interface RelayStatus extends Omit<ConnectionRelayStatus, 'rtt'> {
  readonly rttMs: Millis | undefined;
}

export function pathsStatusOf(
  { rtt, alternatives, ...status }: ConnectionStatus,
  report: PathReport | undefined,
  streams: StreamFacts,
): PathsStatus {
  return {
    ...status,
    ...wayOf({ ...status, rtt }, streams),
    alternatives: alternatives.map((other) => ({ kind: other.kind, ...wayOf(other, streams) })),
    report,
  };
}

export function relayStatusOf({ rtt, ...relay }: ConnectionRelayStatus): RelayStatus {
  return { ...relay, rttMs: tenthsOf(rtt) };
}

/** What is dialled has these as its own until the kernel chooses. */
const ANY: readonly string[] = ['0.0.0.0', '::'];

/** Milliseconds for people and scripts. */
export function tenthsOf(ms: Millis | undefined): Millis | undefined {
  return ms === undefined ? undefined : Math.round(ms * 10) / 10;
}

function wayOf(
  { kind, local, remote, rtt }: Pick<ConnectionStatus, keyof FoundPath>,
  streams: StreamFacts,
): Way {
  const isStream = kind === 'stream' && remote !== undefined;
  const protocol = isStream ? streams.protocolWith(remote) : undefined;
  const isKnown = local !== undefined && !ANY.includes(socketAddressIp(local));
  return {
    local: isKnown ? local : undefined,
    remote,
    ...(protocol === undefined ? {} : { protocol }),
    rttMs: tenthsOf(rtt),
  };
}
