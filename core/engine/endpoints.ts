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
  /** The peer is sought at one address of the answer; the others have their turn after it. */
  | { readonly type: 'resolved'; readonly untried: readonly IpAddress[] }
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

/** `addresses` is empty where the name does not resolve. */
export interface Answer extends Question {
  readonly addresses: readonly IpAddress[];
}

/**
 * The endpoints that are host names. Each is asked for when it comes up, and a peer that does not answer
 * is sought at the next address of its name: half of a dual-stack name may lead nowhere. After the last
 * one, and where a peer falls silent that did answer, the name is asked for again, because dynamic names
 * move (wg(8) resolves once and leaves such tunnels dead).
 */
export class Endpoints {
  readonly #named = new Map<string, Named>();
  readonly #questions: Question[] = [];
  /** The first of the retries, looked for after changes only: it is asked for after each batch of packets. */
  #retry: Deadline | undefined;
  #hasChanged = false;

  /** Returns the address at once where the endpoint holds one; else asks for it. */
  set(peer: string, endpoint: Endpoint): SocketAddress | undefined {
    const ip = parseIpAddress(endpoint.host);
    if (ip.ok) {
      this.remove(peer);
      return socketAddress(ip.value, endpoint.port);
    }
    this.#ask(peer, endpoint);
    return undefined;
  }

  remove(peer: string): void {
    this.#hasChanged = this.#named.delete(peer) || this.#hasChanged;
  }

  /** Whether an answer about the peer's name is awaited. */
  isAsking(peer: string): boolean {
    return this.#named.get(peer)?.state.type === 'asking';
  }

  /** The peer answers: its other addresses need no try. */
  handleContact(peer: string): void {
    const named = this.#named.get(peer);
    if (named?.state.type !== 'resolved') return;
    this.#put(peer, { ...named, state: { type: 'resolved', untried: [] } });
  }

  /** The peer does not answer where we think it is; returns where to try next, if that is known. */
  handleSilence(peer: string): SocketAddress | undefined {
    const named = this.#named.get(peer);
    if (named?.state.type !== 'resolved') return undefined;
    const { endpoint, state } = named;
    if (state.untried.length > 0) return this.#tryFirst(peer, endpoint, state.untried);
    this.#ask(peer, endpoint);
    return undefined;
  }

  /** Takes an answer of the resolver; returns where to try first, if that is known. */
  handleAnswer({ peer, host, addresses }: Answer, now: Instant): SocketAddress | undefined {
    const named = this.#named.get(peer);
    // An answer may come when the endpoint is another name already, or known by an earlier answer.
    if (named?.state.type !== 'asking' || named.endpoint.host !== host) return undefined;
    const { endpoint } = named;
    if (addresses.length > 0) return this.#tryFirst(peer, endpoint, addresses);
    const state: State = { type: 'failed', retryAt: after(now, RETRY_INTERVAL) };
    this.#put(peer, { endpoint, state });
    return undefined;
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
    if (this.#hasChanged) this.#retry = this.#firstRetry();
    this.#hasChanged = false;
    return this.#retry;
  }

  #put(peer: string, named: Named): void {
    this.#named.set(peer, named);
    this.#hasChanged = true;
  }

  #firstRetry(): Deadline | undefined {
    let first: Instant | undefined;
    for (const { state } of this.#named.values()) {
      if (state.type === 'failed' && (first === undefined || state.retryAt < first)) {
        first = state.retryAt;
      }
    }
    return first === undefined ? undefined : { at: first, reason: 'endpoint name' };
  }

  #ask(peer: string, endpoint: Endpoint): void {
    this.#put(peer, { endpoint, state: { type: 'asking' } });
    this.#questions.push({ peer, host: endpoint.host });
  }

  #tryFirst(
    peer: string,
    endpoint: Endpoint,
    [first, ...untried]: readonly IpAddress[],
  ): SocketAddress | undefined {
    this.#put(peer, { endpoint, state: { type: 'resolved', untried } });
    return first === undefined ? undefined : socketAddress(first, endpoint.port);
  }
}
