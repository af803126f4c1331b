import type { ConnectionFailure } from '../connection/connection.ts';
import type { Configuration, PeerConfiguration } from '../config/configuration.ts';
import type { Connections, TunnelDatagram } from '../connection/connections.ts';
import type { ConnectionsEvent } from '../connection/event.ts';
import type { Signalling } from '../fleet/signalling.ts';
import type { Candidate } from '../ice/candidate.ts';
import type { IpAddress } from '../net/ip-address.ts';
import { isFullLength } from '../net/ip-prefix.ts';
import type { SocketAddress } from '../net/socket-address.ts';
import type { GoodbyeReason, PeeringMessage } from '../peering/message.ts';
import type { Peering } from '../peering/peering.ts';
import type { ListenFailure } from '../plugin/datagrams.ts';
import type { ControlEvent } from '../plugin/control-channel.ts';
import type { StreamEvent } from '../plugin/streams.ts';
import type { Outcome } from '../sansio/outcome.ts';
import { earliest, type Deadline } from '../sansio/agent.ts';
import { after, type Instant, type Millis } from '../sansio/instant.ts';
import type { Command } from './command.ts';
import type { Event } from './event.ts';
import { keepCandidates, type KeptCandidates } from './kept-candidates.ts';
import {
  pathsStatusOf,
  relayStatusOf,
  tenthsOf,
  type PathReport,
  type PathsStatus,
  type RelayStatus,
} from './path-status.ts';
import { StreamFacts, type StreamsStatus } from './stream-facts.ts';
import { tunnelNetworks } from './tunnel-networks.ts';
import type { PlaneEvent, Transmit, UserspacePlane } from './userspace-plane.ts';

/** What is known of where peers are is written to flash at most this often. */
const KEEP_INTERVAL: Millis = 60_000;

interface Peer {
  readonly index: number;
  readonly id: PeerConfiguration['id'];
  readonly publicKey: Uint8Array;
  report: PathReport | undefined;
  hasPath: boolean;
  /** Whether what was signalled in its name last did not open. */
  hasKeyMismatch: boolean;
}

/** What the daemon of a peer says. */
export interface PeerMessage {
  readonly peer: number;
  readonly message: PeeringMessage;
}

/**
 * The peers that run Culvert: carries what is found out about their paths (`core/connection`) to the data
 * plane, candidates to and from the fleet, and messages between the daemons (`core/peering`).
 */
export class Paths {
  readonly #connections: Connections;
  readonly #plane: UserspacePlane;
  readonly #signalling: Signalling | undefined;
  readonly #peering: Peering;
  readonly #peers = new Map<number, Peer>();
  readonly #byId = new Map<string, Peer>();
  readonly #kept: Map<string, readonly Candidate[]>;
  readonly #commands: Command[] = [];
  readonly #events: Event[] = [];
  readonly #messages: PeerMessage[] = [];
  readonly #streams = new StreamFacts();
  #isRelayWanted = false;
  #keepAt: Instant | undefined;
  /** As they were told last. */
  #localAddresses: string | undefined;
  #deviceName = '';

  constructor(options: {
    readonly connections: Connections;
    readonly plane: UserspacePlane;
    readonly peering: Peering;
    /** `undefined` where the device stands alone. */
    readonly signalling: Signalling | undefined;
    readonly kept: KeptCandidates;
  }) {
    this.#connections = options.connections;
    this.#plane = options.plane;
    this.#peering = options.peering;
    this.#signalling = options.signalling;
    this.#kept = new Map(options.kept);
  }

  /** What a configuration says beside its peers. */
  configure(configuration: Configuration, now: Instant): void {
    const { relays, streams, interface: own } = configuration;
    this.#connections.setTunnelNetworks(tunnelNetworks(configuration));
    const addresses = own.addresses.map(({ address }) => address);
    this.#peering.setOwnAddresses(addresses);
    if (own.name !== this.#deviceName) {
      this.#deviceName = own.name;
      this.readAddresses();
    }
    this.#streams.configure(streams);
    this.#isRelayWanted = relays.some(({ url }) => url.service === 'turn');
    const { listenPort, publicPort: port = listenPort, protocol, proxy } = streams;
    this.#commands.push({ type: 'listen-streams', port: listenPort });
    const listener = listenPort === 0 ? undefined : { port, protocol };
    this.#connections.setStreams(listener, proxy, now);
    this.#connections.setRelays(relays, now);
  }

