import type { Files } from '../core/plugin/files.ts';
import { decodeBase64, encodeBase64 } from '../core/sansio/base64.ts';
import type { Crypto } from '../core/sansio/crypto.ts';
import { randomBytes, type Random } from '../core/sansio/random.ts';
import { decodeUtf8, encodeUtf8 } from '../core/sansio/utf8.ts';
import { CommandError } from './exit-code.ts';
import { readStateFile } from './state-file.ts';

/** One line of base64, the format of `wg genkey`. */
const WIREGUARD_KEY = 'wireguard.key';
/** One line of base64: the 32-byte Ed25519 seed. */
const SIGNING_KEY = 'device.key';

const KEY_LENGTH = 32;

/** The two key pairs of a device. The private halves never leave its state directory. */
export interface Identity {
  /** X25519 */
  readonly privateKey: Uint8Array;
  readonly publicKey: Uint8Array;
  /** Ed25519 seed */
  readonly signingKey: Uint8Array;
  readonly signingPublicKey: Uint8Array;
  /** Whether a key was made just now. */
  readonly fresh: boolean;
}

/** Reads the keys of this device, making those that are not there yet. */
export function loadIdentity(files: Files, crypto: Crypto, random: Random): Identity {
  const wireguard = loadKey(WIREGUARD_KEY, files, random);
  const signing = loadKey(SIGNING_KEY, files, random);
  return {
    privateKey: wireguard.key,
    publicKey: crypto.x25519.publicKey(wireguard.key),
    signingKey: signing.key,
    signingPublicKey: crypto.ed25519.publicKey(signing.key),
    fresh: wireguard.fresh || signing.fresh,
  };
}

function loadKey(
  name: string,
  files: Files,
  random: Random,
): { readonly key: Uint8Array; readonly fresh: boolean } {
  const stored = readStateFile(files, name);
  if (stored !== undefined) return { key: parseKey(name, stored), fresh: false };
  const key = randomBytes(random, KEY_LENGTH);
  const written = files.write(name, encodeUtf8(`${encodeBase64(key)}\n`));
  if (!written.ok) {
    throw new CommandError(
      'failure',
      `cannot write the key file ${name}: make the state directory writable, or name another with --state-dir`,
    );
  }
  return { key, fresh: true };
}

/** A damaged key file is never replaced: the fleet knows this device by its key. */
function parseKey(name: string, stored: Uint8Array): Uint8Array {
  const key = decodeBase64((decodeUtf8(stored) ?? '').trim());
  if (key?.length === KEY_LENGTH) return key;
  throw new CommandError(
    'failure',
    `the key file ${name} is damaged: restore it from a backup, or remove it to make this a device with new keys`,
  );
}
