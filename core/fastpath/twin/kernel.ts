import type { FastPathKernel } from '../kernel.ts';
import { ARENA_SIZE } from '../layout.ts';
import { accept } from './accept.ts';
import { finish } from './coalesce.ts';
import { insertFlow, removeFlow } from './flows.ts';
import { gather } from './gather.ts';
import { Memory } from './memory.ts';
import { keepalive, split, splitFor, startOut } from './split.ts';
import { train } from './train.ts';

/**
 * Returns the packet path in plain TypeScript: the oracle for the one in WebAssembly, and what runs
 * where there is none.
 */
export function createTwinKernel(
  buffer: ArrayBuffer = new ArrayBuffer(ARENA_SIZE),
): FastPathKernel {
  const memory = new Memory(buffer);
  return {
    memory: buffer,
    startOut: () => startOut(memory),
    split: (first, count) => split(memory, first, count),
    splitFor: (index, peer) => splitFor(memory, index, peer),
    keepalive: (peer) => keepalive(memory, peer),
    train: () => train(memory),
    gather: (count) => gather(memory, count),
    accept: (first, count) => accept(memory, first, count),
    finish: () => finish(memory),
    insertFlow: (verdict, hasRewrite) => insertFlow(memory, verdict, hasRewrite),
    removeFlow: () => removeFlow(memory),
  };
}
