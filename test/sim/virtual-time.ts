import type { Clock } from '../../core/plugin/clock.ts';
import { instantAt, type Instant, type Millis } from '../../core/sansio/instant.ts';

/** The time of a simulation, and all that is due in it. It stands still but for `advance`. */
export class VirtualTime {
  #now: Instant = instantAt(0);
  readonly #startUnixMs: number;
  readonly #alarms = new Map<object, { readonly at: Instant; readonly ring: () => void }>();
  readonly #soon: (() => void)[] = [];

  constructor(startUnixMs: number) {
    this.#startUnixMs = startUnixMs;
  }

  get now(): Instant {
    return this.#now;
  }

  /** Makes the clock of one host. */
  clock(): Clock {
    const key = {};
    return {
      now: () => this.#now,
      unixMs: () => this.#startUnixMs + this.#now,
      alarm: (at, ring) => void this.#alarms.set(key, { at, ring }),
      cancelAlarm: () => void this.#alarms.delete(key),
      soon: (onYield) => void this.#soon.push(onYield),
    };
  }

  /** Lets `ms` pass: rings each alarm at its time and lets `settle` carry what that caused. */
  advance(ms: Millis, settle: () => void): void {
    const end = this.#now + ms;
    for (let rung = 0; ; rung++) {
      if (rung > MOST_ALARMS) throw new Error(`more than ${MOST_ALARMS} alarms in ${ms} ms`);
      for (const onYield of this.#soon.splice(0)) onYield();
      settle();
      const due = this.#earliest();
      if (due === undefined || due.alarm.at > end) break;
      if (due.alarm.at > this.#now) this.#now = due.alarm.at;
      this.#alarms.delete(due.key);
      due.alarm.ring();
    }
    this.#now = instantAt(end);
    settle();
  }

  #earliest() {
    let first: { key: object; alarm: { at: Instant; ring: () => void } } | undefined;
    for (const [key, alarm] of this.#alarms) {
      if (first === undefined || alarm.at < first.alarm.at) first = { key, alarm };
    }
    return first;
  }
}

const MOST_ALARMS = 1_000_000;
