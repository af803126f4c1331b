import { ARENA_SIZE } from '../../core/fastpath/layout.ts';

/** Arenas in use again and again: each is 23 MB, and collecting them costs more than a simulation. */
export class Arenas {
  readonly #free: ArrayBuffer[] = [];

  take(): ArrayBuffer {
    return this.#free.pop() ?? new ArrayBuffer(ARENA_SIZE);
  }

  /** Takes back one that nothing uses any more. */
  giveBack(arena: ArrayBuffer): void {
    new Uint8Array(arena).fill(0);
    this.#free.push(arena);
  }
}
