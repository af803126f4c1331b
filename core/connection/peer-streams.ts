import type { StreamProtocol } from '../ice/candidate.ts';
import type { SocketAddress } from '../net/socket-address.ts';
import type { DialTarget, StreamId } from '../plugin/streams.ts';
import { elapsed, type Instant, type Millis } from '../sansio/instant.ts';
import { StreamFraming } from '../stun/stream-framing.ts';
import type { PeerIndex } from '../wireguard/outputs.ts';

/** A stream that carries the datagrams of one pair in frames (RFC 4571). */
export interface PeerStream {
  readonly id: StreamId;
  readonly direction: 'dialled' | 'accepted';
  readonly remote: SocketAddress;
  readonly framing: StreamFraming;
  /** Whom we dialled; of an accepted one it shows with the first authentic check. */
  peer: PeerIndex | undefined;
  isOpen: boolean;
}

/** A peer that does not take a stream is not dialled there again for this long. */
const DIAL_SPACING: Millis = 2_000;
const MOST_STREAMS = 1_024;

/** The streams with peers, dialled and accepted. */
export class PeerStreams {
  readonly #byId = new Map<StreamId, PeerStream>();
  readonly #dialledAt = new Map<string, Instant>();

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

  /** Whether the address may be dialled for the peer now; remembers that it is. */
  mayDial(peer: PeerIndex, remote: SocketAddress, now: Instant): boolean {
    const key = `${peer} ${remote}`;
    const dialledAt = this.#dialledAt.get(key);
    if (dialledAt !== undefined && elapsed(dialledAt, now) < DIAL_SPACING) return false;
    if (this.#byId.size >= MOST_STREAMS) return false;
    this.#dialledAt.set(key, now);
    return true;
  }

  add(stream: Omit<PeerStream, 'framing'>): PeerStream {
    const added = { ...stream, framing: new StreamFraming() };
    this.#byId.set(stream.id, added);
    return added;
  }

  remove(id: StreamId): PeerStream | undefined {
    const stream = this.#byId.get(id);
    this.#byId.delete(id);
    return stream;
  }

  /** Takes out the streams of a peer: all, or those in one direction. */
  removePeer(peer: PeerIndex, direction?: PeerStream['direction']): readonly PeerStream[] {
    const removed = [...this.#byId.values()].filter(
      (stream) =>
        stream.peer === peer && (direction === undefined || stream.direction === direction),
    );
    for (const { id } of removed) this.#byId.delete(id);
    if (direction === undefined) {
      for (const key of this.#dialledAt.keys()) {
        if (key.startsWith(`${peer} `)) this.#dialledAt.delete(key);
      }
    }
    return removed;
  }

  isFull(): boolean {
    return this.#byId.size >= MOST_STREAMS;
  }
}

/** Returns how a passive candidate of a peer is dialled. */
export function dialTarget(
  address: SocketAddress,
  protocol: StreamProtocol,
  options: { readonly deviceKey: Uint8Array | undefined; readonly proxy: string | undefined },
): DialTarget {
  const { deviceKey, proxy } = options;
  return {
    protocol,
    address,
    // What travels inside is sealed by WireGuard in any case.
    trust: deviceKey === undefined ? { type: 'any' } : { type: 'pinned', deviceKey },
    ...(proxy === undefined ? {} : { proxy }),
  };
}
