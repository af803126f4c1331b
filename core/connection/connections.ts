import type { RelayConfiguration } from '../config/configuration.ts';
import type { ReceivedDatagram } from '../fastpath/packet-path.ts';
import type { BaseId, PairId, ValidPair } from '../ice/agent.ts';
import type { Candidate, StreamProtocol } from '../ice/candidate.ts';
import { ipFamily, type IpAddress } from '../net/ip-address.ts';
import { socketAddressIp, type SocketAddress } from '../net/socket-address.ts';
import type { GoodbyeReason, PathKind } from '../peering/message.ts';
import type { DialTarget, StreamEvent, StreamId } from '../plugin/streams.ts';
import { sooner, type Deadline } from '../sansio/agent.ts';
import { BoundedQueue } from '../sansio/bounded-queue.ts';
import type { Crypto } from '../sansio/crypto.ts';
import { ExpiringMap } from '../sansio/expiring-map.ts';
import { encodeHex } from '../sansio/hex.ts';
import { after, type Instant, type Millis } from '../sansio/instant.ts';
import type { Log } from '../sansio/log.ts';
import type { Random } from '../sansio/random.ts';
import { encodeUtf8 } from '../sansio/utf8.ts';
import { decodeStun, isStun } from '../stun/message.ts';
import { frame } from '../stun/stream-framing.ts';
import { decodeChannelData, encodeChannelData, isChannelData } from '../turn/channel-data.ts';
import type { PeerIndex } from '../wireguard/outputs.ts';
import { PeerDeadlines } from '../wireguard/peer-deadlines.ts';
import { formatBase, parseBase } from './base.ts';
import {
  Connection,
  type ConnectionFailure,
  type ConnectionState,
  type SelectionReason,
} from './connection.ts';
import {
  activeCandidates,
  hostCandidates,
  passiveCandidates,
  reflexiveCandidates,
  relayedCandidates,
  type LocalCandidate,
} from './local-candidates.ts';
import { pathKindOf } from './path-choice.ts';
import { derivePairSecrets, type PairSecrets } from './pair-secrets.ts';
import { dialTarget, PeerStreams } from './peer-streams.ts';
import type { Relay, RelayEvent, RelayFailure, RelayId } from './relay.ts';
import { Relays, type RelayStatus } from './relays.ts';
import type { Route } from './route.ts';

/** A datagram for a peer's tunnel, or for a relay; `payload` is framed already where a stream carries it. */
export interface ConnectionTransmit {
  readonly route: Route;
  readonly payload: Uint8Array;
}

export type ConnectionsEvent =
  /** Packets of the peer go this way from now on; `undefined` while there is none. */
  | { readonly type: 'path'; readonly peer: PeerIndex; readonly route: Route | undefined }
  /** The same, for people. */
  | {
      readonly type: 'path-selected';
      readonly peer: PeerIndex;
      readonly kind: PathKind;
      readonly remote: SocketAddress;
      readonly rtt: Millis;
      readonly why: SelectionReason;
    }
  | { readonly type: 'handshake-due'; readonly peer: PeerIndex }
  | { readonly type: 'failed'; readonly peer: PeerIndex; readonly why: ConnectionFailure }
  /** The complete list of our candidates, to be told to the peer. */
  | {
      readonly type: 'candidates';
      readonly peer: PeerIndex;
      readonly candidates: readonly Candidate[];
    }
  /** Where the peer was reached: worth keeping for the next start. */
  | {
      readonly type: 'reached';
      readonly peer: PeerIndex;
      readonly candidates: readonly Candidate[];
    }
  | { readonly type: 'dial'; readonly stream: StreamId; readonly target: DialTarget }
  | { readonly type: 'hang-up'; readonly stream: StreamId }
  | { readonly type: 'resolve-relay'; readonly relay: RelayId; readonly host: string }
  | { readonly type: 'relay-ready'; readonly relay: RelayId }
  | {
      readonly type: 'relay-failed';
      readonly relay: RelayId;
      readonly why: RelayFailure;
      readonly detail: string;
    }
  /** The last relay that was ready is gone. */
  | { readonly type: 'no-relays' };

