import type { Deadline } from './agent.ts';
import type { Instant } from './instant.ts';

/** The named timers of one agent, each set to an instant or not at all. */
export class TimerTable<Name extends string> {
  readonly #names: readonly Name[];
  readonly #at = new Map<Name, Instant>();

  constructor(names: readonly Name[]) {
    this.#names = names;
  }

  set(name: Name, at: Instant): void {
    this.#at.set(name, at);
  }

  clear(name: Name): void {
    this.#at.delete(name);
  }

  at(name: Name): Instant | undefined {
    return this.#at.get(name);
  }

  /** Whether the timer is set and its instant has come. A due timer stays set. */
  isDue(name: Name, now: Instant): boolean {
    const at = this.#at.get(name);
    return at !== undefined && at <= now;
  }

  /** Returns the earliest timer with its name as the reason; the first in the list wins a tie. */
  next(): Deadline | undefined {
    let next: { at: Instant; reason: Name } | undefined;
    for (const name of this.#names) {
      const at = this.#at.get(name);
      if (at !== undefined && (next === undefined || at < next.at)) next = { at, reason: name };
    }
    return next;
  }
}
