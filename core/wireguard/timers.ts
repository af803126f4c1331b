import type { Deadline } from '../sansio/agent.ts';
import { after, type Instant, type Millis } from '../sansio/instant.ts';
import { randomFraction, type Random } from '../sansio/random.ts';
import { TimerTable } from '../sansio/timer-table.ts';
import { KEEPALIVE_TIMEOUT, REKEY_TIMEOUT, REKEY_TIMEOUT_JITTER } from './constants.ts';

/**
 * The timers of one peer (whitepaper §6). The callers report facts, the timers decide:
 *
 * - `retransmit-handshake`: an initiation that got no response is repeated after the peer's REKEY_TIMEOUT
 *   plus jitter, and `give-up-handshake` ends that when the attempt has lasted for the peer's attempt time.
 * - `send-keepalive`: when data was received and nothing was sent for KEEPALIVE_TIMEOUT after the first
 *   of it, an empty message is due.
 * - `new-handshake`: when data was sent and nothing authentic came back for KEEPALIVE_TIMEOUT +
 *   REKEY_TIMEOUT plus jitter after the first of it, a handshake is due.
 * - `expire-session`: a session that has reached REJECT_AFTER_TIME is wiped.
 * - `persistent-keepalive`: when it is switched on and nothing authentic passed in either direction for
 *   the interval, an empty message is due.
 */
export class Timers {
  readonly #random: Random;
  readonly #table = new TimerTable<TimerName>(TIMERS);
  #persistentKeepalive: Millis = 0;
  /** Drawn again with each initiation. */
  #jitter: Millis;

  constructor(random: Random) {
    this.#random = random;
    this.#jitter = randomFraction(random) * REKEY_TIMEOUT_JITTER;
  }

  onAttemptStarted(attemptTime: Millis, now: Instant): void {
    this.#table.set('give-up-handshake', after(now, attemptTime));
  }

  /** `rekeyTimeout`: REKEY_TIMEOUT of this peer. */
  onInitiationSent(rekeyTimeout: Millis, now: Instant): void {
    this.#jitter = randomFraction(this.#random) * REKEY_TIMEOUT_JITTER;
    this.#table.set('retransmit-handshake', after(now, rekeyTimeout + this.#jitter));
    this.onAuthenticatedSent(now);
  }

  /** An initiation could not be sent yet: it may not come sooner than `at`. */
  onInitiationPaced(at: Instant): void {
    this.#table.set('retransmit-handshake', at);
  }

  /** A session was confirmed, or the attempt was given up. */
  onAttemptEnded(): void {
    this.#table.clear('retransmit-handshake');
    this.#table.clear('give-up-handshake');
  }

  /** All sessions and the attempt were ended; the persistent keepalive rests until something is sent. */
  onSessionsEnded(): void {
    for (const name of TIMERS) this.#table.clear(name);
  }

  /** The first of the sessions reaches its age at `at`; there is none where it is `undefined`. */
  onSessionsChanged(at: Instant | undefined): void {
    if (at === undefined) this.#table.clear('expire-session');
    else this.#table.set('expire-session', at);
  }

  onDataSent(now: Instant): void {
    if (this.#table.at('new-handshake') !== undefined) return;
    const wait = KEEPALIVE_TIMEOUT + REKEY_TIMEOUT + this.#jitter;
    this.#table.set('new-handshake', after(now, wait));
  }

  onDataReceived(now: Instant): void {
    if (this.#table.at('send-keepalive') !== undefined) return;
    this.#table.set('send-keepalive', after(now, KEEPALIVE_TIMEOUT));
  }

  /** Anything authentic was sent, be it data, an empty message or one of a handshake. */
  onAuthenticatedSent(now: Instant): void {
    this.#table.clear('send-keepalive');
    this.#restartPersistentKeepalive(now);
  }

  onAuthenticatedReceived(now: Instant): void {
    this.#table.clear('new-handshake');
    this.#restartPersistentKeepalive(now);
  }

  /** Sets the interval; 0 switches it off. */
  setPersistentKeepalive(interval: Millis, now: Instant): void {
    this.#persistentKeepalive = interval;
    this.#table.clear('persistent-keepalive');
    this.#restartPersistentKeepalive(now);
  }

  /** Returns the random delay that keeps us from initiating in step with the peer. */
  get jitter(): Millis {
    return this.#jitter;
  }

  /** Returns a timer that is due, and clears it. The persistent one goes on. */
  take(now: Instant): TimerName | undefined {
    for (const name of TIMERS) {
      if (!this.#table.isDue(name, now)) continue;
      this.#table.clear(name);
      if (name === 'persistent-keepalive') this.#restartPersistentKeepalive(now);
      return name;
    }
    return undefined;
  }

  next(): Deadline | undefined {
    return this.#table.next();
  }

  #restartPersistentKeepalive(now: Instant): void {
    if (this.#persistentKeepalive === 0) return;
    this.#table.set('persistent-keepalive', after(now, this.#persistentKeepalive));
  }
}

/** In the order in which timers that are due together fire: what ends something comes first. */
const TIMERS = [
  'expire-session',
  'give-up-handshake',
  'retransmit-handshake',
  'new-handshake',
  'send-keepalive',
  'persistent-keepalive',
] as const;

export type TimerName = (typeof TIMERS)[number];
