import type { IpAddress } from '../net/ip-address.ts';
import type { IpPrefix } from '../net/ip-prefix.ts';
import type { Outcome } from '../sansio/outcome.ts';
import { capability, type Capability } from './capability.ts';

/** The whole wanted state of the interface we own; what is ours and not in it gets removed. */
export interface WantedLink {
  readonly name: string;
  /** Bytes. */
  readonly mtu: number;
  /** Addresses with their prefix length, host bits kept. */
  readonly addresses: readonly IpPrefix[];
  /** Destinations that lead into the interface. */
  readonly routes: readonly IpPrefix[];
  /**
   * Interfaces whose packets lead into the link when no more specific route takes them. What this machine
   * sends itself does not, the tunnel's own datagrams among it: so the tunnel never enters itself. Nor does
   * what other programs' policy routing takes first. They need not exist; the link and the loopback are
   * passed over. A family that this machine or the link does not have is left out.
   */
  readonly defaultFor: readonly string[];
}

/** One thing the kernel refused: which object, and the errno and text it gave. */
export interface LinkFailure {
  readonly object: string;
  readonly code: string;
  readonly message: string;
}

/**
 * Links, addresses, routes and rules of the kernel. `apply` compares the wanted state with what is there and
 * changes only the difference; it is idempotent and touches only what carries our marks (the interface
 * by name, routes and rules by protocol number).
 */
export interface Links {
  apply(wanted: WantedLink): Outcome<
    { readonly changes: number },
    'not-permitted' | 'no-link' | 'refused'
  > & {
    readonly failures: readonly LinkFailure[];
  };
  /**
   * The addresses under which this machine may be reached: of links that are up, but for `except` and the
   * loopback; of IPv6 no link-local, tentative or deprecated ones, and a temporary one (RFC 8981) before
   * the stable one of its prefix. In the order of the kernel, 32 at most.
   */
  localAddresses(except: string): readonly IpAddress[];
  /**
   * Removes the routes and addresses that carry our marks on `name`, and our rules, also when there is no
   * such interface any more.
   */
  clear(name: string): void;
  /**
   * Calls `onChange` after another program changed links, addresses, routes or rules, at most once per
   * turn of the event loop. Returns the function that ends it.
   */
  monitor(onChange: () => void): () => void;
}

export const links: Capability<Links> = capability('links');
