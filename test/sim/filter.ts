import { socketAddressIp, type SocketAddress } from '../../core/net/socket-address.ts';
import type { Instant, Millis } from '../../core/sansio/instant.ts';

/** RFC 4787 §4.1 for mappings, §5 for filters: what of the remote endpoint counts. */
export type Dependence =
  'endpoint-independent' | 'address-dependent' | 'address-and-port-dependent';

/** Who may send to one endpoint behind a NAT or a firewall (RFC 4787 §5): those that it sent to lately. */
export class Filter {
  readonly #filtering: Dependence;
  readonly #timeout: Millis;
  /** When each remote, as far as the filter looks at it, was last sent to. */
  readonly #noted = new Map<string, Instant>();

  constructor(filtering: Dependence, timeout: Millis) {
    this.#filtering = filtering;
    this.#timeout = timeout;
  }

  /** A packet went out to the remote, or one that was admitted came in from it where that counts. */
  note(remote: SocketAddress, now: Instant): void {
    this.#noted.set(this.#keyOf(remote), now);
  }

  admits(remote: SocketAddress, now: Instant): boolean {
    const noted = this.#noted.get(this.#keyOf(remote));
    return noted !== undefined && now - noted < this.#timeout;
  }

  #keyOf(remote: SocketAddress): string {
    if (this.#filtering === 'endpoint-independent') return '';
    return this.#filtering === 'address-dependent' ? socketAddressIp(remote) : remote;
  }
}
