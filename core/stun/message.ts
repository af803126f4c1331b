import type { SocketAddress } from '../net/socket-address.ts';
import type { Crypto } from '../sansio/crypto.ts';
import { BugError, type Outcome } from '../sansio/outcome.ts';

/**
 * STUN (RFC 8489) messages as ICE (RFC 8445) and TURN (RFC 8656) use them. Attributes that are not here
 * are skipped on reading; unknown ones that are comprehension-required are listed in `unknownRequired`.
 */
export interface StunMessage {
  readonly class: StunClass;
  readonly method: StunMethod;
  /** 12 bytes. */
  readonly transactionId: Uint8Array;
  readonly attributes: StunAttributes;
}

export type StunClass = 'request' | 'indication' | 'success' | 'error';

export type StunMethod =
  'binding' | 'allocate' | 'refresh' | 'send' | 'data' | 'create-permission' | 'channel-bind';

export interface StunAttributes {
  readonly mappedAddress?: SocketAddress;
  readonly xorMappedAddress?: SocketAddress;
  readonly username?: string;
  readonly realm?: string;
  readonly nonce?: string;
  readonly software?: string;
  readonly errorCode?: { readonly code: number; readonly reason: string };
  readonly unknownAttributes?: readonly number[];
  readonly alternateServer?: SocketAddress;
  // RFC 8445 §16.1
  readonly priority?: number;
  readonly useCandidate?: true;
  /** 8 bytes: the tie-breaker. */
  readonly iceControlled?: Uint8Array;
  readonly iceControlling?: Uint8Array;
  // RFC 8656 §18
  readonly channelNumber?: number;
  /** Seconds. */
  readonly lifetime?: number;
  readonly xorPeerAddresses?: readonly SocketAddress[];
  readonly xorRelayedAddresses?: readonly SocketAddress[];
  /** IP protocol number: 17 is UDP. */
  readonly requestedTransport?: number;
  readonly requestedAddressFamily?: 4 | 6;
  readonly additionalAddressFamily?: 4 | 6;
  readonly addressErrorCode?: {
    readonly family: 4 | 6;
    readonly code: number;
    readonly reason: string;
  };
  readonly data?: Uint8Array;
  readonly dontFragment?: true;
}

/** A message as it came, with what is needed to check it. */
export interface ReceivedStun extends StunMessage {
  /** Whether MESSAGE-INTEGRITY is there at all. */
  readonly hasIntegrity: boolean;
  /** Types of attributes below 0x8000 that are not known here (RFC 8489 §6.3.1). */
  readonly unknownRequired: readonly number[];
  /** Whether MESSAGE-INTEGRITY is there and holds under the key, compared in constant time. */
  hasValidIntegrity(key: Uint8Array, crypto: Pick<Crypto, 'hmacSha1'>): boolean;
}

/** Whether a datagram can only be STUN: top bits, length, magic cookie. Costs no allocation. */
export function isStun(_datagram: Uint8Array): boolean {
  throw new BugError('not written');
}

/** Reads a whole datagram. A FINGERPRINT that is there must hold. Borrows from the datagram. */
export function decodeStun(_datagram: Uint8Array): Outcome<ReceivedStun, 'malformed'> {
  throw new BugError('not written');
}

/** Writes a message with FINGERPRINT, and with MESSAGE-INTEGRITY where a key is given. */
export function encodeStun(
  _message: StunMessage,
  _options: { readonly integrityKey?: Uint8Array; readonly crypto: Pick<Crypto, 'hmacSha1'> },
): Uint8Array {
  throw new BugError('not written');
}
