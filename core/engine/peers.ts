import type { Configuration, PeerConfiguration } from '../config/configuration.ts';
import { diffConfiguration, type ConfigChange } from '../config/diff.ts';
import type { Endpoint } from '../config/endpoint.ts';
import type { SocketAddress } from '../net/socket-address.ts';
import type { Deadline } from '../sansio/agent.ts';
import type { Instant } from '../sansio/instant.ts';
import type { GoodbyeReason } from '../peering/message.ts';
import { unreachable } from '../sansio/outcome.ts';
import {
  ICE_REKEY_ATTEMPT_TIME,
  ICE_REKEY_TIMEOUT,
  REKEY_ATTEMPT_TIME,
  SMALLEST_TRANSPORT_LENGTH,
} from '../wireguard/constants.ts';
import type { PeerRefusal } from '../wireguard/wireguard.ts';
import type { UapiPeerState } from '../wireguard/uapi.ts';
import type { Traffic } from './drain.ts';
import { Endpoints, type Answer, type Question } from './endpoints.ts';
import type { Event, Failure, PathLoss } from './event.ts';
import type { Paths } from './paths.ts';
import { PeerTable, type Peer } from './peer-table.ts';
import { peerStatusesOf, type PeerHistory, type PeerStatus } from './status.ts';
import type { PlaneEvent, UserspacePlane } from './userspace-plane.ts';

/** What is told of peers. */
export type PeerEvent = Extract<
  Event,
  {
    readonly type:
      | 'peer-connected'
      | 'peer-failed'
      | 'path-lost'
      | 'connection-failed'
      | 'peer-left'
      | 'endpoint-changed';
  }
>;

/**
 * The configured peers: keeps the data plane at what the configuration says of them, finds those whose
 * endpoint is a name, and remembers how their last attempt went.
 */
export class Peers {
  readonly #plane: UserspacePlane;
  readonly #paths: Paths;
  readonly #table = new PeerTable();
  readonly #endpoints = new Endpoints();
  readonly #history = new Map<string, PeerHistory>();
  readonly #refused = new Map<string, Failure>();
  readonly #events: PeerEvent[] = [];

  constructor(plane: UserspacePlane, paths: Paths) {
    this.#plane = plane;
    this.#paths = paths;
  }

  all(): Iterable<Peer> {
    return this.#table.all();
  }

  byId(id: string): Peer | undefined {
    return this.#table.byId(id);
  }

  /** Configured peers that the protocol refuses to speak with. */
  get refused(): readonly Failure[] {
    return [...this.#refused.values()];
  }

  /** Brings the peers from one configuration to the next. */
  change(previous: Configuration, next: Configuration, now: Instant): void {
    for (const change of diffConfiguration(previous, next)) this.#onChange(change, now);
  }

  handlePlaneEvent(event: PlaneEvent, now: Instant): void {
    const peer = this.#table.byIndex(event.peer);
    if (peer === undefined) return;
    const { id } = peer.configuration;
    switch (event.type) {
      case 'peering-packet':
        return;
      case 'handshake-completed':
        return this.#onHandshake(id, event.tookMs);
      case 'handshake-failed':
        // With a peer whose way `Paths` finds the connection fails, which it says itself.
        if (peer.configuration.kind === 'culvert') return;
        this.#history.set(id, { ...this.#history.get(id), cause: event.cause });
        this.#events.push({ type: 'peer-failed', peer: id, cause: event.cause });
        return this.#seek(peer, this.#endpoints.handleSilence(id), now);
      case 'endpoint-changed':
        this.#events.push({ type: 'endpoint-changed', peer: id, endpoint: event.endpoint });
        return;
      default:
        return unreachable(event);
    }
  }

  /** What the attempts that follow meet is news again. */
  handlePathLost(id: string, why: PathLoss): void {
    if (this.#table.byId(id) === undefined) return;
    // The session outlives what carried it, so that no new one would clear a cause.
    if (why === 'silence') this.#history.set(id, { ...this.#history.get(id), cause: 'path-lost' });
    this.#events.push({ type: 'path-lost', peer: id, why });
  }

  /** No path was found to a peer whose way `Paths` finds: it may be elsewhere by the name of its endpoint. */
  handleConnectionFailed(id: string, cause: string, now: Instant): void {
    const peer = this.#table.byId(id);
    if (peer === undefined) return;
    const history = this.#history.get(id);
    this.#seek(peer, this.#endpoints.handleSilence(id), now);
    // Tried again and again, it is told once; and not at all of a peer that said it would go.
    if (history?.cause === cause || history?.cause?.startsWith(GOODBYE) === true) return;
    if (history?.cause === 'dismissed') return;
    this.#history.set(id, { ...history, cause });
    this.#events.push({ type: 'connection-failed', peer: id, cause });
  }

  handlePeerLeft(id: string, reason: GoodbyeReason): void {
    this.#history.set(id, { ...this.#history.get(id), cause: `${GOODBYE}: ${reason}` });
    this.#events.push({ type: 'peer-left', peer: id, reason });
  }

  /** The connection with the peer was ended as it may use nothing here any more. */
  handleDismissed(id: string): void {
    this.#history.set(id, { ...this.#history.get(id), cause: 'dismissed' });
  }

  handleAnswer(answer: Answer, now: Instant): void {
    const peer = this.#table.byId(answer.peer);
    if (peer !== undefined) this.#seek(peer, this.#endpoints.handleAnswer(answer, now), now);
  }

  handleTimeout(now: Instant): void {
    this.#endpoints.handleTimeout(now);
  }

  pollEvent(): PeerEvent | undefined {
    return this.#events.shift();
  }

  /** The next name to look up. */
  pollQuestion(): Question | undefined {
    return this.#endpoints.pollQuestion();
  }

  pollTimeout(): Deadline | undefined {
    return this.#endpoints.pollTimeout();
  }

  statuses(): readonly PeerStatus[] {
    return peerStatusesOf(this.#table.all(), this.#plane, this.#paths, this.#history);
  }

  /** What was exchanged with each peer; a keepalive is a message of the smallest length. */
  traffic(): Traffic {
    return new Map(
      [...this.#table.all()].map(({ index, configuration }) => {
        const { rxBytes, txBytes, rxPackets, txPackets } = this.#plane.counters(index);
        return [
          configuration.id,
          rxBytes + txBytes - (rxPackets + txPackets) * SMALLEST_TRANSPORT_LENGTH,
        ];
      }),
    );
  }

  uapiStates(): readonly UapiPeerState[] {
    return [...this.#table.all()].map(({ index, configuration }) => {
      const tunnel = this.#plane.peerStatus(index);
      const { rxBytes, txBytes } = this.#plane.counters(index);
      return {
        publicKey: configuration.publicKey,
        presharedKey: configuration.presharedKey,
        endpoint: tunnel?.endpoint,
        persistentKeepalive: configuration.keepalive,
        allowedIps: configuration.allowedIps,
        lastHandshakeUnixMs: tunnel?.lastHandshakeUnixMs,
        rxBytes,
        txBytes,
      };
    });
  }

  #onChange(change: ConfigChange, now: Instant): void {
    switch (change.type) {
      case 'peer-removed':
        return this.#remove(change.peer.id, now);
      case 'peer-added':
        return this.#set(change.peer, change.peer.endpoint, now);
      case 'peer-changed': {
        const { peer, fields } = change;
        // A peer that roamed keeps its place unless the configuration names another one. One whose
        // endpoint was taken away keeps the address, as in the Linux kernel, but not the name.
        if (!fields.includes('endpoint')) return this.#set(peer, undefined, now);
        this.#endpoints.remove(peer.id);
        return this.#set(peer, peer.endpoint, now);
      }
      case 'interface-changed':
      case 'relays-changed':
      case 'streams-changed':
      case 'resources-changed':
      case 'authorizations-changed':
      case 'site-changed':
      case 'nat-changed':
      case 'dns-changed':
      case 'log-changed':
        return;
      default:
        return unreachable(change);
    }
  }

