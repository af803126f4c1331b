import type { SocketAddress } from '../net/socket-address.ts';
import type { Source } from '../net/source.ts';
import type { Deadline } from '../sansio/agent.ts';
import type { Crypto } from '../sansio/crypto.ts';
import { after, elapsed, type Instant, type Millis } from '../sansio/instant.ts';
import type { Log } from '../sansio/log.ts';
import { unreachable } from '../sansio/outcome.ts';
import { randomBytes, type Random } from '../sansio/random.ts';
import {
  INITIATION_SPACING,
  KEY_LENGTH,
  REKEY_AFTER_MESSAGES,
  REKEY_AFTER_TIME,
  REKEY_ON_RECEIVE_AFTER_TIME,
  REKEY_TIMEOUT,
  TIMESTAMP_LENGTH,
} from './constants.ts';
import { CookieJar } from './cookie.ts';
import {
  initiate,
  readInitiationPayload,
  readResponse,
  respond,
  wipeInitiation,
  type KeyPair,
  type PendingInitiation,
  type ReceivedInitiation,
  type SessionKeys,
} from './handshake.ts';
import {
  encodeInitiation,
  encodeResponse,
  type CookieReply,
  type Initiation,
  type Response,
} from './messages.ts';
import type { HandshakeFailure, Outputs, PeerIndex } from './outputs.ts';
import { SessionRing, type Session } from './session.ts';
import { isLaterTimestamp, TimestampSource } from './tai64n.ts';
import { Timers } from './timers.ts';

export interface PeerSettings {
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
  /** 32 bytes. */
  readonly presharedKey?: Uint8Array;
  /** Seconds; 0 switches it off. */
  readonly persistentKeepalive: number;
  /** Where to send until the peer is heard from elsewhere. Given again unchanged, it undoes no roaming. */
  readonly endpoint?: SocketAddress;
  /** How long an attempt to get a session may take, from its first message on. */
  readonly rekeyAttemptTime: Millis;
  /** From one initiation to the next; REKEY_TIMEOUT where absent. */
  readonly rekeyTimeout?: Millis;
}

/**
 * What the packet path did for a peer since it last told. Where the order matters, it counts as all
 * receiving first, then all sending.
 */
export interface TransportFacts {
  readonly peer: PeerIndex;
  readonly sentData: boolean;
  readonly sentKeepalive: boolean;
  readonly receivedData: boolean;
  readonly receivedKeepalive: boolean;
  /** Local index of the newest session on which something authentic came. */
  readonly receivedOn?: number | undefined;
  /** Messages sent on the session in use. */
  readonly sendCounter: number;
  /** Where the peer's last authentic message came from, if that is not its endpoint. */
  readonly roamedTo?: SocketAddress | undefined;
  readonly roamedPath?: Source | undefined;
}

export interface PeerStatus {
  readonly endpoint?: SocketAddress;
  readonly lastHandshakeUnixMs?: number;
  readonly hasSession: boolean;
  readonly isHandshaking: boolean;
  /** What the attempt under way would report if it ended now, once there is more to say than silence. */
  readonly suspicion?: Exclude<HandshakeFailure, 'no-response'>;
}

/** Why a message to a tunnel was dropped. */
export type TunnelDropReason =
  | 'initiation-not-authentic'
  | 'initiation-replayed'
  | 'initiation-too-soon'
  | 'response-unexpected'
  | 'response-not-authentic'
  | 'cookie-reply-not-authentic';

/** Who sent a message, and the way back. */
interface Arrival {
  readonly from: SocketAddress;
  readonly path?: Source;
}

/** What all tunnels share. */
export interface TunnelContext {
  readonly crypto: Crypto;
  readonly random: Random;
  readonly log: Log;
  readonly outputs: Outputs;
  unixMs(now: Instant): number;
}

/** Our attempt to get a session. Its timers are `retransmit-handshake` and `give-up-handshake`. */
type Attempt =
  | { readonly type: 'none' }
  /** It must wait, as a handshake message was sent a moment ago. */
  | { readonly type: 'paced' }
  | {
      readonly type: 'initiated';
      readonly initiation: PendingInitiation;
      readonly localIndex: number;
      /** What to report if this comes to nothing. */
      readonly failure: HandshakeFailure;
    };

