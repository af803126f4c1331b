import { socketAddressIp, type SocketAddress } from '../net/socket-address.ts';
import type { Source } from '../net/source.ts';
import type { Deadline } from '../sansio/agent.ts';
import { encodeBase64 } from '../sansio/base64.ts';
import { equalInConstantTime, type Crypto } from '../sansio/crypto.ts';
import type { Instant } from '../sansio/instant.ts';
import type { Log } from '../sansio/log.ts';
import { BugError, failed, ok, unreachable, type Outcome } from '../sansio/outcome.ts';
import type { Random } from '../sansio/random.ts';
import { MOST_PEERS } from './constants.ts';
import { CookieChecker } from './cookie.ts';
import { readInitiation, type KeyPair } from './handshake.ts';
import { decodeMessage, type Initiation, type Message, type Response } from './messages.ts';
import { Outputs, type PeerIndex, type WireguardEvent, type WireguardTransmit } from './outputs.ts';
import { PeerDeadlines } from './peer-deadlines.ts';
import { LoadMeter, SourceRateLimiter } from './rate-limiter.ts';
import { peerOfIndex } from './session.ts';
import {
  Tunnel,
  type PeerSettings,
  type PeerStatus,
  type TransportFacts,
  type TunnelContext,
  type TunnelDropReason,
} from './tunnel.ts';

export type { HandshakeFailure, PeerIndex, WireguardEvent, WireguardTransmit } from './outputs.ts';
export type { PeerSettings, PeerStatus, TransportFacts } from './tunnel.ts';

/** A datagram, its sender, and the way back: where it arrived is where the answer leaves. */
export interface ReceivedMessage {
  readonly payload: Uint8Array;
  readonly from: SocketAddress;
  readonly path?: Source;
}

/** Why a datagram was dropped. */
export type DropReason = (typeof DROP_REASONS)[number] | TunnelDropReason;

export type PeerRefusal = 'invalid-public-key' | 'own-public-key' | 'public-key-in-use';

/**
 * The WireGuard protocol (https://www.wireguard.com/papers/wireguard.pdf) for all peers of one private
 * key: handshakes, cookies, sessions, timers. Transport messages do not pass through here. The packet
 * path seals and opens them with the sessions that the events tell, and hands back facts.
 *
 * A receiver index is (peer index << 8 | session counter), so that finding a peer is indexing. As there
 * are at most 4096 peers, no index equals the STUN magic cookie at the same place of a datagram.
 *
 * Deviations from the whitepaper:
 * - §6.4: traffic does not prolong an attempt, so that a failure is reported in time; the next packet
 *   starts another attempt.
 * - §6.3: keys are wiped when their session reaches REJECT_AFTER_TIME, not two such times later.
 * - §6.1: when the endpoint changes during an attempt, an initiation goes to it at once.
 */
export class Wireguard {
  /** Dropped datagrams by reason. */
  readonly drops: Record<DropReason, number>;
  readonly #context: TunnelContext;
  readonly #outputs = new Outputs();
  readonly #tunnels: (Tunnel | undefined)[] = [];
  readonly #byPublicKey = new Map<string, Tunnel>();
  readonly #deadlines = new PeerDeadlines();
  readonly #load: LoadMeter;
  readonly #sources = new SourceRateLimiter();
  #own: KeyPair;
  #checker: CookieChecker;
  /** Wall-clock time at instant 0. */
  #unixMsAtZero: number;
  #lastNow: Instant;

  /** `privateKey` has 32 bytes; `unixMs` is the wall-clock time at `now`. */
  constructor(
    options: {
      readonly crypto: Crypto;
      readonly random: Random;
      readonly log: Log;
      readonly privateKey: Uint8Array;
      readonly unixMs: number;
    },
    now: Instant,
  ) {
    const { crypto, random, log, privateKey } = options;
    const outputs = this.#outputs;
    this.#context = { crypto, random, log, outputs, unixMs: (at) => this.#unixMsAtZero + at };
    this.#load = new LoadMeter(now);
    this.#own = keyPairOf(crypto, privateKey);
    this.#checker = new CookieChecker(crypto, random, this.#own.publicKey);
    this.#unixMsAtZero = options.unixMs - now;
    this.#lastNow = now;
    this.drops = noDrops();
  }

  /** Takes a handshake message or a cookie reply from anywhere; drops and counts everything else. */
  handleDatagram(datagram: ReceivedMessage, now: Instant): void {
    this.#lastNow = now;
    const message = decodeMessage(datagram.payload);
    const dropped = message.ok ? this.#handleMessage(message.value, datagram, now) : 'malformed';
    if (dropped !== undefined) {
      this.drops[dropped]++;
      this.#context.log.debug('dropped a WireGuard message', { why: dropped });
    }
  }

