import type { Crypto } from '../sansio/crypto.ts';
import { failed, ok, type Outcome } from '../sansio/outcome.ts';
import { encodeUtf8 } from '../sansio/utf8.ts';
import { SymmetricState } from './noise.ts';

/**
 * The handshake Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s (whitepaper §5.4, Noise §7.5):
 *
 *     <- s
 *     ...
 *     -> e, es, s, ss, payload      initiate, readInitiation + readInitiationPayload
 *     <- e, ee, se, psk, payload    respond, readResponse
 *
 * Pure functions over the symmetric state. A low-order point in the place of a public key gives
 * `undefined` or `'low-order-point'`.
 */
export interface KeyPair {
  readonly privateKey: Uint8Array;
  readonly publicKey: Uint8Array;
}

/** The keys of a new session, of 32 bytes. */
export interface SessionKeys {
  readonly sendKey: Uint8Array;
  readonly receiveKey: Uint8Array;
}

/** An initiation that was sent and waits for its response. */
export interface PendingInitiation {
  readonly state: SymmetricState;
  readonly ephemeral: KeyPair;
  readonly sealedStatic: Uint8Array;
  readonly sealedPayload: Uint8Array;
}

/** An initiation that was received: its sender says who it is, its payload will prove it. */
export interface ReceivedInitiation {
  readonly state: SymmetricState;
  readonly remotePublicKey: Uint8Array;
  readonly remoteEphemeral: Uint8Array;
}

/** Makes the first message. `staticStatic` is the secret of the two static keys. */
export function initiate(
  crypto: Crypto,
  own: KeyPair,
  remote: {
    readonly publicKey: Uint8Array;
    readonly staticStatic: Uint8Array;
  },
  message: { readonly ephemeral: KeyPair; readonly payload: Uint8Array },
  prologue: Uint8Array = WIREGUARD_PROLOGUE,
): PendingInitiation | undefined {
  const { ephemeral } = message;
  const ephemeralStatic = crypto.x25519.sharedSecret(ephemeral.privateKey, remote.publicKey);
  if (ephemeralStatic === undefined) return undefined;
  const state = startState(crypto, prologue, remote.publicKey);
  mixEphemeral(state, ephemeral.publicKey);
  mixSecret(state, ephemeralStatic);
  const sealedStatic = state.sealAndHash(own.publicKey);
  state.mixKey(remote.staticStatic);
  const sealedPayload = state.sealAndHash(message.payload);
  return { state, ephemeral, sealedStatic, sealedPayload };
}

/** Opens the static key in a first message: it names a peer, but anyone can have written it. */
export function readInitiation(
  crypto: Crypto,
  own: KeyPair,
  message: { readonly ephemeral: Uint8Array; readonly sealedStatic: Uint8Array },
  prologue: Uint8Array = WIREGUARD_PROLOGUE,
): ReceivedInitiation | undefined {
  const ephemeralStatic = crypto.x25519.sharedSecret(own.privateKey, message.ephemeral);
  if (ephemeralStatic === undefined) return undefined;
  const state = startState(crypto, prologue, own.publicKey);
  mixEphemeral(state, message.ephemeral);
  mixSecret(state, ephemeralStatic);
  const remotePublicKey = state.openAndHash(message.sealedStatic);
  if (remotePublicKey === undefined) return undefined;
  return { state, remotePublicKey, remoteEphemeral: message.ephemeral.slice() };
}

/** Opens the payload of a first message, which authenticates its sender. */
export function readInitiationPayload(
  initiation: ReceivedInitiation,
  staticStatic: Uint8Array,
  sealedPayload: Uint8Array,
): Uint8Array | undefined {
  initiation.state.mixKey(staticStatic);
  return initiation.state.openAndHash(sealedPayload);
}

/** Makes the second message and the responder's keys. Uses up the initiation. */
export function respond(
  crypto: Crypto,
  initiation: ReceivedInitiation,
  presharedKey: Uint8Array,
  message: { readonly ephemeral: KeyPair; readonly payload: Uint8Array },
): { readonly sealedPayload: Uint8Array; readonly keys: SessionKeys } | undefined {
  const { state, remotePublicKey, remoteEphemeral } = initiation;
  const { privateKey, publicKey } = message.ephemeral;
  const ephemeralEphemeral = crypto.x25519.sharedSecret(privateKey, remoteEphemeral);
  const staticEphemeral = crypto.x25519.sharedSecret(privateKey, remotePublicKey);
  if (ephemeralEphemeral === undefined || staticEphemeral === undefined) return undefined;
  mixEphemeral(state, publicKey);
  mixSecret(state, ephemeralEphemeral);
  mixSecret(state, staticEphemeral);
  state.mixKeyAndHash(presharedKey);
  const sealedPayload = state.sealAndHash(message.payload);
  const { initiatorKey, responderKey } = state.split();
  return { sealedPayload, keys: { sendKey: responderKey, receiveKey: initiatorKey } };
}

/**
 * Reads the second message and returns the initiator's keys. The pending initiation stays as it is,
 * so that the true response can still come after a forged one.
 */
export function readResponse(
  crypto: Crypto,
  own: KeyPair,
  pending: PendingInitiation,
  presharedKey: Uint8Array,
  message: { readonly ephemeral: Uint8Array; readonly sealedPayload: Uint8Array },
): Outcome<
  { readonly payload: Uint8Array; readonly keys: SessionKeys },
  'low-order-point' | 'not-authentic'
> {
  const { privateKey } = pending.ephemeral;
  const ephemeralEphemeral = crypto.x25519.sharedSecret(privateKey, message.ephemeral);
  const staticEphemeral = crypto.x25519.sharedSecret(own.privateKey, message.ephemeral);
  if (ephemeralEphemeral === undefined || staticEphemeral === undefined) {
    return failed('low-order-point');
  }
  const state = pending.state.clone();
  mixEphemeral(state, message.ephemeral);
  mixSecret(state, ephemeralEphemeral);
  mixSecret(state, staticEphemeral);
  state.mixKeyAndHash(presharedKey);
  const payload = state.openAndHash(message.sealedPayload);
  if (payload === undefined) {
    state.wipe();
    return failed('not-authentic');
  }
  const { initiatorKey, responderKey } = state.split();
  return ok({ payload, keys: { sendKey: initiatorKey, receiveKey: responderKey } });
}

/** Forgets the secrets of an initiation that was answered or given up. */
export function wipeInitiation(pending: PendingInitiation): void {
  pending.state.wipe();
  pending.ephemeral.privateKey.fill(0);
}

const CONSTRUCTION = encodeUtf8('Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s');
const WIREGUARD_PROLOGUE = encodeUtf8('WireGuard v1 zx2c4 Jason@zx2c4.com');

function startState(
  crypto: Crypto,
  prologue: Uint8Array,
  responderPublicKey: Uint8Array,
): SymmetricState {
  const state = SymmetricState.start(crypto, CONSTRUCTION, prologue);
  state.mixHash(responderPublicKey);
  return state;
}

/** The token `e`: with a preshared key in the pattern it is also mixed into the key (Noise §9.2). */
function mixEphemeral(state: SymmetricState, ephemeral: Uint8Array): void {
  state.mixHash(ephemeral);
  state.mixKey(ephemeral);
}

function mixSecret(state: SymmetricState, secret: Uint8Array): void {
  state.mixKey(secret);
  secret.fill(0);
}
