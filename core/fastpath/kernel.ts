/**
 * The part of the packet path that works byte by byte. All of its state lies in the arena
 * (`layout.ts`). It is written twice: in AssemblyScript (`assembly/`) and in TypeScript (`twin/`).
 *
 * Where only JavaScript can decide, `split` and `accept` stop, say why in CONTROL_STOP, and are called
 * again for the rest.
 */
export interface FastPathKernel {
  readonly memory: ArrayBuffer;

  /** Empties the OUT region: starts an outbound batch. */
  startOut(): void;
  /** Splits the read records [first, count) into messages; returns the index at which it stopped. */
  split(first: number, count: number): number;
  /** Splits one read for a peer, whatever the flow table says. */
  splitFor(index: number, peer: number): void;
  /** Makes an empty message for a peer. */
  keepalive(peer: number): void;
  /** Makes the send records of all sealed messages; returns their number. */
  train(): number;

  /** Starts an inbound batch: makes the message records of `count` datagram records; returns their number. */
  gather(count: number): number;
  /** Takes the opened messages [first, count); returns the index at which it stopped. */
  accept(first: number, count: number): number;
  /** Makes the write records of all packets accepted; returns their number. */
  finish(): number;

  /**
   * Remembers the verdict (the word of a flow record) for the flow at CONTROL_KEY. Returns the index of
   * its row; that of the rewrite is the same and is left to the caller, which says whether there is one.
   */
  insertFlow(verdict: number, hasRewrite: boolean): number;
  /** Forgets the flow at CONTROL_KEY. */
  removeFlow(): void;
}

/** What `assembly/` exports, the transport cipher included. */
export interface FastPathExports extends Omit<FastPathKernel, 'memory' | 'insertFlow'> {
  insertFlow(verdict: number, hasRewrite: number): number;
  seal(first: number, count: number): void;
  open(first: number, count: number): void;
}

/** Returns the kernel of a WebAssembly instance that imported `memory`, of which ARENA_PAGES pages exist. */
export function createAssemblyKernel(
  exports: FastPathExports,
  memory: ArrayBuffer,
): FastPathKernel {
  const { startOut, split, splitFor, keepalive, train, gather, accept, finish, removeFlow } =
    exports;
  return {
    memory,
    startOut,
    split,
    splitFor,
    keepalive,
    train,
    gather,
    accept,
    finish,
    removeFlow,
    insertFlow: (verdict, hasRewrite) => exports.insertFlow(verdict, hasRewrite ? 1 : 0),
  };
}