  /** Asks for the addresses of the machine. */
  readAddresses(): void {
    if (this.#deviceName === '') return;
    this.#commands.push({ type: 'read-addresses', except: this.#deviceName });
  }

  setLocal(local: { addresses: readonly IpAddress[]; port: number }, now: Instant): void {
    const addresses = local.addresses.join();
    const isChange = this.#localAddresses !== undefined && this.#localAddresses !== addresses;
    if (isChange) this.#commands.push({ type: 'check-broker' });
    this.#localAddresses = addresses;
    this.#connections.setLocal(local, now);
  }

  /** Takes up a peer of kind `culvert`; a peer that is known keeps its connection. */
  setPeer(index: number, configuration: PeerConfiguration, now: Instant): void {
    const { id, publicKey, allowedIps } = configuration;
    const addresses = allowedIps.filter(isFullLength).map(({ address }) => address);
    const before = this.#peers.get(index);
    const peer: Peer = {
      index,
      id,
      publicKey,
      report: before?.report,
      hasPath: before?.hasPath ?? false,
      hasKeyMismatch: before?.hasKeyMismatch ?? false,
    };
    this.#peers.set(index, peer);
    this.#byId.set(id, peer);
    this.#peering.setPeer(index, addresses);
    this.#plane.setPathFound(index);
    if (before === undefined) this.#connect(peer, now);
  }

  setEndpoint(index: number, endpoint: SocketAddress | undefined, now: Instant): void {
    this.#connections.setEndpoint(index, endpoint, now);
  }

  /** Lets a peer go, and tells it so. */
  removePeer(index: number, now: Instant): void {
    const peer = this.#peers.get(index);
    if (peer === undefined) return;
    this.#sayGoodbye(peer, 'revoked');
    this.#peers.delete(index);
    this.#byId.delete(peer.id);
    this.#peering.removePeer(index);
    this.#connections.removePeer(index, now);
    this.#signalling?.removePeer(peer.id);
    this.#kept.delete(peer.id);
  }

  handlePlaneEvent(event: PlaneEvent, now: Instant): void {
    const peer = this.#peers.get(event.peer);
    if (peer === undefined) return;
    switch (event.type) {
      case 'handshake-completed':
        this.#connections.handleSession(peer.index, now);
        return this.#reportPath(peer, now);
      case 'handshake-failed':
        return this.#connections.handleHandshakeFailed(
          peer.index,
          event.cause === 'no-response' ? 'no-session' : event.cause,
          now,
        );
      case 'peering-packet': {
        const message = this.#peering.read(peer.index, event.packet, now);
        if (message.ok) this.#handlePeering(peer, message.value, now);
        return;
      }
      case 'endpoint-changed':
        return;
    }
  }

  /** Topic filters that the control channel subscribes to. */
  get subscriptions(): readonly string[] {
    return this.#signalling?.subscriptions ?? [];
  }

  handleWallClock(unixMs: number, now: Instant): void {
    this.#connections.handleWallClock(unixMs, now);
  }

  handleRelayResolved(relay: string, outcome: Outcome<readonly IpAddress[]>, now: Instant): void {
    this.#connections.handleRelayResolved(relay, outcome.ok ? outcome.value : [], now);
  }

  /** Returns what of it is WireGuard's. */
  handleStream(event: StreamEvent, now: Instant): readonly TunnelDatagram[] {
    this.#streams.handleEvent(event);
    return this.#connections.handleStream(event, now);
  }

  handleStreamsListening(outcome: Outcome<void, ListenFailure>): void {
    this.#streams.handleListening(outcome);
    if (!outcome.ok) this.#events.push({ type: 'streams-not-listening', why: outcome.why });
  }