/** A datagram that is WireGuard's, unwrapped, with the way back. */
export interface TunnelDatagram {
  readonly payload: Uint8Array;
  readonly from: SocketAddress;
  readonly route: Route;
}

export interface ConnectionsOptions {
  readonly privateKey: Uint8Array;
  readonly crypto: Crypto;
  readonly random: Random;
  readonly log: Log;
  readonly software: string;
  /** Name of the fleet, empty for a device that stands alone; and of the device. */
  readonly fleet: string;
  readonly device: string;
  readonly unixMs: number;
}

export interface ConnectionStatus {
  readonly state: ConnectionState;
  readonly kind: PathKind | undefined;
  readonly local: SocketAddress | undefined;
  readonly remote: SocketAddress | undefined;
  readonly relay: RelayId | undefined;
  readonly rtt: Millis | undefined;
  readonly why: string;
  readonly alternatives: readonly PathStatus[];
}

export interface PathStatus {
  readonly kind: PathKind;
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
  readonly rtt: Millis;
}

/** Checks of ours that may still be answered. */
const CHECK_LIFETIME: Millis = 10_000;
const MOST_CHECKS = 16_384;
const MOST_TRANSMITS = 4_096;
const MOST_REMOTE_CANDIDATES = 64;
/** A stream that is no longer needed carries what is on its way. */
const STREAM_GRACE: Millis = 5_000;
/** A peer behind a configured endpoint is tried before everything that is only remembered. */
const ENDPOINT_PRIORITY = 2 ** 31 - 1;

interface Entry {
  readonly index: PeerIndex;
  readonly secrets: PairSecrets;
  readonly connection: Connection;
  relay: RelayId | undefined;
  /** Of the path in use, where that is through our relay. */
  channel: number | undefined;
  deviceKey: Uint8Array | undefined;
  endpoint: SocketAddress | undefined;
  remembered: readonly Candidate[];
  signalled: readonly Candidate[];
  hasDialled: boolean;
  closeStreamsAt: Instant | undefined;
}

type Reason =
  | 'stun-malformed'
  | 'stun-unknown-peer'
  | 'stun-unexpected-answer'
  | 'channel-unknown'
  | 'stream-unknown'
  | 'stream-broken';

/**
 * The connections with all Culvert peers, the relays they share, and what comes in for them: tells STUN,
 * TURN and WireGuard on one UDP socket apart (firezone's order: relays, STUN, WireGuard), and gives each
 * peer its way out. See `Connection` for one peer.
 */
