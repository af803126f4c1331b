import type { IpAddress } from '../net/ip-address.ts';
import type { SocketAddress } from '../net/socket-address.ts';
import type { DeviceOffloads } from '../plugin/packet-device.ts';
import type { IcmpError } from '../packet/icmp.ts';
import { BoundedQueue } from '../sansio/bounded-queue.ts';
import type { Instant } from '../sansio/instant.ts';
import type { Log } from '../sansio/log.ts';
import { BugError } from '../sansio/outcome.ts';
import type { Arena } from './arena.ts';
import type { TransportCipher } from './cipher.ts';
import { copySends, type CopiedDatagram } from './copy-sends.ts';
import { DropCounters } from './drop-counters.ts';
import { encodeVerdict, readFlow, type FlowVerdict, type PacketPolicy } from './flow.ts';
import { IcmpAnswers } from './icmp-answers.ts';
import type { FastPathKernel } from './kernel.ts';
import {
  CONTROL_DETAIL,
  CONTROL_FD,
  CONTROL_GENERATION,
  CONTROL_KEY,
  CONTROL_LENGTH,
  CONTROL_OUT_MESSAGES,
  CONTROL_MTU,
  CONTROL_OFFLOADS,
  CONTROL_OTHERS,
  CONTROL_OUT,
  CONTROL_PACKET,
  CONTROL_PEER,
  CONTROL_STOP,
  DATAGRAMS,
  DATAGRAM_LENGTH,
  DATAGRAM_OFFSET,
  DATAGRAM_SEGMENT,
  DATAGRAM_SIZE,
  DATAGRAM_TOS,
  DROP_OVERSIZED,
  DROP_QUEUE_FULL,
  DROP_STAGE_FULL,
  DROP_UNDELIVERED,
  FLOW_WHO,
  LARGEST_TRAIN,
  IN_MESSAGES,
  OUT_MESSAGES,
  MESSAGE_SIZE,
  MOST_DATAGRAMS,
  MOST_MESSAGES,
  MOST_TRAINS,
  MOST_READS,
  OFFLOAD_TCP,
  OFFLOAD_UDP,
  OTHERS,
  OTHER_DATAGRAM,
  OTHER_SIZE,
  OUT_END,
  READS,
  READ_LENGTH,
  READ_OFFSET,
  READ_SIZE,
  SENDS,
  STOP_END,
  STOP_LOCAL,
  STOP_MISS,
  STOP_REFUSED,
  STOP_STAGE,
  STOP_TOO_BIG,
  TUN_IN,
  TUN_IN_END,
  UDP_IN,
  UDP_IN_END,
  VNET_HEADER_SIZE,
  WRITES,
} from './layout.ts';
import { OwnWrites } from './own-writes.ts';
import { readSourcePath, writeSource, type Path } from './path.ts';
import { PeerRows, type PeerCounters, type PeerFacts, type SessionKeys } from './peer-rows.ts';
import { RewriteRows, type FlowFacts } from './rewrite-rows.ts';
import { Staging } from './staging.ts';

export type { Flow, FlowVerdict, PacketPolicy, Refusal, Rewrite } from './flow.ts';
export type { Path } from './path.ts';
export type { PeerCounters, PeerFacts, SessionKeys } from './peer-rows.ts';
export type { FlowFacts } from './rewrite-rows.ts';

/** A datagram that is no transport message of a known session. */
export interface ReceivedDatagram {
  readonly payload: Uint8Array;
  readonly from: SocketAddress;
  /** Leads back to the sender. */
  readonly path: Path;
}

/** An IP packet for the daemon itself. */
export interface LocalPacket {
  /** The peer that sent it; absent for one that came from the TUN. */
  readonly peer?: number;
  readonly packet: Uint8Array;
}

/** Limits of what waits to be polled; the newest is dropped. */
const MOST_DATAGRAMS_WAITING = 1024;
const MOST_LOCAL_WAITING = 256;

