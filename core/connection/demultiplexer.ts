import type { ReceivedDatagram } from '../fastpath/packet-path.ts';
import type { BaseId } from '../ice/agent.ts';
import type { Candidate } from '../ice/candidate.ts';
import { ipFamily, isUnicast } from '../net/ip-address.ts';
import type { IpPrefix } from '../net/ip-prefix.ts';
import { PrefixTable } from '../net/prefix-table.ts';
import { socketAddressIp, type SocketAddress } from '../net/socket-address.ts';
import type { Crypto } from '../sansio/crypto.ts';
import { ExpiringMap } from '../sansio/expiring-map.ts';
import { encodeHex } from '../sansio/hex.ts';
import type { Instant, Millis } from '../sansio/instant.ts';
import { encodeUtf8 } from '../sansio/utf8.ts';
import { decodeStun, isStun, type ReceivedStun } from '../stun/message.ts';
import { decodeChannelData, isChannelData } from '../turn/channel-data.ts';
import { formatBase } from './base.ts';
import type { LocalCandidates } from './local-candidates.ts';
import type { PeerStream, PeerStreams } from './peer-streams.ts';
import type { Peer } from './peer.ts';
import type { Relay } from './relay.ts';
import type { Relays } from './relays.ts';
import type { Route } from './route.ts';

/** A datagram that is WireGuard's, unwrapped, with the way back. */
export interface TunnelDatagram {
  readonly payload: Uint8Array;
  readonly from: SocketAddress;
  readonly route: Route;
}

/** What something that came turned out to be. */
export type Arrived =
  | { readonly type: 'tunnel'; readonly datagram: TunnelDatagram }
  /** A connectivity check or the answer to one; whether it is authentic the ICE agent finds out. */
  | {
      readonly type: 'check';
      readonly peer: Peer;
      readonly message: ReceivedStun;
      readonly base: BaseId;
      readonly from: SocketAddress;
    }
  /** A message of the server itself. */
  | { readonly type: 'relay'; readonly relay: Relay; readonly message: Uint8Array }
  | { readonly type: 'nothing' };

/** Checks of ours that may still be answered. */
const CHECK_LIFETIME: Millis = 10_000;
const MOST_CHECKS = 16_384;

const DROPS = [
  'stun-malformed',
  'stun-unknown-peer',
  'stun-unexpected-answer',
  'channel-unknown',
  'relayed-without-channel',
  'stream-of-stranger',
  'path-through-tunnel',
] as const;

type Drop = (typeof DROPS)[number];

/**
 * Tells STUN, TURN and WireGuard apart, and whose a check is. What comes from the address of a relay is the
 * relay's if it looks so. Of the rest STUN shows by its magic cookie, which no receiver index of ours
 * equals: a request names the peer by its user name, an answer by the transaction.
 */
export class Demultiplexer {
  readonly drops: Record<Drop, number> = noDrops();
  readonly #relays: Relays;
  readonly #streams: PeerStreams;
  readonly #local: LocalCandidates;
  readonly #crypto: Crypto;
  readonly #byFragment = new Map<string, Peer>();
  /** Whose checks were sent, by transaction. */
  readonly #checks = new ExpiringMap<string, Peer>(MOST_CHECKS, 'check unanswered');
  #tunnel = new PrefixTable<true>();

  constructor(parts: {
    readonly relays: Relays;
    readonly streams: PeerStreams;
    readonly local: LocalCandidates;
    readonly crypto: Crypto;
  }) {
    this.#relays = parts.relays;
    this.#streams = parts.streams;
    this.#local = parts.local;
    this.#crypto = parts.crypto;
  }

  addPeer(peer: Peer): void {
    this.#byFragment.set(peer.secrets.localIce.usernameFragment, peer);
  }

  removePeer(peer: Peer): void {
    this.#byFragment.delete(peer.secrets.localIce.usernameFragment);
    for (const [key, owner] of this.#checks.entries()) {
      if (owner === peer) this.#checks.delete(key);
    }
  }

  /** The networks that lead into the tunnel: what is there is no way to a peer. */
  setTunnelNetworks(networks: readonly IpPrefix[]): void {
    this.#tunnel = new PrefixTable();
    for (const network of networks) this.#tunnel.insert(network, true);
  }

  /**
   * Returns the candidates that may be tried. A path through the tunnel would be of the best kind until the
   * tunnel is gone; and what a peer names must not make us call ourselves or many.
   */
  usable(candidates: readonly Candidate[]): readonly Candidate[] {
    return candidates.filter(
      ({ address }) =>
        isUnicast(socketAddressIp(address)) &&
        !this.#isInTunnel(address) &&
        !this.#local.isOurs(address),
    );
  }

