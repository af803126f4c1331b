import type { Deadline } from '../sansio/agent.ts';
import { after, type Instant, type Millis } from '../sansio/instant.ts';
import type { Target } from './application.ts';
import type { Failure } from './event.ts';

/** What stood in the way of a configuration, such as a taken port, may be gone after this. */
const RETRY_INTERVAL: Millis = 5_000;

/**
 * Remembers how the attempts at configurations ended: what is worth telling, what `lastError` says, and
 * what to try again. A configuration from the fleet that failed is tried again, because nobody else
 * would; a local one that failed is refused, and its author is there to see it.
 *
 * The running target is asserted again whenever the network changes. That is news only where it ends
 * otherwise, and it does not wipe out that a newer configuration was refused.
 */
export class Attempts {
  #running: { readonly target: Target; readonly shortfall: string } | undefined;
  /** Why the newest configuration does not run. */
  #refusal: string | undefined;
  #retry: { readonly target: Target; readonly at: Instant } | undefined;

  /** Why the newest configuration is not, or not wholly, the running one. */
  get lastError(): string | undefined {
    return this.#refusal ?? (this.#running?.shortfall || undefined);
  }

  /** A newer configuration ends the attempts at the one before. */
  begin(): void {
    this.#retry = undefined;
  }

  /** The newest configuration never gets as far as an attempt. */
  refuse(why: string): void {
    this.#refusal = why;
  }

  /** Takes how an attempt ended; returns whether that is news. */
  end(target: Target, running: boolean, failures: readonly Failure[], now: Instant): boolean {
    const text = failures.map(({ path, why }) => `${path}: ${why}`).join('; ');
    return running ? this.#onRunning(target, text) : this.#onFailed(target, text, now);
  }

  /** Returns the target whose turn has come again. */
  handleTimeout(now: Instant): Target | undefined {
    if (this.#retry === undefined || this.#retry.at > now) return undefined;
    this.#retry = { ...this.#retry, at: after(now, RETRY_INTERVAL) };
    return this.#retry.target;
  }

  pollTimeout(): Deadline | undefined {
    return this.#retry === undefined ? undefined : { at: this.#retry.at, reason: 'apply again' };
  }

  #onRunning(target: Target, shortfall: string): boolean {
    const before = this.#running;
    this.#running = { target, shortfall };
    if (target === before?.target) return shortfall !== before.shortfall;
    this.#refusal = undefined;
    if (target === this.#retry?.target) this.#retry = undefined;
    return true;
  }

  #onFailed(target: Target, why: string, now: Instant): boolean {
    const isKnown = target === this.#retry?.target && why === this.#refusal;
    this.#refusal = why;
    if (target.version !== undefined) this.#retry = { target, at: after(now, RETRY_INTERVAL) };
    return !isKnown;
  }
}
