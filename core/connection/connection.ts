import { IceAgent, type BaseId, type IceTransmit, type PairId } from '../ice/agent.ts';
import { ICE_TIMEOUT } from '../ice/constants.ts';
import type { ValidPair } from '../ice/agent.ts';
import type { Candidate } from '../ice/candidate.ts';
import type { SocketAddress } from '../net/socket-address.ts';
import type { GoodbyeReason, PathKind } from '../peering/message.ts';
import { sooner, type Deadline } from '../sansio/agent.ts';
import type { Crypto } from '../sansio/crypto.ts';
import { after, elapsed, type Instant, type Millis } from '../sansio/instant.ts';
import { randomFraction, type Random } from '../sansio/random.ts';
import { TimerTable } from '../sansio/timer-table.ts';
import type { ReceivedStun } from '../stun/message.ts';
import { DOUBT_AFTER, Liveness, LIVENESS_INTERVAL, SILENT_AFTER } from './liveness.ts';
import type { PairSecrets } from './pair-secrets.ts';
import { bestOf, isBetter, isSamePair, pathKindOf, tierOf, type IsStream } from './path-choice.ts';

/** Without packets for this long a connection idles. Longer than ICE_TIMEOUT: a dead path is found first. */
export const IDLE_AFTER: Millis = 20_000;

/** From a pair in use to a session; the attempts of WireGuard have the same limit. */
export const SESSION_TIMEOUT: Millis = 15_000;

/** NAT mappings live 30 s or more (RFC 4787 §4.3 asks for 120). */
const IDLE_KEEPALIVE: Millis = 25_000;
/** The spare pair of a connection in use. */
const SPARE_KEEPALIVE: Millis = 5_000;
/** While in doubt the other pairs are asked this often whether they would do. */
const SPARE_DOUBT_INTERVAL: Millis = 250;
/** How often a connection on a poorer path looks for a better one. */
const RECHECK_INTERVAL: Millis = 30_000;
/** The controlled side leaves the first handshake to the other one for this long. */
const HANDSHAKE_PATIENCE: Millis = 1_000;
/** UDP is given this long before streams are dialled. */
const STREAM_PATIENCE: Millis = 1_000;
/** Between attempts, drawn from [0, x]: x doubles from the first to the last. */
const FIRST_RETRY: Millis = 1_000;
const LAST_RETRY: Millis = 60_000;
/** Packets that wait for a path start an attempt, this long after the last one failed. */
const WANTED_RETRY: Millis = 1_000;
/** Pairs that are asked beside the one in use. */
const MOST_SPARES = 3;

export interface ConnectionOptions {
  readonly secrets: PairSecrets;
  readonly isStream: IsStream;
  readonly random: Random;
  readonly crypto: Pick<Crypto, 'hmacSha1'>;
}

export type ConnectionState =
  /** Nothing is known of where the peer is, or it said goodbye. */
  'waiting' | 'connecting' | 'connected' | 'idle' | 'failed';

/** Why a connection failed: no pair answered, all fell silent, or WireGuard came to no session. */
export type ConnectionFailure =
  | 'no-candidates'
  | 'no-answer'
  | 'path-lost'
  | 'no-session'
  | 'preshared-key-differs'
  | 'cookies-only';

export type ConnectionEvent =
  /** Packets go over this pair from now on. */
  | { readonly type: 'path-selected'; readonly pair: ValidPair; readonly why: SelectionReason }
  /** No pair is in use. */
  | { readonly type: 'path-lost' }
  /** It is for this side to start a handshake now. */
  | { readonly type: 'handshake-due' }
  /** The peer should be told our candidates, as an attempt begins. */
  | { readonly type: 'signal-due' }
  | { readonly type: 'failed'; readonly why: ConnectionFailure }
  /** Streams to the peer are worth dialling, or no longer. */
  | { readonly type: 'streams-wanted'; readonly wanted: boolean };

export type SelectionReason =
  'first' | 'better' | 'silence' | 'nominated by the peer' | 'base removed';

const TIMERS = [
  'look at the path',
  'keep alive',
  'keep spare alive',
  'ask spares',
  'idle',
  'look for a better path',
  'session',
  'handshake',
  'streams',
  'retry',
] as const;

