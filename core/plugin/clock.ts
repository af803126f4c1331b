import type { Instant, Millis } from '../sansio/instant.ts';

/** The two times of the world: a monotonic one for deadlines, the calendar for what peers see. */
export interface Clock {
  /** Monotonic; counts while the machine sleeps where the platform can tell. */
  now(): Instant;
  /** Milliseconds since 1970-01-01 UTC. Routers boot with a wrong one and step it later. */
  unixMs(): number;
  /** Calls `onAlarm` once at or soon after `at`; a later call replaces an earlier one. */
  alarm(at: Instant, onAlarm: () => void): void;
  cancelAlarm(): void;
  /** Calls `onYield` after pending input and output have had their turn. */
  soon(onYield: () => void): void;
}

/** The longest wait that every platform's timers take. Longer ones wake early and are harmless. */
export const LONGEST_ALARM: Millis = 2 ** 31 - 1;
