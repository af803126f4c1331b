import { uptime } from 'node:os';
import { LONGEST_ALARM, type Clock } from '../../core/plugin/clock.ts';
import { elapsed, instantAt, type Instant, type Millis } from '../../core/sansio/instant.ts';

/** Where a clock reads the time, in milliseconds. Tests bring their own. */
export interface TimeSources {
  /** CLOCK_MONOTONIC: never steps, stands still while the machine sleeps. */
  monotonic(): Millis;
  /** The calendar: steps when NTP or a person sets it. */
  wall(): Millis;
  /** CLOCK_BOOTTIME: counts sleep, but costs a system call or three. */
  boot(): Millis;
}

export function createNodeClock(sources: TimeSources = NODE_SOURCES): Clock {
  return new NodeClock(sources);
}

const NODE_SOURCES: TimeSources = {
  monotonic: () => performance.now(),
  wall: () => Date.now(),
  boot: () => uptime() * 1000,
};

/** Calendar and monotonic time drifting apart by more means sleep, or a step of the calendar. */
const DRIFT_TOLERANCE: Millis = 1000;

/**
 * A monotonic clock that counts sleep. A sleep shows in the calendar, which is cheap to read, but so
 * does a router that gets its first time from NTP; the boot clock tells the two apart and is asked only
 * when the calendar drifted.
 */
class NodeClock implements Clock {
  readonly #sources: TimeSources;
  /** How far the calendar, and the boot clock, were ahead of the monotonic clock when last compared. */
  #wallAhead: Millis;
  #bootAhead: Millis;
  #slept: Millis = 0;
  #latest: Instant = instantAt(0);

  #alarm: { readonly at: Instant; readonly onAlarm: () => void } | undefined;
  #timer: { readonly at: Instant; readonly handle: NodeJS.Timeout } | undefined;

  constructor(sources: TimeSources) {
    this.#sources = sources;
    const monotonic = sources.monotonic();
    this.#wallAhead = sources.wall() - monotonic;
    this.#bootAhead = sources.boot() - monotonic;
  }

  now(): Instant {
    const monotonic = this.#sources.monotonic();
    const wallAhead = this.#sources.wall() - monotonic;
    if (Math.abs(wallAhead - this.#wallAhead) > DRIFT_TOLERANCE) {
      this.#wallAhead = wallAhead;
      const bootAhead = this.#sources.boot() - monotonic;
      // Below the tolerance it is the rounding of the boot clock, not sleep.
      if (bootAhead - this.#bootAhead > DRIFT_TOLERANCE / 2) {
        this.#slept += bootAhead - this.#bootAhead;
        this.#bootAhead = bootAhead;
      }
    }
    const now = instantAt(monotonic + this.#slept);
    if (now > this.#latest) this.#latest = now;
    return this.#latest;
  }

  unixMs(): number {
    return this.#sources.wall();
  }

  alarm(at: Instant, onAlarm: () => void): void {
    this.#alarm = { at, onAlarm };
    // The packet path moves the alarm with each batch, mostly away: the timer that is set then stays,
    // and is set again when it fires early. That saves making a timer per batch.
    if (this.#timer === undefined || this.#timer.at > at) this.#setTimer();
  }

  cancelAlarm(): void {
    this.#alarm = undefined;
    this.#clearTimer();
  }

  soon(onYield: () => void): void {
    setImmediate(onYield);
  }

  #setTimer(): void {
    this.#clearTimer();
    if (this.#alarm === undefined) return;
    const { at } = this.#alarm;
    const wait = Math.min(Math.max(elapsed(this.now(), at), 0), LONGEST_ALARM);
    this.#timer = { at, handle: setTimeout(() => this.#onTimer(), Math.ceil(wait)) };
  }

  #clearTimer(): void {
    clearTimeout(this.#timer?.handle);
    this.#timer = undefined;
  }

  #onTimer(): void {
    this.#timer = undefined;
    const alarm = this.#alarm;
    if (alarm === undefined) return;
    // Node's timers count from the start of the loop's turn, so they may be early.
    if (this.now() < alarm.at) return this.#setTimer();
    this.#alarm = undefined;
    alarm.onAlarm();
  }
}
