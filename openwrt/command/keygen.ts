import { encodeBase64 } from '../../core/sansio/base64.ts';
import { nullLog } from '../../core/sansio/log.ts';
import { createNobleCrypto } from '../../plugins/crypto-noble/index.ts';
import { createNodeCrypto } from '../../plugins/crypto-node/index.ts';
import { nodeRandom, openFiles } from '../../plugins/platform-node/index.ts';
import { loadIdentity } from '../identity.ts';
import { formatTable } from '../table.ts';

/** `culvert keygen`: returns what to print. Keys that are there stay. */
export function keygen(stateDirectory: string, json: boolean): string {
  const files = openFiles(stateDirectory, nullLog);
  const identity = loadIdentity(files, createNodeCrypto(createNobleCrypto()), nodeRandom);
  const publicKey = encodeBase64(identity.publicKey);
  const signingPublicKey = encodeBase64(identity.signingPublicKey);
  if (json) return `${JSON.stringify({ publicKey, signingPublicKey })}\n`;
  const rows = [
    ['tunnel (X25519)', publicKey],
    ['signing (Ed25519)', signingPublicKey],
  ];
  const made = identity.fresh ? 'made new keys' : 'the keys are there already';
  return `${made} in ${stateDirectory}; the public halves:\n${formatTable(rows)}\n`;
}
