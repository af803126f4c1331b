import type { Deadline } from './agent.ts';
import type { Instant } from './instant.ts';

/** The named timers of one agent, each set to an instant or not at all. */
export class TimerTable<Name extends string> {
  readonly #names: readonly Name[];
  /** In the order of the names: a map would weigh several times as much. */
  readonly #at: (Instant | undefined)[];
  /** What `next` returned last, as it mostly does so again. */
  #next: Deadline | undefined;

  constructor(names: readonly Name[]) {
    this.#names = names;
    this.#at = names.map(() => undefined);
  }

  set(name: Name, at: Instant): void {
    this.#at[this.#names.indexOf(name)] = at;
  }

  clear(name: Name): void {
    this.#at[this.#names.indexOf(name)] = undefined;
  }

  at(name: Name): Instant | undefined {
    return this.#at[this.#names.indexOf(name)];
  }

  /** Whether the timer is set and its instant has come. A due timer stays set. */
  isDue(name: Name, now: Instant): boolean {
    const at = this.at(name);
    return at !== undefined && at <= now;
  }

  /** Returns the earliest timer with its name as the reason; the first in the list wins a tie. */
  next(): Deadline | undefined {
    let first: Instant | undefined;
    for (let i = 0; i < this.#at.length; i++) {
      const at = this.#at[i];
      if (at !== undefined && (first === undefined || at < first)) first = at;
    }
    if (first === undefined) return undefined;
    const reason = this.#names[this.#at.indexOf(first)] ?? '';
    if (this.#next?.at !== first || this.#next.reason !== reason) {
      this.#next = { at: first, reason };
    }
    return this.#next;
  }
}