export class Connections {
  readonly #options: ConnectionsOptions;
  readonly #entries = new Map<PeerIndex, Entry>();
  readonly #byFragment = new Map<string, Entry>();
  readonly #checks = new ExpiringMap<string, Entry>(MOST_CHECKS, 'check unanswered');
  readonly #deadlines = new PeerDeadlines();
  readonly #relays: Relays;
  readonly #streams = new PeerStreams();
  readonly #transmits = new BoundedQueue<ConnectionTransmit>(MOST_TRANSMITS, 'oldest');
  readonly #events: ConnectionsEvent[] = [];
  readonly #drops: Record<Reason, number> = {
    'stun-malformed': 0,
    'stun-unknown-peer': 0,
    'stun-unexpected-answer': 0,
    'channel-unknown': 0,
    'stream-unknown': 0,
    'stream-broken': 0,
  };
  #own: { readonly privateKey: Uint8Array; readonly publicKey: Uint8Array };
  #unixMsAtZero: number;
  #addresses: readonly IpAddress[] = [];
  #port = 0;
  #hosts: readonly LocalCandidate[] = [];
  #passive: readonly LocalCandidate[] = [];
  #listener: { readonly port: number; readonly protocol: StreamProtocol } | undefined;
  #proxy: string | undefined;
  #hadRelay = false;
  #lastStream: StreamId = 0;
  #lastNow: Instant;
  readonly #isStream = (base: BaseId): boolean => this.#isStreamBase(base);

  constructor(options: ConnectionsOptions, now: Instant) {
    this.#options = options;
    this.#own = keyPairOf(options.privateKey, options.crypto);
    this.#unixMsAtZero = options.unixMs - now;
    this.#lastNow = now;
    this.#relays = new Relays({
      ...options,
      unixMs: (at) => this.#unixMsAtZero + at,
      nextStream: () => this.#nextStream(),
    });
  }

  /** What was dropped, by reason. */
  get drops(): Readonly<Record<string, number>> {
    return this.#drops;
  }

  handleWallClock(unixMs: number, now: Instant): void {
    this.#unixMsAtZero = unixMs - now;
  }

  /** Takes another key pair of ours; the peers are to be set again. */
  setPrivateKey(privateKey: Uint8Array): void {
    this.#own = keyPairOf(privateKey, this.#options.crypto);
  }

  /** Where our UDP socket is bound and the addresses that the machine has: the host candidates. */
  setLocal(local: { addresses: readonly IpAddress[]; port: number }, now: Instant): void {
    const isSame = local.port === this.#port && local.addresses.join() === this.#addresses.join();
    if (isSame) return;
    const before = this.#hosts;
    this.#addresses = local.addresses;
    this.#port = local.port;
    this.#hosts = hostCandidates(local.addresses, local.port);
    this.#layPassive();
    const gone = before.filter(({ base }) => !this.#hosts.some((host) => host.base === base));
    for (const entry of this.#entries.values()) {
      for (const { base } of gone) entry.connection.removeBase(base, now);
      for (const { candidate, base } of [...this.#hosts, ...this.#passive]) {
        entry.connection.addLocalCandidate(candidate, base, now);
      }
    }
    this.handleNetworkChange(now);
  }

  /** Routes or addresses changed: everything that was known of paths is in doubt. */
  handleNetworkChange(now: Instant): void {
    this.#relays.handleNetworkChange(now);
    for (const entry of this.#entries.values()) {
      entry.connection.handleNetworkChange(now);
      this.#settleEntry(entry, now);
    }
    this.#settleRelays(now);
  }

  setRelays(configurations: readonly RelayConfiguration[], now: Instant): void {
    const removed = this.#relays.set(configurations, now);
    for (const id of removed) this.#withdrawRelay(id, now);
    this.#settleRelays(now);
  }

  setStreams(
    streams: {
      readonly listener: { readonly port: number; readonly protocol: StreamProtocol } | undefined;
      readonly proxy: string | undefined;
    },
    now: Instant,
  ): void {
    this.#proxy = streams.proxy;
    this.#listener = streams.listener;
    this.#layPassive();
    const accepted = formatBase({ type: 'accepted' });
    for (const entry of this.#entries.values()) {
      if (this.#passive.length === 0) entry.connection.removeBase(accepted, now);
      for (const { candidate, base } of this.#passive) {
        entry.connection.addLocalCandidate(candidate, base, now);
      }
      this.#tellCandidates(entry);
      this.#settleEntry(entry, now);
    }
  }

  /** Returns whether a secret can be shared with the peer; else it is not added. */
  setPeer(index: PeerIndex, publicKey: Uint8Array, now: Instant): PairSecrets | undefined {
    this.removePeer(index, now);
    const { fleet, crypto, random } = this.#options;
    const secrets = derivePairSecrets(this.#own, publicKey, fleet, crypto);
    if (secrets === undefined) return undefined;
    const connection = new Connection({ secrets, isStream: this.#isStream, random, crypto }, now);
    const entry: Entry = {
      index,
      secrets,
      connection,
      relay: undefined,
      channel: undefined,
      deviceKey: undefined,
      endpoint: undefined,
      remembered: [],
      signalled: [],
      hasDialled: false,
      closeStreamsAt: undefined,
    };
    this.#entries.set(index, entry);
    this.#byFragment.set(secrets.localIce.usernameFragment, entry);
    for (const { candidate, base } of [...this.#hosts, ...this.#passive]) {
      connection.addLocalCandidate(candidate, base, now);
    }
    this.#giveRelay(entry, now);
    this.#tellCandidates(entry);
    this.#settleEntry(entry, now);
    return secrets;
  }

  removePeer(index: PeerIndex, now: Instant): void {
    const entry = this.#entries.get(index);
    if (entry === undefined) return;
    this.#entries.delete(index);
    this.#byFragment.delete(entry.secrets.localIce.usernameFragment);
    this.#deadlines.set(index, undefined);
    for (const [key, owner] of [...this.#checks.entries()]) {
      if (owner === entry) this.#checks.delete(key);
    }
    for (const { id } of this.#streams.removePeer(index)) this.#hangUp(id);
    this.#lastNow = now;
  }

  has(index: PeerIndex): boolean {
    return this.#entries.has(index);
  }

  /** The configured endpoint of the peer, once its name is resolved. */
  setEndpoint(index: PeerIndex, endpoint: SocketAddress | undefined, now: Instant): void {
    this.#change(index, now, (entry) => {
      entry.endpoint = endpoint;
      this.#useRemoteCandidates(entry, now);
    });
  }

  /** Where the peer was before we started. */
  setRemembered(index: PeerIndex, candidates: readonly Candidate[], now: Instant): void {
    this.#change(index, now, (entry) => {
      entry.remembered = candidates;
      this.#useRemoteCandidates(entry, now);
    });
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
    this.#change(index, now, (entry) => {
      entry.signalled = signal.candidates;
      entry.deviceKey = signal.deviceKey;
      if (signal.isRestart) entry.connection.handlePeerRestart(now);
      this.#useRemoteCandidates(entry, now);
      this.#tellReached(entry);
    });
  }

  /** Takes what is STUN's or a relay's; returns what is left for WireGuard, unwrapped. */
  handleDatagram(datagram: ReceivedDatagram, now: Instant): TunnelDatagram | undefined {
    const { payload, from, path } = datagram;
    const relay = this.#relays.at(from);
    if (relay !== undefined) {
      if (isChannelData(payload)) return this.#handleChannelData(relay, payload, now);
      if (isStun(payload)) {
        relay.handleMessage(payload, now);
        this.#settleRelays(now);
        return undefined;
      }
    }
    const route: Route = {
      remote: from,
      source: {
        ...(path.local === undefined ? {} : { local: path.local }),
        ...(path.ifindex === undefined ? {} : { ifindex: path.ifindex }),
      },
    };
    const base =
      path.local === undefined
        ? this.#hosts[0]?.base
        : formatBase({ type: 'udp', local: path.local });
    return this.#handleInner(payload, { from, base: base ?? '', route }, now);
  }

  /** Takes the events of streams; returns the datagrams in them that are WireGuard's. */
  handleStream(event: StreamEvent, now: Instant): readonly TunnelDatagram[] {
    this.#lastNow = now;
    const relay = this.#relays.of(event.stream);
    if (relay !== undefined) return this.#handleRelayStream(relay, event, now);
    switch (event.type) {
      case 'opened':
        this.#handleOpened(event.stream, now);
        return [];
      case 'accepted':
        this.#handleAccepted(event);
        return [];
      case 'data':
        return this.#handleStreamData(event.stream, event.bytes, now);
      case 'writable':
        return [];
      case 'closed':
        this.#handleClosed(event.stream, now);
        return [];
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
    const entry = this.#entries.get(index);
    if (entry === undefined) return;
    entry.connection.handleTransport(facts, now);
    const { relay, channel } = entry;
    if (channel !== undefined && relay !== undefined) {
      this.#relays.get(relay)?.handleTraffic(channel, now);
    }
    this.#deadlines.set(index, entry.connection.pollTimeout());
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

  handleGoodbye(index: PeerIndex, reason: GoodbyeReason, now: Instant): void {
    this.#change(index, now, ({ connection }) => connection.handleGoodbye(reason, now));
  }

  /** Gives the allocations back. */
  close(now: Instant): void {
    this.#relays.close(now);
    this.#settleRelays(now);
  }

  handleTimeout(now: Instant): void {
    this.#lastNow = now;
    this.#checks.handleTimeout(now);
    this.#relays.handleTimeout(now);
    this.#settleRelays(now);
    for (let peer = this.#deadlines.duePeer(now); peer !== undefined;) {
      const entry = this.#entries.get(peer);
      if (entry === undefined) {
        this.#deadlines.set(peer, undefined);
      } else {
        if (entry.closeStreamsAt !== undefined && entry.closeStreamsAt <= now) {
          this.#closeStreams(entry, now);
        }
        entry.connection.handleTimeout(now);
        this.#settleEntry(entry, now);
      }
      peer = this.#deadlines.duePeer(now);
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
    return sooner(this.#deadlines.first(), this.#relays.pollTimeout());
  }

  status(index: PeerIndex): ConnectionStatus | undefined {
    const entry = this.#entries.get(index);
    if (entry === undefined) return undefined;
    const { connection } = entry;
    const pair = connection.selected;
    const isRelayed = pair?.local.type === 'relay';
    return {
      state: connection.state,
      kind: connection.kind,
      local: pair?.local.address,
      remote: pair?.remote,
      relay: isRelayed ? entry.relay : undefined,
      rtt: pair?.rtt,
      why: connection.why,
      alternatives: connection.alternatives().map((other) => ({
        kind: pathKindOf(other, this.#isStream),
        local: other.local.address,
        remote: other.remote,
        rtt: other.rtt,
      })),
    };
  }

  relayStatuses(): readonly RelayStatus[] {
    return this.#relays.statuses();
  }

  #handleInner(
    payload: Uint8Array,
    arrival: { readonly from: SocketAddress; readonly base: BaseId; readonly route: Route },
    now: Instant,
  ): TunnelDatagram | undefined {
    const { from, base, route } = arrival;
    if (!isStun(payload)) return { payload, from, route };
    const decoded = decodeStun(payload);
    if (!decoded.ok) {
      this.#drops['stun-malformed']++;
      return undefined;
    }
    const message = decoded.value;
    const entry =
      message.class === 'request' || message.class === 'indication'
        ? this.#byFragment.get(message.attributes.username?.split(':', 1)[0] ?? '')
        : this.#checks.get(encodeHex(message.transactionId));
    if (entry === undefined) {
      const isRequest = message.class === 'request' || message.class === 'indication';
      this.#drops[isRequest ? 'stun-unknown-peer' : 'stun-unexpected-answer']++;
      return undefined;
    }
    const { stream } = route;
    if (stream !== undefined) {
      const carrier = this.#streams.get(stream);
      const { password } = entry.secrets.localIce;
      const isPeers =
        carrier !== undefined &&
        carrier.peer === undefined &&
        message.hasValidIntegrity(encodeUtf8(password), this.#options.crypto);
      if (isPeers) carrier.peer = entry.index;
      if (carrier !== undefined && carrier.peer !== entry.index) return undefined;
    }
    entry.connection.handleStun({ message, base, from }, now);
    this.#settleEntry(entry, now);
    return undefined;
  }

  #handleChannelData(relay: Relay, message: Uint8Array, now: Instant): TunnelDatagram | undefined {
    const data = decodeChannelData(message);
    const peer = data && relay.peerOf(data.channel);
    if (data === undefined || peer === undefined) {
      this.#drops['channel-unknown']++;
      return undefined;
    }
    relay.handleTraffic(data.channel, now);
    return this.#handleRelayed(relay, peer, data.payload, now);
  }

  #handleRelayed(
    relay: Relay,
    peer: SocketAddress,
    payload: Uint8Array,
    now: Instant,
  ): TunnelDatagram | undefined {
    const family = ipFamily(socketAddressIp(peer));
    const base = formatBase({ type: 'relay', relay: relay.id, family });
    const route = this.#relays.routeTo(relay.id, peer, now);
    return route && this.#handleInner(payload, { from: peer, base, route }, now);
  }

  #handleRelayStream(relay: Relay, event: StreamEvent, now: Instant): readonly TunnelDatagram[] {
    const inner: TunnelDatagram[] = [];
    if (event.type === 'opened') relay.handleOpened(now);
    if (event.type === 'closed') {
      relay.handleClosed(event.why, now);
    }
    if (event.type === 'data') {
      for (const message of relay.takeFrames(event.bytes, now)) {
        if (isChannelData(message)) {
          const datagram = this.#handleChannelData(relay, message, now);
          if (datagram !== undefined) inner.push(datagram);
        } else {
          relay.handleMessage(message, now);
        }
      }
    }
    this.#settleRelays(now);
    return inner;
  }

  #handleOpened(id: StreamId, now: Instant): void {
    const stream = this.#streams.get(id);
    if (stream?.peer === undefined) return;
    stream.isOpen = true;
    // The check that had it dialled was not sent.
    this.#change(stream.peer, now, ({ connection }) =>
      connection.handleOpened(
        { base: formatBase({ type: 'dialled' }), remote: stream.remote },
        now,
      ),
    );
  }

  #handleAccepted(event: Extract<StreamEvent, { type: 'accepted' }>): void {
    const { stream, remote } = event;
    if (this.#streams.isFull() || this.#listener === undefined) return this.#hangUp(stream);
    this.#streams.add({ id: stream, direction: 'accepted', remote, peer: undefined, isOpen: true });
  }

  #handleStreamData(id: StreamId, bytes: Uint8Array, now: Instant): readonly TunnelDatagram[] {
    const stream = this.#streams.get(id);
    if (stream === undefined) {
      this.#drops['stream-unknown']++;
      return [];
    }
    stream.framing.push(bytes);
    const inner: TunnelDatagram[] = [];
    const base = formatBase({ type: stream.direction });
    const { remote } = stream;
    for (let payload = stream.framing.next(); payload; payload = stream.framing.next()) {
      const arrival = { from: remote, base, route: { remote, stream: id } };
      const datagram = this.#handleInner(payload, arrival, now);
      if (datagram !== undefined) inner.push(datagram);
    }
    if (stream.framing.isBroken) {
      this.#drops['stream-broken']++;
      this.#hangUp(id);
      this.#handleClosed(id, now);
    }
    return inner;
  }

  #handleClosed(id: StreamId, now: Instant): void {
    const stream = this.#streams.remove(id);
    if (stream?.peer === undefined) return;
    const pair = { base: formatBase({ type: stream.direction }), remote: stream.remote };
    this.#change(stream.peer, now, ({ connection }) => connection.handleBroken(pair, now));
  }

  /** Changes of a connection go through here, so that its outputs and deadline are taken up. */
  #change(index: PeerIndex, now: Instant, change: (entry: Entry) => void): void {
    this.#lastNow = now;
    const entry = this.#entries.get(index);
    if (entry === undefined) return;
    change(entry);
    this.#settleEntry(entry, now);
  }

  #settleEntry(entry: Entry, now: Instant): void {
    this.#lastNow = now;
    const { connection, index } = entry;
    for (;;) {
      const event = connection.pollEvent();
      if (event === undefined) break;
      switch (event.type) {
        case 'path-selected':
          this.#handleSelected(entry, event.pair, event.why, now);
          break;
        case 'path-lost':
          entry.channel = undefined;
          this.#events.push({ type: 'path', peer: index, route: undefined });
          break;
        case 'handshake-due':
          this.#events.push({ type: 'handshake-due', peer: index });
          break;
        case 'signal-due':
          this.#tellCandidates(entry);
          break;
        case 'failed':
          this.#events.push({ type: 'failed', peer: index, why: event.why });
          break;
        case 'streams-wanted':
          this.#wantStreams(entry, event.wanted, now);
          break;
      }
    }
    this.#drainChecks(entry, now);
    const deadline = connection.pollTimeout();
    const { closeStreamsAt } = entry;
    const closing =
      closeStreamsAt === undefined ? undefined : { at: closeStreamsAt, reason: 'close streams' };
    this.#deadlines.set(index, sooner(deadline, closing));
  }

  #drainChecks(entry: Entry, now: Instant): void {
    for (;;) {
      const check = entry.connection.pollTransmit();
      if (check === undefined) return;
      const pair = { base: check.base, remote: check.to };
      const route = this.#routeOf(entry, pair, now);
      if (route === undefined) continue;
      if ((check.payload[0] ?? 0) === 0) {
        const key = encodeHex(check.payload.subarray(8, 20));
        this.#checks.set(key, entry, now, CHECK_LIFETIME);
      }
      this.#transmits.push({ route, payload: wrap(check.payload, route) });
      // A channel may have been asked for along the way.
      this.#drainRelays();
    }
  }

  /** Returns the way of a pair; one that needs a stream has it dialled first. */
  #routeOf(entry: Entry, pair: PairId, now: Instant): Route | undefined {
    const base = parseBase(pair.base);
    switch (base.type) {
      case 'udp':
        return { remote: pair.remote, source: { local: base.local } };
      case 'relay':
        return this.#relays.routeTo(base.relay, pair.remote, now);
      case 'dialled':
      case 'accepted': {
        const stream = this.#streams.find(entry.index, base.type, pair.remote);
        if (stream?.isOpen === true) return { remote: pair.remote, stream: stream.id };
        if (stream === undefined && base.type === 'dialled') this.#dial(entry, pair.remote, now);
        return undefined;
      }
    }
  }

  #dial(entry: Entry, remote: SocketAddress, now: Instant): void {
    const candidate = entry.signalled.find(
      ({ transport, address }) => transport === 'tcp' && address === remote,
    );
    if (candidate?.transport !== 'tcp' || !this.#streams.mayDial(entry.index, remote, now)) return;
    const id = this.#nextStream();
    this.#streams.add({ id, direction: 'dialled', remote, peer: entry.index, isOpen: false });
    const { deviceKey } = entry;
    const target = dialTarget(remote, candidate.protocol ?? 'tcp', {
      deviceKey,
      proxy: this.#proxy,
    });
    this.#events.push({ type: 'dial', stream: id, target });
  }

  #handleSelected(entry: Entry, pair: ValidPair, why: SelectionReason, now: Instant): void {
    const { index } = entry;
    const route = this.#routeOf(entry, pair, now);
    entry.channel = route?.channel;
    this.#events.push({ type: 'path', peer: index, route });
    const kind = pathKindOf(pair, this.#isStream);
    const { remote, rtt } = pair;
    this.#events.push({ type: 'path-selected', peer: index, kind, remote, rtt, why });
    this.#tellReached(entry);
  }

  /** What is kept of a peer is what it said, and where it answered. */
  #tellReached(entry: Entry): void {
    const pair = entry.connection.selected;
    if (pair === undefined) return;
    const { remoteCandidate } = pair;
    const others = entry.signalled.filter(({ address }) => address !== remoteCandidate.address);
    const isKnown = others.length < entry.signalled.length;
    const candidates = isKnown ? entry.signalled : [remoteCandidate, ...entry.signalled];
    if (candidates.length > 0)
      this.#events.push({ type: 'reached', peer: entry.index, candidates });
  }

  #tellCandidates(entry: Entry): void {
    this.#events.push({
      type: 'candidates',
      peer: entry.index,
      candidates: this.#candidatesFor(entry),
    });
  }

  #candidatesFor(entry: Entry): readonly Candidate[] {
    const relay = entry.relay === undefined ? undefined : this.#relays.get(entry.relay);
    return [
      ...this.#hosts.map(({ candidate }) => candidate),
      ...reflexiveCandidates(this.#relays.mapped, this.#hosts, this.#port),
      ...(relay === undefined ? [] : relayedCandidates(relay).map(({ candidate }) => candidate)),
      ...this.#passive.map(({ candidate }) => candidate),
    ];
  }

  #useRemoteCandidates(entry: Entry, now: Instant): void {
    const { endpoint, signalled, remembered } = entry;
    const configured: readonly Candidate[] =
      endpoint === undefined
        ? []
        : [
            {
              type: 'host',
              transport: 'udp',
              foundation: 'endpoint',
              priority: ENDPOINT_PRIORITY,
              address: endpoint,
            },
          ];
    const said = signalled.length > 0 ? signalled : remembered;
    const others = said.filter(({ address }) => address !== endpoint);
    const candidates = [...configured, ...others].slice(0, MOST_REMOTE_CANDIDATES);
    if (candidates.length > 0) entry.connection.setRemoteCandidates(candidates, now);
  }

  #wantStreams(entry: Entry, wanted: boolean, now: Instant): void {
    if (wanted) {
      entry.closeStreamsAt = undefined;
      entry.hasDialled = true;
      for (const { candidate, base } of activeCandidates()) {
        entry.connection.addLocalCandidate(candidate, base, now);
      }
    } else if (entry.hasDialled) {
      entry.closeStreamsAt = after(now, STREAM_GRACE);
    }
  }

  #closeStreams(entry: Entry, now: Instant): void {
    entry.closeStreamsAt = undefined;
    entry.hasDialled = false;
    entry.connection.removeBase(formatBase({ type: 'dialled' }), now);
    for (const { id } of this.#streams.removePeer(entry.index, 'dialled')) this.#hangUp(id);
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
      case 'dial': {
        const { stream, target } = event;
        const proxy = this.#proxy === undefined ? {} : { proxy: this.#proxy };
        this.#events.push({ type: 'dial', stream, target: { ...target, ...proxy } });
        return;
      }
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
        if (relay !== undefined) this.#handleRelayed(relay, event.peer, event.payload, now);
        return;
      }
    }
  }

  /** The pairs with this peer go, not the allocation. */
  #handleChannelRefused(relay: RelayId, peer: SocketAddress, now: Instant): void {
    const base = formatBase({ type: 'relay', relay, family: ipFamily(socketAddressIp(peer)) });
    for (const entry of this.#entries.values()) {
      if (entry.relay !== relay) continue;
      entry.connection.handleBroken({ base, remote: peer }, now);
      this.#settleEntry(entry, now);
    }
  }

  #handleRelayReady(id: RelayId, now: Instant): void {
    this.#events.push({ type: 'relay-ready', relay: id });
    this.#hadRelay = true;
    for (const entry of this.#entries.values()) {
      if (entry.relay === id) this.#useRelay(entry, now);
      else if (entry.relay === undefined) this.#giveRelay(entry, now);
      this.#tellCandidates(entry);
      this.#settleEntry(entry, now);
    }
  }

  /** The connections that used it move to another one. */
  #withdrawRelay(id: RelayId, now: Instant): void {
    for (const entry of this.#entries.values()) {
      if (entry.relay !== id) continue;
      entry.relay = undefined;
      for (const family of [4, 6] as const) {
        entry.connection.removeBase(formatBase({ type: 'relay', relay: id, family }), now);
      }
      this.#giveRelay(entry, now);
      this.#tellCandidates(entry);
      this.#settleEntry(entry, now);
    }
    const isLeft = this.#relays.isAnyReady;
    if (!isLeft && this.#hadRelay) this.#events.push({ type: 'no-relays' });
    this.#hadRelay = isLeft;
  }

  /** Chooses one of the relays that are ready, by round trip. */
  #giveRelay(entry: Entry, now: Instant): void {
    entry.relay = this.#relays.choose();
    this.#useRelay(entry, now);
  }

  #useRelay(entry: Entry, now: Instant): void {
    const relay = entry.relay === undefined ? undefined : this.#relays.get(entry.relay);
    if (relay === undefined) return;
    for (const { candidate, base } of relayedCandidates(relay)) {
      entry.connection.addLocalCandidate(candidate, base, now);
    }
  }

  /** Streams that we dial have even numbers. */
  #nextStream(): StreamId {
    this.#lastStream += 2;
    return this.#lastStream;
  }

  #hangUp(stream: StreamId): void {
    this.#events.push({ type: 'hang-up', stream });
  }

  #layPassive(): void {
    const { port, protocol } = this.#listener ?? { port: 0, protocol: 'tls' };
    this.#passive = port === 0 ? [] : passiveCandidates(this.#addresses, port, protocol);
  }

  #isStreamBase(id: BaseId): boolean {
    const base = parseBase(id);
    if (base.type !== 'relay') return base.type !== 'udp';
    return this.#relays.get(base.relay)?.url.transport !== 'udp';
  }
}

/** Puts a datagram into the form in which its route carries it. */
export function wrap(payload: Uint8Array, { channel, stream }: Route): Uint8Array {
  if (channel !== undefined) {
    return encodeChannelData({ channel, payload }, stream === undefined ? 'udp' : 'stream');
  }
  return stream === undefined ? payload : frame(payload);
}

function keyPairOf(privateKey: Uint8Array, crypto: Crypto) {
  return { privateKey, publicKey: crypto.x25519.publicKey(privateKey) };
}
