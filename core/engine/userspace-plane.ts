import { DEFAULTS } from '../config/defaults.ts';
import type { Arena } from '../fastpath/arena.ts';
import type { TransportCipher } from '../fastpath/cipher.ts';
import type { FastPathKernel } from '../fastpath/kernel.ts';
import { PacketPath, type Flow, type FlowVerdict } from '../fastpath/packet-path.ts';
import { ipFamily, type IpAddress } from '../net/ip-address.ts';
import type { IpPrefix } from '../net/ip-prefix.ts';
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
import { AllowedIps } from '../wireguard/allowed-ips.ts';
import {
  Wireguard,
  type PeerRefusal,
  type PeerSettings,
  type WireguardEvent,
} from '../wireguard/wireguard.ts';

/** A datagram that leaves outside the batches: the messages of a handshake. */
export interface Transmit {
  readonly to: SocketAddress;
  readonly payload: Uint8Array;
  /** Without it the kernel chooses. */
  readonly source?: Source;
}

/** What the userspace data plane tells about its peers, by their index. */
export type PlaneEvent = Extract<
  WireguardEvent,
  { readonly type: 'handshake-completed' | 'handshake-failed' | 'endpoint-changed' }
>;

/**
 * The userspace data plane: the WireGuard protocol (`core/wireguard`) decides about sessions, the
 * packet path (`core/fastpath`) carries the packets, and this couples the two. Sessions go from the
 * protocol to the path, facts about packets go back.
 */
export class UserspacePlane {
  readonly #wireguard: Wireguard;
  readonly #packets: PacketPath;
  readonly #allowedIps = new AllowedIps();
  readonly #events: PlaneEvent[] = [];
  #listening: Listening | undefined;
  readonly #endpoints = new Map<number, SocketAddress>();
  /** Peers without an endpoint whose packets wait, as the name of it is being resolved. */
  readonly #resolving = new Set<number>();

  constructor(
    options: {
      readonly privateKey: Uint8Array;
      readonly unixMs: number;
      readonly crypto: Crypto;
      readonly random: Random;
      readonly kernel: FastPathKernel;
      readonly cipher: TransportCipher;
      readonly log: Log;
    },
    now: Instant,
  ) {
    this.#wireguard = new Wireguard(options, now);
    this.#packets = new PacketPath({
      kernel: options.kernel,
      cipher: options.cipher,
      mtu: DEFAULTS.mtu,
      log: options.log,
      policy: {
        outbound: (flow) => this.#decideOutbound(flow),
        inbound: (peer, flow) => this.#decideInbound(peer, flow),
      },
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
  }

  /** Sets which networks lie behind which peers, as a whole. */
  setAllowedIps(entries: Iterable<readonly [index: number, prefixes: readonly IpPrefix[]]>): void {
    this.#allowedIps.clear();
    for (const [index, prefixes] of entries) {
      for (const prefix of prefixes) this.#allowedIps.insert(prefix, index);
    }
    this.#packets.invalidateFlows();
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
    const transmit = this.#wireguard.pollTransmit();
    if (transmit?.peer === undefined) return transmit;
    const path = this.#packets.path(transmit.peer);
    return path?.remote === transmit.to ? { ...transmit, source: path } : transmit;
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
    }
  }

  #drainDatagrams(now: Instant): boolean {
    for (let worked = false; ; worked = true) {
      const datagram = this.#packets.pollDatagram();
      if (datagram === undefined) return worked;
      this.#wireguard.handleDatagram(datagram, now);
    }
  }

  #drainFacts(now: Instant): boolean {
    for (let worked = false; ; worked = true) {
      const facts = this.#packets.pollFacts();
      if (facts === undefined) return worked;
      this.#wireguard.handleTransport(facts, now);
    }
  }

  #drainWanted(now: Instant): boolean {
    for (let worked = false; ; worked = true) {
      const peer = this.#packets.pollWanted();
      if (peer === undefined) return worked;
      this.#wireguard.handlePacketWithoutSession(peer, now);
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
        this.#useEndpoint(event.peer, event.endpoint);
        this.#events.push(event);
        return;
      case 'source-changed':
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

  /** A peer that cannot be reached is refused at once, as by the Linux kernel: no attempt will begin. */
  #decideOutbound(flow: Flow): FlowVerdict {
    const peer = this.#allowedIps.lookupBytes(flow.destination, 0, flow.family);
    // The kernel itself sends some, such as router solicitations, into every interface.
    if (peer === undefined && isMulticast(flow)) return { type: 'drop', reason: 'multicast' };
    if (peer === undefined) return { type: 'drop', reason: 'no-peer', icmp: 'host-unreachable' };
    return this.#endpoints.has(peer) || this.#resolving.has(peer)
      ? { type: 'forward', peer }
      : { type: 'drop', reason: 'no-endpoint', icmp: 'host-unreachable' };
  }

  /** Cryptokey routing: a packet is a peer's only if its source is (whitepaper §2). */
  #decideInbound(peer: number, flow: Flow): FlowVerdict {
    return this.#allowedIps.lookupBytes(flow.source, 0, flow.family) === peer
      ? { type: 'forward', peer }
      : { type: 'drop', reason: 'source-not-allowed' };
  }
}

/** RFC 5771 §3: 224.0.0.0/4; RFC 4291 §2.7: ff00::/8. */
function isMulticast({ family, destination: [first = 0] }: Flow): boolean {
  return family === 4 ? first >> 4 === 0xe : first === 0xff;
}
