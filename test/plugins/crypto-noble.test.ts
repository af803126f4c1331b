import t from 'tap';
import { createNobleCrypto } from '../../plugins/crypto-noble/index.ts';
import { createNodeCrypto } from '../../plugins/crypto-node/index.ts';
import { cryptoContract } from '../contract/crypto.ts';
import { wycheproof } from '../contract/wycheproof.ts';

const noble = createNobleCrypto();

await cryptoContract(t, noble, createNodeCrypto(noble));
await wycheproof(t, noble);
