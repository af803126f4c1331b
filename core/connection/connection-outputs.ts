import type { ValidPair } from '../ice/agent.ts';

export type ConnectionState =
  /** Nothing is known of where the peer is, or it said goodbye. */
  'waiting' | 'connecting' | 'connected' | 'idle' | 'failed';

/** Why a connection failed: no pair answered, all fell silent, or WireGuard came to no session. */
export type ConnectionFailure =
  | 'no-candidates'
  | 'no-answer'
  | 'path-lost'
  | 'no-session'
  | 'preshared-key-differs'
  | 'cookies-only';

export type ConnectionEvent =
  /** Packets go over this pair from now on. */
  | { readonly type: 'path-selected'; readonly pair: ValidPair; readonly why: SelectionReason }
  /** No pair is in use. */
  | { readonly type: 'path-lost' }
  /** It is for this side to start a handshake now. */
  | { readonly type: 'handshake-due' }
  /** The peer should be told our candidates, as an attempt begins. */
  | { readonly type: 'signal-due' }
  | { readonly type: 'failed'; readonly why: ConnectionFailure }
  /** Streams to the peer are worth dialling, or no longer. */
  | { readonly type: 'streams-wanted'; readonly wanted: boolean };

export type SelectionReason =
  'first' | 'better' | 'silence' | 'nominated by the peer' | 'base removed';
