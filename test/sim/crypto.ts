import type { Crypto, X25519 } from '../../core/sansio/crypto.ts';
import { createNobleCrypto } from '../../plugins/crypto-noble/index.ts';
import { createNodeCrypto } from '../../plugins/crypto-node/index.ts';

/** Results of one world, more or less. */
const MOST_REMEMBERED = 1_000;

/** The real thing, which computes nothing twice: both sides of a handshake ask for the same secrets. */
function remembering(x25519: X25519): X25519 {
  const publicKeys = new Map<string, Uint8Array>();
  const secrets = new Map<string, Uint8Array | undefined>();
  const publicKey = (privateKey: Uint8Array): Uint8Array =>
    remember(publicKeys, textOf(privateKey), () => x25519.publicKey(privateKey));
  return {
    publicKey: (privateKey) => publicKey(privateKey).slice(),
    sharedSecret(privateKey, theirs) {
      const key = [textOf(publicKey(privateKey)), textOf(theirs)].sort().join();
      return remember(secrets, key, () => x25519.sharedSecret(privateKey, theirs))?.slice();
    },
  };
}

function remember<T>(known: Map<string, T>, key: string, compute: () => T): T {
  const before = known.get(key);
  if (before !== undefined) return before;
  const value = compute();
  if (known.size >= MOST_REMEMBERED) known.clear();
  known.set(key, value);
  return value;
}

function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
}

const real = createNodeCrypto(createNobleCrypto());

export const crypto: Crypto = { ...real, x25519: remembering(real.x25519) };
