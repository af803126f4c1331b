import { IceAgent, type BaseId, type IceTransmit, type PairId } from '../ice/agent.ts';
import { ICE_TIMEOUT } from '../ice/constants.ts';
import type { ValidPair } from '../ice/agent.ts';
import type { Candidate } from '../ice/candidate.ts';
import type { SocketAddress } from '../net/socket-address.ts';
import type { GoodbyeReason, PathKind } from '../peering/message.ts';
import { sooner, type Deadline } from '../sansio/agent.ts';
import type { Crypto } from '../sansio/crypto.ts';
import { after, elapsed, type Instant, type Millis } from '../sansio/instant.ts';
import type { Random } from '../sansio/random.ts';
import { TimerTable } from '../sansio/timer-table.ts';
import type { ReceivedStun } from '../stun/message.ts';
import type {
  ConnectionEvent,
  ConnectionFailure,
  ConnectionState,
  SelectionReason,
} from './connection-outputs.ts';
import { ASK_AFTER, DOUBT_AFTER, Liveness, SILENT_AFTER } from './liveness.ts';
import type { PairSecrets } from './pair-secrets.ts';
import { bestOf, isBetter, isSamePair, pathKindOf, type IsStream } from './path-choice.ts';
import { Retry } from './retry.ts';
import { Spares } from './spares.ts';

export type {
  ConnectionEvent,
  ConnectionFailure,
  ConnectionState,
  SelectionReason,
} from './connection-outputs.ts';

/** Without packets for this long a connection idles. Longer than ICE_TIMEOUT: a dead path is found first. */
export const IDLE_AFTER: Millis = 20_000;

/** From a pair in use to a session; the attempts of WireGuard have the same limit. */
export const SESSION_TIMEOUT: Millis = 15_000;

/** WireGuard gives up at the same instant and knows the cause, so it goes first. */
const CAUSE_PATIENCE: Millis = 20;
/** The pair in use and its spares are checked this often; NAT mappings live 30 s or more (RFC 4787 §4.3). */
const KEEPALIVE: Millis = 5_000;
const IDLE_KEEPALIVE: Millis = 25_000;
/** How often a connection on a poorer path looks for a better one, and returns to one that fell silent. */
const RECHECK_INTERVAL: Millis = 30_000;
/** Packets under way on another pair, and a lost nomination, are over by this time. */
const SELECTION_SETTLES: Millis = 2_000;
/** How long a pair that the peer has left may take to show that it works; more if it is slow. */
const LEFT_PATIENCE: Millis = 250;
/** The controlled side leaves the first handshake to the other one for this long. */
const HANDSHAKE_PATIENCE: Millis = 1_000;
/** UDP is given this long before streams are dialled. */
const STREAM_PATIENCE: Millis = 1_000;
/** An attempt has failed by then, whatever pairs were made in it: those of streams had their time. */
const ATTEMPT_TIMEOUT: Millis = ICE_TIMEOUT + STREAM_PATIENCE;
/** A timeout that comes this late means that the machine slept. */
const SLEPT_FOR: Millis = 1_000;

export interface ConnectionOptions {
  readonly secrets: PairSecrets;
  readonly isStream: IsStream;
  readonly random: Random;
  readonly crypto: Pick<Crypto, 'hmacSha1'>;
}

const TIMERS = [
  'look at the path',
  'keep alive',
  'idle',
  'look for a better path',
  'attempt',
  'session',
  'handshake',
  'streams',
  'retry',
] as const;

/**
 * The connection with one peer: its ICE agent, which pair of it is in use, and whether that works.
 *
 *     waiting ──► connecting ◄──► connected ◄──► idle
 *        ▲           ▲  │             │            │
 *     goodbye        │  ▼             ▼            ▼
 *                   failed ◄───────────────────────┘
 *
 * The controlling side selects and nominates. The controlled side follows, and leaves a silent pair by
 * itself, as each side sees first what it cannot send. An attempt always ends, in ATTEMPT_TIMEOUT. A pair
 * that was left for its silence is not returned to before RECHECK_INTERVAL, so that a path that comes and
 * goes moves packets twice in that time at most.
 */
