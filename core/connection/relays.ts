import type { RelayConfiguration } from '../config/configuration.ts';
import { formatRelayUrl } from '../config/relay-url.ts';
import { isPrivate, type IpAddress } from '../net/ip-address.ts';
import { socketAddressIp, type SocketAddress } from '../net/socket-address.ts';
import type { StreamId } from '../plugin/streams.ts';
import { sooner, type Deadline } from '../sansio/agent.ts';
import type { Instant, Millis } from '../sansio/instant.ts';
import { chooseRelay } from '../turn/relay-choice.ts';
import { RelayOutputs } from './relay-outputs.ts';
import {
  Relay,
  type RelayEvent,
  type RelayFailure,
  type RelayId,
  type RelayOptions,
  type RelayTransmit,
} from './relay.ts';
import type { Route } from './route.ts';

export interface RelayStatus {
  readonly url: RelayId;
  readonly state: 'waiting' | 'connecting' | 'ready';
  /** Why it is not ready, if it has failed. */
  readonly why: RelayFailure | undefined;
  /** What exactly was met, where the cause alone does not say it. */
  readonly detail: string | undefined;
  readonly rtt: Millis | undefined;
  readonly relayed: readonly SocketAddress[];
  /** Our address as it sees it. */
  readonly mapped: SocketAddress | undefined;
}

/** The STUN and TURN servers that all connections share. */
export class Relays {
  readonly #options: RelayOptions;
  readonly #byId = new Map<RelayId, Relay>();
  readonly #outputs = new RelayOutputs();

  constructor(options: RelayOptions) {
    this.#options = options;
  }

  /** Takes the complete list; returns those that are no more. A relay with another login is another one. */
  set(configurations: readonly RelayConfiguration[], now: Instant): readonly RelayId[] {
    const wanted = new Map(configurations.map((relay) => [formatRelayUrl(relay.url), relay]));
    const removed: RelayId[] = [];
    for (const [id, relay] of this.#byId) {
      const next = wanted.get(id);
      if (next !== undefined && isSameLogin(next, relay.configuration)) continue;
      relay.close(now);
      this.#byId.delete(id);
      removed.push(id);
    }
    for (const [id, configuration] of wanted) {
      if (this.#byId.has(id)) continue;
      this.#byId.set(id, new Relay(configuration, this.#options, this.#outputs, now));
    }
    return removed;
  }

  get(id: RelayId): Relay | undefined {
    return this.#byId.get(id);
  }

  /** Returns what is reached at this address over UDP: the relay, where a STUN server is there as well. */
  at(address: SocketAddress): Relay | undefined {
    let found: Relay | undefined;
    for (const relay of this.#byId.values()) {
      if (relay.address !== address || relay.stream !== undefined) continue;
      if (relay.url.service === 'turn') return relay;
      found ??= relay;
    }
    return found;
  }

  /** A STUN message over UDP, for all at the address of `at`: each ignores what answers none of its own. */
  handleMessage({ address }: Relay, message: Uint8Array, now: Instant): void {
    for (const relay of this.#byId.values()) {
      if (relay.address === address && relay.stream === undefined)
        relay.handleMessage(message, now);
    }
  }

  /** Returns the relay that is reached by this stream. */
  of(stream: StreamId): Relay | undefined {
    for (const relay of this.#byId.values()) if (relay.stream === stream) return relay;
    return undefined;
  }

  /** Chooses one of those that are ready, by round trip. */
  choose(): Relay | undefined {
    const ready = [...this.#byId.values()].filter(({ relayed }) => relayed.length > 0);
    return chooseRelay(ready, this.#options.random);
  }

  /** Whether any of them relays at present, or does as soon as it has its allocation back. */
  get isAnyReady(): boolean {
    return [...this.#byId.values()].some(({ isRelaying }) => isRelaying);
  }

  /** Our addresses as the relays see them. */
  get mapped(): readonly SocketAddress[] {
    return [...this.#byId.values()].flatMap(({ mapped }) => mapped ?? []);
  }

  /** Returns the way to a peer through a relay; `undefined` where there is none. */
  routeTo(id: RelayId, peer: SocketAddress, now: Instant): Route | undefined {
    const relay = this.#byId.get(id);
    if (relay?.address === undefined || relay.state.type !== 'ready') return undefined;
    // No relay on the Internet reaches into the network of the peer.
    const isForeign = isPrivate(socketAddressIp(peer)) && !relay.relayed.some(isPrivateSocket);
    const channel = isForeign ? undefined : relay.channelTo(peer, now);
    if (channel === undefined) return undefined;
    const { address: remote, stream } = relay;
    return { remote, channel, ...(stream === undefined ? {} : { stream }) };
  }

  handleResolved(id: RelayId, addresses: readonly IpAddress[], now: Instant): void {
    this.#byId.get(id)?.handleResolved(addresses, now);
  }

  /** A peer is not reached: is what its relay and the STUN servers know of us still true? */
  handleDoubt(id: RelayId | undefined, now: Instant): void {
    for (const relay of this.#byId.values()) {
      if (relay.id === id || relay.url.service === 'stun') relay.handleDoubt(now);
    }
  }

  /** Our addresses or routes changed. */
  handleNetworkChange(now: Instant): void {
    for (const relay of this.#byId.values()) relay.handleNetworkChange(now);
  }

  /** Gives all allocations back. */
  close(now: Instant): void {
    for (const relay of this.#byId.values()) relay.close(now);
  }

  handleTimeout(now: Instant): void {
    for (const relay of this.#byId.values()) relay.handleTimeout(now);
  }

  pollTransmit(): RelayTransmit | undefined {
    return this.#outputs.pollTransmit();
  }

  pollEvent(): RelayEvent | undefined {
    return this.#outputs.pollEvent();
  }

  pollTimeout(): Deadline | undefined {
    let next = this.#outputs.pollTimeout();
    for (const relay of this.#byId.values()) next = sooner(next, relay.pollTimeout());
    return next;
  }

  statuses(): readonly RelayStatus[] {
    return [...this.#byId.values()].map(({ id, state, lastFailure, rtt, relayed, mapped }) => ({
      url: id,
      state: state.type,
      why: lastFailure?.why,
      detail: lastFailure?.detail === '' ? undefined : lastFailure?.detail,
      rtt,
      relayed,
      mapped,
    }));
  }
}

function isPrivateSocket(address: SocketAddress): boolean {
  return isPrivate(socketAddressIp(address));
}

function isSameLogin(a: RelayConfiguration, b: RelayConfiguration): boolean {
  return a.username === b.username && a.credential === b.credential && a.secret === b.secret;
}
