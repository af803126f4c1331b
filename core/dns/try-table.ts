import type { Instant } from '../sansio/instant.ts';
import type { Random } from '../sansio/random.ts';
import type { UpstreamHealth, UpstreamTransport } from './upstream.ts';

/** One sending of a query to one server. */
export interface Try<Owner> {
  readonly health: UpstreamHealth;
  readonly transport: UpstreamTransport;
  readonly port: number;
  readonly id: number;
  /** `undefined` for a probe. */
  readonly owner: Owner | undefined;
  readonly sentAt: Instant;
  /** `silent`: another try may follow, but its answer still counts. `useless`: no answer that helps. */
  state: 'open' | 'silent' | 'useless';
}

/** Local UDP ports: with the id, 22 bits to guess, and which ports these are besides (RFC 5452 §9). */
export const PORTS = 64;

/** The tries whose answers count. No two to the same server have the same transport, port and id. */
export class TryTable<Owner> {
  readonly #random: Random;
  readonly #tries = new Map<string, Map<number, Try<Owner>>>();
  /** Random bytes come in bulk: asking for three costs as much as asking for many. */
  readonly #pool = new Uint8Array(3 * 64);
  #used: number = this.#pool.length;

  constructor(random: Random) {
    this.#random = random;
  }

  add(
    health: UpstreamHealth,
    transport: UpstreamTransport,
    owner: Owner | undefined,
    sentAt: Instant,
  ): Try<Owner> {
    const place = placeOf(health.upstream.id, transport);
    let tries = this.#tries.get(place);
    if (tries === undefined) this.#tries.set(place, (tries = new Map<number, Try<Owner>>()));
    let drawn = this.#draw(transport);
    // There are far fewer tries than numbers, so this ends.
    while (tries.has(drawn)) drawn = this.#draw(transport);
    const numbers = { port: drawn >> 16, id: drawn & 0xffff };
    const added: Try<Owner> = { health, transport, ...numbers, owner, sentAt, state: 'open' };
    tries.set(drawn, added);
    return added;
  }

  find(
    from: {
      readonly upstream: string;
      readonly transport: UpstreamTransport;
      readonly port: number;
    },
    id: number,
  ): Try<Owner> | undefined {
    return this.#tries.get(placeOf(from.upstream, from.transport))?.get((from.port << 16) | id);
  }

  /** The tries at the server over the transport, all or that with the id. */
  of(
    health: UpstreamHealth,
    transport: UpstreamTransport,
    id: number | undefined,
  ): readonly Try<Owner>[] {
    const tries = this.#tries.get(placeOf(health.upstream.id, transport))?.values() ?? [];
    return [...tries].filter((one) => id === undefined || one.id === id);
  }

  delete({ health, transport, port, id }: Try<Owner>): void {
    const place = placeOf(health.upstream.id, transport);
    const tries = this.#tries.get(place);
    tries?.delete((port << 16) | id);
    if (tries?.size === 0) this.#tries.delete(place);
  }

  get size(): number {
    let size = 0;
    for (const tries of this.#tries.values()) size += tries.size;
    return size;
  }

  /** The port above the 16 bits of the id. */
  #draw(transport: UpstreamTransport): number {
    if (this.#used >= this.#pool.length) {
      this.#random.fill(this.#pool);
      this.#used = 0;
    }
    const [port = 0, high = 0, low = 0] = this.#pool.subarray(this.#used, this.#used + 3);
    this.#used += 3;
    return ((transport === 'udp' ? port % PORTS : 0) << 16) | (high << 8) | low;
  }
}

function placeOf(upstream: string, transport: UpstreamTransport): string {
  return `${transport} ${upstream}`;
}
