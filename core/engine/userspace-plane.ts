import { DEFAULTS } from '../config/defaults.ts';
import type { TunnelDatagram } from '../connection/demultiplexer.ts';
import { wrap, type Route } from '../connection/route.ts';
import type { Arena } from '../fastpath/arena.ts';
import type { TransportCipher } from '../fastpath/cipher.ts';
import type { FastPathKernel } from '../fastpath/kernel.ts';
import {
  PacketPath,
  type FlowFacts,
  type LocalPacket,
  type PacketPolicy,
  type Path,
  type ReceivedDatagram,
} from '../fastpath/packet-path.ts';
import { flowOfPacket } from '../fastpath/flow.ts';
import { streamDescriptor, streamOfDescriptor } from '../fastpath/path.ts';
import { ipFamily, type IpAddress } from '../net/ip-address.ts';
import { isIcmpErrorFlow } from '../nat/icmp-translation.ts';
import { socketAddressIp, type SocketAddress } from '../net/socket-address.ts';
import type { Source } from '../net/source.ts';
import type { Listening } from '../plugin/datagrams.ts';
import type { DeviceOffloads } from '../plugin/packet-device.ts';
import type { Deadline } from '../sansio/agent.ts';
import type { Crypto } from '../sansio/crypto.ts';
import type { Instant } from '../sansio/instant.ts';
import type { Log } from '../sansio/log.ts';
import type { Outcome } from '../sansio/outcome.ts';
import type { Random } from '../sansio/random.ts';
import { frame } from '../stun/stream-framing.ts';
import {
  Wireguard,
  type PeerRefusal,
  type PeerSettings,
  type WireguardEvent,
  type WireguardTransmit,
} from '../wireguard/wireguard.ts';

/** A datagram that leaves outside the batches, in the form in which its route carries it. */
export interface Transmit {
  readonly route: Route;
  readonly payload: Uint8Array;
}

/** What the userspace data plane tells about its peers, by their index. */
export type PlaneEvent =
  | Extract<
      WireguardEvent,
      { readonly type: 'handshake-completed' | 'handshake-failed' | 'endpoint-changed' }
    >
  /** A packet of the peer to the port on which daemons speak with each other. */
  | { readonly type: 'peering-packet'; readonly peer: number; readonly packet: Uint8Array };

/** The part of `Connections` that the data plane feeds: what came in, and what became of packets. */
export interface PathFinder {
  handleDatagram(datagram: ReceivedDatagram, now: Instant): TunnelDatagram | undefined;
  handleTransport(
    peer: number,
    facts: { readonly sent: boolean; readonly received: boolean; readonly elsewhere: boolean },
    now: Instant,
  ): void;
  wake(peer: number, now: Instant): void;
}

/**
 * The userspace data plane: the WireGuard protocol (`core/wireguard`) decides about sessions, the
 * packet path (`core/fastpath`) carries the packets, and this couples the two. Sessions go from the
 * protocol to the path, facts about packets go back.
 */
export class UserspacePlane {
  readonly #wireguard: Wireguard;
  readonly #packets: PacketPath;
  readonly #events: PlaneEvent[] = [];
  #listening: Listening | undefined;
  readonly #endpoints = new Map<number, SocketAddress>();
  /** Peers without an endpoint whose packets wait, as the name of it is being resolved. */
  readonly #resolving = new Set<number>();
  /** Peers whose way is found by `Connections`: they are where that says, not where they call from. */
  readonly #pathFound = new Set<number>();
  readonly #finder: PathFinder;
  readonly #replies: Transmit[] = [];
  readonly #onFlowFacts: (facts: FlowFacts, now: Instant) => void;
  /** Packets that the policy kept, for whoever says what becomes of them. */
  readonly #kept: LocalPacket[] = [];

