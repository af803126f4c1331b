import type { SocketAddress } from '../net/socket-address.ts';

/** What happened that people and logs should know. Peers go by their configured id. */
export type Event =
  | {
      readonly type: 'peer-connected';
      readonly peer: string;
      readonly handshakeMs: number | undefined;
    }
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
      readonly failures: readonly Failure[];
    }
  | { readonly type: 'desired-refused'; readonly why: string };

/** A value of the configuration that could not be made so, and what stood in the way. */
export interface Failure {
  /** Path in the configuration, such as `interface.listenPort`. */
  readonly path: string;
  /** A `DeviceFailure`, a `ListenFailure`, or the kernel's error. */
  readonly why: string;
}
