import type { SocketAddress } from '../net/socket-address.ts';
import type { BaseId, PairId, ValidPair } from './pair.ts';

export interface IceTransmit {
  readonly base: BaseId;
  readonly to: SocketAddress;
  readonly payload: Uint8Array;
}

export type IceEvent =
  /** A check of ours was answered on a pair that was not valid before. */
  | { readonly type: 'pair-valid'; readonly pair: ValidPair }
  /** Every later answer to a check or probe. `nominates`: the peer has got a nomination of the pair. */
  | { readonly type: 'pair-answered'; readonly pair: ValidPair; readonly nominates: boolean }
  /** Controlled: the peer nominates this pair, told with each nominating check; it is valid. */
  | { readonly type: 'nominated'; readonly pair: ValidPair }
  /** A valid pair is no more: refused (403), base gone, remote candidate gone and silent. */
  | { readonly type: 'pair-gone'; readonly pair: PairId }
  /** No check was answered for ICE_TIMEOUT, and no pair is valid. Told once per start, and per pair lost. */
  | { readonly type: 'failed' };

/** Why a message was dropped. */
export type IceDropReason =
  | 'request-not-authentic'
  | 'request-to-unknown-base'
  | 'answer-unexpected'
  | 'answer-not-authentic'
  | 'answer-from-elsewhere';
