import type { Deadline } from '../sansio/agent.ts';
import { after, elapsed, type Instant, type Millis } from '../sansio/instant.ts';

/** A drain ends at the latest after this long, whoever still talks. */
export const DRAIN_TIMEOUT: Millis = 300_000;

/** A peer without a packet for this long has finished. */
export const DRAIN_QUIET: Millis = 10_000;

/**
 * The same while TCP connections to resources are open. Not until they are closed: one that nobody uses any
 * more is known for two hours.
 */
export const DRAIN_QUIET_CONNECTED: Millis = 60_000;

const LOOK_INTERVAL: Millis = 1_000;

export interface DrainStatus {
  /** Names of the peers with which packets were exchanged lately. */
  readonly peers: readonly string[];
  /** Milliseconds until it ends in any case. */
  readonly endsWithinMs: Millis;
}

/** Bytes of packets exchanged with each peer, by its name, without what WireGuard adds. */
export type Traffic = ReadonlyMap<string, number>;

/**
 * Waits until the peers have done with us, before the daemon goes. A peer counts as busy until no packet was
 * exchanged with it for DRAIN_QUIET, or DRAIN_QUIET_CONNECTED while connections are open. Of what is routed and
 * no resource, connections are not known. Keepalives are no packets.
 */
export class Drain {
  #state: State = { type: 'off' };

  get isOn(): boolean {
    return this.#state.type === 'on';
  }

  /** Returns whether that is news. All peers count as busy at first. */
  begin(traffic: Traffic, now: Instant): boolean {
    if (this.#state.type === 'on') return false;
    const peers = new Map<string, Seen>();
    for (const [id, bytes] of traffic) peers.set(id, { bytes, at: now, quiet: DRAIN_QUIET });
    this.#state = { type: 'on', began: now, lookAt: after(now, LOOK_INTERVAL), peers };
    return true;
  }

  /** Returns whether there was one. */
  cancel(): boolean {
    const wasOn = this.isOn;
    this.#state = { type: 'off' };
    return wasOn;
  }

  isDue(now: Instant): boolean {
    return this.#state.type === 'on' && this.#state.lookAt <= now;
  }

  /**
   * Looks at what was exchanged, `connected` being the names of peers with open connections; returns why it is
   * over, once it is.
   */
  handleTraffic(
    traffic: Traffic,
    connected: ReadonlySet<string>,
    now: Instant,
  ): 'quiet' | 'timeout' | undefined {
    const state = this.#state;
    if (state.type === 'off') return undefined;
    state.lookAt = after(now, LOOK_INTERVAL);
    for (const id of state.peers.keys()) if (!traffic.has(id)) state.peers.delete(id);
    for (const [id, bytes] of traffic) {
      const before = state.peers.get(id);
      const at = before?.bytes === bytes ? before.at : now;
      const quiet = connected.has(id) ? DRAIN_QUIET_CONNECTED : DRAIN_QUIET;
      state.peers.set(id, { bytes, at, quiet });
    }
    const isQuiet = elapsed(state.began, now) >= DRAIN_QUIET && busyOf(state, now).length === 0;
    const isOver = elapsed(state.began, now) >= DRAIN_TIMEOUT;
    if (!isQuiet && !isOver) return undefined;
    this.#state = { type: 'off' };
    return isQuiet ? 'quiet' : 'timeout';
  }

  status(now: Instant): DrainStatus | undefined {
    const state = this.#state;
    if (state.type === 'off') return undefined;
    const left = DRAIN_TIMEOUT - elapsed(state.began, now);
    return { peers: busyOf(state, now), endsWithinMs: Math.round(Math.max(0, left)) };
  }

  pollTimeout(): Deadline | undefined {
    if (this.#state.type === 'off') return undefined;
    return { at: this.#state.lookAt, reason: 'drain' };
  }
}

type State = { readonly type: 'off' } | On;

interface On {
  readonly type: 'on';
  readonly began: Instant;
  lookAt: Instant;
  /** By name: how much had been exchanged when that changed last, and when. */
  readonly peers: Map<string, Seen>;
}

interface Seen {
  readonly bytes: number;
  readonly at: Instant;
  /** How long it is busy after that. */
  readonly quiet: Millis;
}

function busyOf({ peers }: On, now: Instant): readonly string[] {
  return [...peers].filter(([, { at, quiet }]) => elapsed(at, now) < quiet).map(([id]) => id);
}
