import { SmoothedRtt } from '../stun/smoothed-rtt.ts';
import { after, elapsed, type Instant, type Millis } from '../sansio/instant.ts';

/** A server that names are asked of. */
export interface Upstream {
  /** Where it is, in the words of who carries the bytes: `192.0.2.1:53`, `https://dns.example/dns-query`. */
  readonly id: string;
  /** `plain` is UDP, and TCP for what UDP cuts off (RFC 7766); TLS is RFC 7858, HTTPS RFC 8484. */
  readonly protocol: 'plain' | 'tls' | 'https';
}

export type UpstreamTransport = 'udp' | 'tcp' | 'tls' | 'https';

/** How long a server may take. */
export const ANSWER_PATIENCE: Millis = 1_500;

/** Between two probes of a dead server: doubled each time. */
const FIRST_PROBE_INTERVAL: Millis = 1_000;
const LONGEST_PROBE_INTERVAL: Millis = 30_000;

type State =
  | { readonly type: 'alive' }
  | { readonly type: 'dead'; readonly nextProbe: Instant; readonly interval: Millis };

/**
 * What is known of one server. It is dead once a query stays unanswered while nothing else comes from it,
 * or its transport fails; then it is probed until anything comes. A dead one is asked after all others.
 */
export class UpstreamHealth {
  readonly upstream: Upstream;
  readonly #latency = new SmoothedRtt();
  #state: State = { type: 'alive' };
  #lastAnswerAt: Instant | undefined;
  #answers = 0;
  #timeouts = 0;
  #failures = 0;

  constructor(upstream: Upstream) {
    this.upstream = upstream;
  }

  get isAlive(): boolean {
    return this.#state.type === 'alive';
  }

  /** Each of these returns whether the state changed. */
  onAnswer(sentAt: Instant, now: Instant): boolean {
    const wasAlive = this.isAlive;
    this.#answers++;
    this.#lastAnswerAt = now;
    this.#latency.add(elapsed(sentAt, now));
    this.#state = { type: 'alive' };
    return !wasAlive;
  }

  onTimeout(sentAt: Instant, now: Instant): boolean {
    this.#timeouts++;
    if (!this.isAlive || (this.#lastAnswerAt !== undefined && this.#lastAnswerAt >= sentAt)) {
      return false;
    }
    // One lost packet looks the same: a probe at once tells.
    this.#state = { type: 'dead', nextProbe: now, interval: FIRST_PROBE_INTERVAL };
    return true;
  }

  onFailure(now: Instant): boolean {
    this.#failures++;
    if (!this.isAlive) return false;
    const interval = FIRST_PROBE_INTERVAL;
    this.#state = { type: 'dead', nextProbe: after(now, interval), interval };
    return true;
  }

  /** When a probe is to be sent. */
  get nextProbe(): Instant | undefined {
    return this.#state.type === 'dead' ? this.#state.nextProbe : undefined;
  }

  onProbeSent(now: Instant): void {
    if (this.#state.type !== 'dead') return;
    const { interval } = this.#state;
    const longer = Math.min(interval * 2, LONGEST_PROBE_INTERVAL);
    this.#state = { type: 'dead', nextProbe: after(now, interval), interval: longer };
  }

  status(): UpstreamStatus {
    return {
      id: this.upstream.id,
      state: this.#state.type,
      latency: this.#latency.value,
      answers: this.#answers,
      timeouts: this.#timeouts,
      failures: this.#failures,
    };
  }
}

export interface UpstreamStatus {
  readonly id: string;
  readonly state: 'alive' | 'dead';
  /** Smoothed; `undefined` before the first answer. */
  readonly latency: Millis | undefined;
  readonly answers: number;
  readonly timeouts: number;
  /** Of its transport: refused, unreachable, closed. */
  readonly failures: number;
}
