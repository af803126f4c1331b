import type { SocketAddress } from '../net/socket-address.ts';
import type { StreamId } from '../plugin/streams.ts';
import type { Deadline } from '../sansio/agent.ts';
import { ExpiringMap } from '../sansio/expiring-map.ts';
import type { Instant, Millis } from '../sansio/instant.ts';
import { StreamFraming } from '../stun/stream-framing.ts';
import type { PeerIndex } from '../wireguard/outputs.ts';

/** A stream that carries the datagrams of one pair in frames (RFC 4571). */
export interface PeerStream {
  readonly id: StreamId;
  readonly direction: 'dialled' | 'accepted';
  readonly remote: SocketAddress;
  readonly framing: StreamFraming;
  /** Whom we dialled; of an accepted one, whose check came on it, which may be a copy of one. */
  peer: PeerIndex | undefined;
  isOpen: boolean;
}

/** A peer that does not take a stream is not dialled there again for this long. */
const DIAL_SPACING: Millis = 2_000;
/** Who connects has answered a check of ours by then. */
const STRANGER_LIFETIME: Millis = 10_000;
/** Bytes: checks have a tenth of it, handshakes less. */
const LONGEST_OF_STRANGERS = 2_048;
const MOST_STRANGERS = 64;
const MOST_DIALLED_PER_PEER = 4;
const MOST_ACCEPTED_PER_PEER = 4;
const MOST_STREAMS = 1_024;

/** The streams with peers, dialled and accepted. */
export class PeerStreams {
  readonly #byId = new Map<StreamId, PeerStream>();
  readonly #dialled = new ExpiringMap<string, true>(MOST_STREAMS, 'dial again');
  readonly #strangers = new ExpiringMap<StreamId, true>(MOST_STREAMS, 'close stranger');

  get(id: StreamId): PeerStream | undefined {
    return this.#byId.get(id);
  }

  /** Returns the open or opening stream of a pair. */
  find(
    peer: PeerIndex,
    direction: PeerStream['direction'],
    remote: SocketAddress,
  ): PeerStream | undefined {
    for (const stream of this.#byId.values()) {
      const isIt =
        stream.peer === peer && stream.direction === direction && stream.remote === remote;
      if (isIt) return stream;
    }
    return undefined;
  }

  /** Adds a stream that is being dialled; returns false where it must not, being just tried, or too many. */
  dial(id: StreamId, peer: PeerIndex, remote: SocketAddress, now: Instant): boolean {
    this.#dialled.handleTimeout(now);
    const key = `${peer} ${remote}`;
    if (this.#dialled.has(key) || this.#byId.size >= MOST_STREAMS) return false;
    if (this.#of(peer, 'dialled').length >= MOST_DIALLED_PER_PEER) return false;
    this.#dialled.set(key, true, now, DIAL_SPACING);
    const framing = new StreamFraming();
    this.#byId.set(id, { id, direction: 'dialled', remote, framing, peer, isOpen: false });
    return true;
  }

  /** Adds a stream of somebody; returns false where there are too many. */
  accept(id: StreamId, remote: SocketAddress, now: Instant): boolean {
    const isFull = this.#byId.size >= MOST_STREAMS || this.#strangers.size >= MOST_STRANGERS;
    if (isFull) return false;
    const framing = new StreamFraming();
    framing.longest = LONGEST_OF_STRANGERS;
    const direction = 'accepted';
    this.#byId.set(id, { id, direction, remote, framing, peer: undefined, isOpen: true });
    this.#strangers.set(id, true, now, STRANGER_LIFETIME);
    return true;
  }

  /**
   * A check of this peer came on the accepted stream: our answers and checks for it may leave there. It
   * stays a stranger until `prove`. Returns false where the peer has enough of them.
   */
  identify(stream: PeerStream, peer: PeerIndex): boolean {
    if (this.#of(peer, 'accepted').length >= MOST_ACCEPTED_PER_PEER) return false;
    stream.peer = peer;
    return true;
  }

  /** A check of ours was answered on the stream. */
  prove(stream: PeerStream): void {
    stream.framing.longest = 0xffff;
    this.#strangers.delete(stream.id);
  }

  remove(id: StreamId): PeerStream | undefined {
    const stream = this.#byId.get(id);
    this.#byId.delete(id);
    this.#strangers.delete(id);
    return stream;
  }

  /** Takes out the streams of a peer: all, or those in one direction. */
  removePeer(peer: PeerIndex, direction?: PeerStream['direction']): readonly StreamId[] {
    const removed = this.#of(peer, direction).map(({ id }) => id);
    for (const id of removed) this.remove(id);
    return removed;
  }

  /** Takes out the streams on which nobody showed who it is. */
  handleTimeout(now: Instant): readonly PeerStream[] {
    const strangers = this.#strangers.handleTimeout(now);
    return strangers.flatMap(([id]) => this.remove(id) ?? []);
  }

  pollTimeout(): Deadline | undefined {
    return this.#strangers.pollTimeout();
  }

  /** Linear, as there are few streams and these are asked for with checks only. */
  #of(peer: PeerIndex, direction?: PeerStream['direction']): readonly PeerStream[] {
    return [...this.#byId.values()].filter(
      (stream) => stream.peer === peer && (direction ?? stream.direction) === stream.direction,
    );
  }
}
