import type { Instant } from './instant.ts';

/** Limits a rate: holds up to `burst` tokens, begins full, and gains `perSecond` of them. */
export class TokenBucket {
  readonly #perMs: number;
  readonly #burst: number;
  #tokens: number;
  #filledAt: Instant;

  constructor(perSecond: number, burst: number, now: Instant) {
    this.#perMs = perSecond / 1000;
    this.#burst = burst;
    this.#tokens = burst;
    this.#filledAt = now;
  }

  /** Takes a token; returns whether there was one. */
  take(now: Instant): boolean {
    this.#tokens = this.#tokensAt(now);
    this.#filledAt = now;
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }

  isFull(now: Instant): boolean {
    return this.#tokensAt(now) === this.#burst;
  }

  #tokensAt(now: Instant): number {
    return Math.min(this.#burst, this.#tokens + (now - this.#filledAt) * this.#perMs);
  }
}
