import type { IceCredentials } from '../ice/agent.ts';
import type { Crypto } from '../sansio/crypto.ts';
import { BugError } from '../sansio/outcome.ts';

/** What two devices derive from their static keys alone, each on its own (RFC 5869 over X25519). */
export interface PairSecrets {
  /** The device with the lower public key (compared as bytes) controls. */
  readonly role: 'controlling' | 'controlled';
  readonly localIce: IceCredentials;
  readonly remoteIce: IceCredentials;
  /** XChaCha20-Poly1305, 32 bytes each: signals to the peer and from it. */
  readonly sendKey: Uint8Array;
  readonly receiveKey: Uint8Array;
}

/** `undefined` for a public key with which no secret can be shared. `fleet` is empty for a device that stands alone. */
export function derivePairSecrets(
  _own: { readonly privateKey: Uint8Array; readonly publicKey: Uint8Array },
  _remotePublicKey: Uint8Array,
  _fleet: string,
  _crypto: Crypto,
): PairSecrets | undefined {
  throw new BugError('not written');
}