/** Below this much room in OUT staged packets wait for the next round: two super-packets of small segments. */
const FLUSH_ROOM_BYTES = 262_144;
const FLUSH_ROOM_MESSAGES = 1024;

/** The smallest MTU that IPv4 hosts must accept (RFC 791 §3.1). */
const SMALLEST_MTU = 576;
const LARGEST_MTU = 65_440;

/**
 * Carries packets between the TUN and the sockets, in batches and in place: the kernel works byte by
 * byte, the cipher seals and opens, and this asks the policy about each flow once.
 *
 * What became of a batch lies in the arena until the next call that takes a batch: `takeSends` and
 * `takeWrites` say how many records are ready, and are called until they return 0, with the records
 * carried out after each call. In steady state nothing is allocated per packet.
 */
export class PacketPath {
  readonly arena: Arena;
  readonly #kernel: FastPathKernel;
  readonly #cipher: TransportCipher;
  readonly #policy: PacketPolicy;
  readonly #log: Log;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #peers: PeerRows;
  readonly #rewrites: RewriteRows;
  readonly #drops: DropCounters;
  readonly #icmp: IcmpAnswers;

  readonly #staging = new Staging();
  /** Peers whose staged packets did not all fit into one batch. */
  readonly #flushing = new Set<number>();
  readonly #wanted = new Set<number>();
  readonly #datagrams = new BoundedQueue<ReceivedDatagram>(MOST_DATAGRAMS_WAITING, 'newest');
  readonly #local = new BoundedQueue<LocalPacket>(MOST_LOCAL_WAITING, 'newest');
  /** Packets of ours for the TUN. */
  readonly #writes: OwnWrites;
  /** Whether OUT holds messages that were not taken, and how many of them are sealed. */
  #isOutOpen = false;
  #sealed = 0;
  #writesReady = 0;

  constructor(options: {
    readonly kernel: FastPathKernel;
    readonly cipher: TransportCipher;
    readonly policy: PacketPolicy;
    readonly mtu: number;
    readonly log: Log;
  }) {
    const buffer = options.kernel.memory;
    this.#kernel = options.kernel;
    this.#cipher = options.cipher;
    this.#policy = options.policy;
    this.#log = options.log;
    this.#bytes = new Uint8Array(buffer);
    this.#view = new DataView(buffer);
    this.#peers = new PeerRows(buffer);
    this.#rewrites = new RewriteRows(buffer);
    this.#drops = new DropCounters(buffer);
    this.#icmp = new IcmpAnswers(buffer);
    this.#writes = new OwnWrites(buffer);
    this.arena = {
      buffer,
      reads: { table: READS, into: TUN_IN, end: TUN_IN_END, most: MOST_READS },
      datagrams: { table: DATAGRAMS, into: UDP_IN, end: UDP_IN_END, most: MOST_DATAGRAMS },
      sends: SENDS,
      writes: WRITES,
    };
    this.invalidateFlows();
    this.setMtu(options.mtu);
  }

