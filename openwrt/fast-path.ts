import simd from '../dist/fastpath-simd.wasm';
import plain from '../dist/fastpath-plain.wasm';
import {
  chooseCipher,
  type CipherCandidate,
  type CipherTrial,
} from '../core/fastpath/choose-cipher.ts';
import type { TransportCipher } from '../core/fastpath/cipher.ts';
import type { FastPathKernel } from '../core/fastpath/kernel.ts';
import { createPortableCipher } from '../core/fastpath/portable-cipher.ts';
import type { Native } from '../core/plugin/native.ts';
import type { Crypto } from '../core/sansio/crypto.ts';
import { createNobleCrypto } from '../plugins/crypto-noble/index.ts';
import { createOpensslCipher } from '../plugins/crypto-openssl/index.ts';
import { createWasmFastPath } from '../plugins/fastpath-wasm/index.ts';
import { CommandError } from './exit-code.ts';
import { leaveJavaScriptUnoptimised } from './heap.ts';

/** Kernel and cipher work on the same arena. */
export interface FastPath {
  readonly kernel: FastPathKernel;
  readonly cipher: TransportCipher;
  readonly report: CryptoReport;
}

/** What computes for this daemon, and why: `crypto` in `culvert status --json`. */
export interface CryptoReport {
  /** Provider of the cryptography of handshakes and of the fleet. */
  readonly provider: string;
  /** What seals and opens packets. */
  readonly cipher: string;
  readonly trials: readonly CipherTrial[];
}

/** Ways to seal and open packets, in the order in which they are tried. */
export const CIPHERS = ['openssl', 'wasm-simd', 'wasm', 'node', 'noble'] as const;
export type CipherName = (typeof CIPHERS)[number];

/**
 * Returns a packet path in WebAssembly, with the fastest cipher that passes its
 * self-test. `wanted` takes another cipher; throws `CommandError` where this machine lacks it,
 * or WebAssembly: the twin in TypeScript is for tests, and for engines without it, which have another root.
 *
 * OpenSSL, which has assembly for every processor that we support, is taken without comparing: trying
 * the others makes the engine compile them, which costs 4 MB for good.
 */
export function createFastPath(crypto: Crypto, wanted?: CipherName, native?: Native): FastPath {
  const compiled = createWasmFastPath({ simd: wanted === 'wasm' ? NO_MODULE : simd, plain });
  if ('skip' in compiled) throw new CommandError('failure', compiled.skip);
  const { kernel } = compiled;
  const arena = kernel.memory;
  const noble = createNobleCrypto();
  const openssl = named(
    'openssl',
    native === undefined ? NO_NATIVE : createOpensslCipher(native, arena),
  );
  const others: readonly CipherCandidate[] = [
    named('wasm', compiled.cipher),
    createPortableCipher(crypto.name, crypto.chacha20poly1305, arena),
    createPortableCipher(noble.name, noble.chacha20poly1305, arena),
  ];
  const isSure = wanted === undefined && !('skip' in openssl);
  const candidates = isSure
    ? [openssl, ...others.map(({ name }) => ({ name, skip: 'not compared with openssl' }))]
    : [openssl, ...others].filter(({ name }) => name === (wanted ?? name));
  const { cipher, trials } = chooseCipher(candidates, arena, () => performance.now());
  if (cipher === undefined) throw noCipher(trials, wanted);
  if (!PORTABLE.has(cipher.name)) leaveJavaScriptUnoptimised();
  const report = {
    provider: crypto.name,
    cipher: cipher.name,
    trials,
  };
  return { kernel, cipher, report };
}

/** Ciphers that are JavaScript, or call it for each packet. */
const PORTABLE: ReadonlySet<string> = new Set<CipherName>(['node', 'noble']);
/** No engine takes it for a module. */
const NO_MODULE = new Uint8Array(0);
const NO_NATIVE = { skip: 'the native file is missing' };

function named(
  name: string,
  candidate: TransportCipher | { readonly skip: string },
): CipherCandidate {
  return 'skip' in candidate ? { name, skip: candidate.skip } : candidate;
}

function noCipher(trials: readonly CipherTrial[], wanted: CipherName | undefined): CommandError {
  const what = wanted === undefined ? 'no cipher works here' : `no cipher '${wanted}' here`;
  return new CommandError('failure', [what, ...trials.map(formatTrial)].join('; '));
}

/** Returns a trial in words, for the log. */
export function formatTrial(trial: CipherTrial): string {
  return 'skip' in trial
    ? `${trial.name}: ${trial.skip}`
    : `${trial.name}: ${trial.packetsPerSecond} packets/s`;
}
