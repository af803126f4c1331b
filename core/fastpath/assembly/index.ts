/**
 * The packet path in WebAssembly. Everything it knows lies in the arena (`../layout.ts`), so that
 * JavaScript reads and writes the same state; `../twin` does the same in plain TypeScript.
 */
export { insertFlow, removeFlow } from './flows';
export { keepalive, split, splitFor, startOut } from './split';
export { train } from './train';
export { gather } from './gather';
export { accept } from './accept';
export { finish } from './coalesce';
export { open, seal } from './chacha20poly1305';