  constructor(
    options: {
      readonly privateKey: Uint8Array;
      readonly unixMs: number;
      readonly crypto: Crypto;
      readonly random: Random;
      readonly kernel: FastPathKernel;
      readonly cipher: TransportCipher;
      readonly log: Log;
      readonly finder: PathFinder;
      readonly policy: PacketPolicy;
      readonly onFlowFacts: (facts: FlowFacts, now: Instant) => void;
    },
    now: Instant,
  ) {
    this.#finder = options.finder;
    this.#onFlowFacts = options.onFlowFacts;
    this.#wireguard = new Wireguard(options, now);
    this.#packets = new PacketPath({
      kernel: options.kernel,
      cipher: options.cipher,
      mtu: DEFAULTS.mtu,
      log: options.log,
      policy: options.policy,
    });
  }

  get arena(): Arena {
    return this.#packets.arena;
  }

  /** Packets that the device delivered: `count` read records in the arena. */
  handlePackets(count: number, now: Instant): void {
    this.#packets.outbound(count, now);
    this.#settle(now);
  }

  /** Datagrams that a socket delivered: `count` datagram records in the arena. */
  handleDatagrams(count: number, fd: number, now: Instant): void {
    this.#packets.inbound(count, fd, now);
    this.#settle(now);
  }

  /**
   * Datagrams that a stream delivered, from `first` on. Returns the first one that found no room, for
   * which this is to be called again after the packets were flushed.
   */
  handleStreamDatagrams(datagrams: readonly TunnelDatagram[], first: number, now: Instant): number {
    const { route } = datagrams[first] ?? {};
    const path = route && this.#pathOf(route);
    if (path === undefined) return datagrams.length;
    const payloads = datagrams.map(({ payload }) => payload);
    const next = this.#packets.inboundDatagrams(payloads, first, path, now);
    this.#settle(now);
    return next;
  }

  handleTimeout(now: Instant): void {
    this.#wireguard.handleTimeout(now);
    this.#settle(now);
  }

  handleWallClock(unixMs: number, now: Instant): void {
    this.#wireguard.handleWallClock(unixMs, now);
  }

  setPrivateKey(privateKey: Uint8Array, now: Instant): void {
    this.#wireguard.setPrivateKey(privateKey, now);
    this.#settle(now);
  }

  setMtu(mtu: number): void {
    this.#packets.setMtu(mtu);
  }

  /** Our addresses in the tunnel: ICMP errors to the LAN come from these. */
  setAddresses(addresses: readonly IpAddress[]): void {
    this.#packets.setAddresses(addresses);
    this.#packets.invalidateFlows();
  }

  setOffloads(offloads: DeviceOffloads): void {
    this.#packets.setOffloads(offloads);
  }

  /** The sockets moved: every path is laid anew, and the kernel chooses the source. */
  setListening(listening: Listening, now: Instant): void {
    this.#listening = listening;
    for (const [peer, endpoint] of this.#endpoints) this.#layPath(peer, endpoint);
    this.#settle(now);
  }

  setPeer(index: number, settings: PeerSettings, now: Instant): Outcome<void, PeerRefusal> {
    const outcome = this.#wireguard.setPeer(index, settings, now);
    this.#settle(now);
    return outcome;
  }

  removePeer(index: number, now: Instant): void {
    this.#wireguard.removePeer(index, now);
    this.#settle(now);
    this.#packets.removePeer(index);
    this.#endpoints.delete(index);
    this.#resolving.delete(index);
    this.#pathFound.delete(index);
  }

  /** Leaves the way to the peer to `setRoute`: packets wait while there is none. */
  setPathFound(index: number): void {
    this.#pathFound.add(index);
    this.#packets.invalidateFlows();
  }

  /** Sends to a peer of `setPathFound` this way from now on. */
  setRoute(index: number, route: Route | undefined, now: Instant): void {
    if (!this.#pathFound.has(index)) return;
    this.#wireguard.setEndpoint(index, route?.remote, now);
    this.#packets.setPath(index, route && this.#pathOf(route));
    this.#settle(now);
  }

  requestHandshake(index: number, now: Instant): void {
    this.#wireguard.requestHandshake(index, now);
    this.#settle(now);
  }

  /** Forgets the sessions with a peer that is gone. */
  endSessions(index: number, now: Instant): void {
    this.#wireguard.endSessions(index, now);
    this.#settle(now);
  }

  /** Drops the packets that wait for the peer. */
  dropStaged(index: number): void {
    this.#packets.dropStaged(index);
  }

  /** The same, whatever becomes of the peer in the next moment: for the last word to it. */
  sendAtOnce(index: number, packet: Uint8Array): void {
    this.#packets.sendPacket(index, packet);
    for (const { path, payload } of this.#packets.takeSendsAsCopies()) {
      this.#replies.push({ route: routeOf(path), payload: wrapForStream(payload, path) });
    }
  }

  /** Sends an IP packet of the daemon's own to a peer. */
  sendPacket(index: number, packet: Uint8Array, now: Instant): void {
    this.#packets.sendPacket(index, packet);
    this.#settle(now);
  }

  /** Whether there is a way to the peer, or one is sought. */
  isReachable(index: number): boolean {
    return this.#endpoints.has(index) || this.#resolving.has(index) || this.#pathFound.has(index);
  }

  /** Whether there is a session and a way on which it is used: a session outlives what carries it. */
  isUp(index: number): boolean {
    const hasSession = this.#wireguard.peerStatus(index)?.hasSession === true;
    return hasSession && this.#packets.path(index) !== undefined;
  }

  /** Seeks the way to a peer of `setPathFound`. */
  wake(index: number, now: Instant): void {
    if (this.#pathFound.has(index)) this.#finder.wake(index, now);
  }

  /** Asks the policy about every flow again. */
  invalidateFlows(): void {
    this.#packets.invalidateFlows();
  }

  /** The same about the flows of a session of NAT that has ended. */
  forgetSession(session: number): void {
    this.#packets.forgetSession(session);
  }

  /** Takes a packet of the device once more, now that the policy has another answer. */
  resubmit(packet: Uint8Array, now: Instant): void {
    this.#packets.resubmit(packet, now);
    this.#settle(now);
  }

  /** Hands a packet to the device. */
  writePacket(packet: Uint8Array): void {
    this.#packets.writePacket(packet);
  }

  /** Returns a packet that the policy kept: an ICMP error, or one out of the device that is to wait. */
  pollKept(): LocalPacket | undefined {
    return this.#kept.shift();
  }

  setEndpoint(index: number, endpoint: SocketAddress, now: Instant): void {
    this.#useEndpoint(index, endpoint);
    this.#wireguard.setEndpoint(index, endpoint, now);
    this.#settle(now);
  }

  /** Whether packets to a peer of which no endpoint is known wait for one; else they are refused. */
  setResolving(index: number, isResolving: boolean): void {
    if (isResolving === this.#resolving.has(index)) return;
    if (isResolving) this.#resolving.add(index);
    else this.#resolving.delete(index);
    if (this.#endpoints.has(index)) return;
    if (!isResolving) this.#packets.dropStaged(index);
    this.#packets.invalidateFlows();
  }

  pollTransmit(): Transmit | undefined {
    const reply = this.#replies.shift();
    if (reply !== undefined) return reply;
    for (;;) {
      const transmit = this.#wireguard.pollTransmit();
      if (transmit === undefined) return undefined;
      const sent = this.#routed(transmit, undefined);
      if (sent !== undefined) return sent;
    }
  }

  pollEvent(): PlaneEvent | undefined {
    return this.#events.shift();
  }

  pollTimeout(): Deadline | undefined {
    return this.#wireguard.pollTimeout();
  }

  /** Returns how many send records are ready in the arena; they count as taken. */
  takeSends(): number {
    return this.#packets.takeSends();
  }

  /** Returns how many write records are ready in the arena; they count as taken. */
  takeWrites(): number {
    return this.#packets.takeWrites();
  }

  peerStatus(index: number): ReturnType<Wireguard['peerStatus']> {
    return this.#wireguard.peerStatus(index);
  }

  counters(index: number): ReturnType<PacketPath['counters']> {
    return this.#packets.counters(index);
  }

  /** Everything that went nowhere, by reason. */
  drops(): Readonly<Record<string, number>> {
    return { ...this.#wireguard.drops, ...this.#packets.drops };
  }

  /** Carries what one side has to say to the other until both are silent. */
  #settle(now: Instant): void {
    for (let worked = true; worked;) {
      worked = this.#drainDatagrams(now);
      if (this.#drainFacts(now)) worked = true;
      if (this.#drainWanted(now)) worked = true;
      if (this.#drainEvents()) worked = true;
      if (this.#drainLocal()) worked = true;
      if (this.#drainFlowFacts(now)) worked = true;
    }
  }

  #drainDatagrams(now: Instant): boolean {
    for (let worked = false; ; worked = true) {
      const datagram = this.#packets.pollDatagram();
      if (datagram === undefined) return worked;
      const inner = this.#finder.handleDatagram(datagram, now);
      if (inner !== undefined) this.#handleHandshake(inner, now);
    }
  }

  /** Answers leave the way the message came, as there may be no other yet. */
  #handleHandshake({ payload, from, route }: TunnelDatagram, now: Instant): void {
    this.#flushTransmits();
    const path = route.source ?? {};
    this.#wireguard.handleDatagram({ payload, from, path }, now);
    // A plain peer that calls is answered from where it called, which the events say.
    this.#drainEvents();
    for (;;) {
      const transmit = this.#wireguard.pollTransmit();
      if (transmit === undefined) return;
      const reply = this.#routed(transmit, { from, route });
      if (reply !== undefined) this.#replies.push(reply);
    }
  }

  #flushTransmits(): void {
    for (;;) {
      const transmit = this.#wireguard.pollTransmit();
      if (transmit === undefined) return;
      const sent = this.#routed(transmit, undefined);
      if (sent !== undefined) this.#replies.push(sent);
    }
  }

  /** Finds the way of a message; `undefined` for a peer that has none at present. */
  #routed(
    { peer, to, payload, source }: WireguardTransmit,
    arrival: { readonly from: SocketAddress; readonly route: Route } | undefined,
  ): Transmit | undefined {
    if (peer === undefined || !this.#pathFound.has(peer)) {
      if (arrival?.from === to && peer === undefined) {
        return { route: arrival.route, payload: wrap(payload, arrival.route) };
      }
      const path = peer === undefined ? undefined : this.#packets.path(peer);
      const own = path?.remote === to ? path : source;
      return { route: { remote: to, ...(own === undefined ? {} : { source: own }) }, payload };
    }
    const path = this.#packets.path(peer);
    const route = path === undefined ? arrival?.route : routeOf(path);
    return route && { route, payload: wrap(payload, route) };
  }

  #drainFacts(now: Instant): boolean {
    for (let worked = false; ; worked = true) {
      const facts = this.#packets.pollFacts();
      if (facts === undefined) return worked;
      const { peer } = facts;
      if (this.#pathFound.has(peer)) {
        const sent = facts.sentData || facts.sentKeepalive;
        const received = facts.receivedData || facts.receivedKeepalive;
        const elsewhere = facts.roamedTo !== undefined;
        this.#finder.handleTransport(peer, { sent, received, elsewhere }, now);
      }
      this.#wireguard.handleTransport(facts, now);
    }
  }

  #drainWanted(now: Instant): boolean {
    for (let worked = false; ; worked = true) {
      const peer = this.#packets.pollWanted();
      if (peer === undefined) return worked;
      if (this.#pathFound.has(peer)) this.#finder.wake(peer, now);
      this.#wireguard.handlePacketWithoutSession(peer, now);
    }
  }

  #drainLocal(): boolean {
    for (let worked = false; ; worked = true) {
      const local = this.#packets.pollLocal();
      if (local === undefined) return worked;
      const { peer, packet } = local;
      const flow = flowOfPacket(packet);
      if (flow === undefined) continue;
      if (peer === undefined || isIcmpErrorFlow(flow)) this.#kept.push(local);
      else this.#events.push({ type: 'peering-packet', peer, packet });
    }
  }

  #drainFlowFacts(now: Instant): boolean {
    for (let worked = false; ; worked = true) {
      const facts = this.#packets.pollFlowFacts();
      if (facts === undefined) return worked;
      this.#onFlowFacts(facts, now);
    }
  }

  #drainEvents(): boolean {
    for (let worked = false; ; worked = true) {
      const event = this.#wireguard.pollEvent();
      if (event === undefined) return worked;
      this.#handleEvent(event);
    }
  }

  #handleEvent(event: WireguardEvent): void {
    switch (event.type) {
      case 'session-created':
        return this.#packets.installSession(event);
      case 'session-activated':
        return this.#packets.activateSession(event.peer, event.localIndex);
      case 'session-dropped':
        return this.#packets.dropSession(event.peer, event.localIndex);
      case 'keepalive-due':
        return this.#packets.keepalive(event.peer);
      case 'endpoint-changed':
        if (this.#pathFound.has(event.peer)) return;
        this.#useEndpoint(event.peer, event.endpoint);
        this.#events.push(event);
        return;
      case 'source-changed':
        if (this.#pathFound.has(event.peer)) return;
        return this.#useSource(event.peer, event.source);
      case 'handshake-failed':
        this.#packets.dropStaged(event.peer);
        this.#events.push(event);
        return;
      case 'handshake-completed':
        this.#events.push(event);
        return;
    }
  }

  #useEndpoint(index: number, endpoint: SocketAddress): void {
    const before = this.#endpoints.get(index);
    if (before === endpoint) return;
    if (before === undefined) this.#packets.invalidateFlows();
    this.#endpoints.set(index, endpoint);
    this.#layPath(index, endpoint);
  }

  #useSource(index: number, source: Source | undefined): void {
    const endpoint = this.#endpoints.get(index);
    if (endpoint !== undefined) this.#layPath(index, endpoint, source);
  }

  /**
   * Without a source the kernel chooses the local address; the interface of a link-local peer stays, as
   * nobody else knows it.
   */
  #layPath(index: number, endpoint: SocketAddress, source: Source = {}): void {
    const family = ipFamily(socketAddressIp(endpoint));
    const fd = family === 4 ? this.#listening?.ipv4 : this.#listening?.ipv6;
    const before = this.#packets.path(index);
    const ifindex = source.ifindex ?? (before?.remote === endpoint ? before.ifindex : undefined);
    const pinned = {
      ...(source.local === undefined ? {} : { local: source.local }),
      ...(ifindex === undefined ? {} : { ifindex }),
    };
    this.#packets.setPath(
      index,
      fd === undefined ? undefined : { fd, remote: endpoint, ...pinned },
    );
  }

  #pathOf({ remote, source, stream, channel }: Route): Path | undefined {
    const family = ipFamily(socketAddressIp(remote));
    const socket = family === 4 ? this.#listening?.ipv4 : this.#listening?.ipv6;
    const fd = stream === undefined ? socket : streamDescriptor(stream);
    if (fd === undefined) return undefined;
    return { ...source, fd, remote, ...(channel === undefined ? {} : { channel }) };
  }
}

/** The packet path has put the header of the channel before it already. */
function wrapForStream(payload: Uint8Array, { fd, channel }: Path): Uint8Array {
  const isFramed = streamOfDescriptor(fd) !== undefined && channel === undefined;
  return isFramed ? frame(payload) : payload;
}

function routeOf({ fd, remote, channel, ...source }: Path): Route {
  const stream = streamOfDescriptor(fd);
  return {
    remote,
    source,
    ...(stream === undefined ? {} : { stream }),
    ...(channel === undefined ? {} : { channel }),
  };
}