  /** A message of the ICE agent leaves: if it is a check, its answer is this peer's. */
  handleSent(message: Uint8Array, peer: Peer, now: Instant): void {
    if ((message[0] ?? 0) !== REQUEST) return;
    this.#checks.set(encodeHex(message.subarray(8, 20)), peer, now, CHECK_LIFETIME);
  }

  handleTimeout(now: Instant): void {
    this.#checks.handleTimeout(now);
  }

  /** A datagram that came on the UDP socket. */
  ofDatagram({ payload, from, path }: ReceivedDatagram, now: Instant): Arrived {
    const relay = this.#relays.at(from);
    if (relay !== undefined) {
      if (isChannelData(payload)) return this.ofChannelData(relay, payload, now);
      if (isStun(payload)) return { type: 'relay', relay, message: payload };
    }
    const { local, ifindex } = path;
    const route: Route = {
      remote: from,
      source: {
        ...(local === undefined ? {} : { local }),
        ...(ifindex === undefined ? {} : { ifindex }),
      },
    };
    if (!isStun(payload)) return { type: 'tunnel', datagram: { payload, from, route } };
    return this.#ofStun(payload, from, this.#local.baseOf(local), undefined);
  }

  /** A frame that came on a stream with a peer. */
  ofFrame(stream: PeerStream, payload: Uint8Array): Arrived {
    const { remote, id, direction } = stream;
    if (isStun(payload)) {
      return this.#ofStun(payload, remote, formatBase({ type: direction }), stream);
    }
    const route = { remote, stream: id };
    return { type: 'tunnel', datagram: { payload, from: remote, route } };
  }

  ofChannelData(relay: Relay, message: Uint8Array, now: Instant): Arrived {
    const data = decodeChannelData(message);
    const peer = data && relay.peerOf(data.channel);
    if (data === undefined || peer === undefined) return this.#drop('channel-unknown');
    relay.handleTraffic(data.channel, now);
    if (isStun(data.payload)) return this.ofIndication(relay, peer, data.payload);
    const route = this.#relays.routeTo(relay.id, peer, now);
    if (route === undefined) return this.#drop('channel-unknown');
    return { type: 'tunnel', datagram: { payload: data.payload, from: peer, route } };
  }

  /**
   * What a peer without a channel sent. Anybody who knows the address of the relay can forge an indication
   * (RFC 8656 §11.5), so only checks are taken, which show who sent them; the answer binds a channel.
   */
  ofIndication(relay: Relay, from: SocketAddress, payload: Uint8Array): Arrived {
    if (!isStun(payload)) return this.#drop('relayed-without-channel');
    const family = ipFamily(socketAddressIp(from));
    return this.#ofStun(
      payload,
      from,
      formatBase({ type: 'relay', relay: relay.id, family }),
      undefined,
    );
  }

  #ofStun(
    payload: Uint8Array,
    from: SocketAddress,
    base: BaseId,
    stream: PeerStream | undefined,
  ): Arrived {
    if (this.#isInTunnel(from)) return this.#drop('path-through-tunnel');
    const decoded = decodeStun(payload);
    if (!decoded.ok) return this.#drop('stun-malformed');
    const message = decoded.value;
    const isRequest = message.class === 'request';
    const peer = isRequest
      ? this.#byFragment.get(message.attributes.username?.split(':', 1)[0] ?? '')
      : this.#checks.get(encodeHex(message.transactionId));
    if (peer === undefined) {
      return this.#drop(isRequest ? 'stun-unknown-peer' : 'stun-unexpected-answer');
    }
    if (stream !== undefined && !this.#isOf(stream, peer, message)) {
      return this.#drop('stream-of-stranger');
    }
    return { type: 'check', peer, message, base, from };
  }

  /** Whose an accepted stream is shows with the first authentic check on it. */
  #isOf(stream: PeerStream, peer: Peer, message: ReceivedStun): boolean {
    if (stream.peer !== undefined) return stream.peer === peer.index;
    const key = encodeUtf8(peer.secrets.localIce.password);
    if (!message.hasValidIntegrity(key, this.#crypto)) return false;
    return this.#streams.identify(stream, peer.index);
  }

  #isInTunnel(address: SocketAddress): boolean {
    return this.#tunnel.lookup(socketAddressIp(address)) === true;
  }

  #drop(why: Drop): Arrived {
    this.drops[why]++;
    return NOTHING;
  }
}

/** The first byte of a binding request. */
const REQUEST = 0;

const NOTHING: Arrived = { type: 'nothing' };

function noDrops(): Record<Drop, number> {
  return Object.fromEntries(DROPS.map((drop) => [drop, 0])) as Record<Drop, number>;
}