  /** A packet wants to leave and there is no session for it. */
  handlePacketWithoutSession(peer: PeerIndex, now: Instant): void {
    this.#with(peer, now, (tunnel) => tunnel.handlePacketWithoutSession(now));
  }

  /** To be told after each batch of packets, for each peer that it touched. */
  handleTransport(facts: TransportFacts, now: Instant): void {
    this.#lastNow = now;
    const tunnel = this.#tunnels[facts.peer];
    if (tunnel === undefined) return;
    tunnel.handleTransport(facts, now);
    this.#deadlines.set(facts.peer, tunnel.pollTimeout());
  }

  handleTimeout(now: Instant): void {
    this.#lastNow = now;
    for (;;) {
      const peer = this.#deadlines.duePeer(now);
      if (peer === undefined) return;
      this.#with(peer, now, (tunnel) => tunnel.handleTimeout(now));
    }
  }

  /** The wall clock was set, or is known better. */
  handleWallClock(unixMs: number, now: Instant): void {
    this.#lastNow = now;
    this.#unixMsAtZero = unixMs - now;
  }

  /** Changes our key pair: all sessions end. `wg` gives the same key with every file that it applies. */
  setPrivateKey(privateKey: Uint8Array, now: Instant): void {
    this.#lastNow = now;
    if (equalInConstantTime(privateKey, this.#own.privateKey)) return;
    const { crypto, random } = this.#context;
    this.#own.privateKey.fill(0);
    this.#own = keyPairOf(crypto, privateKey);
    this.#checker = new CookieChecker(crypto, random, this.#own.publicKey);
    for (const tunnel of this.#byPublicKey.values()) {
      tunnel.setOwnKeys(this.#own, this.#staticStaticWith(tunnel.publicKey));
      this.#deadlines.set(tunnel.peer, tunnel.pollTimeout());
    }
  }

  /**
   * Adds a peer or changes its settings, keeping its sessions; under another public key it is another
   * peer and starts anew. A refused change leaves things as they were.
   */
  setPeer(peer: PeerIndex, settings: PeerSettings, now: Instant): Outcome<void, PeerRefusal> {
    if (!Number.isInteger(peer) || peer < 0 || peer >= MOST_PEERS) {
      throw new BugError(`peer index ${peer}`);
    }
    this.#lastNow = now;
    const key = encodeBase64(settings.publicKey);
    const holder = this.#byPublicKey.get(key);
    if (holder !== undefined && holder.peer !== peer) return failed('public-key-in-use');
    if (holder !== undefined) {
      holder.update(settings, now);
      this.#deadlines.set(peer, holder.pollTimeout());
      return ok(undefined);
    }
    if (key === encodeBase64(this.#own.publicKey)) return failed('own-public-key');
    const staticStatic = this.#staticStaticWith(settings.publicKey);
    if (staticStatic === undefined) return failed('invalid-public-key');
    this.removePeer(peer, now);
    const own = { keys: this.#own, staticStatic };
    const tunnel = new Tunnel(this.#context, peer, settings, own, now);
    this.#tunnels[peer] = tunnel;
    this.#byPublicKey.set(key, tunnel);
    this.#deadlines.set(peer, tunnel.pollTimeout());
    return ok(undefined);
  }

  removePeer(peer: PeerIndex, now: Instant): void {
    this.#lastNow = now;
    const tunnel = this.#tunnels[peer];
    if (tunnel === undefined) return;
    tunnel.close();
    this.#tunnels[peer] = undefined;
    this.#byPublicKey.delete(encodeBase64(tunnel.publicKey));
    this.#deadlines.set(peer, undefined);
  }

  /** Sends to another place, or nowhere, until the peer is heard from elsewhere. */
  setEndpoint(peer: PeerIndex, endpoint: SocketAddress | undefined, now: Instant): void {
    this.#with(peer, now, (tunnel) => tunnel.setEndpoint(endpoint, now));
  }

  /** Asks for a new session, also while there is one. */
  requestHandshake(peer: PeerIndex, now: Instant): void {
    this.#with(peer, now, (tunnel) => tunnel.requestHandshake(now));
  }

  /**
   * Ends all sessions and the attempt of a peer, because it said that it goes: no timer of them fires, no
   * failure is reported, and the next handshake may begin at once. Initiations that were seen stay seen.
   * The persistent keepalive rests until then.
   */
  endSessions(peer: PeerIndex, now: Instant): void {
    this.#with(peer, now, (tunnel) => tunnel.endSessions());
  }

  pollTransmit(): WireguardTransmit | undefined {
    return this.#outputs.nextTransmit();
  }

  pollEvent(): WireguardEvent | undefined {
    return this.#outputs.nextEvent();
  }

  pollTimeout(): Deadline | undefined {
    if (!this.#outputs.isEmpty) return { at: this.#lastNow, reason: 'queued output' };
    return this.#deadlines.first();
  }

  peerStatus(peer: PeerIndex): PeerStatus | undefined {
    return this.#tunnels[peer]?.status();
  }

  #handleMessage(
    message: Message,
    datagram: ReceivedMessage,
    now: Instant,
  ): DropReason | undefined {
    switch (message.type) {
      case 'initiation':
        return (
          this.#admit(message, datagram, now) ?? this.#handleInitiation(message, datagram, now)
        );
      case 'response':
        return (
          this.#admit(message, datagram, now) ??
          this.#handOver(message.receiver, now, (to) => to.handleResponse(message, datagram, now))
        );
      case 'cookie-reply':
        return this.#handOver(message.receiver, now, (to) => to.handleCookieReply(message, now));
      case 'transport':
        return 'transport-message';
      default:
        return unreachable(message);
    }
  }

  /** Decides by the MACs alone whether a handshake message is worth the cost of its keys (§5.3). */
  #admit(
    message: Initiation | Response,
    { payload, from, path }: ReceivedMessage,
    now: Instant,
  ): DropReason | undefined {
    if (!this.#checker.hasValidMac1(payload)) return 'invalid-mac1';
    if (!this.#load.count(now)) return undefined;
    if (!this.#checker.hasValidMac2(payload, from, now)) {
      const reply = this.#checker.reply(payload, message.sender, from, now);
      const source = path === undefined ? {} : { source: path };
      this.#outputs.transmit({ peer: undefined, to: from, payload: reply, ...source });
      return 'cookie-demanded';
    }
    return this.#sources.allows(socketAddressIp(from), now) ? undefined : 'source-rate-limited';
  }

  #handleInitiation(
    message: Initiation,
    datagram: ReceivedMessage,
    now: Instant,
  ): DropReason | undefined {
    const received = readInitiation(this.#context.crypto, this.#own, message);
    if (received === undefined) return 'initiation-not-authentic';
    const tunnel = this.#byPublicKey.get(encodeBase64(received.remotePublicKey));
    if (tunnel === undefined) return 'unknown-peer';
    const dropped = tunnel.handleInitiation(received, message, datagram, now);
    this.#deadlines.set(tunnel.peer, tunnel.pollTimeout());
    return dropped;
  }

  /** Hands a message to the tunnel that its receiver index names. */
  #handOver(
    receiver: number,
    now: Instant,
    handle: (tunnel: Tunnel) => DropReason | undefined,
  ): DropReason | undefined {
    let dropped: DropReason | undefined = 'unknown-receiver';
    this.#with(peerOfIndex(receiver), now, (tunnel) => {
      dropped = handle(tunnel);
    });
    return dropped;
  }

  /** Changes of a tunnel go through here, so that its deadline is known. */
  #with(peer: PeerIndex, now: Instant, change: (tunnel: Tunnel) => void): void {
    this.#lastNow = now;
    const tunnel = this.#tunnels[peer];
    if (tunnel === undefined) return;
    change(tunnel);
    this.#deadlines.set(peer, tunnel.pollTimeout());
  }

  /** `undefined` for our own key and for a low-order point, with which there can be no session. */
  #staticStaticWith(publicKey: Uint8Array): Uint8Array | undefined {
    if (encodeBase64(publicKey) === encodeBase64(this.#own.publicKey)) return undefined;
    return this.#context.crypto.x25519.sharedSecret(this.#own.privateKey, publicKey);
  }
}

const DROP_REASONS = [
  'malformed',
  'transport-message',
  'invalid-mac1',
  'cookie-demanded',
  'source-rate-limited',
  'unknown-peer',
  'unknown-receiver',
] as const;

function noDrops(): Record<DropReason, number> {
  return {
    malformed: 0,
    'transport-message': 0,
    'invalid-mac1': 0,
    'cookie-demanded': 0,
    'source-rate-limited': 0,
    'unknown-peer': 0,
    'unknown-receiver': 0,
    'initiation-not-authentic': 0,
    'initiation-replayed': 0,
    'initiation-too-soon': 0,
    'response-unexpected': 0,
    'response-not-authentic': 0,
    'cookie-reply-not-authentic': 0,
  };
}

function keyPairOf(crypto: Crypto, privateKey: Uint8Array): KeyPair {
  return { privateKey: privateKey.slice(), publicKey: crypto.x25519.publicKey(privateKey) };
}
