import type { Candidate } from '../ice/candidate.ts';
import type { SocketAddress } from '../net/socket-address.ts';
import type { PathKind } from '../peering/message.ts';
import type { DialTarget, StreamId } from '../plugin/streams.ts';
import type { Millis } from '../sansio/instant.ts';
import type { PeerIndex } from '../wireguard/outputs.ts';
import type { ConnectionFailure, SelectionReason } from './connection.ts';
import type { RelayFailure, RelayId } from './relay.ts';
import type { Route } from './route.ts';

/** What `Connections` has to say. */
export type ConnectionsEvent =
  /** Packets of the peer go this way from now on; `undefined` while there is none. */
  | { readonly type: 'path'; readonly peer: PeerIndex; readonly route: Route | undefined }
  /** The same, for people. */
  | {
      readonly type: 'path-selected';
      readonly peer: PeerIndex;
      readonly kind: PathKind;
      readonly remote: SocketAddress;
      readonly rtt: Millis;
      readonly why: SelectionReason;
    }
  | { readonly type: 'handshake-due'; readonly peer: PeerIndex }
  | { readonly type: 'failed'; readonly peer: PeerIndex; readonly why: ConnectionFailure }
  /** The complete list of our candidates, to be told to the peer. */
  | {
      readonly type: 'candidates';
      readonly peer: PeerIndex;
      readonly candidates: readonly Candidate[];
    }
  /** Where the peer was reached: worth keeping for the next start. */
  | {
      readonly type: 'reached';
      readonly peer: PeerIndex;
      readonly candidates: readonly Candidate[];
    }
  | { readonly type: 'dial'; readonly stream: StreamId; readonly target: DialTarget }
  | { readonly type: 'hang-up'; readonly stream: StreamId }
  | { readonly type: 'resolve-relay'; readonly relay: RelayId; readonly host: string }
  | { readonly type: 'relay-ready'; readonly relay: RelayId }
  | {
      readonly type: 'relay-failed';
      readonly relay: RelayId;
      readonly why: RelayFailure;
      readonly detail: string;
    }
  /** The last relay that was ready is gone. */
  | { readonly type: 'no-relays' };