  /** Takes another key pair of ours: with each peer everything begins anew. */
  setPrivateKey(privateKey: Uint8Array, now: Instant): void {
    this.#connections.setPrivateKey(privateKey);
    for (const peer of this.#peers.values()) this.#connect(peer, now);
  }

  pollTransmit(): Transmit | undefined {
    return this.#connections.pollTransmit();
  }

  handleControl(event: ControlEvent, now: Instant): void {
    this.#signalling?.handleControl(event, now);
  }

  handleTimeout(now: Instant): void {
    this.#connections.handleTimeout(now);
    this.#signalling?.handleTimeout(now);
    if (this.#keepAt !== undefined && this.#keepAt <= now) {
      this.#keepAt = undefined;
      this.#commands.push(keepCandidates(this.#kept));
    }
  }

  /** Tells all peers that we go, gives the relays back, and keeps what is known. */
  stop(reason: GoodbyeReason, now: Instant): void {
    for (const peer of this.#peers.values()) this.#sayGoodbye(peer, reason);
    this.#connections.close(now);
    if (this.#keepAt !== undefined) this.#commands.push(keepCandidates(this.#kept));
    this.#keepAt = undefined;
  }

  /** Carries what is known from one to the other; returns whether there was anything. */
  settle(now: Instant): boolean {
    let worked = false;
    for (let event = this.#connections.pollEvent(); event; event = this.#connections.pollEvent()) {
      this.#handleConnection(event, now);
      worked = true;
    }
    for (let event = this.#signalling?.pollEvent(); event; event = this.#signalling?.pollEvent()) {
      worked = true;
      const peer = this.#byId.get(event.peer);
      if (peer === undefined) continue;
      peer.hasKeyMismatch = event.type === 'key-mismatch';
      if (event.type === 'signal') this.#connections.handleSignal(peer.index, event, now);
      else this.#events.push({ type: 'key-mismatch', peer: peer.id });
    }
    for (
      let sent = this.#signalling?.pollTransmit();
      sent;
      sent = this.#signalling?.pollTransmit()
    ) {
      this.#commands.push({ type: 'publish', publication: sent });
      worked = true;
    }
    return worked;
  }

  /** Sends a message to the daemon of a peer; best effort. */
  say(index: number, message: PeeringMessage, now: Instant): void {
    const packet = this.#peering.send(index, message);
    if (packet !== undefined) this.#plane.sendPacket(index, packet, now);
  }

  /** Ends the connection with a peer that has no business here any more, and tells it so. */
  dismiss(id: string, now: Instant): void {
    const peer = this.#byId.get(id);
    if (peer === undefined) return;
    this.#sayGoodbye(peer, 'revoked');
    this.#plane.endSessions(peer.index, now);
    this.#connections.handleGoodbye(peer.index, 'dismissed', now);
    peer.report = undefined;
  }

  /** Returns a message of a peer that is not about paths. */
  pollMessage(): PeerMessage | undefined {
    return this.#messages.shift();
  }

  pollEvent(): Event | undefined {
    return this.#events.shift();
  }

  pollCommand(): Command | undefined {
    return this.#commands.shift();
  }

  pollTimeout(): Deadline | undefined {
    return earliest(
      this.#connections.pollTimeout(),
      this.#signalling?.pollTimeout(),
      this.#keepAt === undefined ? undefined : { at: this.#keepAt, reason: 'keep candidates' },
    );
  }

  status(index: number): PathsStatus | undefined {
    const status = this.#connections.status(index);
    return status && pathsStatusOf(status, this.#peers.get(index)?.report, this.#streams);
  }

  /** Whether keys differ: ours of the peer, or the peer's of us. */
  hasKeyMismatch(index: number): boolean {
    return this.#peers.get(index)?.hasKeyMismatch === true;
  }

  relays(): readonly RelayStatus[] {
    return this.#connections.relayStatuses().map(relayStatusOf);
  }

  streams(): StreamsStatus | undefined {
    return this.#streams.status();
  }

  drops(): Readonly<Record<string, number>> {
    return { ...this.#connections.drops, ...this.#peering.drops, ...this.#signalling?.drops };
  }

  #connect({ index, id, publicKey }: Peer, now: Instant): void {
    const secrets = this.#connections.setPeer(index, publicKey, now);
    if (secrets === undefined) return;
    this.#signalling?.setPeer(id, secrets);
    const kept = this.#kept.get(id);
    if (kept !== undefined) this.#connections.setRemembered(index, kept, now);
  }

  #handleConnection(event: ConnectionsEvent, now: Instant): void {
    switch (event.type) {
      case 'path':
        this.#plane.setRoute(event.peer, event.route, now);
        return this.#lookAtPath(event.peer);
      case 'handshake-due':
        return this.#plane.requestHandshake(event.peer, now);
      case 'path-selected':
        return this.#handleSelected(event, now);
      case 'failed':
        return this.#handleFailed(event.peer, event.why);
      case 'candidates':
        return this.#tellCandidates(event.peer, event.candidates, now);
      case 'reached':
        return this.#remember(event.peer, event.candidates, now);
      case 'dial':
        this.#streams.handleDial(event.stream, event.target);
        this.#commands.push(event);
        return;
      case 'hang-up':
        this.#streams.handleHangUp(event.stream);
        this.#commands.push(event);
        return;
      case 'resolve-relay':
        this.#commands.push(event);
        return;
      case 'relay-ready':
      case 'relay-failed':
        this.#events.push(event);
        return;
      case 'no-relays':
        // That is as it should be where the configuration has none any more.
        if (this.#isRelayWanted) this.#events.push(event);
        return;
    }
  }

  #handleSelected(
    { peer: index, kind, remote, rtt, why }: Extract<ConnectionsEvent, { type: 'path-selected' }>,
    now: Instant,
  ): void {
    const peer = this.#peers.get(index);
    if (peer === undefined) return;
    this.#events.push({ type: 'path-selected', peer: peer.id, kind, remote, rttMs: rtt, why });
    if (this.#plane.peerStatus(index)?.hasSession === true) this.#reportPath(peer, now);
  }

  /** Tells when the last path is lost. That the peer has gone, or that WireGuard has failed, is told itself. */
  #lookAtPath(index: number): void {
    const peer = this.#peers.get(index);
    const status = this.#connections.status(index);
    if (peer === undefined || status === undefined) return;
    const hadPath = peer.hasPath;
    peer.hasPath = status.kind !== undefined;
    if (!hadPath || peer.hasPath) return;
    if (status.why === 'path-lost') {
      this.#events.push({ type: 'path-lost', peer: peer.id, why: 'silence' });
    } else if (status.state === 'connecting') {
      this.#events.push({ type: 'path-lost', peer: peer.id, why: 'base removed' });
    }
  }

  #handleFailed(index: number, why: ConnectionFailure): void {
    const peer = this.#peers.get(index);
    if (peer === undefined) return;
    this.#plane.dropStaged(index);
    // The side that was called began its attempt later, and its WireGuard has not given up yet.
    const cause = why === 'no-session' ? (this.#plane.peerStatus(index)?.suspicion ?? why) : why;
    this.#events.push({ type: 'connection-failed', peer: peer.id, cause });
  }

  #tellCandidates(index: number, candidates: readonly Candidate[], now: Instant): void {
    const peer = this.#peers.get(index);
    if (peer !== undefined) this.#signalling?.send(peer.id, candidates, now);
  }

  #remember(index: number, candidates: readonly Candidate[], now: Instant): void {
    const peer = this.#peers.get(index);
    if (peer === undefined) return;
    const addresses = (list: readonly Candidate[]) =>
      list
        .map(({ address }) => address)
        .sort()
        .join();
    if (addresses(this.#kept.get(peer.id) ?? []) === addresses(candidates)) return;
    this.#kept.set(peer.id, candidates);
    this.#keepAt ??= after(now, KEEP_INTERVAL);
  }

  #handlePeering(peer: Peer, message: PeeringMessage, now: Instant): void {
    if (message.type === 'path-report') {
      peer.report = { kind: message.kind, rttMs: message.rttMs };
      return;
    }
    if (message.type !== 'goodbye') {
      this.#messages.push({ peer: peer.index, message });
      return;
    }
    const { reason } = message;
    this.#plane.endSessions(peer.index, now);
    this.#connections.handleGoodbye(peer.index, reason, now);
    peer.report = undefined;
    this.#events.push({ type: 'peer-left', peer: peer.id, reason });
  }

  #reportPath(peer: Peer, now: Instant): void {
    const status = this.#connections.status(peer.index);
    if (status?.kind === undefined) return;
    const rttMs = tenthsOf(status.rtt);
    const { kind } = status;
    const rtt = rttMs === undefined ? {} : { rttMs };
    this.say(peer.index, { type: 'path-report', kind, ...rtt }, now);
  }

  /** Best effort: it leaves at once or not at all. */
  #sayGoodbye(peer: Peer, reason: GoodbyeReason): void {
    if (this.#plane.peerStatus(peer.index)?.hasSession !== true) return;
    const packet = this.#peering.send(peer.index, { type: 'goodbye', reason });
    if (packet !== undefined) this.#plane.sendAtOnce(peer.index, packet);
  }
}