/** The protocol with one peer: handshakes in both roles, sessions and timers. */
export class Tunnel {
  readonly peer: PeerIndex;
  readonly publicKey: Uint8Array;
  readonly #context: TunnelContext;
  readonly #cookies: CookieJar;
  readonly #timestamps = new TimestampSource();
  readonly #timers: Timers;
  readonly #sessions: SessionRing;
  /** All zero without one (§5.4.3). */
  #presharedKey: Uint8Array = NO_KEY;
  #persistentKeepalive = 0;
  #rekeyAttemptTime: Millis = 0;
  #rekeyTimeout: Millis = REKEY_TIMEOUT;
  /** The endpoint that the settings name; the peer may be elsewhere. */
  #givenEndpoint: SocketAddress | undefined;
  #own: KeyPair;
  /** The secret of the two static keys; `undefined` when the peer's key is our own. */
  #staticStatic: Uint8Array | undefined;
  #endpoint: SocketAddress | undefined;
  #attempt: Attempt = { type: 'none' };
  /** Whether a session was asked for while nobody knew where the peer is. */
  #isWanted = false;
  #handshakeSentAt: Instant | undefined;
  #initiationReceivedAt: Instant | undefined;
  #greatestTimestamp: Uint8Array = NO_TIMESTAMP;
  #lastHandshakeUnixMs: number | undefined;

  constructor(
    context: TunnelContext,
    peer: PeerIndex,
    settings: PeerSettings,
    own: { readonly keys: KeyPair; readonly staticStatic: Uint8Array | undefined },
    now: Instant,
  ) {
    const { crypto, random } = context;
    this.peer = peer;
    this.publicKey = settings.publicKey.slice();
    this.#context = context;
    this.#cookies = new CookieJar(crypto, this.publicKey);
    this.#timers = new Timers(random);
    this.#sessions = new SessionRing(peer, randomBytes(random, 1)[0] ?? 0);
    this.#own = own.keys;
    this.#staticStatic = own.staticStatic;
    this.update(settings, now);
  }

  /** Answers an initiation that names this peer. */
  handleInitiation(
    received: ReceivedInitiation,
    message: Initiation,
    { from, path }: Arrival,
    now: Instant,
  ): TunnelDropReason | undefined {
    const staticStatic = this.#staticStatic;
    if (staticStatic === undefined) return 'initiation-not-authentic';
    const timestamp = readInitiationPayload(received, staticStatic, message.sealedTimestamp);
    if (timestamp === undefined) return 'initiation-not-authentic';
    if (!isLaterTimestamp(timestamp, this.#greatestTimestamp)) return 'initiation-replayed';
    const before = this.#initiationReceivedAt;
    if (before !== undefined && elapsed(before, now) < INITIATION_SPACING) {
      return 'initiation-too-soon';
    }
    const ephemeral = this.#newKeyPair();
    const response = respond(this.#context.crypto, received, this.#presharedKey, {
      ephemeral,
      payload: EMPTY,
    });
    ephemeral.privateKey.fill(0);
    if (response === undefined) return 'initiation-not-authentic';

    this.#greatestTimestamp = timestamp;
    this.#initiationReceivedAt = now;
    this.#timers.onAuthenticatedReceived(now);
    this.#moveTo(from, path);
    const session: Session = {
      localIndex: this.#sessions.indexForResponse(),
      remoteIndex: message.sender,
      role: 'responder',
      createdAt: now,
    };
    this.#announce(session, response.keys, this.#sessions.addResponded(session));
    const { sealedPayload } = response;
    const { publicKey } = ephemeral;
    const payload = encodeResponse({
      sender: session.localIndex,
      receiver: message.sender,
      ephemeral: publicKey,
      sealedEmpty: sealedPayload,
    });
    this.#sendHandshake(payload, session.localIndex, from, now);
    this.#timers.onAuthenticatedSent(now);
    return undefined;
  }

  /** Ends our handshake. A response that does not open changes only the failure to report. */
  handleResponse(
    message: Response,
    { from, path }: Arrival,
    now: Instant,
  ): TunnelDropReason | undefined {
    const attempt = this.#attempt;
    if (attempt.type !== 'initiated' || attempt.localIndex !== message.receiver) {
      return 'response-unexpected';
    }
    const { initiation, localIndex } = attempt;
    const { crypto } = this.#context;
    const response = readResponse(crypto, this.#own, initiation, this.#presharedKey, {
      ephemeral: message.ephemeral,
      sealedPayload: message.sealedEmpty,
    });
    if (!response.ok) {
      if (response.why === 'not-authentic') {
        this.#attempt = { ...attempt, failure: 'preshared-key-differs' };
      }
      return 'response-not-authentic';
    }
    this.#timers.onAuthenticatedReceived(now);
    // We called first: where the response arrived is where the kernel let us call from, today.
    this.#moveTo(from, from === this.#endpoint ? undefined : path);
    const remoteIndex = message.sender;
    const session: Session = { localIndex, remoteIndex, role: 'initiator', createdAt: now };
    this.#announce(session, response.value.keys, this.#sessions.addInitiated(session));
    this.#onHandshakeCompleted(session, now);
    // The responder may not send before it has heard from us (§5.4.6).
    this.#context.outputs.event({ type: 'keepalive-due', peer: this.peer });
    return undefined;
  }

