/**
 * A point on the driver's monotonic clock, in milliseconds (fractions allowed) since the driver
 * started. It has no relation to the calendar: wall-clock time enters the core as an input.
 */
export type Instant = number & { readonly [instant]: true };

/** A length of time in milliseconds. */
export type Millis = number;

declare const instant: unique symbol;

/** Mints an `Instant` from a clock reading in milliseconds. */
export function instantAt(ms: Millis): Instant {
  return ms as Instant;
}

/** Returns the instant `ms` later than `from`. */
export function after(from: Instant, ms: Millis): Instant {
  return (from + ms) as Instant;
}

/** Returns the milliseconds from `since` to `now`. */
export function elapsed(since: Instant, now: Instant): Millis {
  return now - since;
}
