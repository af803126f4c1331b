import type { SocketAddress } from '../net/socket-address.ts';
import type { Severity } from '../sansio/log.ts';

/** What happened that people and logs should know. Peers go by their configured id. */
export type Event =
  | { readonly type: 'peer-connected'; readonly peer: string; readonly handshakeMs: number }
  | { readonly type: 'peer-failed'; readonly peer: string; readonly cause: string }
  | {
      readonly type: 'endpoint-changed';
      readonly peer: string;
      readonly endpoint: SocketAddress;
    }
  | {
      readonly type: 'configuration-applied';
      readonly version: number | undefined;
      readonly peers: number;
    }
  | {
      readonly type: 'configuration-failed';
      readonly version: number | undefined;
      /** Whether it runs all the same, but for what failed. */
      readonly running: boolean;
      readonly failures: readonly Failure[];
    }
  | {
      readonly type: 'desired-refused';
      readonly version: number | undefined;
      readonly why: string;
      readonly errors: readonly string[];
    }
  /** Another program undoes again and again what we make of the link, its addresses and routes. */
  | { readonly type: 'link-contested' }
  | { readonly type: 'log-level'; readonly level: Severity };

/** A value of the configuration that could not be made so, and what stood in the way. */
export interface Failure {
  /** Path in the configuration, such as `interface.listenPort`. */
  readonly path: string;
  /** A `DeviceFailure`, a `ListenFailure`, or the kernel's error. */
  readonly why: string;
}
