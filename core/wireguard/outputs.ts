import type { SocketAddress } from '../net/socket-address.ts';
import type { Source } from '../net/source.ts';
import { BoundedQueue } from '../sansio/bounded-queue.ts';
import type { Millis } from '../sansio/instant.ts';
import { MOST_QUEUED_TRANSMITS } from './constants.ts';
import type { Role } from './session.ts';

/** A number that the caller gives to a peer, 0 to 4095; small numbers in use keep tables small. */
export type PeerIndex = number;

/**
 * A handshake message to send. A cookie reply belongs to no peer, as its receiver is not authenticated,
 * and says where it must leave from; the others leave where the peer's data do.
 */
export interface WireguardTransmit {
  readonly peer: PeerIndex | undefined;
  readonly to: SocketAddress;
  readonly payload: Uint8Array;
  readonly source?: Source;
}

export type WireguardEvent =
  /** Receive with this session from here on. The keys are the receiver's to keep and to wipe. */
  | {
      readonly type: 'session-created';
      readonly peer: PeerIndex;
      readonly localIndex: number;
      readonly remoteIndex: number;
      readonly sendKey: Uint8Array;
      readonly receiveKey: Uint8Array;
      readonly role: Role;
    }
  /** Send with this session, beginning with the packets that wait. */
  | { readonly type: 'session-activated'; readonly peer: PeerIndex; readonly localIndex: number }
  /** Neither send nor receive with this session any more, and wipe its keys. */
  | { readonly type: 'session-dropped'; readonly peer: PeerIndex; readonly localIndex: number }
  /** Send an empty message, unless something was sent since the last 'session-activated'. */
  | { readonly type: 'keepalive-due'; readonly peer: PeerIndex }
  /**
   * Both sides have the keys of the session that was activated last. `tookMs` counts from our last
   * initiation to its response, or from our response to the first message under the new keys.
   */
  | {
      readonly type: 'handshake-completed';
      readonly peer: PeerIndex;
      readonly role: Role;
      readonly tookMs: Millis;
    }
  /** The attempt is over; packets that wait for a session are of no use. The next one starts another. */
  | {
      readonly type: 'handshake-failed';
      readonly peer: PeerIndex;
      readonly cause: HandshakeFailure;
    }
  /** The peer's messages come from elsewhere, or its settings name another endpoint. */
  | {
      readonly type: 'endpoint-changed';
      readonly peer: PeerIndex;
      readonly endpoint: SocketAddress;
    }
  /**
   * The peer called us at this address of ours: answer from there, or its firewall takes the answer for
   * a stranger's. `undefined`: answers may be lost for that, let the kernel choose again.
   */
  | {
      readonly type: 'source-changed';
      readonly peer: PeerIndex;
      readonly source: Source | undefined;
    };

/**
 * What was seen during an attempt that failed. It is a hint: a response that does not open is most
 * likely from a peer with another preshared key, but anyone who knows our public key can forge one.
 */
export type HandshakeFailure = 'no-response' | 'cookies-only' | 'preshared-key-differs';

/**
 * What waits for the driver. Messages can be repeated, so their queue drops; events cannot, and need no
 * limit: only authentic messages, timers and calls make them, a few each.
 */
export class Outputs {
  readonly #transmits = new BoundedQueue<WireguardTransmit>(MOST_QUEUED_TRANSMITS, 'oldest');
  readonly #events = new BoundedQueue<WireguardEvent>(Number.MAX_SAFE_INTEGER, 'newest');

  transmit(transmit: WireguardTransmit): void {
    this.#transmits.push(transmit);
  }

  event(event: WireguardEvent): void {
    this.#events.push(event);
  }

  nextTransmit(): WireguardTransmit | undefined {
    return this.#transmits.shift();
  }

  nextEvent(): WireguardEvent | undefined {
    return this.#events.shift();
  }

  get isEmpty(): boolean {
    return this.#transmits.length === 0 && this.#events.length === 0;
  }
}
