import { BugError, type Outcome } from '../sansio/outcome.ts';

/** The UDP port inside the tunnel on which two daemons speak with each other. */
export const PEERING_PORT = 2680;

/** Why a peer goes. `restarting`: it will be back in a moment; `revoked`: its last authorization ended. */
export type GoodbyeReason = 'leaving' | 'restarting' | 'revoked';

/**
 * What one daemon tells the other inside the tunnel. Delivery is not reliable: each message is idempotent
 * and repeated by the state machine of its sender, or harmless when lost.
 */
export type PeeringMessage =
  | { readonly type: 'goodbye'; readonly reason: GoodbyeReason }
  /** The path that the sender sends on, for `culvert paths` at the other end. */
  | { readonly type: 'path-report'; readonly kind: PathKind; readonly rttMs?: number };

/** How packets travel. `relayed`: a relay of one side or of both. */
export type PathKind = 'direct' | 'relayed' | 'stream';

/** Header (type u8, seven zeros), then JSON in UTF-8; 1200 bytes at most. */
export function encodePeering(_message: PeeringMessage): Uint8Array {
  throw new BugError('not written');
}

/** Reads a datagram. `unknown-type` is a newer peer's and no fault; unknown members are ignored. */
export function decodePeering(
  _datagram: Uint8Array,
): Outcome<PeeringMessage, 'malformed' | 'unknown-type'> {
  throw new BugError('not written');
}
