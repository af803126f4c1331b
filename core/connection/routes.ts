import type { BaseId, PairId } from '../ice/agent.ts';
import type { SocketAddress } from '../net/socket-address.ts';
import type { DialTarget, StreamId } from '../plugin/streams.ts';
import type { Instant } from '../sansio/instant.ts';
import { unreachable } from '../sansio/outcome.ts';
import { parseBase } from './base.ts';
import type { ConnectionsEvent } from './event.ts';
import type { PeerStreams } from './peer-streams.ts';
import type { Peer } from './peer.ts';
import type { Relays } from './relays.ts';
import type { Route } from './route.ts';

/** Finds the way of a pair: the UDP socket, a channel of a relay, or a stream, which it has dialled. */
export class Routes {
  /** `http://[user:password@]host:port`, through which streams are dialled. */
  proxy: string | undefined;
  readonly #relays: Relays;
  readonly #streams: PeerStreams;
  readonly #events: ConnectionsEvent[];
  #lastStream: StreamId = 0;

  constructor(parts: {
    readonly relays: Relays;
    readonly streams: PeerStreams;
    /** Where dials are told. */
    readonly events: ConnectionsEvent[];
  }) {
    this.#relays = parts.relays;
    this.#streams = parts.streams;
    this.#events = parts.events;
  }

  /** Returns the way of a pair; one that needs a stream has it dialled first. */
  of(peer: Peer, pair: PairId, now: Instant): Route | undefined {
    const base = parseBase(pair.base);
    switch (base.type) {
      case 'udp':
        return { remote: pair.remote, source: { local: base.local } };
      case 'relay':
        return this.#relays.routeTo(base.relay, pair.remote, now);
      case 'dialled':
      case 'accepted': {
        const stream = this.#streams.find(peer.index, base.type, pair.remote);
        if (stream?.isOpen === true) return { remote: pair.remote, stream: stream.id };
        if (stream === undefined && base.type === 'dialled') this.#dial(peer, pair.remote, now);
        return undefined;
      }
      default:
        return unreachable(base);
    }
  }

  /** Whether the datagrams of a base travel in a stream. */
  isStream(id: BaseId): boolean {
    const base = parseBase(id);
    if (base.type !== 'relay') return base.type !== 'udp';
    return this.#relays.get(base.relay)?.url.transport !== 'udp';
  }

  /** Makes the number of a stream that is about to be dialled: an even one. */
  nextStream(): StreamId {
    this.#lastStream += 2;
    return this.#lastStream;
  }

  dial(stream: StreamId, target: DialTarget): void {
    const proxy = this.proxy === undefined ? {} : { proxy: this.proxy };
    this.#events.push({ type: 'dial', stream, target: { ...target, ...proxy } });
  }

  #dial(peer: Peer, remote: SocketAddress, now: Instant): void {
    const candidate = peer.passiveCandidate(remote);
    if (candidate === undefined) return;
    const stream = this.nextStream();
    if (!this.#streams.dial(stream, peer.index, remote, now)) return;
    const { deviceKey } = peer;
    this.dial(stream, {
      protocol: candidate.protocol ?? 'tcp',
      address: remote,
      // What travels inside is sealed by WireGuard in any case.
      trust: deviceKey === undefined ? { type: 'any' } : { type: 'pinned', deviceKey },
    });
  }
}
