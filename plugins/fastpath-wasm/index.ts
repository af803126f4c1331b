import type { TransportCipher } from '../../core/fastpath/cipher.ts';
import { createAssemblyKernel } from '../../core/fastpath/kernel.ts';
import type { FastPathExports, FastPathKernel } from '../../core/fastpath/kernel.ts';
import { ARENA_PAGES } from '../../core/fastpath/layout.ts';
import type { Skip } from '../../core/plugin/plugin.ts';

/** The two modules that `openwrt/build/assembly.mjs` compiles from the same sources. */
export interface WasmModules {
  readonly simd: Uint8Array;
  readonly plain: Uint8Array;
}

/** Kernel and cipher work on the same memory, the packet arena, which neither moves nor grows. */
export interface WasmFastPath {
  readonly kernel: FastPathKernel;
  readonly cipher: TransportCipher;
}

/** Returns the packet path in WebAssembly with a fresh arena: with SIMD where the engine has it. */
export function createWasmFastPath(modules: WasmModules): WasmFastPath | Skip {
  // An engine started without a compiler (--jitless) lacks it.
  if (typeof WebAssembly === 'undefined') return { skip: 'this engine has no WebAssembly' };
  const hasSimd = WebAssembly.validate(modules.simd);
  const code = hasSimd ? modules.simd : modules.plain;
  try {
    const memory = new WebAssembly.Memory({ initial: ARENA_PAGES, maximum: ARENA_PAGES });
    const instance = new WebAssembly.Instance(new WebAssembly.Module(code), { env: { memory } });
    const exports = instance.exports as FastPathExports;
    return {
      kernel: createAssemblyKernel(exports, memory.buffer),
      cipher: {
        name: hasSimd ? 'wasm-simd' : 'wasm',
        seal: (first, count) => exports.seal(first, count),
        open: (first, count) => exports.open(first, count),
      },
    };
  } catch (error) {
    return { skip: `WebAssembly cannot be set up: ${String(error)}` };
  }
}

/** What is used of WebAssembly, which the compiler knows only together with all of the browser. */
declare const WebAssembly: {
  readonly Memory: new (size: { initial: number; maximum: number }) => { buffer: ArrayBuffer };
  readonly Module: new (code: Uint8Array) => object;
  readonly Instance: new (module: object, imports: object) => { exports: unknown };
  validate(code: Uint8Array): boolean;
};
