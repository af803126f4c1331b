/**
 * ChaCha20-Poly1305 over batches of transport messages, in place in the packet arena.
 *
 * `first` is the offset of the first message record (see `layout.ts`), `count` how many follow it.
 */
export interface TransportCipher {
  /** Short name of the implementation, for `culvert doctor` and logs. */
  readonly name: string;
  seal(first: number, count: number): void;
  open(first: number, count: number): void;
}
