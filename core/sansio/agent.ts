import type { Instant } from './instant.ts';

/** An instant at which `handleTimeout` is due, with the reason that logs and tests name. */
export interface Deadline {
  readonly at: Instant;
  readonly reason: string;
}

/**
 * The contract of every agent in the core: inputs come in with the time, outputs are polled.
 *
 * After each `handle*` call the driver drains `pollTransmit` and `pollEvent` until they return
 * `undefined`, then waits until `pollTimeout().at` or for the next input. `pollTimeout` is pure; while
 * outputs are queued it answers the time of the last call, so that a driver that only looks at the
 * deadline still drains. Nothing here throws on what a remote, the kernel or a user can cause.
 */
export interface SansIo<Input, Event, Transmit> {
  handleInput(input: Input, now: Instant): void;
  handleTimeout(now: Instant): void;
  pollTransmit(): Transmit | undefined;
  pollEvent(): Event | undefined;
  pollTimeout(): Deadline | undefined;
}

/** Returns the earliest of the given deadlines; the first one wins a tie. */
export function earliest(...deadlines: readonly (Deadline | undefined)[]): Deadline | undefined {
  let first: Deadline | undefined;
  for (const deadline of deadlines) first = sooner(first, deadline);
  return first;
}

/** The same of two. Allocates nothing: it is asked for after each batch of packets. */
export function sooner(a: Deadline | undefined, b: Deadline | undefined): Deadline | undefined {
  return b !== undefined && (a === undefined || b.at < a.at) ? b : a;
}