export class Connection {
  readonly #options: ConnectionOptions;
  readonly #agent: IceAgent;
  readonly #spares: Spares;
  readonly #liveness = new Liveness();
  readonly #timers = new TimerTable(TIMERS);
  readonly #retry: Retry;
  /** Only calls, timers and authentic messages make events, a few each, so there is no limit. */
  readonly #events: ConnectionEvent[] = [];
  #state: ConnectionState = 'waiting';
  #why: string = 'nothing is known of where the peer is';
  #signalled: readonly Candidate[] = [];
  #selected: ValidPair | undefined;
  #selectedAt: Instant;
  #lastPacketAt: Instant;
  #hasSession = false;
  /** Whether a silent path without another one had everything tried again. */
  #isSearching = false;
  #wantsStreams = false;
  #lastNow: Instant;

  constructor(options: ConnectionOptions, now: Instant) {
    const { secrets, random, crypto } = options;
    this.#options = options;
    this.#retry = new Retry(random);
    this.#lastNow = now;
    this.#lastPacketAt = now;
    this.#selectedAt = now;
    this.#agent = new IceAgent(
      { role: secrets.role, local: secrets.localIce, remote: secrets.remoteIce, random, crypto },
      now,
    );
    this.#spares = new Spares(this.#agent, options.isStream);
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
    return this.#selected && this.#kindOf(this.#selected);
  }

  /** The other pairs that work, as far as is known, the best first. */
  alternatives(): readonly ValidPair[] {
    return this.#spares.besides(this.#selected);
  }

  addLocalCandidate(candidate: Candidate, base: BaseId, now: Instant): void {
    this.#agent.addLocalCandidate(candidate, base, now);
    this.#settle(now);
  }

  removeBase(base: BaseId, now: Instant): void {
    this.#agent.removeBase(base, now);
    this.#settle(now);
  }

  /** What the peer says where it is, or was when we last knew. Its word starts an attempt. */
  setRemoteCandidates(candidates: readonly Candidate[], now: Instant): void {
    const known = this.#signalled;
    const isNews = candidates.some((candidate) => !isAmong(candidate, known));
    if (isNews) this.#retry.reset();
    if (isNews || known.some((old) => !isAmong(old, candidates))) this.#handleActivity(now);
    this.#signalled = candidates;
    this.#agent.setRemoteCandidates(candidates, now);
    this.#handleCall(now);
    this.#settle(now);
  }

  /** The peer began anew: what it had of us is gone. */
  handlePeerRestart(now: Instant): void {
    this.#hasSession = false;
    if (this.#selected === undefined) {
      this.#retry.reset();
      this.#start(now);
    } else {
      this.#events.push({ type: 'signal-due' });
      this.#ask(this.#selected, now);
      this.#expectSession(now);
    }
    this.#settle(now);
  }

  handleStun(
    received: { message: ReceivedStun; base: BaseId; from: SocketAddress },
    now: Instant,
  ): void {
    const { message, base, from } = received;
    this.#agent.handleStun(received, now);
    this.#settle(now);
    const pair = { base, remote: from };
    if (message.class !== 'request' || !isSamePair(pair, this.#selected)) return;
    const isAuthentic = this.#agent
      .validPairs()
      .some((valid) => isSamePair(valid, pair) && valid.heardAt === now);
    if (isAuthentic) this.#demandAnswer(SILENT_AFTER - ASK_AFTER, now);
  }

  /** Packets went or came. `elsewhere`: what came last and is authentic came not on the pair in use. */
  handleTransport(
    facts: { sent: boolean; received: boolean; elsewhere: boolean },
    now: Instant,
  ): void {
    this.#lastNow = now;
    if (!facts.sent && !facts.received) return;
    this.#handleActivity(now);
    if (this.#selected === undefined) return;
    if (facts.received && !facts.elsewhere) this.#liveness.handleHeard();
    if (facts.received && facts.elsewhere) this.#handleElsewhere(this.#selected, now);
    if (facts.sent) {
      this.#liveness.handleSent(now);
      if (this.#timers.at('look at the path') === undefined) this.#planLook(now);
    }
  }

  /** A packet waits for a session or a path. */
  wake(now: Instant): void {
    this.#handleActivity(now);
    if (this.#state === 'waiting' || this.#state === 'failed') this.#startSoon(now);
    this.#settle(now);
  }

  /** WireGuard has a session. */
  handleSession(now: Instant): void {
    this.#lastNow = now;
    this.#hasSession = true;
    this.#retry.reset();
    this.#timers.clear('session');
    this.#timers.clear('handshake');
  }

  handleHandshakeFailed(why: ConnectionFailure, now: Instant): void {
    if (this.#selected !== undefined) this.#fail(why, now);
    this.#settle(now);
  }

  /**
   * The peer goes, or is `dismissed` by us: nothing is kept of the path, and no timeout will say so again.
   */
  handleGoodbye(reason: GoodbyeReason | 'dismissed', now: Instant): void {
    this.#lastNow = now;
    if (this.#state === 'waiting') return;
    this.#drop(now);
    this.#state = 'waiting';
    this.#why = reason === 'dismissed' ? reason : `said goodbye: ${reason}`;
    this.#timers.set('retry', this.#retry.handleGone(reason === 'restarting', now));
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
    this.#retry.reset();
    this.#handleActivity(now);
    if (this.#selected !== undefined) this.#ask(this.#selected, now);
    if (this.#state === 'failed') this.#start(now);
    else {
      if (this.#state !== 'waiting') this.#agent.recheck(now);
      this.#events.push({ type: 'signal-due' });
    }
    this.#settle(now);
  }

  handleTimeout(now: Instant): void {
    const lookAt = this.#timers.at('look at the path');
    if (lookAt !== undefined && elapsed(lookAt, now) > SLEPT_FOR) this.#liveness.handleSlept(now);
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
      case 'idle':
        return this.#handleQuiet(now);
      case 'look for a better path':
        return this.#lookForBetter(now);
      case 'attempt':
        return this.#fail(this.#noAnswer, now);
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
          this.#handleAnswered(event.pair, false, now);
          break;
        case 'pair-answered':
          this.#handleAnswered(event.pair, event.nominates, now);
          break;
        case 'nominated':
          // One that comes after a failure is asked for again by the check with which we start.
          if (this.#state === 'failed' || isSamePair(event.pair, this.#selected)) break;
          this.#select(event.pair, 'nominated by the peer', now);
          break;
        case 'pair-gone':
          if (isSamePair(event.pair, this.#selected)) this.#replaceSelected(now);
          break;
        case 'failed':
          if (this.#state === 'connecting') this.#fail(this.#noAnswer, now);
          break;
      }
    }
  }

  get #noAnswer(): ConnectionFailure {
    const knowsNone = this.#signalled.length === 0 && this.#agent.validPairs().length === 0;
    return knowsNone ? 'no-candidates' : 'no-answer';
  }

  /** The peer is there and wants us: one that had gone is back, and an attempt begins on both sides. */
  #handleCall(now: Instant, answered?: PairId): void {
    if (this.#state === 'waiting') {
      this.#retry.reset();
      this.#start(now, answered);
    } else if (this.#state === 'failed') this.#startSoon(now, answered);
  }

  /** Starts an attempt, a moment after the last one failed at the earliest. */
  #startSoon(now: Instant, answered?: PairId): void {
    const earliest = this.#retry.earliest(now);
    if (earliest <= now) return this.#start(now, answered);
    const retryAt = this.#timers.at('retry');
    if (retryAt === undefined || retryAt > earliest) this.#timers.set('retry', earliest);
  }

  /** The pair of which the answer is just being handled needs no other one. */
  #start(now: Instant, answered?: PairId): void {
    this.#timers.clear('retry');
    // What happens in an attempt does not prolong it, or it might never end.
    if (this.#state !== 'connecting') {
      this.#timers.set('attempt', after(now, ATTEMPT_TIMEOUT));
      this.#timers.set('streams', after(now, STREAM_PATIENCE));
    }
    this.#state = 'connecting';
    this.#why = 'looking for a path';
    this.#agent.recheck(now);
    // What became valid since the last attempt: the answer, or the nomination that it brings, selects it.
    // A probe would not do, as it is not repeated, and the agent says no `failed` while a pair is valid.
    for (const pair of this.#agent.validPairs()) {
      if (!isSamePair(pair, answered)) this.#agent.invalidate(pair, now);
    }
    this.#events.push({ type: 'signal-due' });
  }

  #handleAnswered(pair: ValidPair, nominates: boolean, now: Instant): void {
    if (isSamePair(pair, this.#selected)) {
      this.#selected = pair;
      this.#liveness.handleAnswered(nominates, now);
      if (this.#isSearching) this.#endSearch(pair);
      return;
    }
    this.#handleCall(now, pair);
    if (this.#state === 'failed' || this.#options.secrets.role === 'controlled') return;
    if (this.#selected === undefined) {
      this.#select(pair, 'first', now);
    } else if (
      isBetter(pair, this.#selected, this.#options.isStream) &&
      !this.#spares.isHeldOff(pair, now)
    ) {
      this.#select(pair, 'better', now);
    }
  }

  #select(pair: ValidPair, why: SelectionReason, now: Instant): void {
    this.#selected = pair;
    this.#selectedAt = now;
    this.#state = 'connected';
    this.#why = why;
    this.#isSearching = false;
    this.#timers.clear('retry');
    this.#timers.clear('attempt');
    this.#events.push({ type: 'path-selected', pair, why });
    this.#liveness.reset();
    if (why !== 'nominated by the peer') this.#ask(pair, now);
    this.#lastPacketAt = now;
    this.#timers.set('idle', after(now, IDLE_AFTER));
    this.#timers.set('keep alive', after(now, KEEPALIVE));
    this.#expectSession(now);
    this.#watchForBetter(pair, now);
    // Streams that were given up for a better path are closed soon, unless packets come back to one.
    this.#wantStreams(this.#options.isStream(pair.base));
  }

  /** Checks the pair in use, which owes an answer from here on; the controlling side nominates it. */
  #ask(pair: PairId, now: Instant): void {
    if (this.#options.secrets.role === 'controlling') {
      this.#agent.nominate(pair, now);
      this.#liveness.handleNominated(now);
    } else {
      this.#agent.probe(pair, now);
      this.#liveness.handleSent(now);
    }
    this.#planLook(now);
  }

  /** From here on there is a session within its time, or the connection has failed. */
  #expectSession(now: Instant): void {
    if (this.#hasSession) return;
    if (this.#timers.at('session') === undefined) {
      this.#timers.set('session', after(now, SESSION_TIMEOUT + CAUSE_PATIENCE));
    }
    if (this.#options.secrets.role === 'controlling') this.#events.push({ type: 'handshake-due' });
    else this.#timers.set('handshake', after(now, HANDSHAKE_PATIENCE));
  }

  #watchForBetter(pair: ValidPair, now: Instant): void {
    if (this.#kindOf(pair) === 'direct') this.#timers.clear('look for a better path');
    else this.#timers.set('look for a better path', after(now, RECHECK_INTERVAL));
  }

  #wantStreams(wanted: boolean): void {
    this.#timers.clear('streams');
    if (wanted === this.#wantsStreams) return;
    this.#wantsStreams = wanted;
    this.#events.push({ type: 'streams-wanted', wanted });
  }

  #planLook(now: Instant): void {
    const next = this.#liveness.nextLook(ICE_TIMEOUT, now);
    if (next === undefined) this.#timers.clear('look at the path');
    else this.#timers.set('look at the path', next);
  }

  #look(now: Instant): void {
    const pair = this.#selected;
    if (pair === undefined) return;
    const liveness = this.#liveness;
    if (liveness.isSilentFor(ICE_TIMEOUT, now)) return this.#fail('path-lost', now);
    if (liveness.isSilentFor(SILENT_AFTER, now) && this.#leaveSilent(pair, now)) return;
    if (liveness.mustAsk(now)) this.#agent.probe(pair, now);
    if (liveness.isSilentFor(DOUBT_AFTER, now)) this.#spares.doubt(pair, now);
    this.#planLook(now);
  }

  /** The peer does not hear us on the pair in use, it seems: what we hear on it does not count. */
  #demandAnswer(patience: Millis, now: Instant): void {
    if (this.#liveness.demandAnswer(patience, now)) this.#timers.set('look at the path', now);
  }

  /** The peer sends on another pair. It has left this one, unless we have just come. */
  #handleElsewhere(pair: ValidPair, now: Instant): void {
    if (elapsed(this.#selectedAt, now) < SELECTION_SETTLES) return;
    this.#demandAnswer(Math.min(Math.max(LEFT_PATIENCE, 2 * pair.rtt), SILENT_AFTER), now);
  }

  /** Moves to a pair that answers now; without one everything is tried again. */
  #leaveSilent(silent: ValidPair, now: Instant): boolean {
    const best = this.#spares.bestAnswering(silent, now);
    if (best !== undefined) {
      this.#spares.holdOff(silent, after(now, RECHECK_INTERVAL));
      this.#select(best, 'silence', now);
      this.#agent.invalidate(silent, now);
      return true;
    }
    if (!this.#isSearching) this.#beginSearch(now);
    return false;
  }

  #beginSearch(now: Instant): void {
    this.#isSearching = true;
    this.#agent.recheck(now);
    this.#wantStreams(true);
    this.#events.push({ type: 'signal-due' });
  }

  #endSearch(pair: ValidPair): void {
    this.#isSearching = false;
    if (!this.#options.isStream(pair.base)) this.#wantStreams(false);
  }

  #keepAlive(now: Instant): void {
    const pair = this.#selected;
    if (pair === undefined) return;
    const isIdle = this.#state === 'idle';
    this.#timers.set('keep alive', after(now, isIdle ? IDLE_KEEPALIVE : KEEPALIVE));
    this.#agent.probe(pair, now);
    this.#liveness.handleSent(now);
    if (this.#timers.at('look at the path') === undefined) this.#planLook(now);
    this.#spares.keepAlive(pair, isIdle, now);
  }

  #lookForBetter(now: Instant): void {
    const pair = this.#selected;
    // While idle the timer rests.
    if (pair === undefined || this.#state === 'idle') return;
    this.#watchForBetter(pair, now);
    this.#agent.recheck(now);
    for (const other of this.alternatives()) this.#agent.probe(other, now);
  }

  /** An idle connection is one in use again: packets went or came, or a side moved. */
  #handleActivity(now: Instant): void {
    this.#lastPacketAt = now;
    if (this.#state !== 'idle') return;
    this.#state = 'connected';
    this.#timers.set('idle', after(now, IDLE_AFTER));
    this.#timers.set('keep alive', now);
    const isRecheckDue = this.#timers.at('look for a better path') === undefined;
    if (isRecheckDue && this.kind !== 'direct') this.#timers.set('look for a better path', now);
  }

  #handleQuiet(now: Instant): void {
    if (this.#state !== 'connected') return;
    const idleAt = after(this.#lastPacketAt, IDLE_AFTER);
    if (idleAt > now) return this.#timers.set('idle', idleAt);
    this.#state = 'idle';
    this.#timers.set('keep alive', after(now, IDLE_KEEPALIVE));
  }

  /** The pair in use is no more. */
  #replaceSelected(now: Instant): void {
    const best = bestOf(this.alternatives(), this.#options.isStream);
    if (best !== undefined) return this.#select(best, 'base removed', now);
    this.#losePath();
    this.#start(now);
  }

  #losePath(): void {
    if (this.#selected !== undefined) this.#events.push({ type: 'path-lost' });
    this.#selected = undefined;
    this.#isSearching = false;
    this.#liveness.reset();
    for (const timer of TIMERS) this.#timers.clear(timer);
  }

  #fail(why: ConnectionFailure, now: Instant): void {
    this.#drop(now);
    this.#state = 'failed';
    this.#why = why;
    this.#events.push({ type: 'failed', why });
    this.#timers.set('retry', this.#retry.handleFailed(now));
  }

  #drop(now: Instant): void {
    this.#losePath();
    this.#hasSession = false;
    this.#spares.reset();
    this.#wantStreams(false);
    this.#agent.stop(now);
  }

  #kindOf(pair: ValidPair): PathKind {
    return pathKindOf(pair, this.#options.isStream);
  }
}

function isAmong({ transport, address }: Candidate, candidates: readonly Candidate[]): boolean {
  return candidates.some((other) => other.transport === transport && other.address === address);
}