/**
 * The connection with one peer: its ICE agent, which pair of it is in use, and whether that works. The
 * controlling side selects and nominates; the controlled side follows, and leaves a silent pair by itself,
 * as each side sees first what it cannot send.
 */
export class Connection {
  readonly #options: ConnectionOptions;
  readonly #agent: IceAgent;
  readonly #liveness = new Liveness();
  readonly #timers = new TimerTable(TIMERS);
  readonly #events: ConnectionEvent[] = [];
  #state: ConnectionState = 'waiting';
  #selected: ValidPair | undefined;
  #why: string = 'nothing is known of where the peer is';
  #lastNow: Instant;
  #lastPacketAt: Instant;
  #failures = 0;
  #failedAt: Instant | undefined;
  #hasSession = false;
  /** Whether a silent path without another one had everything tried again. */
  #isSearching = false;
  #wantsStreams = false;

  constructor(options: ConnectionOptions, now: Instant) {
    const { secrets, random, crypto } = options;
    this.#options = options;
    this.#lastNow = now;
    this.#lastPacketAt = now;
    this.#agent = new IceAgent(
      { role: secrets.role, local: secrets.localIce, remote: secrets.remoteIce, random, crypto },
      now,
    );
  }

  get state(): ConnectionState {
    return this.#state;
  }

  get selected(): ValidPair | undefined {
    return this.#selected;
  }

  /** How the connection came to its state or path, for people. */
  get why(): string {
    return this.#why;
  }

  get kind(): PathKind | undefined {
    return this.#selected === undefined
      ? undefined
      : pathKindOf(this.#selected, this.#options.isStream);
  }

  /** The pairs that were answered lately beside the one in use, the best first. */
  alternatives(): readonly ValidPair[] {
    const { isStream } = this.#options;
    return this.#agent
      .validPairs()
      .filter((pair) => !isSamePair(pair, this.#selected))
      .sort((a, b) => tierOf(a, isStream) - tierOf(b, isStream) || a.rtt - b.rtt);
  }

  addLocalCandidate(candidate: Candidate, base: BaseId, now: Instant): void {
    this.#agent.addLocalCandidate(candidate, base, now);
    this.#settle(now);
  }

  removeBase(base: BaseId, now: Instant): void {
    this.#agent.removeBase(base, now);
    this.#settle(now);
  }

  /** What the peer says where it is, or was when we last knew; the first word of it starts an attempt. */
  setRemoteCandidates(candidates: readonly Candidate[], now: Instant): void {
    this.#agent.setRemoteCandidates(candidates, now);
    if (this.#state === 'waiting' || this.#state === 'failed') {
      this.#failures = 0;
      this.#start(now);
    }
    this.#settle(now);
  }

  /** The peer began anew: what it had of us is gone. */
  handlePeerRestart(now: Instant): void {
    this.#events.push({ type: 'signal-due' });
    this.#hasSession = false;
    if (this.#selected === undefined) this.#start(now);
    else this.#expectSession(now);
    this.#settle(now);
  }

  handleStun(
    received: { message: ReceivedStun; base: BaseId; from: SocketAddress },
    now: Instant,
  ): void {
    this.#agent.handleStun(received, now);
    const pair = { base: received.base, remote: received.from };
    if (isSamePair(pair, this.#selected)) {
      const heardAt = this.#find(pair)?.heardAt;
      if (heardAt === now) this.#liveness.handleHeard(now);
    }
    this.#settle(now);
  }

  /** Packets went or came. `pair` is where the last authentic one came from, if not on the pair in use. */
  handleTransport(
    facts: { sent: boolean; received: boolean; elsewhere: boolean },
    now: Instant,
  ): void {
    this.#lastNow = now;
    if (facts.received && !facts.elsewhere) this.#liveness.handleHeard(now);
    if (facts.sent) {
      this.#liveness.handleSent(now);
      if (this.#timers.at('look at the path') === undefined && this.#selected !== undefined) {
        this.#timers.set('look at the path', after(now, LIVENESS_INTERVAL));
      }
    }
    if (facts.sent || facts.received) this.#handleActivity(now);
  }

  /** A packet waits for a session or a path. */
  wake(now: Instant): void {
    this.#handleActivity(now);
    if (this.#state === 'waiting' || this.#state === 'failed') {
      const earliest = after(
        this.#failedAt ?? now,
        this.#failedAt === undefined ? 0 : WANTED_RETRY,
      );
      if (earliest <= now) this.#start(now);
      else if ((this.#timers.at('retry') ?? earliest) >= earliest)
        this.#timers.set('retry', earliest);
    }
    this.#settle(now);
  }

  /** WireGuard has a session. */
  handleSession(now: Instant): void {
    this.#lastNow = now;
    this.#hasSession = true;
    this.#failures = 0;
    this.#timers.clear('session');
    this.#timers.clear('handshake');
  }

  handleHandshakeFailed(why: ConnectionFailure, now: Instant): void {
    this.#hasSession = false;
    if (this.#state === 'connected' || this.#state === 'idle') this.#fail(why, now);
    this.#settle(now);
  }

  /** The peer goes: nothing is kept of the path, and no timeout will say so again. */
  handleGoodbye(reason: GoodbyeReason, now: Instant): void {
    this.#drop(now);
    this.#state = 'waiting';
    this.#why = `the peer said goodbye: ${reason}`;
    this.#failures = reason === 'restarting' ? 0 : MOST_DOUBLINGS;
    this.#failedAt = now;
    this.#scheduleRetry(now);
    this.#settle(now);
  }

  /** What carried the pair is gone: a stream closed, or the relay refuses the peer. */
  handleBroken(pair: PairId, now: Instant): void {
    this.#agent.invalidate(pair, now);
    if (isSamePair(pair, this.#selected)) this.#replaceSelected(now);
    this.#settle(now);
  }

  /** What carries the pair is there now: its check goes out at once. */
  handleOpened(pair: PairId, now: Instant): void {
    this.#agent.probe(pair, now);
    this.#settle(now);
  }

  /** Our addresses or routes changed: all paths are doubted. */
  handleNetworkChange(now: Instant): void {
    if (this.#selected !== undefined) this.#probe(this.#selected, now);
    this.#failures = 0;
    if (this.#state === 'failed') this.#start(now);
    else if (this.#state !== 'waiting') this.#agent.recheck(now);
    this.#events.push({ type: 'signal-due' });
    this.#settle(now);
  }

  handleTimeout(now: Instant): void {
    this.#agent.handleTimeout(now);
    this.#settle(now);
    for (const timer of TIMERS) {
      if (!this.#timers.isDue(timer, now)) continue;
      this.#timers.clear(timer);
      this.#handleTimer(timer, now);
    }
    this.#settle(now);
  }

  pollTransmit(): IceTransmit | undefined {
    return this.#agent.pollTransmit();
  }

  pollEvent(): ConnectionEvent | undefined {
    return this.#events.shift();
  }

  pollTimeout(): Deadline | undefined {
    if (this.#events.length > 0) return { at: this.#lastNow, reason: 'queued' };
    return sooner(this.#agent.pollTimeout(), this.#timers.next());
  }

  #handleTimer(timer: (typeof TIMERS)[number], now: Instant): void {
    switch (timer) {
      case 'look at the path':
        return this.#look(now);
      case 'keep alive':
        return this.#keepAlive(now);
      case 'keep spare alive':
        return this.#keepSpareAlive(now);
      case 'ask spares':
        return this.#askSpares(now);
      case 'idle':
        return this.#handleQuiet(now);
      case 'look for a better path':
        return this.#recheck(now);
      case 'session':
        return this.#fail('no-session', now);
      case 'handshake':
        this.#events.push({ type: 'handshake-due' });
        return;
      case 'streams':
        return this.#wantStreams(true);
      case 'retry':
        return this.#start(now);
    }
  }

  /** Carries what the agent says until it is silent. */
  #settle(now: Instant): void {
    this.#lastNow = now;
    for (let event = this.#agent.pollEvent(); event; event = this.#agent.pollEvent()) {
      switch (event.type) {
        case 'pair-valid':
        case 'pair-answered':
          this.#handleAnswered(event.pair, now);
          break;
        case 'nominated':
          if (!isSamePair(event.pair, this.#selected)) {
            this.#select(event.pair, 'nominated by the peer', now);
          }
          break;
        case 'pair-gone':
          if (isSamePair(event.pair, this.#selected)) this.#replaceSelected(now);
          break;
        case 'failed':
          if (this.#state === 'connecting') this.#fail('no-answer', now);
          break;
      }
    }
  }

  #start(now: Instant): void {
    this.#timers.clear('retry');
    this.#state = 'connecting';
    this.#why = 'looking for a path';
    this.#agent.recheck(now);
    this.#events.push({ type: 'signal-due' });
    this.#timers.set('streams', after(now, STREAM_PATIENCE));
  }

  #handleAnswered(pair: ValidPair, now: Instant): void {
    if (isSamePair(pair, this.#selected)) {
      this.#selected = pair;
      this.#isSearching = false;
      this.#liveness.handleHeard(now);
      return;
    }
    // An attempt that was given up is resumed by a peer that calls.
    if (this.#state === 'failed' || this.#state === 'waiting') this.#start(now);
    if (this.#options.secrets.role === 'controlled') return;
    if (this.#selected === undefined) this.#select(pair, 'first', now);
    else if (isBetter(pair, this.#selected, this.#options.isStream)) {
      this.#select(pair, 'better', now);
    }
  }

  #select(pair: ValidPair, why: SelectionReason, now: Instant): void {
    const isFirst = this.#selected === undefined;
    this.#selected = pair;
    this.#state = 'connected';
    this.#why = why;
    this.#isSearching = false;
    this.#liveness.reset();
    this.#timers.clear('retry');
    this.#lastPacketAt = now;
    if (this.#options.secrets.role === 'controlling') {
      this.#agent.nominate(pair, now);
      // Until it is answered the other side may not know.
      this.#liveness.handleSent(now);
    }
    this.#events.push({ type: 'path-selected', pair, why });
    if (isFirst || !this.#hasSession) this.#expectSession(now);
    this.#timers.set('idle', after(now, IDLE_AFTER));
    this.#timers.set('keep alive', after(now, IDLE_KEEPALIVE));
    this.#timers.set('keep spare alive', after(now, SPARE_KEEPALIVE));
    this.#timers.set('look at the path', after(now, LIVENESS_INTERVAL));
    this.#watchForBetter(now);
  }

  /** From here on there is a session within its time, or the connection has failed. */
  #expectSession(now: Instant): void {
    if (this.#hasSession) return;
    if (this.#timers.at('session') === undefined) {
      this.#timers.set('session', after(now, SESSION_TIMEOUT));
    }
    if (this.#options.secrets.role === 'controlling') this.#events.push({ type: 'handshake-due' });
    else this.#timers.set('handshake', after(now, HANDSHAKE_PATIENCE));
  }

  #watchForBetter(now: Instant): void {
    const pair = this.#selected;
    if (pair === undefined) return;
    const isDirect = pathKindOf(pair, this.#options.isStream) === 'direct';
    if (isDirect) this.#timers.clear('look for a better path');
    else this.#timers.set('look for a better path', after(now, RECHECK_INTERVAL));
    if (!this.#options.isStream(pair.base)) this.#wantStreams(false);
  }

  #wantStreams(wanted: boolean): void {
    this.#timers.clear('streams');
    if (wanted === this.#wantsStreams) return;
    this.#wantsStreams = wanted;
    this.#events.push({ type: 'streams-wanted', wanted });
  }

  #look(now: Instant): void {
    const pair = this.#selected;
    if (pair === undefined) return;
    const silence = this.#liveness.silence(now);
    if (silence >= DOUBT_AFTER) {
      this.#agent.probe(pair, now);
      if (this.#timers.at('ask spares') === undefined) this.#askSpares(now);
    }
    if (silence >= ICE_TIMEOUT) return this.#fail('path-lost', now);
    if (silence >= SILENT_AFTER && this.#leaveSilent(pair, now)) return;
    const next = this.#liveness.nextLook(now);
    if (next !== undefined) this.#timers.set('look at the path', next);
  }

  /** Moves to a pair that answers now; without one everything is tried again. */
  #leaveSilent(silent: ValidPair, now: Instant): boolean {
    const answering = this.#agent
      .validPairs()
      .filter((pair) => !isSamePair(pair, silent))
      .filter((pair) => elapsed(pair.answeredAt, now) < SILENT_AFTER);
    const best = bestOf(answering, this.#options.isStream);
    if (best !== undefined) {
      this.#select(best, 'silence', now);
      this.#agent.invalidate(silent, now);
      return true;
    }
    if (!this.#isSearching) {
      this.#isSearching = true;
      this.#agent.recheck(now);
      this.#timers.set('streams', now);
      this.#events.push({ type: 'signal-due' });
    }
    return false;
  }

  #askSpares(now: Instant): void {
    if (this.#liveness.silence(now) < DOUBT_AFTER) return;
    for (const spare of this.alternatives().slice(0, MOST_SPARES)) this.#agent.probe(spare, now);
    this.#timers.set('ask spares', after(now, SPARE_DOUBT_INTERVAL));
  }

  #keepAlive(now: Instant): void {
    if (this.#selected === undefined) return;
    this.#timers.set('keep alive', after(now, IDLE_KEEPALIVE));
    this.#probe(this.#selected, now);
    if (this.#state === 'idle') this.#keepSpareAlive(now);
  }

  /** A path that is taken in a moment must be open by then: a relayed one beside a direct one. */
  #keepSpareAlive(now: Instant): void {
    const [spare] = this.alternatives();
    if (spare !== undefined) this.#agent.probe(spare, now);
    if (this.#state === 'connected') {
      this.#timers.set('keep spare alive', after(now, SPARE_KEEPALIVE));
    }
  }

  /** Asks on the pair in use; it owes an answer from here on. */
  #probe(pair: PairId, now: Instant): void {
    this.#agent.probe(pair, now);
    this.#liveness.handleSent(now);
    if (this.#timers.at('look at the path') === undefined) {
      this.#timers.set('look at the path', after(now, LIVENESS_INTERVAL));
    }
  }

  #recheck(now: Instant): void {
    if (this.#selected === undefined) return;
    this.#watchForBetter(now);
    if (this.#state === 'connected') this.#agent.recheck(now);
  }

  #handleActivity(now: Instant): void {
    this.#lastPacketAt = now;
    if (this.#state !== 'idle') return;
    this.#state = 'connected';
    this.#timers.set('idle', after(now, IDLE_AFTER));
    this.#timers.set('keep spare alive', now);
    if (this.#timers.at('look for a better path') !== undefined) {
      this.#timers.set('look for a better path', now);
    }
  }

  #handleQuiet(now: Instant): void {
    if (this.#state !== 'connected') return;
    const idleAt = after(this.#lastPacketAt, IDLE_AFTER);
    if (idleAt > now) return this.#timers.set('idle', idleAt);
    this.#state = 'idle';
    this.#timers.clear('keep spare alive');
  }

  #replaceSelected(now: Instant): void {
    this.#selected = undefined;
    const best = bestOf(this.#agent.validPairs(), this.#options.isStream);
    if (best !== undefined) return this.#select(best, 'base removed', now);
    this.#events.push({ type: 'path-lost' });
    this.#start(now);
  }

  #fail(why: ConnectionFailure, now: Instant): void {
    this.#drop(now);
    this.#state = 'failed';
    this.#why = why;
    this.#failures++;
    this.#failedAt = now;
    this.#events.push({ type: 'failed', why });
    this.#scheduleRetry(now);
  }

  /** Full jitter: the routers of a fleet do not all come at once. */
  #scheduleRetry(now: Instant): void {
    const longest = Math.min(
      LAST_RETRY,
      FIRST_RETRY * 2 ** Math.min(this.#failures, MOST_DOUBLINGS),
    );
    this.#timers.set('retry', after(now, longest * randomFraction(this.#options.random)));
  }

  #drop(now: Instant): void {
    const pair = this.#selected;
    this.#selected = undefined;
    this.#hasSession = false;
    this.#isSearching = false;
    for (const timer of TIMERS) this.#timers.clear(timer);
    this.#liveness.reset();
    this.#wantStreams(false);
    this.#agent.stop(now);
    if (pair !== undefined) this.#events.push({ type: 'path-lost' });
  }

  #find(pair: PairId): ValidPair | undefined {
    return this.#agent.validPairs().find((valid) => isSamePair(valid, pair));
  }
}

const MOST_DOUBLINGS = Math.ceil(Math.log2(LAST_RETRY / FIRST_RETRY));
