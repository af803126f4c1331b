import type { BaseId } from '../ice/agent.ts';
import type { Candidate } from '../ice/candidate.ts';
import type { SocketAddress } from '../net/socket-address.ts';
import type { PathKind } from '../peering/message.ts';
import { sooner, type Deadline } from '../sansio/agent.ts';
import { after, type Instant, type Millis } from '../sansio/instant.ts';
import type { PeerIndex } from '../wireguard/outputs.ts';
import { formatBase } from './base.ts';
import type { Connection, ConnectionState } from './connection.ts';
import { activeCandidates, relayedCandidates, type LocalCandidate } from './local-candidates.ts';
import type { PairSecrets } from './pair-secrets.ts';
import { pathKindOf, type IsStream } from './path-choice.ts';
import type { Relay, RelayId } from './relay.ts';

export interface ConnectionStatus {
  readonly state: ConnectionState;
  readonly kind: PathKind | undefined;
  readonly local: SocketAddress | undefined;
  readonly remote: SocketAddress | undefined;
  /** Our relay, where the path leads through it. */
  readonly relay: RelayId | undefined;
  readonly rtt: Millis | undefined;
  readonly why: string;
  /** Other paths that were answered, the best first. */
  readonly alternatives: readonly PathStatus[];
}

export interface PathStatus {
  readonly kind: PathKind;
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
  readonly rtt: Millis;
}

const MOST_REMOTE_CANDIDATES = 64;
/** A configured endpoint is tried before everything that is only remembered. */
const ENDPOINT_PRIORITY = 2 ** 31 - 1;
/** A stream that is no longer needed carries what is on its way. */
const STREAM_GRACE: Millis = 5_000;

/** A peer with its connection, and what it takes from what all peers share. */
export class Peer {
  readonly index: PeerIndex;
  readonly secrets: PairSecrets;
  readonly connection: Connection;
  /** Ed25519 key of its device, which signs the certificate of its stream listener; once it signalled. */
  deviceKey: Uint8Array | undefined;
  /** Of the path in use, where that leads through our relay. */
  channel: number | undefined;
  #relay: { readonly id: RelayId; readonly candidates: readonly LocalCandidate[] } | undefined;
  #endpoint: SocketAddress | undefined;
  #remembered: readonly Candidate[] = [];
  #signalled: readonly Candidate[] = [];
  #dials: 'no' | 'yes' | { readonly until: Instant } = 'no';

  constructor(index: PeerIndex, secrets: PairSecrets, connection: Connection) {
    this.index = index;
    this.secrets = secrets;
    this.connection = connection;
  }

  get relay(): RelayId | undefined {
    return this.#relay?.id;
  }

  /** The candidates on our relay. */
  get relayed(): readonly LocalCandidate[] {
    return this.#relay?.candidates ?? [];
  }

  /** Takes up a relay, or its addresses after they changed: what led through the old ones is gone. */
  useRelay(relay: Relay | undefined, now: Instant): void {
    const candidates = relay === undefined ? [] : relayedCandidates(relay);
    const addresses = (list: readonly LocalCandidate[]) =>
      list.map(({ candidate }) => candidate.address).join();
    const isSame =
      relay?.id === this.#relay?.id && addresses(candidates) === addresses(this.relayed);
    if (isSame) return;
    const before = new Set(this.relayed.map(({ base }) => base));
    this.#relay = relay && { id: relay.id, candidates };
    for (const base of before) this.connection.removeBase(base, now);
    this.addLocal(candidates, now);
  }

  addLocal(candidates: readonly LocalCandidate[], now: Instant): void {
    for (const { candidate, base } of candidates) {
      this.connection.addLocalCandidate(candidate, base, now);
    }
  }

  removeBases(bases: readonly BaseId[], now: Instant): void {
    for (const base of bases) this.connection.removeBase(base, now);
  }

  /** Where the configuration says that it is. */
  setEndpoint(endpoint: SocketAddress | undefined, now: Instant): void {
    // The name of an endpoint is asked for again after each failure.
    if (endpoint === this.#endpoint) return;
    this.#endpoint = endpoint;
    this.#seek(now);
  }

  /** Where it was when the daemon last ran; until it says so itself. */
  setRemembered(candidates: readonly Candidate[], now: Instant): void {
    this.#remembered = candidates;
    this.#seek(now);
  }

  setSignalled(candidates: readonly Candidate[], now: Instant): void {
    this.#signalled = candidates;
    this.#seek(now);
  }

  /** How it said that this stream address is dialled. */
  passiveCandidate(address: SocketAddress): Extract<Candidate, { transport: 'tcp' }> | undefined {
    for (const candidate of [...this.#signalled, ...this.#remembered]) {
      if (candidate.transport === 'tcp' && candidate.address === address) return candidate;
    }
    return undefined;
  }

  /** What is worth keeping of it: what it said, and where it answers. Nothing while it does not. */
  get reached(): readonly Candidate[] {
    const answering = this.connection.selected?.remoteCandidate;
    if (answering === undefined) return [];
    const isSaid = this.#signalled.some(({ address }) => address === answering.address);
    return isSaid ? this.#signalled : [answering, ...this.#signalled];
  }

  /** Has streams dialled, or no longer: then those there are have a while to run dry. */
  wantStreams(wanted: boolean, now: Instant): void {
    if (wanted) this.addLocal(activeCandidates(), now);
    if (wanted) this.#dials = 'yes';
    else if (this.#dials === 'yes') this.#dials = { until: after(now, STREAM_GRACE) };
  }

  /** Whether the streams that were dialled are to be closed now; told once. */
  endStreams(now: Instant): boolean {
    if (typeof this.#dials === 'string' || this.#dials.until > now) return false;
    this.#dials = 'no';
    this.connection.removeBase(formatBase({ type: 'dialled' }), now);
    return true;
  }

  pollTimeout(): Deadline | undefined {
    const closing =
      typeof this.#dials === 'string'
        ? undefined
        : { at: this.#dials.until, reason: 'close streams' };
    return sooner(this.connection.pollTimeout(), closing);
  }

  status(isStream: IsStream): ConnectionStatus {
    const { connection } = this;
    const pair = connection.selected;
    return {
      state: connection.state,
      kind: connection.kind,
      local: pair?.local.address,
      remote: pair?.remote,
      relay: pair?.local.type === 'relay' ? this.relay : undefined,
      rtt: pair?.rtt,
      why: connection.why,
      alternatives: connection.alternatives().map((other) => ({
        kind: pathKindOf(other, isStream),
        local: other.local.address,
        remote: other.remote,
        rtt: other.rtt,
      })),
    };
  }

  #seek(now: Instant): void {
    const said = this.#signalled.length > 0 ? this.#signalled : this.#remembered;
    const endpoint = this.#endpoint;
    const others = said.filter(({ address }) => address !== endpoint);
    const candidates = endpoint === undefined ? others : [configured(endpoint), ...others];
    if (candidates.length === 0) return;
    this.connection.setRemoteCandidates(candidates.slice(0, MOST_REMOTE_CANDIDATES), now);
  }
}

function configured(address: SocketAddress): Candidate {
  const priority = ENDPOINT_PRIORITY;
  return { type: 'host', transport: 'udp', foundation: 'endpoint', priority, address };
}
