import type { SocketAddress } from '../net/socket-address.ts';
import type { Deadline } from '../sansio/agent.ts';
import type { Crypto } from '../sansio/crypto.ts';
import type { Instant, Millis } from '../sansio/instant.ts';
import type { Log } from '../sansio/log.ts';
import { BugError } from '../sansio/outcome.ts';
import type { Random } from '../sansio/random.ts';

/** How to prove to a relay that we may use it. */
export type TurnCredentials =
  /** RFC 8489 §9.2. */
  | { readonly type: 'long-term'; readonly username: string; readonly password: string }
  /** draft-uberti-behave-turn-rest: we mint `expiry:id` and HMAC-SHA1 from a secret shared with the relay. */
  | { readonly type: 'shared-secret'; readonly secret: string; readonly id: string };

export interface AllocationOptions {
  readonly credentials: TurnCredentials;
  /** Whether messages go over UDP, and are repeated, or over a stream that does so itself. */
  readonly transport: 'udp' | 'stream';
  readonly software: string;
  /** The calendar, for minted credentials. */
  unixMs(now: Instant): number;
  readonly random: Random;
  readonly crypto: Crypto;
  readonly log: Log;
}

export type AllocationState = 'allocating' | 'allocated' | 'failed';

export type AllocationFailure =
  'no-response' | 'wrong-credentials' | 'quota-reached' | 'out-of-capacity' | 'refused' | 'closed';

export type AllocationEvent =
  /** Also after relayed addresses changed. `relayed` has at most one address of each family. */
  | {
      readonly type: 'allocated';
      readonly relayed: readonly SocketAddress[];
      /** Our address as the relay sees it: a server-reflexive one where the transport is UDP. */
      readonly mapped: SocketAddress;
    }
  /** The relayed addresses are void. The owner decides when to make another allocation. */
  | { readonly type: 'failed'; readonly why: AllocationFailure; readonly code?: number }
  | { readonly type: 'channel-bound'; readonly peer: SocketAddress; readonly channel: number }
  /** 403, 443 or no answer: no datagram gets to this peer this way. */
  | { readonly type: 'channel-refused'; readonly peer: SocketAddress }
  /** A datagram that came as a Data indication, from a peer with a permission but no channel. */
  | { readonly type: 'data'; readonly peer: SocketAddress; readonly payload: Uint8Array };

/**
 * Our allocation at one TURN server (RFC 8656) over one transport. Data go through channels only, written
 * and read elsewhere (`channelOf`, `peerOf`); this keeps the allocation and its channels alive. Full file
 * comment by its author.
 */
export class Allocation {
  constructor(_options: AllocationOptions, _now: Instant) {
    throw new BugError('not written');
  }

  get state(): AllocationState {
    throw new BugError('not written');
  }

  /** Smoothed round trip of answered requests that were sent once; `undefined` before the first. */
  get rtt(): Millis | undefined {
    throw new BugError('not written');
  }

  get relayed(): readonly SocketAddress[] {
    throw new BugError('not written');
  }

  /** A STUN message from the server, whole. What does not authenticate changes nothing, but for 401 and 438. */
  handleMessage(_message: Uint8Array, _now: Instant): void {
    throw new BugError('not written');
  }

  /** Returns the channel to the peer, binding one if there is none yet; usable at once (RFC 8656 §12.2 race is the owner's). */
  channelTo(_peer: SocketAddress, _now: Instant): number | undefined {
    throw new BugError('not written');
  }

  /** Returns whose channel it is. */
  peerOf(_channel: number): SocketAddress | undefined {
    throw new BugError('not written');
  }

  /** Data went through, which keeps the relay and its NAT awake. */
  handleTraffic(_now: Instant): void {
    throw new BugError('not written');
  }

  /** Sends a refresh now, with 1 s of patience: is the relay still there? */
  refresh(_now: Instant): void {
    throw new BugError('not written');
  }

  /** Gives the allocation back (refresh with lifetime 0, once, unanswered). */
  close(_now: Instant): void {
    throw new BugError('not written');
  }

  handleTimeout(_now: Instant): void {
    throw new BugError('not written');
  }

  /** Messages for the server. */
  pollTransmit(): Uint8Array | undefined {
    throw new BugError('not written');
  }

  pollEvent(): AllocationEvent | undefined {
    throw new BugError('not written');
  }

  pollTimeout(): Deadline | undefined {
    throw new BugError('not written');
  }
}
