import type { Endpoint } from '../config/endpoint.ts';
import { parseIpAddress, type IpAddress } from '../net/ip-address.ts';
import { socketAddress, type SocketAddress } from '../net/socket-address.ts';
import type { Deadline } from '../sansio/agent.ts';
import { after, type Instant, type Millis } from '../sansio/instant.ts';

/** A name that does not resolve is asked for again after this long: routers boot before their WAN. */
const RETRY_INTERVAL: Millis = 10_000;

type State =
  /** Waits for the answer of the resolver. */
  | { readonly type: 'asking' }
  | { readonly type: 'resolved' }
  | { readonly type: 'failed'; readonly retryAt: Instant };

interface Named {
  readonly endpoint: Endpoint;
  readonly state: State;
}

/** A name to look up for a peer. */
export interface Question {
  readonly peer: string;
  readonly host: string;
}

/**
 * The endpoints that are host names: asks for each when it comes up and again when its peer does not
 * answer, because dynamic names move (wg(8) resolves once and leaves such tunnels dead).
 */
export class Endpoints {
  readonly #named = new Map<string, Named>();
  readonly #questions: Question[] = [];

  /** Returns the address at once where the endpoint holds one; else asks for it. */
  set(peer: string, endpoint: Endpoint): SocketAddress | undefined {
    const ip = parseIpAddress(endpoint.host);
    if (ip.ok) {
      this.#named.delete(peer);
      return socketAddress(ip.value, endpoint.port);
    }
    this.#ask(peer, endpoint);
    return undefined;
  }

  remove(peer: string): void {
    this.#named.delete(peer);
  }

  /** Whether the answer about the peer's name is awaited, be it the first or another one. */
  isAsking(peer: string): boolean {
    return this.#named.get(peer)?.state.type === 'asking';
  }

  /** The peer does not answer where we think it is. */
  handleSilence(peer: string): void {
    const named = this.#named.get(peer);
    if (named?.state.type === 'resolved') this.#ask(peer, named.endpoint);
  }

  /** Takes an answer of the resolver; returns where the peer is, if that is known. */
  handleAnswer(
    peer: string,
    addresses: readonly IpAddress[] | undefined,
    now: Instant,
  ): SocketAddress | undefined {
    const named = this.#named.get(peer);
    if (named === undefined) return undefined;
    const [first] = addresses ?? [];
    const state: State =
      first === undefined
        ? { type: 'failed', retryAt: after(now, RETRY_INTERVAL) }
        : { type: 'resolved' };
    this.#named.set(peer, { ...named, state });
    return first === undefined ? undefined : socketAddress(first, named.endpoint.port);
  }

  handleTimeout(now: Instant): void {
    for (const [peer, { endpoint, state }] of this.#named) {
      if (state.type === 'failed' && state.retryAt <= now) this.#ask(peer, endpoint);
    }
  }

  pollQuestion(): Question | undefined {
    return this.#questions.shift();
  }

  pollTimeout(): Deadline | undefined {
    let first: Instant | undefined;
    for (const { state } of this.#named.values()) {
      if (state.type === 'failed' && (first === undefined || state.retryAt < first)) {
        first = state.retryAt;
      }
    }
    return first === undefined ? undefined : { at: first, reason: 'endpoint name' };
  }

  #ask(peer: string, endpoint: Endpoint): void {
    this.#named.set(peer, { endpoint, state: { type: 'asking' } });
    this.#questions.push({ peer, host: endpoint.host });
  }
}
