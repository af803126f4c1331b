import type { Clock } from '../../core/plugin/clock.ts';

/** Functions that are called when something happened, at most once per turn of the event loop. */
export class Subscribers {
  readonly #clock: Clock;
  readonly #listeners = new Set<() => void>();
  #isTelling = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get isEmpty(): boolean {
    return this.#listeners.size === 0;
  }

  /** Returns the function that ends it. */
  add(onChange: () => void): () => void {
    const listener = () => onChange();
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  tell(): void {
    if (this.#isTelling) return;
    this.#isTelling = true;
    this.#clock.soon(() => {
      this.#isTelling = false;
      for (const listener of Array.from(this.#listeners)) {
        if (this.#listeners.has(listener)) listener();
      }
    });
  }
}
