/** A region of the arena that a batch of input fills, with the table of records that describe it. */
export interface InputRegion {
  /** Offset of the first record. */
  readonly table: number;
  /** The bytes [into, end) receive the data. */
  readonly into: number;
  readonly end: number;
  /** How many records fit. */
  readonly most: number;
}

/** What the plugins that do the input and output need to know of the packet arena. */
export interface Arena {
  /** Never moves, never grows. */
  readonly buffer: ArrayBuffer;
  /** Packets read from the TUN: read records. */
  readonly reads: InputRegion;
  /** Datagrams received: datagram records. */
  readonly datagrams: InputRegion;
  /** Offset of the first send record. */
  readonly sends: number;
  /** Offset of the first write record. */
  readonly writes: number;
}
