import type { SocketAddress } from '../net/socket-address.ts';
import type { GoodbyeReason, PathKind } from '../peering/message.ts';
import type { ListenFailure } from '../plugin/datagrams.ts';
import type { AssignmentRefusal } from './gateway-side.ts';
import type { Severity } from '../sansio/log.ts';

/** What happened that people and logs should know. Peers go by their configured id. */
export type Event =
  | { readonly type: 'peer-connected'; readonly peer: string; readonly handshakeMs: number }
  | { readonly type: 'peer-failed'; readonly peer: string; readonly cause: string }
  /** Packets of the peer take this path from now on. */
  | {
      readonly type: 'path-selected';
      readonly peer: string;
      readonly kind: PathKind;
      readonly remote: SocketAddress;
      readonly rttMs: number;
      readonly why: string;
    }
  /** No path leads to the peer any more. It is sought again at once, which `connection-failed` ends. */
  | { readonly type: 'path-lost'; readonly peer: string; readonly why: PathLoss }
  /** No path leads to the peer, or none on which it comes to a session. It is tried again by itself. */
  | { readonly type: 'connection-failed'; readonly peer: string; readonly cause: string }
  /** The peer said goodbye. */
  | { readonly type: 'peer-left'; readonly peer: string; readonly reason: GoodbyeReason }
  /** Somebody signals in the name of the peer with another key than its own. */
  | { readonly type: 'key-mismatch'; readonly peer: string }
  | { readonly type: 'relay-ready'; readonly relay: string }
  | {
      readonly type: 'relay-failed';
      readonly relay: string;
      readonly why: string;
      readonly detail: string;
    }
  | { readonly type: 'no-relays' }
  | { readonly type: 'streams-not-listening'; readonly why: ListenFailure }
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
  /** `peers` are those to be waited for. */
  | { readonly type: 'drain-begun'; readonly peers: readonly string[] }
  | { readonly type: 'drain-cancelled' }
  /** The daemon may go. `busy` are peers that had not done when the time was over. */
  | { readonly type: 'drained'; readonly busy: readonly string[] }
  /** Queries of the LAN come to us. */
  | { readonly type: 'dns-intercepting'; readonly mode: string }
  /** They do not, and go where they went before. It is tried again. */
  | {
      readonly type: 'dns-not-intercepted';
      readonly mode: string;
      readonly why: string;
      readonly detail: string;
    }
  | { readonly type: 'dns-not-listening'; readonly address: string; readonly why: ListenFailure }
  | { readonly type: 'upstream-dead' | 'upstream-alive'; readonly upstream: string }
  /** A name of a resource got no addresses, as all were taken; so many were taken back from other names. */
  | {
      readonly type: 'proxies-exhausted';
      readonly capacity: number;
      readonly removed: number;
    }
  /** A gateway does not translate a name of a resource of its. */
  | {
      readonly type: 'resource-failed';
      readonly peer: string;
      readonly resource: string;
      readonly why: string;
    }
  /** A peer asked for a name of a resource of ours, and does not get it. */
  | {
      readonly type: 'assignment-refused';
      readonly peer: string;
      readonly resource: string;
      readonly why: AssignmentRefusal;
    }
  | {
      readonly type: 'authorization-ended';
      readonly peer: string;
      readonly resource: string;
      readonly why: string;
    }
  /** A name has another address, and sessions are open that keep the one before. */
  | {
      readonly type: 'address-changed';
      readonly peer: string;
      readonly domain: string;
      readonly proxyIp: string;
      readonly oldIp: string | undefined;
      readonly newIp: string | undefined;
    }
  /** Our tables of the packet filter are not as they should be. */
  | { readonly type: 'ruleset-failed'; readonly failures: readonly Failure[] }
  | { readonly type: 'log-level'; readonly level: Severity };

/** What became of the last path: no answer for ICE_TIMEOUT, or what carried it is gone. */
export type PathLoss = 'silence' | 'base removed';

/** A value of the configuration that could not be made so, and what stood in the way. */
export interface Failure {
  /** Path in the configuration, such as `interface.listenPort`. */
  readonly path: string;
  /** A `DeviceFailure`, a `ListenFailure`, or the kernel's error. */
  readonly why: string;
}
