import { capability, type Capability } from './capability.ts';

/**
 * What Node.js lacks, as the native file offers it: system calls, and OpenSSL by the batch. No policy,
 * integers and byte ranges only. Every call is non-blocking and returns a value ≥ 0, or a negative
 * errno.
 *
 * `arena` is any ArrayBuffer that neither moves nor grows (the WebAssembly memory in production);
 * records in it have the layouts of `core/fastpath/layout.ts`.
 */
export interface Native {
  /** socket(2) with SOCK_CLOEXEC and SOCK_NONBLOCK. Returns the descriptor. */
  socket(domain: number, type: number, protocol: number): number;
  /** bind(2) to a raw sockaddr. */
  bind(fd: number, address: Uint8Array): number;
  /** getsockname(2) into `address`; returns its length. */
  getsockname(fd: number, address: Uint8Array): number;
  /** setsockopt(2) with an int. */
  setOption(fd: number, level: number, name: number, value: number): number;
  /** setsockopt(2) with raw bytes. */
  setOptionBytes(fd: number, level: number, name: number, value: Uint8Array): number;
  /** getsockopt(2) of an int; returns the option's value. */
  getOption(fd: number, level: number, name: number): number;
  /** open(2) with O_CLOEXEC | O_NONBLOCK | O_RDWR. Returns the descriptor. */
  open(path: string): number;
  /**
   * ioctl(2). Bytes (at most 256) are read and written in place; a number (below 4096) is the argument
   * itself, as TUNSETOFFLOAD wants it.
   */
  ioctl(fd: number, request: number, argument: Uint8Array | number): number;
  close(fd: number): number;
  /** send(2) of the bytes; returns the number sent. */
  send(fd: number, bytes: Uint8Array): number;
  /** recvfrom(2) into `bytes`, the sender's raw sockaddr into `from`; returns the number received. */
  receive(fd: number, bytes: Uint8Array, from: Uint8Array): number;

  /**
   * read(2) until it would block: packets are laid behind each other into [into, end) so that what
   * follows the 10-byte virtio-net header is 16-byte aligned, at most `most` of them, one read record
   * each at `table`. Stops when fewer than LARGEST_READ bytes are left. Returns the number of records.
   */
  readBatch(
    fd: number,
    arena: ArrayBuffer,
    into: number,
    end: number,
    table: number,
    most: number,
  ): number;
  /**
   * writev(2) of `count` write records at `table`; each record's result is set. Continues after a
   * refused one. Returns the number of records that the kernel took.
   */
  writeBatch(fd: number, arena: ArrayBuffer, table: number, count: number): number;
  /**
   * recvmmsg(2) with UDP_GRO and packet-info control messages into buffers of LARGEST_TRAIN bytes in
   * [into, end), one datagram record each at `table`, at most `most`. It goes on until it would block, or
   * until there is as much as a train. Returns the number of records.
   */
  receiveBatch(
    fd: number,
    arena: ArrayBuffer,
    into: number,
    end: number,
    table: number,
    most: number,
  ): number;
  /**
   * sendmmsg(2) of `count` send records at `table`, each on the descriptor of its path record, with
   * UDP_SEGMENT where the record asks for it. When a socket is full it waits up to `waitMs` for it, once
   * a call. Each record's result is set (-EAGAIN for those left). Returns the number sent.
   */
  sendBatch(arena: ArrayBuffer, table: number, count: number, waitMs: number): number;

  /**
   * Seals `count` message records at `first` in place, through the OpenSSL inside of node. Returns the
   * number sealed, fewer only where a record leaves the arena or OpenSSL fails: from that message on
   * the bytes are undefined, and may be plaintext. -ENOSYS where node has no OpenSSL with
   * ChaCha20-Poly1305.
   */
  aeadSeal(arena: ArrayBuffer, first: number, count: number): number;
  /**
   * Opens `count` message records at `first` in place and sets whether each one was authentic; one that
   * leaves the arena is not. Returns the number of authentic ones, or -ENOSYS as above.
   */
  aeadOpen(arena: ArrayBuffer, first: number, count: number): number;

  /**
   * Calls `onReady` from the event loop whenever `fd` is readable, until `unwatch`. It re-arms itself
   * after errors such as ENOBUFS, and keeps the process alive. An exception of `onReady` is an uncaught
   * exception. Returns the watch; end it before closing `fd`.
   */
  watch(fd: number, onReady: () => void): number;
  unwatch(watch: number): number;
}

export const native: Capability<Native> = capability('native');
