import type { SocketAddress } from '../../core/net/socket-address.ts';
import type { Instant, Millis } from '../../core/sansio/instant.ts';
import { Filter, type Dependence } from './filter.ts';

/** A stateful firewall in front of public addresses, as RFC 6092 has it for IPv6: it renames nothing. */
export class Firewall {
  readonly filtering: Dependence;
  readonly #timeout: Millis;
  readonly #filters = new Map<SocketAddress, Filter>();
  readonly #open = new Set<SocketAddress>();

  constructor(
    filtering: Dependence = 'address-and-port-dependent',
    timeout: Millis = FIREWALL_TIMEOUT,
  ) {
    this.filtering = filtering;
    this.#timeout = timeout;
  }

  /** Lets everybody in to an endpoint inside, UDP and TCP. */
  open(inside: SocketAddress): void {
    this.#open.add(inside);
  }

  isOpen(inside: SocketAddress): boolean {
    return this.#open.has(inside);
  }

  /** Forgets all state, as after a restart. */
  flush(): void {
    this.#filters.clear();
  }

  outbound(from: SocketAddress, to: SocketAddress, now: Instant): void {
    let filter = this.#filters.get(from);
    if (filter === undefined) {
      filter = new Filter(this.filtering, this.#timeout);
      this.#filters.set(from, filter);
    }
    filter.note(to, now);
  }

  /** Whether the packet from outside gets in; it keeps the way open, as conntrack does. */
  admits(from: SocketAddress, to: SocketAddress, now: Instant): boolean {
    if (this.#open.has(to)) return true;
    const filter = this.#filters.get(to);
    if (filter === undefined || !filter.admits(from, now)) return false;
    filter.note(from, now);
    return true;
  }
}

const FIREWALL_TIMEOUT: Millis = 120_000;