  /** Takes `count` read records at `arena.reads`; `takeSends` and `takeWrites` give what comes of them. */
  outbound(count: number, now: Instant): void {
    this.#openOut();
    // What is read now stays behind the backlog of its peer.
    if (this.#flushing.size > 0) for (const peer of this.#flushing) this.#peers.hold(peer);
    for (let next = 0; ;) {
      next = this.#kernel.split(next, count);
      const stop = this.#u32(CONTROL_STOP);
      if (stop === STOP_END) break;
      if (stop === STOP_MISS) this.#decide(this.#policy.outbound(readFlow(this.arena.buffer), now));
      else this.#handleStoppedRead(stop, next++, now);
    }
    if (this.#flushing.size > 0) this.#peers.releaseAll();
    this.#seal();
  }

  /**
   * Takes `count` datagram records at `arena.datagrams`, received on the socket `fd`; `takeWrites` gives
   * what comes of them.
   */
  inbound(count: number, fd: number, now: Instant): void {
    this.#view.setInt32(CONTROL_FD, fd, true);
    const messages = this.#kernel.gather(count);
    this.#queueOthers(fd);
    this.#cipher.open(IN_MESSAGES, messages);
    for (let next = 0; ;) {
      next = this.#kernel.accept(next, messages);
      const stop = this.#u32(CONTROL_STOP);
      if (stop === STOP_END) break;
      if (stop === STOP_MISS) {
        const peer = this.#u32(CONTROL_PEER);
        this.#decide(this.#policy.inbound(peer, readFlow(this.arena.buffer), now));
      } else {
        this.#handleStoppedMessage(stop, now);
        next++;
      }
    }
    this.#writesReady = this.#kernel.finish();
  }

  /**
   * Takes datagrams that came another way than in a batch, over a stream, from `first` on. Returns the
   * index of the first one that found no room: call again when `takeWrites` has returned 0.
   */
  inboundDatagrams(
    payloads: readonly Uint8Array[],
    first: number,
    path: Path,
    now: Instant,
  ): number {
    let next = first;
    let count = 0;
    for (; count < MOST_TRAINS && next < payloads.length; count++) {
      next = this.#layTrain(payloads, next, count);
      writeSource(this.arena.buffer, DATAGRAMS + count * DATAGRAM_SIZE, path);
    }
    this.inbound(count, path.fd, now);
    return next;
  }

  /** Takes a packet as if the TUN had delivered it again: what the policy held back, once it may pass. */
  resubmit(packet: Uint8Array, now: Instant): void {
    this.#layRead(withVnetHeader(packet));
    this.outbound(1, now);
  }

  /** Receives with the session from here on. Copies the keys and wipes the given ones. */
  installSession(keys: SessionKeys): void {
    this.#peers.installSession(keys);
  }

  /** Sends with the session from here on, beginning with what was staged. */
  activateSession(peer: number, localIndex: number): void {
    if (this.#peers.activateSession(peer, localIndex)) this.#flush(peer);
  }

  /** Neither sends nor receives with the session any more, and wipes its keys. */
  dropSession(peer: number, localIndex: number): void {
    this.#peers.dropSession(peer, localIndex);
  }

  /** Without a path the packets to the peer are staged. */
  setPath(peer: number, path: Path | undefined): void {
    this.#peers.setPath(peer, path);
    this.#flush(peer);
  }

  /** The path to the peer as it is; the transport clears a source that is gone. */
  path(peer: number): Path | undefined {
    return this.#peers.path(peer);
  }

  /** Forgets all about the peer, its keys first. */
  removePeer(peer: number): void {
    this.#peers.remove(peer);
    this.dropStaged(peer);
    this.#wanted.delete(peer);
    this.invalidateFlows();
  }

  /** Drops what waits for a session that will not come. */
  dropStaged(peer: number): void {
    const dropped = this.#staging.clear(peer);
    for (let i = 0; i < dropped; i++) this.#drops.count(DROP_UNDELIVERED);
    this.#flushing.delete(peer);
  }

  /** Asks the policy about every flow again. */
  invalidateFlows(): void {
    // Generation 0 is that of empty rows.
    this.#setU32(CONTROL_GENERATION, (this.#u32(CONTROL_GENERATION) + 1) >>> 0 || 1);
  }

  /** Asks the policy again about the flows that are rewritten for a session, because it has ended. */
  forgetSession(session: number): void {
    this.#rewrites.forget(session);
  }

  setMtu(mtu: number): void {
    if (!(mtu >= SMALLEST_MTU && mtu <= LARGEST_MTU)) throw new BugError(`MTU ${mtu}`);
    this.#setU32(CONTROL_MTU, mtu);
  }

  /** What the TUN takes unsplit. */
  setOffloads(offloads: DeviceOffloads): void {
    const bits = (offloads.tcp ? OFFLOAD_TCP : 0) | (offloads.udp ? OFFLOAD_UDP : 0);
    this.#setU32(CONTROL_OFFLOADS, bits);
  }

  /** Our addresses in the tunnel: ICMP errors for peers come from them. */
  setAddresses(addresses: readonly IpAddress[]): void {
    this.#icmp.setAddresses(addresses);
  }

  /** Sends an empty message, unless data leave in its place. */
  keepalive(peer: number): void {
    if (this.#peers.hasSentData(peer) || this.#staging.has(peer)) return;
    this.#openOut();
    this.#kernel.keepalive(peer);
    this.#seal();
  }

  /** Sends an IP packet of the daemon's own to a peer; the policy is not asked. */
  sendPacket(peer: number, packet: Uint8Array): void {
    this.#stage(peer, withVnetHeader(packet));
    if (this.#peers.isReady(peer)) this.#flush(peer);
    else this.#wanted.add(peer);
  }

  /** Hands an IP packet of the daemon's own to the TUN. */
  writePacket(packet: Uint8Array): void {
    if (!this.#writes.push(packet)) this.#drops.count(DROP_QUEUE_FULL);
  }

  /** Returns how many send records are ready at `arena.sends`; they count as taken. */
  takeSends(): number {
    if (!this.#isOutOpen && this.#flushing.size > 0) this.#flushBacklogs();
    if (!this.#isOutOpen) return 0;
    this.#isOutOpen = false;
    return this.#kernel.train();
  }

  /** Takes all that is ready to be sent out of the arena, datagram by datagram; slow. */
  takeSendsAsCopies(): readonly CopiedDatagram[] {
    const { buffer } = this.arena;
    const taken: CopiedDatagram[] = [];
    for (let n = this.takeSends(); n > 0; n = this.takeSends()) taken.push(...copySends(buffer, n));
    return taken;
  }

  /** Returns how many write records are ready at `arena.writes`; they count as taken. */
  takeWrites(): number {
    const ready = this.#writesReady;
    this.#writesReady = 0;
    return ready > 0 ? ready : this.#writes.lay();
  }

  /** Returns a datagram that is no transport message of a known session. */
  pollDatagram(): ReceivedDatagram | undefined {
    return this.#datagrams.shift();
  }

  /** Returns a packet whose flow is `local`. */
  pollLocal(): LocalPacket | undefined {
    return this.#local.shift();
  }

  /** Returns what happened to one of the peers touched since the last poll: a record lent until the next. */
  pollFacts(): PeerFacts | undefined {
    return this.#peers.pollFacts();
  }

  /**
   * Returns what packets of one session did in one direction since the last poll: a record lent until the
   * next. To be polled until silent after each batch.
   */
  pollFlowFacts(): FlowFacts | undefined {
    return this.#rewrites.pollFacts();
  }

  /** Returns a peer for which packets were staged since the last poll. */
  pollWanted(): number | undefined {
    if (this.#wanted.size === 0) return undefined;
    for (const peer of this.#wanted) {
      this.#wanted.delete(peer);
      return peer;
    }
    return undefined;
  }

  counters(peer: number): PeerCounters {
    return this.#peers.counters(peer);
  }

  /** What went nowhere, by reason; reasons never seen are left out. */
  get drops(): Readonly<Record<string, number>> {
    return this.#drops.read();
  }

  /** Lays datagrams of one length, of which the last may be shorter, as one train. Returns the next one. */
  #layTrain(payloads: readonly Uint8Array[], first: number, record: number): number {
    const at = UDP_IN + record * LARGEST_TRAIN;
    const segment = payloads[first]?.length ?? 0;
    let length = 0;
    let next = first;
    for (; next < payloads.length; next++) {
      const payload = payloads[next];
      const isLast = next > first && (payloads[next - 1]?.length ?? 0) < segment;
      if (payload === undefined || payload.length > segment || isLast) break;
      if (length + payload.length > LARGEST_TRAIN) break;
      this.#bytes.set(payload, at + length);
      length += payload.length;
    }
    const row = DATAGRAMS + record * DATAGRAM_SIZE;
    this.#setU32(row + DATAGRAM_OFFSET, at);
    this.#setU32(row + DATAGRAM_LENGTH, length);
    this.#setU32(row + DATAGRAM_SEGMENT, segment);
    this.#setU32(row + DATAGRAM_TOS, 0);
    return next;
  }

  #decide(verdict: FlowVerdict): void {
    const word = encodeVerdict(verdict, (reason, icmp) => this.#drops.indexOf(reason, icmp));
    const rewrite = verdict.type === 'forward' ? verdict.rewrite : undefined;
    this.#rewrites.set(this.#kernel.insertFlow(word, rewrite !== undefined), rewrite);
    if (verdict.type === 'forward') this.#expectReplies(verdict);
    if (verdict.type === 'drop') this.#log.debug('dropping a flow', { reason: verdict.reason });
  }

  /** Forgets what was decided about answers before there was the session to which they belong. */
  #expectReplies({ peer, rewrite }: FlowVerdict & { readonly type: 'forward' }): void {
    if (rewrite?.session === undefined || rewrite.isReply === true) return;
    const isOutbound = this.#u32(CONTROL_KEY + FLOW_WHO) === 0;
    const who = isOutbound ? peer + 1 : 0;
    this.#rewrites.forEachReply(rewrite, who, () => this.#kernel.removeFlow());
  }

  #handleStoppedRead(stop: number, index: number, now: Instant): void {
    switch (stop) {
      case STOP_STAGE: {
        const read = READS + index * READ_SIZE;
        const at = this.#u32(read + READ_OFFSET);
        const bytes = this.#bytes.slice(at, at + this.#u32(read + READ_LENGTH));
        const peer = this.#u32(CONTROL_PEER);
        this.#wanted.add(peer);
        return this.#stage(peer, bytes);
      }
      case STOP_REFUSED:
        return this.#refuse('forSite', (answer) => this.writePacket(answer), now);
      case STOP_LOCAL:
        return this.#queueLocal({ packet: this.#stoppedPacket() });
      case STOP_TOO_BIG: {
        this.#drops.count(DROP_OVERSIZED);
        const error = { type: 'packet-too-big', mtu: this.#u32(CONTROL_MTU) } as const;
        const answer = this.#answer('forSite', error, now);
        if (answer !== undefined) this.writePacket(answer);
        return;
      }
      default:
        throw new BugError(`kernel stopped at a read for ${stop}`);
    }
  }

  #handleStoppedMessage(stop: number, now: Instant): void {
    const peer = this.#u32(CONTROL_PEER);
    switch (stop) {
      case STOP_REFUSED:
        return this.#refuse('forPeer', (answer) => this.sendPacket(peer, answer), now);
      case STOP_LOCAL:
        return this.#queueLocal({ peer, packet: this.#stoppedPacket() });
      default:
        throw new BugError(`kernel stopped at a message for ${stop}`);
    }
  }

  /** Counts the packet at which the kernel stopped, and tells its sender. */
  #refuse(kind: 'forPeer' | 'forSite', reply: (answer: Uint8Array) => void, now: Instant): void {
    const detail = this.#u32(CONTROL_DETAIL);
    this.#drops.count(detail);
    const refusal = this.#drops.refusalAt(detail);
    const answer = refusal === undefined ? undefined : this.#answer(kind, { type: refusal }, now);
    if (answer !== undefined) reply(answer);
  }

  #answer(kind: 'forPeer' | 'forSite', error: IcmpError, now: Instant): Uint8Array | undefined {
    return this.#icmp[kind](error, this.#u32(CONTROL_PACKET), this.#u32(CONTROL_LENGTH), now);
  }

  #stoppedPacket(): Uint8Array {
    const at = this.#u32(CONTROL_PACKET);
    return this.#bytes.slice(at, at + this.#u32(CONTROL_LENGTH));
  }

  #queueLocal(packet: LocalPacket): void {
    if (this.#local.push(packet) !== undefined) this.#drops.count(DROP_QUEUE_FULL);
  }

  /** Copies the datagrams that the kernel has no session for. */
  #queueOthers(fd: number): void {
    const count = this.#u32(CONTROL_OTHERS);
    for (let other = OTHERS; other < OTHERS + count * OTHER_SIZE; other += OTHER_SIZE) {
      const record = this.#u32(other + OTHER_DATAGRAM);
      const path = readSourcePath(this.arena.buffer, record, fd);
      if (path === undefined) continue;
      const at = this.#u32(other);
      const payload = this.#bytes.slice(at, at + this.#u32(other + 4));
      const dropped = this.#datagrams.push({ payload, from: path.remote, path });
      if (dropped !== undefined) this.#drops.count(DROP_QUEUE_FULL);
    }
  }

  #stage(peer: number, read: Uint8Array): void {
    const dropped = this.#staging.add(peer, read);
    for (let i = 0; i < dropped; i++) this.#drops.count(DROP_STAGE_FULL);
  }

  /** Sends what is staged for the peer, if it can be sent and as far as there is room. */
  #flush(peer: number): void {
    this.#flushing.delete(peer);
    if (!this.#peers.isReady(peer) || !this.#staging.has(peer)) return;
    this.#openOut();
    for (;;) {
      if (!this.#hasRoom()) {
        this.#flushing.add(peer);
        break;
      }
      const read = this.#staging.first(peer);
      if (read === undefined) break;
      if (!this.#sendRead(peer, read)) {
        // The session has no messages left (REJECT_AFTER_MESSAGES).
        this.#wanted.add(peer);
        break;
      }
      this.#staging.shift(peer);
    }
    this.#seal();
  }

  #flushBacklogs(): void {
    for (const peer of Array.from(this.#flushing)) this.#flush(peer);
  }

  /** Splits the read for the peer; returns false when its session cannot take it. */
  #sendRead(peer: number, read: Uint8Array): boolean {
    this.#layRead(read);
    this.#kernel.splitFor(0, peer);
    const stop = this.#u32(CONTROL_STOP);
    if (stop === STOP_TOO_BIG) this.#drops.count(DROP_OVERSIZED);
    return stop !== STOP_STAGE;
  }

  /** Makes it the first read record, when those of the device are through. */
  #layRead(read: Uint8Array): void {
    this.#bytes.set(read, TUN_IN);
    this.#setU32(READS + READ_OFFSET, TUN_IN);
    this.#setU32(READS + READ_LENGTH, read.length);
  }

  #hasRoom(): boolean {
    return (
      OUT_END - this.#u32(CONTROL_OUT) >= FLUSH_ROOM_BYTES &&
      MOST_MESSAGES - this.#u32(CONTROL_OUT_MESSAGES) >= FLUSH_ROOM_MESSAGES
    );
  }

  /** Starts a batch in OUT, or goes on with the one that was not taken. */
  #openOut(): void {
    if (this.#isOutOpen) return;
    this.#isOutOpen = true;
    this.#sealed = 0;
    this.#kernel.startOut();
  }

  #seal(): void {
    const messages = this.#u32(CONTROL_OUT_MESSAGES);
    this.#cipher.seal(OUT_MESSAGES + this.#sealed * MESSAGE_SIZE, messages - this.#sealed);
    this.#sealed = messages;
  }

  #u32(at: number): number {
    return this.#view.getUint32(at, true);
  }

  #setU32(at: number, value: number): void {
    this.#view.setUint32(at, value, true);
  }
}

/** A packet without offloads, as the TUN would deliver it. */
function withVnetHeader(packet: Uint8Array): Uint8Array {
  const read = new Uint8Array(VNET_HEADER_SIZE + packet.length);
  read.set(packet, VNET_HEADER_SIZE);
  return read;
}
