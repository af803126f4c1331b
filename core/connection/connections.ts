import type { RelayConfiguration } from '../config/configuration.ts';
import type { ReceivedDatagram } from '../fastpath/packet-path.ts';
import { streamOfDescriptor } from '../fastpath/path.ts';
import type { BaseId, ValidPair } from '../ice/agent.ts';
import type { Candidate } from '../ice/candidate.ts';
import { ipFamily, type IpAddress } from '../net/ip-address.ts';
import type { IpPrefix } from '../net/ip-prefix.ts';
import { socketAddressIp, type SocketAddress } from '../net/socket-address.ts';
import type { GoodbyeReason } from '../peering/message.ts';
import type { StreamEvent, StreamId } from '../plugin/streams.ts';
import { earliest, type Deadline } from '../sansio/agent.ts';
import { BoundedQueue } from '../sansio/bounded-queue.ts';
import type { Crypto } from '../sansio/crypto.ts';
import type { Instant } from '../sansio/instant.ts';
import { unreachable } from '../sansio/outcome.ts';
import { isStun } from '../stun/message.ts';
import { decodeChannelData } from '../turn/channel-data.ts';
import type { PeerIndex } from '../wireguard/outputs.ts';
import { PeerDeadlines } from '../wireguard/peer-deadlines.ts';
import { Announcements } from './announcements.ts';
import { formatBase } from './base.ts';
import { Demultiplexer, type Arrived, type TunnelDatagram } from './demultiplexer.ts';
import { Connection, type ConnectionFailure, type SelectionReason } from './connection.ts';
import type { ConnectionsEvent } from './event.ts';
import { LocalCandidates, type StreamListener } from './local-candidates.ts';
import type { ConnectionsOptions } from './options.ts';
import { derivePairSecrets, type PairSecrets } from './pair-secrets.ts';
import { isSamePair, pathKindOf } from './path-choice.ts';
import { PeerStreams, type PeerStream } from './peer-streams.ts';
import { Peer, type ConnectionStatus } from './peer.ts';
import type { Relay, RelayEvent, RelayId } from './relay.ts';
import { Relays, type RelayStatus } from './relays.ts';
import { wrap, type ConnectionTransmit, type Route } from './route.ts';
import { Routes } from './routes.ts';

export type { TunnelDatagram } from './demultiplexer.ts';

const MOST_TRANSMITS = 4_096;

/**
 * The connections with all Culvert peers, the relays and streams they share, and what comes in for them.
 * See `Connection` for one peer and `Demultiplexer` for what is whose.
 */
export class Connections {
  readonly #options: ConnectionsOptions;
  readonly #peers = new Map<PeerIndex, Peer>();
  readonly #deadlines = new PeerDeadlines();
  readonly #local = new LocalCandidates();
  readonly #relays: Relays;
  readonly #streams = new PeerStreams();
  readonly #announcements: Announcements;
  readonly #routes: Routes;
  readonly #arrivals: Demultiplexer;
  readonly #transmits = new BoundedQueue<ConnectionTransmit>(MOST_TRANSMITS, 'oldest');
  /** Taken after each input, of which each makes a few for each peer. */
  readonly #events: ConnectionsEvent[] = [];
  #own: { readonly privateKey: Uint8Array; readonly publicKey: Uint8Array };
  #unixMsAtZero: number;
  #hadRelay = false;
  #lastNow: Instant;
  readonly #isStream = (base: BaseId): boolean => this.#routes.isStream(base);

