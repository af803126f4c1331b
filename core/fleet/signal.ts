import type { Candidate } from '../ice/candidate.ts';
import type { Crypto } from '../sansio/crypto.ts';
import { BugError, type Outcome } from '../sansio/outcome.ts';
import type { Random } from '../sansio/random.ts';

/** How a device can be reached, told to one peer. The newest says all: candidates are the complete list. */
export interface Signal {
  /** Names of the devices in the fleet. */
  readonly from: string;
  readonly to: string;
  /** Counts the starts of the sender, and its signals to this peer since then. */
  readonly boot: number;
  readonly seq: number;
  readonly candidates: readonly Candidate[];
  /** Ed25519 public key of the sender, 32 bytes: signs the certificate of its stream listener. */
  readonly deviceKey: Uint8Array;
}

/** Seals a signal with XChaCha20-Poly1305: nonce[24] ‖ sealed JSON; the topic is authenticated with it. */
export function sealSignal(
  _signal: Signal,
  _topic: string,
  _key: Uint8Array,
  _options: { readonly crypto: Crypto; readonly random: Random },
): Uint8Array {
  throw new BugError('not written');
}

/** Opens what a peer sealed; a candidate that does not parse is left out. */
export function openSignal(
  _sealed: Uint8Array,
  _topic: string,
  _key: Uint8Array,
  _crypto: Crypto,
): Outcome<Signal, 'not-authentic' | 'malformed'> {
  throw new BugError('not written');
}
