import type { Connection, ConnectionEvent } from '../netlink/conntrack/connection.ts';
import type { ConnectionFilter } from '../netlink/conntrack/filter.ts';
import type { Tuple } from '../netlink/conntrack/tuple.ts';
import type { Outcome } from '../sansio/outcome.ts';
import { capability, type Capability } from './capability.ts';

/** The connections that the kernel tracks, and translates. */
export interface Conntrack {
  /** Returns the connections that match, in no order. */
  dump(filter: ConnectionFilter): Outcome<readonly Connection[], ConntrackProblem>;
  /** Forgets the connection with this original tuple, in zone 0 unless told otherwise. */
  remove(original: Tuple, zone?: number): Outcome<{ readonly removed: 0 | 1 }, ConntrackProblem>;
  /** Forgets all connections that match; an empty filter matches all. */
  removeAll(filter: ConnectionFilter): Outcome<{ readonly removed: number }, ConntrackProblem>;
  /**
   * Tells of connections that match, as they begin, change and end. After `onLost` there were more of them
   * than the kernel kept for us: whoever must know dumps. Returns the function that ends it.
   */
  monitor(handler: ConntrackHandler, filter?: ConnectionFilter): () => void;
}

export interface ConntrackHandler {
  onEvent(event: ConnectionEvent): void;
  onLost(): void;
}

/** `not-permitted`: it takes CAP_NET_ADMIN, to read too. */
export type ConntrackProblem = 'not-permitted' | 'refused';

export const conntrack: Capability<Conntrack> = capability('conntrack');