  handleCookieReply(message: CookieReply, now: Instant): TunnelDropReason | undefined {
    if (!this.#cookies.handleReply(message, now)) return 'cookie-reply-not-authentic';
    const attempt = this.#attempt;
    if (attempt.type === 'initiated' && attempt.failure === 'no-response') {
      this.#attempt = { ...attempt, failure: 'cookies-only' };
    }
    return undefined;
  }

  handlePacketWithoutSession(now: Instant): void {
    if (this.#sessions.current === undefined) this.requestHandshake(now);
  }

  handleTransport(facts: TransportFacts, now: Instant): void {
    if (facts.receivedOn !== undefined && this.#sessions.confirm(facts.receivedOn)) {
      const session = this.#sessions.current;
      if (session !== undefined) this.#onHandshakeCompleted(session, now);
    }
    if (facts.roamedTo !== undefined) this.#moveTo(facts.roamedTo, facts.roamedPath);
    if (facts.receivedData || facts.receivedKeepalive) {
      this.#timers.onAuthenticatedReceived(now);
      if (facts.receivedData) this.#timers.onDataReceived(now);
      this.#refreshOnReceive(now);
    }
    if (facts.sentData || facts.sentKeepalive) {
      this.#timers.onAuthenticatedSent(now);
      if (facts.sentData) this.#timers.onDataSent(now);
      this.#refreshOnSend(facts.sendCounter, now);
    }
  }

  /** Fires what is due; a call that comes hours late fires each timer once. */
  handleTimeout(now: Instant): void {
    for (let timer = this.#timers.take(now); timer !== undefined; timer = this.#timers.take(now)) {
      switch (timer) {
        case 'expire-session':
          this.#drop(this.#sessions.takeExpired(now));
          break;
        case 'give-up-handshake':
          this.#giveUp();
          break;
        case 'retransmit-handshake':
          this.#forgetSource();
          this.#sendInitiation(now);
          break;
        case 'new-handshake':
          this.requestHandshake(now);
          break;
        case 'send-keepalive':
          // Without a session there is nothing whose receipt an empty message could confirm.
          if (this.#sessions.current !== undefined) this.#keepAlive(now);
          break;
        case 'persistent-keepalive':
          this.#keepAlive(now);
          break;
        default:
          unreachable(timer);
      }
    }
  }

  /** Starts an attempt to get a session, unless one is under way; without an endpoint once there is one. */
  requestHandshake(now: Instant): void {
    if (this.#attempt.type !== 'none' || this.#staticStatic === undefined) return;
    this.#isWanted = this.#endpoint === undefined;
    if (this.#isWanted) return;
    const sentAt = this.#handshakeSentAt;
    if (sentAt === undefined || after(sentAt, this.#rekeyTimeout) <= now) {
      this.#sendInitiation(now);
    } else {
      this.#attempt = { type: 'paced' };
      this.#timers.onInitiationPaced(after(sentAt, this.#rekeyTimeout));
    }
  }

  /** Applies settings with the same public key; a preshared key counts from the next response on. */
  update(settings: PeerSettings, now: Instant): void {
    const { presharedKey, endpoint, persistentKeepalive } = settings;
    this.#rekeyAttemptTime = settings.rekeyAttemptTime;
    this.#rekeyTimeout = settings.rekeyTimeout ?? REKEY_TIMEOUT;
    this.#presharedKey.fill(0);
    this.#presharedKey = presharedKey?.slice() ?? NO_KEY;
    if (endpoint !== undefined && endpoint !== this.#givenEndpoint) {
      this.#moveTo(endpoint);
      this.#tryThere(now);
    }
    this.#givenEndpoint = endpoint;
    if (persistentKeepalive !== this.#persistentKeepalive) {
      const wasOff = this.#persistentKeepalive === 0;
      this.#persistentKeepalive = persistentKeepalive;
      this.#timers.setPersistentKeepalive(persistentKeepalive * 1000, now);
      if (wasOff) this.#keepAlive(now);
    }
  }

  setEndpoint(endpoint: SocketAddress | undefined, now: Instant): void {
    if (endpoint === this.#endpoint) return;
    this.#endpoint = endpoint;
    this.#tryThere(now);
  }

  /** Ends all sessions and the attempt, as if there had been none; what was seen is refused for ever. */
  endSessions(): void {
    this.#endAttempt();
    this.#isWanted = false;
    this.#handshakeSentAt = undefined;
    this.#drop(this.#sessions.takeAll());
    this.#timers.onSessionsEnded();
  }

  /** Takes another key pair of ours: all sessions end, and the next one may begin at once. */
  setOwnKeys(keys: KeyPair, staticStatic: Uint8Array | undefined): void {
    this.close();
    this.#handshakeSentAt = undefined;
    this.#own = keys;
    this.#staticStatic = staticStatic;
  }

  /** Ends all sessions and forgets the secrets of the peer. */
  close(): void {
    this.#endAttempt();
    this.#drop(this.#sessions.takeAll());
    this.#staticStatic?.fill(0);
    this.#staticStatic = undefined;
  }

  pollTimeout(): Deadline | undefined {
    return this.#timers.next();
  }

  status(): PeerStatus {
    const attempt = this.#attempt;
    const failure = attempt.type === 'initiated' ? attempt.failure : 'no-response';
    return {
      ...(this.#endpoint !== undefined && { endpoint: this.#endpoint }),
      ...(this.#lastHandshakeUnixMs !== undefined && {
        lastHandshakeUnixMs: this.#lastHandshakeUnixMs,
      }),
      hasSession: this.#sessions.current !== undefined,
      isHandshaking: attempt.type !== 'none',
      ...(failure !== 'no-response' && { suspicion: failure }),
    };
  }

  #sendInitiation(now: Instant): void {
    const attempt = this.#attempt;
    if (this.#endpoint === undefined || this.#staticStatic === undefined) {
      if (attempt.type === 'initiated')
        this.#timers.onInitiationPaced(after(now, this.#rekeyTimeout));
      else this.#endAttempt();
      return;
    }
    const payload = this.#timestamps.next(this.#context.unixMs(now));
    const remote = { publicKey: this.publicKey, staticStatic: this.#staticStatic };
    const ephemeral = this.#newKeyPair();
    const { crypto } = this.#context;
    const initiation = initiate(crypto, this.#own, remote, { ephemeral, payload });
    if (initiation === undefined) return this.#endAttempt();

    if (attempt.type === 'initiated') wipeInitiation(attempt.initiation);
    else this.#timers.onAttemptStarted(this.#rekeyAttemptTime, now);
    const failure = attempt.type === 'initiated' ? attempt.failure : 'no-response';
    const localIndex = this.#sessions.reserve();
    this.#attempt = { type: 'initiated', initiation, localIndex, failure };
    const message = encodeInitiation({
      sender: localIndex,
      ephemeral: ephemeral.publicKey,
      sealedStatic: initiation.sealedStatic,
      sealedTimestamp: initiation.sealedPayload,
    });
    this.#sendHandshake(message, localIndex, this.#endpoint, now);
    this.#timers.onInitiationSent(this.#rekeyTimeout, now);
  }

  /** Makes use of an endpoint that was given: for the attempt under way, or for one that waits for it. */
  #tryThere(now: Instant): void {
    if (this.#isWanted) this.requestHandshake(now);
    else this.#repeatInitiation(now);
  }

  /**
   * Sends the next initiation of the attempt at once, as the last one went to another endpoint.
   *
   * Deviation: whitepaper §6.1 lets REKEY_TIMEOUT pass between any two initiations.
   */
  #repeatInitiation(now: Instant): void {
    if (this.#attempt.type !== 'initiated' || this.#endpoint === undefined) return;
    const sentAt = this.#handshakeSentAt;
    if (sentAt === undefined || elapsed(sentAt, now) >= INITIATION_SPACING) {
      this.#sendInitiation(now);
    } else {
      this.#timers.onInitiationPaced(after(sentAt, INITIATION_SPACING));
    }
  }

  #sendHandshake(payload: Uint8Array, sender: number, to: SocketAddress, now: Instant): void {
    this.#cookies.stamp(payload, sender, now);
    this.#handshakeSentAt = now;
    this.#context.outputs.transmit({ peer: this.peer, to, payload });
  }

  #announce(session: Session, keys: SessionKeys, replaced: Session | undefined): void {
    if (replaced !== undefined) this.#reportDropped(replaced);
    const { localIndex, remoteIndex, role } = session;
    const { peer } = this;
    const { outputs } = this.#context;
    outputs.event({ type: 'session-created', peer, localIndex, remoteIndex, ...keys, role });
    this.#timers.onSessionsChanged(this.#sessions.nextExpiry());
  }

  /** The session is current: both sides have its keys. */
  #onHandshakeCompleted(session: Session, now: Instant): void {
    const { peer } = this;
    const { outputs } = this.#context;
    const { localIndex, role } = session;
    this.#endAttempt();
    this.#isWanted = false;
    this.#lastHandshakeUnixMs = this.#context.unixMs(now);
    outputs.event({ type: 'session-activated', peer, localIndex });
    const began = role === 'initiator' ? (this.#handshakeSentAt ?? now) : session.createdAt;
    outputs.event({ type: 'handshake-completed', peer, role, tookMs: elapsed(began, now) });
    this.#context.log.debug('handshake completed', { peer, role });
  }

  #giveUp(): void {
    const cause = this.#attempt.type === 'initiated' ? this.#attempt.failure : 'no-response';
    this.#endAttempt();
    this.#context.outputs.event({ type: 'handshake-failed', peer: this.peer, cause });
    this.#context.log.debug('handshake failed', { peer: this.peer, cause });
  }

  #endAttempt(): void {
    if (this.#attempt.type === 'initiated') wipeInitiation(this.#attempt.initiation);
    this.#attempt = { type: 'none' };
    this.#sessions.release();
    this.#timers.onAttemptEnded();
  }

  /**
   * §6.2: a session that has served its time or its messages is replaced when it is used. With jitter,
   * or two sides that initiated at once would do so again and again.
   */
  #refreshOnSend(sendCounter: number, now: Instant): void {
    const session = this.#sessions.current;
    if (session === undefined) return;
    const age = elapsed(session.createdAt, now);
    const isOld = session.role === 'initiator' && age >= REKEY_AFTER_TIME + this.#timers.jitter;
    if (isOld || sendCounter > REKEY_AFTER_MESSAGES) this.requestHandshake(now);
  }

  /** §6.2: the same for one that only receives and would expire before a reply to it. */
  #refreshOnReceive(now: Instant): void {
    const session = this.#sessions.current;
    if (session?.role !== 'initiator') return;
    const age = elapsed(session.createdAt, now);
    if (age >= REKEY_ON_RECEIVE_AFTER_TIME) this.requestHandshake(now);
  }

  #keepAlive(now: Instant): void {
    if (this.#sessions.current === undefined) this.requestHandshake(now);
    else this.#context.outputs.event({ type: 'keepalive-due', peer: this.peer });
  }

  #moveTo(endpoint: SocketAddress, source?: Source): void {
    const { peer } = this;
    const { outputs } = this.#context;
    if (endpoint !== this.#endpoint) {
      this.#endpoint = endpoint;
      outputs.event({ type: 'endpoint-changed', peer, endpoint });
    }
    if (source !== undefined) outputs.event({ type: 'source-changed', peer, source });
  }

  /** Nobody answers: perhaps routes lead elsewhere by now, where our address of then is a stranger's. */
  #forgetSource(): void {
    const [calledAt, sentAt] = [this.#initiationReceivedAt, this.#handshakeSentAt];
    const hasCalledSince = calledAt !== undefined && sentAt !== undefined && calledAt >= sentAt;
    if (hasCalledSince) return;
    this.#context.outputs.event({ type: 'source-changed', peer: this.peer, source: undefined });
  }

  #drop(sessions: readonly Session[]): void {
    for (const session of sessions) this.#reportDropped(session);
    this.#timers.onSessionsChanged(this.#sessions.nextExpiry());
  }

  #reportDropped({ localIndex }: Session): void {
    this.#context.outputs.event({ type: 'session-dropped', peer: this.peer, localIndex });
  }

  #newKeyPair(): KeyPair {
    const privateKey = randomBytes(this.#context.random, KEY_LENGTH);
    return { privateKey, publicKey: this.#context.crypto.x25519.publicKey(privateKey) };
  }
}

const EMPTY = new Uint8Array(0);
const NO_KEY = new Uint8Array(KEY_LENGTH);
const NO_TIMESTAMP = new Uint8Array(TIMESTAMP_LENGTH);