  constructor(options: ConnectionsOptions, now: Instant) {
    this.#options = options;
    this.#own = keyPairOf(options.privateKey, options.crypto);
    this.#unixMsAtZero = options.unixMs - now;
    this.#lastNow = now;
    this.#announcements = new Announcements(options.random);
    this.#relays = new Relays({
      ...options,
      unixMs: (at) => this.#unixMsAtZero + at,
      nextStream: () => this.#routes.nextStream(),
    });
    this.#routes = new Routes({
      relays: this.#relays,
      streams: this.#streams,
      events: this.#events,
    });
    this.#arrivals = new Demultiplexer({
      relays: this.#relays,
      streams: this.#streams,
      local: this.#local,
      crypto: options.crypto,
    });
  }

  /** What was dropped, by reason. */
  get drops(): Readonly<Record<string, number>> {
    return this.#arrivals.drops;
  }

  handleWallClock(unixMs: number, now: Instant): void {
    this.#unixMsAtZero = unixMs - now;
  }

  /** Takes another key pair of ours; the peers are to be set again. */
  setPrivateKey(privateKey: Uint8Array): void {
    this.#own = keyPairOf(privateKey, this.#options.crypto);
  }

  /** Where our UDP socket is bound and the addresses that the machine has. */
  setLocal(local: { addresses: readonly IpAddress[]; port: number }, now: Instant): void {
    const { isNew, gone } = this.#local.setLocal(local.addresses, local.port);
    if (!isNew) return;
    for (const peer of this.#peers.values()) {
      peer.removeBases(gone, now);
      peer.addLocal(this.#local.all, now);
    }
    this.handleNetworkChange(now);
  }

  /** The networks that lead into the tunnel: what is there is no way to a peer. */
  setTunnelNetworks(networks: readonly IpPrefix[]): void {
    this.#arrivals.setTunnelNetworks(networks);
  }

  /** Routes or addresses changed: everything that was known of paths is in doubt. */
  handleNetworkChange(now: Instant): void {
    this.#relays.handleNetworkChange(now);
    for (const peer of this.#peers.values()) {
      peer.connection.handleNetworkChange(now);
      this.#settlePeer(peer, now);
    }
    this.#settleRelays(now);
  }

  setRelays(configurations: readonly RelayConfiguration[], now: Instant): void {
    const removed = this.#relays.set(configurations, now);
    for (const id of removed) this.#withdrawRelay(id, now);
    this.#settleRelays(now);
  }

  /** Where we accept streams, and through which HTTP proxy we dial them. */
  setStreams(listener: StreamListener | undefined, proxy: string | undefined, now: Instant): void {
    this.#routes.proxy = proxy;
    this.#local.setListener(listener);
    for (const peer of this.#peers.values()) {
      if (listener === undefined) peer.removeBases([formatBase({ type: 'accepted' })], now);
      peer.addLocal(this.#local.all, now);
      this.#tellCandidates(peer, now);
      this.#settlePeer(peer, now);
    }
  }

  /** Takes up a peer. Returns `undefined`, and does not, where no secret can be shared with its key. */
  setPeer(index: PeerIndex, publicKey: Uint8Array, now: Instant): PairSecrets | undefined {
    this.removePeer(index, now);
    const { fleet, crypto, random } = this.#options;
    const secrets = derivePairSecrets(this.#own, publicKey, fleet, crypto);
    if (secrets === undefined) return undefined;
    const connection = new Connection({ secrets, isStream: this.#isStream, random, crypto }, now);
    const peer = new Peer(index, secrets, connection);
    this.#peers.set(index, peer);
    this.#arrivals.addPeer(peer);
    peer.addLocal(this.#local.all, now);
    peer.useRelay(this.#relays.choose(), now);
    this.#tellCandidates(peer, now);
    this.#settlePeer(peer, now);
    return secrets;
  }

  removePeer(index: PeerIndex, now: Instant): void {
    this.#lastNow = now;
    const peer = this.#peers.get(index);
    if (peer === undefined) return;
    this.#peers.delete(index);
    this.#arrivals.removePeer(peer);
    this.#deadlines.set(index, undefined);
    this.#announcements.removePeer(index);
    for (const stream of this.#streams.removePeer(index)) this.#hangUp(stream);
  }

  /** The configured endpoint of the peer, once its name is resolved. */
  setEndpoint(index: PeerIndex, endpoint: SocketAddress | undefined, now: Instant): void {
    this.#change(index, now, (peer) => peer.setEndpoint(endpoint, now));
  }

  /** Where the peer was before we started. */
  setRemembered(index: PeerIndex, candidates: readonly Candidate[], now: Instant): void {
    this.#change(index, now, (peer) => peer.setRemembered(this.#arrivals.usable(candidates), now));
  }

  /** What the peer says of itself. */
  handleSignal(
    index: PeerIndex,
    signal: {
      readonly candidates: readonly Candidate[];
      readonly deviceKey: Uint8Array;
      readonly isRestart: boolean;
    },
    now: Instant,
  ): void {
    this.#change(index, now, (peer) => {
      peer.deviceKey = signal.deviceKey;
      if (signal.isRestart) peer.connection.handlePeerRestart(now);
      peer.setSignalled(this.#arrivals.usable(signal.candidates), now);
      this.#tellReached(peer);
    });
  }

  /** Takes what is STUN's or a relay's; returns what is left for WireGuard, unwrapped. */
  handleDatagram(datagram: ReceivedDatagram, now: Instant): TunnelDatagram | undefined {
    const stream = streamOfDescriptor(datagram.path.fd);
    const arrived =
      stream === undefined
        ? this.#arrivals.ofDatagram(datagram, now)
        : this.#ofStream(stream, datagram.payload, now);
    return this.#take(arrived, now);
  }

  /**
   * Takes the events of streams. Returns the datagrams in them that are not STUN, all of one stream and as
   * they came: the packet path takes those of its sessions and gives the others to `handleDatagram`.
   */
  handleStream(event: StreamEvent, now: Instant): readonly TunnelDatagram[] {
    this.#lastNow = now;
    const relay = this.#relays.of(event.stream);
    if (relay !== undefined) return this.#handleRelayStream(relay, event, now);
    switch (event.type) {
      case 'opened':
        this.#handleOpened(event.stream, now);
        return [];
      case 'accepted':
        if (!this.#local.isListening || !this.#streams.accept(event.stream, event.remote, now)) {
          this.#hangUp(event.stream);
        }
        return [];
      case 'data':
        return this.#handleStreamData(event.stream, event.bytes, now);
      case 'writable':
        return [];
      case 'closed':
        this.#handleClosed(event.stream, now);
        return [];
      default:
        return unreachable(event);
    }
  }

  handleRelayResolved(id: RelayId, addresses: readonly IpAddress[], now: Instant): void {
    this.#relays.handleResolved(id, addresses, now);
    this.#settleRelays(now);
  }

  /** What the packet path did for a peer. `elsewhere`: what came did not come on the path in use. */
  handleTransport(
    index: PeerIndex,
    facts: { sent: boolean; received: boolean; elsewhere: boolean },
    now: Instant,
  ): void {
    const peer = this.#peers.get(index);
    if (peer === undefined) return;
    peer.connection.handleTransport(facts, now);
    if (peer.channel !== undefined && peer.relay !== undefined) {
      this.#relays.get(peer.relay)?.handleTraffic(peer.channel, now);
    }
    this.#deadlines.set(index, peer.pollTimeout());
  }

  /** A packet waits for a path or a session. */
  wake(index: PeerIndex, now: Instant): void {
    this.#change(index, now, ({ connection }) => connection.wake(now));
  }

  handleSession(index: PeerIndex, now: Instant): void {
    this.#change(index, now, ({ connection }) => connection.handleSession(now));
  }

  handleHandshakeFailed(index: PeerIndex, why: ConnectionFailure, now: Instant): void {
    this.#change(index, now, ({ connection }) => connection.handleHandshakeFailed(why, now));
  }

  handleGoodbye(index: PeerIndex, reason: GoodbyeReason | 'dismissed', now: Instant): void {
    this.#change(index, now, ({ connection }) => connection.handleGoodbye(reason, now));
  }

  /** Gives the allocations back. */
  close(now: Instant): void {
    this.#relays.close(now);
    this.#settleRelays(now);
  }

  handleTimeout(now: Instant): void {
    this.#lastNow = now;
    this.#arrivals.handleTimeout(now);
    this.#relays.handleTimeout(now);
    this.#settleRelays(now);
    for (const index of this.#announcements.handleTimeout(now)) this.#tellDue(index);
    for (const stranger of this.#streams.handleTimeout(now)) {
      this.#hangUp(stranger.id);
      this.#handleBroken(stranger, now);
    }
    for (;;) {
      const index = this.#deadlines.duePeer(now);
      if (index === undefined) return;
      this.#change(index, now, (peer) => {
        peer.connection.handleTimeout(now);
        if (peer.endStreams(now)) this.#hangUpDialled(peer);
      });
    }
  }

  pollTransmit(): ConnectionTransmit | undefined {
    return this.#transmits.shift();
  }

  pollEvent(): ConnectionsEvent | undefined {
    return this.#events.shift();
  }

  pollTimeout(): Deadline | undefined {
    if (this.#events.length > 0 || this.#transmits.length > 0) {
      return { at: this.#lastNow, reason: 'queued' };
    }
    return earliest(
      this.#deadlines.first(),
      this.#relays.pollTimeout(),
      this.#announcements.pollTimeout(),
      this.#streams.pollTimeout(),
    );
  }

  status(index: PeerIndex): ConnectionStatus | undefined {
    return this.#peers.get(index)?.status(this.#isStream);
  }

  relayStatuses(): readonly RelayStatus[] {
    return this.#relays.statuses();
  }

  /** Does what is due with what came; returns what is left for WireGuard. */
  #take(arrived: Arrived, now: Instant): TunnelDatagram | undefined {
    switch (arrived.type) {
      case 'tunnel':
        return arrived.datagram;
      case 'check':
        arrived.peer.connection.handleStun(arrived, now);
        this.#settlePeer(arrived.peer, now);
        return undefined;
      case 'relay':
        this.#relays.handleMessage(arrived.relay, arrived.message, now);
        this.#settleRelays(now);
        return undefined;
      case 'nothing':
        return undefined;
      default:
        return unreachable(arrived);
    }
  }

  #handleRelayStream(relay: Relay, event: StreamEvent, now: Instant): readonly TunnelDatagram[] {
    const inner: TunnelDatagram[] = [];
    const { address } = relay;
    if (address === undefined) return inner;
    const route: Route = { remote: address, stream: event.stream };
    if (event.type === 'opened') relay.handleOpened(now);
    if (event.type === 'closed') relay.handleClosed(event.why, now);
    if (event.type === 'data') {
      for (const message of relay.takeFrames(event.bytes, now)) {
        const data = decodeChannelData(message);
        if (data === undefined) relay.handleMessage(message, now);
        else if (isStun(data.payload)) {
          this.#take(this.#arrivals.ofChannelData(relay, message, now), now);
        } else inner.push({ payload: message, from: address, route });
      }
    }
    this.#settleRelays(now);
    return inner;
  }

  /** A datagram of a stream that belongs to no session. */
  #ofStream(id: StreamId, payload: Uint8Array, now: Instant): Arrived {
    const relay = this.#relays.of(id);
    if (relay !== undefined) return this.#arrivals.ofChannelData(relay, payload, now);
    const stream = this.#streams.get(id);
    return stream === undefined ? { type: 'nothing' } : this.#arrivals.ofFrame(stream, payload);
  }

  #handleOpened(id: StreamId, now: Instant): void {
    const stream = this.#streams.get(id);
    if (stream?.peer === undefined) return;
    stream.isOpen = true;
    const pair = { base: formatBase({ type: 'dialled' }), remote: stream.remote };
    // The check that had it dialled was not sent.
    this.#change(stream.peer, now, ({ connection }) => connection.handleOpened(pair, now));
  }

  #handleStreamData(id: StreamId, bytes: Uint8Array, now: Instant): readonly TunnelDatagram[] {
    const stream = this.#streams.get(id);
    if (stream === undefined) return [];
    stream.framing.push(bytes);
    const inner: TunnelDatagram[] = [];
    for (let payload = stream.framing.next(); payload; payload = stream.framing.next()) {
      const arrived = this.#arrivals.ofFrame(stream, payload);
      const datagram = this.#take(arrived, now);
      if (datagram !== undefined) inner.push(datagram);
      if (arrived.type === 'check') this.#proveIfAnswered(stream, arrived.peer);
    }
    if (stream.framing.isBroken) {
      this.#hangUp(id);
      this.#handleClosed(id, now);
    }
    return inner;
  }

  /** A check on a stream may be a copy of one; that it answers ours shows that the peer is there. */
  #proveIfAnswered(stream: PeerStream, { connection }: Peer): void {
    const pair = { base: formatBase({ type: stream.direction }), remote: stream.remote };
    const working = [connection.selected, ...connection.alternatives()];
    if (working.some((other) => isSamePair(other, pair))) this.#streams.prove(stream);
  }

  #handleClosed(id: StreamId, now: Instant): void {
    const stream = this.#streams.remove(id);
    if (stream !== undefined) this.#handleBroken(stream, now);
  }

  #handleBroken({ peer, direction, remote }: PeerStream, now: Instant): void {
    if (peer === undefined) return;
    const pair = { base: formatBase({ type: direction }), remote };
    this.#change(peer, now, ({ connection }) => connection.handleBroken(pair, now));
  }

  /** Changes of a connection go through here, so that its outputs and deadline are taken up. */
  #change(index: PeerIndex, now: Instant, change: (peer: Peer) => void): void {
    this.#lastNow = now;
    const peer = this.#peers.get(index);
    if (peer === undefined) return;
    change(peer);
    this.#settlePeer(peer, now);
  }

  #settlePeer(peer: Peer, now: Instant): void {
    this.#lastNow = now;
    const { connection, index } = peer;
    for (let event = connection.pollEvent(); event; event = connection.pollEvent()) {
      switch (event.type) {
        case 'path-selected':
          this.#handleSelected(peer, event.pair, event.why, now);
          break;
        case 'path-lost':
          peer.channel = undefined;
          this.#events.push({ type: 'path', peer: index, route: undefined });
          break;
        case 'handshake-due':
          this.#events.push({ type: 'handshake-due', peer: index });
          break;
        case 'signal-due':
          // Where there is no path, what the relays know of us may be wrong as well.
          this.#relays.handleDoubt(peer.relay, now);
          this.#drainRelays();
          // The peer may not have got what it was told.
          this.#announcements.forget(index);
          this.#tellCandidates(peer, now);
          break;
        case 'failed':
          this.#events.push({ type: 'failed', peer: index, why: event.why });
          break;
        case 'streams-wanted':
          peer.wantStreams(event.wanted, now);
          break;
      }
    }
    this.#drainChecks(peer, now);
    this.#deadlines.set(index, peer.pollTimeout());
  }

  #drainChecks(peer: Peer, now: Instant): void {
    for (;;) {
      const check = peer.connection.pollTransmit();
      if (check === undefined) return;
      const pair = { base: check.base, remote: check.to };
      const route = this.#routes.of(peer, pair, now);
      // A channel may have been asked for along the way.
      this.#drainRelays();
      if (route === undefined) continue;
      this.#arrivals.handleSent(check.payload, peer, now);
      this.#transmits.push({ route, payload: wrap(check.payload, route) });
    }
  }

  #handleSelected(peer: Peer, pair: ValidPair, why: SelectionReason, now: Instant): void {
    const { index } = peer;
    const route = this.#routes.of(peer, pair, now);
    peer.channel = route?.channel;
    this.#events.push({ type: 'path', peer: index, route });
    const kind = pathKindOf(pair, this.#isStream);
    const { remote, rtt } = pair;
    this.#events.push({ type: 'path-selected', peer: index, kind, remote, rtt, why });
    this.#tellReached(peer);
  }

  #tellReached({ index, reached }: Peer): void {
    if (reached.length > 0)
      this.#events.push({ type: 'reached', peer: index, candidates: reached });
  }

  #tellCandidates({ index, relayed }: Peer, now: Instant): void {
    const candidates = this.#local.toTell(this.#relays.mapped, relayed);
    if (!this.#announcements.offer(index, candidates, now)) return;
    this.#events.push({ type: 'candidates', peer: index, candidates });
  }

  #tellDue(index: PeerIndex): void {
    const peer = this.#peers.get(index);
    if (peer === undefined) return;
    const candidates = this.#local.toTell(this.#relays.mapped, peer.relayed);
    this.#announcements.onTold(index, candidates);
    this.#events.push({ type: 'candidates', peer: index, candidates });
  }

  #settleRelays(now: Instant): void {
    this.#lastNow = now;
    for (let event = this.#relays.pollEvent(); event; event = this.#relays.pollEvent()) {
      this.#handleRelayEvent(event, now);
    }
    this.#drainRelays();
  }

  #drainRelays(): void {
    for (let sent = this.#relays.pollTransmit(); sent; sent = this.#relays.pollTransmit()) {
      const { to, stream, payload } = sent;
      const route: Route = { remote: to, ...(stream === undefined ? {} : { stream }) };
      this.#transmits.push({ route, payload });
    }
  }

  #handleRelayEvent(event: RelayEvent, now: Instant): void {
    switch (event.type) {
      case 'resolve':
        this.#events.push({ type: 'resolve-relay', relay: event.relay, host: event.host });
        return;
      case 'dial':
        return this.#routes.dial(event.stream, event.target);
      case 'hang-up':
        return this.#hangUp(event.stream);
      case 'relay-changed':
        return this.#handleRelayReady(event.relay, now);
      case 'relay-failed':
        this.#events.push(event);
        return this.#withdrawRelay(event.relay, now);
      case 'channel-refused':
        return this.#handleChannelRefused(event.relay, event.peer, now);
      case 'relayed-data': {
        const relay = this.#relays.get(event.relay);
        if (relay === undefined) return;
        this.#take(this.#arrivals.ofIndication(relay, event.peer, event.payload), now);
        return;
      }
    }
  }

  /** The pairs with this address go, not the allocation. All peers are looked at, as that is rare. */
  #handleChannelRefused(relay: RelayId, peer: SocketAddress, now: Instant): void {
    const base = formatBase({ type: 'relay', relay, family: ipFamily(socketAddressIp(peer)) });
    for (const entry of this.#peers.values()) {
      if (entry.relay !== relay) continue;
      entry.connection.handleBroken({ base, remote: peer }, now);
      this.#settlePeer(entry, now);
    }
  }

  #handleRelayReady(id: RelayId, now: Instant): void {
    this.#events.push({ type: 'relay-ready', relay: id });
    const relay = this.#relays.get(id);
    if (relay?.isRelaying === true) this.#hadRelay = true;
    for (const peer of this.#peers.values()) {
      if (peer.relay === id) peer.useRelay(relay, now);
      else if (peer.relay === undefined) peer.useRelay(this.#relays.choose(), now);
      this.#tellCandidates(peer, now);
      this.#settlePeer(peer, now);
    }
  }

  /** The connections that used it move to another one. */
  #withdrawRelay(id: RelayId, now: Instant): void {
    for (const peer of this.#peers.values()) {
      if (peer.relay !== id) continue;
      peer.useRelay(this.#relays.choose(), now);
      this.#tellCandidates(peer, now);
      this.#settlePeer(peer, now);
    }
    const isLeft = this.#relays.isAnyReady;
    if (!isLeft && this.#hadRelay) this.#events.push({ type: 'no-relays' });
    this.#hadRelay = isLeft;
  }

  #hangUp(stream: StreamId): void {
    this.#events.push({ type: 'hang-up', stream });
  }

  #hangUpDialled(peer: Peer): void {
    for (const id of this.#streams.removePeer(peer.index, 'dialled')) this.#hangUp(id);
  }
}

function keyPairOf(privateKey: Uint8Array, crypto: Crypto) {
  return { privateKey, publicKey: crypto.x25519.publicKey(privateKey) };
}