  #set(configuration: PeerConfiguration, endpoint: Endpoint | undefined, now: Instant): void {
    const { id, publicKey, presharedKey, keepalive } = configuration;
    const isCulvert = configuration.kind === 'culvert';
    const peer = this.#table.set(configuration);
    const address = endpoint === undefined ? undefined : this.#endpoints.set(id, endpoint);
    const outcome = this.#plane.setPeer(
      peer.index,
      {
        publicKey,
        ...(presharedKey === undefined ? {} : { presharedKey }),
        ...(address === undefined || isCulvert ? {} : { endpoint: address }),
        persistentKeepalive: keepalive,
        ...(isCulvert
          ? { rekeyAttemptTime: ICE_REKEY_ATTEMPT_TIME, rekeyTimeout: ICE_REKEY_TIMEOUT }
          : { rekeyAttemptTime: REKEY_ATTEMPT_TIME }),
      },
      now,
    );
    if (outcome.ok && isCulvert) {
      this.#paths.setPeer(peer.index, configuration, now);
      if (address !== undefined) this.#paths.setEndpoint(peer.index, address, now);
      return;
    }
    if (outcome.ok) return this.#plane.setResolving(peer.index, this.#endpoints.isAsking(id));
    this.#remove(id, now);
    this.#refused.set(id, { path: `peers '${id}' publicKey`, why: REFUSALS[outcome.why] });
  }

  #remove(id: string, now: Instant): void {
    const removed = this.#table.remove(id);
    this.#endpoints.remove(id);
    this.#history.delete(id);
    this.#refused.delete(id);
    if (removed === undefined) return;
    this.#paths.removePeer(removed.index, now);
    this.#plane.removePeer(removed.index, now);
  }

  /** Takes what is known by the name of the peer's endpoint. */
  #seek(peer: Peer, endpoint: SocketAddress | undefined, now: Instant): void {
    if (peer.configuration.kind === 'culvert') {
      if (endpoint !== undefined) this.#paths.setEndpoint(peer.index, endpoint, now);
      return;
    }
    if (endpoint !== undefined) this.#plane.setEndpoint(peer.index, endpoint, now);
    this.#plane.setResolving(peer.index, this.#endpoints.isAsking(peer.configuration.id));
  }

  /** A session that only replaces the one before is no news. */
  #onHandshake(id: string, handshakeMs: number): void {
    const before = this.#history.get(id);
    this.#history.set(id, { handshakeMs });
    this.#endpoints.handleContact(id);
    if (before === undefined || before.cause !== undefined) {
      this.#events.push({ type: 'peer-connected', peer: id, handshakeMs });
    }
  }
}

const GOODBYE = 'said goodbye';

const REFUSALS: Readonly<Record<PeerRefusal, string>> = {
  'invalid-public-key': 'is a point of low order: no secret can be shared with it',
  'own-public-key': 'is the key of this device',
  'public-key-in-use': 'is the key of another peer too',
};
