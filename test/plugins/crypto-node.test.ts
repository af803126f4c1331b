import t from 'tap';
import { createNobleCrypto } from '../../plugins/crypto-noble/index.ts';
import { createNodeCrypto } from '../../plugins/crypto-node/index.ts';
import { passes } from '../../plugins/crypto-node/known-answer.ts';
import { cryptoContract } from '../contract/crypto.ts';
import { wycheproof } from '../contract/wycheproof.ts';

const noble = createNobleCrypto();
const node = createNodeCrypto(noble);

await cryptoContract(t, node, noble);
await wycheproof(t, node);

await t.test('what this OpenSSL has does not come from the portable provider', async (t) => {
  t.not(node.x25519, noble.x25519);
  t.not(node.ed25519, noble.ed25519);
  t.not(node.chacha20poly1305, noble.chacha20poly1305);
});

await t.test('an algorithm passes only with the known answer', async (t) => {
  t.ok(passes.x25519(noble.x25519));
  t.ok(passes.blake2s(noble.blake2s));
  t.ok(passes.chacha20poly1305(noble.chacha20poly1305));
  t.ok(passes.ed25519(noble.ed25519));
  t.ok(passes.sha256((...parts) => noble.sha256(...parts)));

  const missing = () => {
    throw new Error('unsupported');
  };
  const wrong = () => new Uint8Array(32);
  for (const answer of [missing, wrong]) {
    t.notOk(passes.x25519({ ...noble.x25519, sharedSecret: answer }));
    t.notOk(passes.blake2s({ ...noble.blake2s, hash: answer }));
    t.notOk(passes.blake2s({ ...noble.blake2s, hmac: answer }));
    t.notOk(passes.chacha20poly1305({ ...noble.chacha20poly1305, seal: answer }));
    t.notOk(passes.ed25519({ ...noble.ed25519, sign: answer }));
    t.notOk(passes.sha256(answer));
  }
});
