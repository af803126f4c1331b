import simd from '../dist/fastpath-simd.wasm';
import plain from '../dist/fastpath-plain.wasm';
import type { TransportCipher } from '../core/fastpath/cipher.ts';
import type { FastPathKernel } from '../core/fastpath/kernel.ts';
import { createPortableCipher } from '../core/fastpath/portable-cipher.ts';
import { createTwinKernel } from '../core/fastpath/twin/kernel.ts';
import type { Crypto } from '../core/sansio/crypto.ts';
import type { Log } from '../core/sansio/log.ts';
import { createWasmFastPath } from '../plugins/fastpath-wasm/index.ts';

/** Returns the fastest packet path that this engine runs: WebAssembly, or the portable twin. */
export function createFastPath(
  crypto: Crypto,
  log: Log,
): { readonly kernel: FastPathKernel; readonly cipher: TransportCipher } {
  const compiled = createWasmFastPath({ simd, plain });
  if (!('skip' in compiled)) return compiled;
  log.warn('packets take the slow path', { why: compiled.skip });
  const kernel = createTwinKernel();
  return {
    kernel,
    cipher: createPortableCipher(crypto.name, crypto.chacha20poly1305, kernel.memory),
  };
}
