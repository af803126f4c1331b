import type { Arena } from '../fastpath/arena.ts';
import type { SocketAddress } from '../net/socket-address.ts';
import type { Source } from '../net/source.ts';
import type { Outcome } from '../sansio/outcome.ts';
import { capability, type Capability } from './capability.ts';

export type ListenFailure = 'port-taken' | 'not-permitted' | 'refused';

/** The UDP sockets bound to one port: one for IPv4, one for IPv6 where the machine has it. */
export interface Listening {
  readonly port: number;
  readonly ipv4: number | undefined;
  readonly ipv6: number | undefined;
}

/** UDP in batches through the arena, with GSO and GRO where the kernel has them. */
export interface Datagrams {
  /**
   * Binds both families to `port` (0 lets the kernel choose one port for both) and calls
   * `onReadable(fd)` when datagrams wait. A second call moves to the new port; when that fails the old
   * sockets stay.
   */
  listen(
    port: number,
    options: { readonly mark: number | undefined },
    arena: Arena,
    onReadable: (fd: number) => void,
  ): Outcome<Listening, ListenFailure>;
  /** Fills `arena.datagrams` from one socket; returns the number of datagram records. */
  receive(fd: number): number;
  /**
   * Sends `count` send records at `arena.sends`; returns how many the kernel took. Where the kernel or
   * an interface refuses GSO the train is sent datagram by datagram, and that is remembered. A path
   * whose descriptor is not of these sockets (one from before the port moved) gets -EBADF.
   *
   * What is refused because of the path's local address is sent once more without it. When that
   * succeeds, as it does after an address of ours went away, the path loses its local address.
   */
  send(count: number): number;
  /**
   * Sends one datagram outside the batches, on the socket of its family; where the source is refused,
   * from an address that the kernel chooses.
   */
  sendTo(remote: SocketAddress, payload: Uint8Array, source?: Source): void;
  close(): void;
}

export const datagrams: Capability<Datagrams> = capability('datagrams');
