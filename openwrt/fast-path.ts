import simd from '../dist/fastpath-simd.wasm';
import plain from '../dist/fastpath-plain.wasm';
import type { TransportCipher } from '../core/fastpath/cipher.ts';
import type { FastPathKernel } from '../core/fastpath/kernel.ts';
import { createPortableCipher } from '../core/fastpath/portable-cipher.ts';
import { createTwinKernel } from '../core/fastpath/twin/kernel.ts';
import type { Crypto } from '../core/sansio/crypto.ts';
import type { Log } from '../core/sansio/log.ts';
import { createNobleCrypto } from '../plugins/crypto-noble/index.ts';
import { createWasmFastPath } from '../plugins/fastpath-wasm/index.ts';
import { CommandError } from './exit-code.ts';

/** Kernel and cipher work on the same arena. */
export interface FastPath {
  readonly kernel: FastPathKernel;
  readonly cipher: TransportCipher;
}

/** Ways to seal packets, fastest first. The last two go with the portable twin of the kernel. */
export const CIPHERS = ['wasm-simd', 'wasm', 'node', 'noble'] as const;
export type CipherName = (typeof CIPHERS)[number];

/**
 * Returns the fastest packet path that this engine runs: WebAssembly, or the portable twin. `wanted`
 * takes another for comparison; throws `CommandError` where this engine lacks it.
 */
export function createFastPath(crypto: Crypto, log: Log, wanted?: CipherName): FastPath {
  if (wanted === 'node') return createPortableFastPath(crypto);
  if (wanted === 'noble') return createPortableFastPath(createNobleCrypto());
  const compiled = createWasmFastPath({ simd: wanted === 'wasm' ? NO_MODULE : simd, plain });
  if (wanted !== undefined) return requireCipher(wanted, compiled);
  if (!('skip' in compiled)) return compiled;
  log.warn('packets take the slow path', { why: compiled.skip });
  return createPortableFastPath(crypto);
}

/** No engine takes it for a module. */
const NO_MODULE = new Uint8Array(0);

function requireCipher(name: CipherName, compiled: FastPath | { readonly skip: string }): FastPath {
  if (!('skip' in compiled) && compiled.cipher.name === name) return compiled;
  const why = 'skip' in compiled ? compiled.skip : `it has ${compiled.cipher.name}`;
  throw new CommandError('failure', `this engine has no cipher '${name}': ${why}`);
}

function createPortableFastPath(crypto: Crypto): FastPath {
  const kernel = createTwinKernel();
  const cipher = createPortableCipher(crypto.name, crypto.chacha20poly1305, kernel.memory);
  return { kernel, cipher };
}
