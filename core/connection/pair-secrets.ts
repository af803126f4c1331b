import type { IceCredentials } from '../ice/agent.ts';
import { encodeBase64 } from '../sansio/base64.ts';
import type { Crypto } from '../sansio/crypto.ts';
import { hkdfExpand, hkdfExtract } from '../sansio/hkdf.ts';
import { encodeUtf8 } from '../sansio/utf8.ts';

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

/**
 * `undefined` for a public key with which no secret can be shared: a low-order point, or our own.
 * `fleet` is empty for a device that stands alone. Keys are 32 bytes.
 *
 * Each secret is HKDF-Expand with info = purpose ‖ 0 ‖ fleet ‖ lower public key ‖ higher public key, where
 * the purpose names its side. No purpose holds a zero byte and both keys have a fixed length, so that no
 * two infos are the same bytes.
 */
export function derivePairSecrets(
  own: { readonly privateKey: Uint8Array; readonly publicKey: Uint8Array },
  remotePublicKey: Uint8Array,
  fleet: string,
  crypto: Crypto,
): PairSecrets | undefined {
  const order = compareBytes(own.publicKey, remotePublicKey);
  const shared = crypto.x25519.sharedSecret(own.privateKey, remotePublicKey);
  if (shared === undefined || order === 0) return undefined;
  const extracted = hkdfExtract(NO_SALT, shared, crypto);
  shared.fill(0);

  const isLower = order < 0;
  const [lower, higher] = isLower
    ? [own.publicKey, remotePublicKey]
    : [remotePublicKey, own.publicKey];
  const context = Uint8Array.of(0, ...encodeUtf8(fleet), ...lower, ...higher);
  const derive = (purpose: string, length: number) =>
    hkdfExpand(extracted, Uint8Array.of(...encodeUtf8(purpose), ...context), length, crypto);
  const [local, remote] = isLower ? (['lower', 'higher'] as const) : (['higher', 'lower'] as const);
  const secrets = {
    role: isLower ? 'controlling' : 'controlled',
    localIce: iceCredentials(derive(`culvert ice of ${local}`, ICE_BYTES)),
    remoteIce: iceCredentials(derive(`culvert ice of ${remote}`, ICE_BYTES)),
    sendKey: derive(`culvert signal from ${local}`, KEY_BYTES),
    receiveKey: derive(`culvert signal from ${remote}`, KEY_BYTES),
  } as const;
  extracted.fill(0);
  return secrets;
}

const NO_SALT = new Uint8Array(0);
const KEY_BYTES = 32;
/** Multiples of 3, so that their base64 is all `ice-char` (RFC 8839 §5.4): 8 and 24 characters. */
const USERNAME_FRAGMENT_BYTES = 6;
const PASSWORD_BYTES = 18;
const ICE_BYTES = USERNAME_FRAGMENT_BYTES + PASSWORD_BYTES;

function iceCredentials(bytes: Uint8Array): IceCredentials {
  return {
    usernameFragment: encodeBase64(bytes.subarray(0, USERNAME_FRAGMENT_BYTES)),
    password: encodeBase64(bytes.subarray(USERNAME_FRAGMENT_BYTES)),
  };
}

/** Both are public and of equal length: below, equal to or above 0, as the first differing byte is. */
function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const at = a.findIndex((byte, i) => byte !== b[i]);
  return at === -1 ? 0 : (a[at] ?? 0) - (b[at] ?? 0);
}
