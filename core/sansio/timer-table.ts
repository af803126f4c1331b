import type { Deadline } from './agent.ts';
import { instantAt, type Instant } from './instant.ts';

/** The named timers of one agent, each set to an instant or not at all. */
export class TimerTable<Name extends string> {
  readonly #names: readonly Name[];
  /** In the order of the names. An array of doubles: a map would box each, and weigh five times as much. */
  readonly #at: number[];

  constructor(names: readonly Name[]) {
    this.#names = names;
    this.#at = names.map(() => NEVER);
  }

  set(name: Name, at: Instant): void {
    this.#at[this.#names.indexOf(name)] = at;
  }

  clear(name: Name): void {
    this.#at[this.#names.indexOf(name)] = NEVER;
  }

  at(name: Name): Instant | undefined {
    const at = this.#at[this.#names.indexOf(name)] ?? NEVER;
    return at === NEVER ? undefined : instantAt(at);
  }

  /** Whether the timer is set and its instant has come. A due timer stays set. */
  isDue(name: Name, now: Instant): boolean {
    return (this.#at[this.#names.indexOf(name)] ?? NEVER) <= now;
  }

  /** Returns the earliest timer with its name as the reason; the first in the list wins a tie. */
  next(): Deadline | undefined {
    let first = NEVER;
    for (let i = 0; i < this.#at.length; i++) first = Math.min(first, this.#at[i] ?? NEVER);
    const reason = this.#names[this.#at.indexOf(first)];
    return first === NEVER || reason === undefined ? undefined : { at: instantAt(first), reason };
  }
}

const NEVER = Infinity;
