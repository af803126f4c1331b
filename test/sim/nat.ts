import type { IpAddress } from '../../core/net/ip-address.ts';
import {
  socketAddress,
  socketAddressIp,
  socketAddressPort,
  type SocketAddress,
} from '../../core/net/socket-address.ts';
import { after, type Instant, type Millis } from '../../core/sansio/instant.ts';
import { Filter, type Dependence } from './filter.ts';
import type { SeededRandom } from './seeded-random.ts';

/** How a NAT treats UDP, in the terms of RFC 4787. */
export interface NatBehaviour {
  readonly mapping: Dependence;
  readonly filtering: Dependence;
  /**
   * §4.2.1: `preservation` takes the internal port where it is free, and the next free one otherwise.
   * `sequential` takes one after the other, which nobody guesses here, and `random` any.
   */
  readonly ports: 'preservation' | 'sequential' | 'random';
  /** §4.3: how long a mapping, and what its filter lets in, lives without being refreshed. */
  readonly timeout: Millis;
  /** §4.3: whether packets from outside refresh too. Those from inside always do (REQ-6). */
  readonly inboundRefresh: boolean;
  /** §6, with the external source address (REQ-9a). */
  readonly hairpinning: boolean;
  /** A network that lets no UDP out at all. */
  readonly blocksUdp: boolean;
}

const CONE: NatBehaviour = {
  mapping: 'endpoint-independent',
  filtering: 'endpoint-independent',
  ports: 'preservation',
  timeout: 120_000,
  inboundRefresh: true,
  hairpinning: false,
  blocksUdp: false,
};

/** The boxes of the field by the names that people use. With `none` addresses are public: no NAT. */
export const NAT_PRESETS = {
  none: undefined,
  fullCone: CONE,
  restrictedCone: { ...CONE, filtering: 'address-dependent' },
  portRestrictedCone: { ...CONE, filtering: 'address-and-port-dependent', inboundRefresh: false },
  symmetric: {
    ...CONE,
    mapping: 'address-and-port-dependent',
    filtering: 'address-and-port-dependent',
    ports: 'sequential',
    timeout: 60_000,
  },
  symmetricRandom: {
    ...CONE,
    mapping: 'address-and-port-dependent',
    filtering: 'address-and-port-dependent',
    ports: 'random',
    timeout: 60_000,
    inboundRefresh: false,
  },
  /** RFC 6888, which asks for RFC 4787 with an endpoint-independent mapping and hairpinning. */
  cgnat: {
    ...CONE,
    filtering: 'address-and-port-dependent',
    ports: 'random',
    hairpinning: true,
  },
  udpBlocked: { ...CONE, blocksUdp: true },
} as const satisfies Record<string, NatBehaviour | undefined>;

export type NatKind = keyof typeof NAT_PRESETS;

export const NAT_KINDS = Object.keys(NAT_PRESETS) as readonly NatKind[];

/** An internal endpoint, and what of the remote one the behaviour looks at, on an external port. */
interface Mapping {
  readonly key: string;
  readonly internal: SocketAddress;
  readonly port: number;
  readonly filter: Filter;
  expiresAt: Instant;
}

/** A NAT for UDP over IPv4 with one external address. It passes on packets by renaming their endpoints. */
export class Nat {
  readonly behaviour: NatBehaviour;
  readonly #random: SeededRandom;
  readonly #byKey = new Map<string, Mapping>();
  readonly #byPort = new Map<number, Mapping>();
  readonly #forwards = new Map<number, SocketAddress>();
  #external: IpAddress;
  #nextPort = FIRST_PORT;

  constructor(behaviour: NatBehaviour, external: IpAddress, random: SeededRandom) {
    this.behaviour = behaviour;
    this.#external = external;
    this.#random = random;
  }

  get external(): IpAddress {
    return this.#external;
  }

  /** Moves to another external address. */
  set external(address: IpAddress) {
    this.#external = address;
    this.rebind();
  }

  /** Forgets all mappings, as after a restart. Forwarded ports stay: they are configured. */
  rebind(): void {
    this.#byKey.clear();
    this.#byPort.clear();
  }

  /** Sends whatever comes to an external port to an internal endpoint, and maps that back to it. */
  forward(port: number, internal: SocketAddress): void {
    this.#forwards.set(port, internal);
  }

  /** Whether anybody outside may open a TCP stream to the port, and to whom. */
  forwarded(port: number): SocketAddress | undefined {
    return this.#forwards.get(port);
  }

  /** A packet from inside: returns its external source, or `undefined` where it is dropped. */
  outbound(from: SocketAddress, to: SocketAddress, now: Instant): SocketAddress | undefined {
    if (this.behaviour.blocksUdp) return undefined;
    for (const [port, internal] of this.#forwards) {
      if (internal === from) return socketAddress(this.#external, port);
    }
    const mapping = this.#mappingFor(from, to, now);
    if (mapping === undefined) return undefined;
    mapping.expiresAt = after(now, this.behaviour.timeout);
    mapping.filter.note(to, now);
    return socketAddress(this.#external, mapping.port);
  }

  /** A packet from outside to a port of ours: returns its internal destination, or `undefined`. */
  inbound(from: SocketAddress, to: SocketAddress, now: Instant): SocketAddress | undefined {
    if (this.behaviour.blocksUdp) return undefined;
    const port = socketAddressPort(to);
    const forwarded = this.#forwards.get(port);
    if (forwarded !== undefined) return forwarded;
    const mapping = this.#byPort.get(port);
    if (mapping === undefined || mapping.expiresAt <= now) return undefined;
    if (!mapping.filter.admits(from, now)) return undefined;
    if (this.behaviour.inboundRefresh) {
      mapping.expiresAt = after(now, this.behaviour.timeout);
      mapping.filter.note(from, now);
    }
    return mapping.internal;
  }

  #mappingFor(from: SocketAddress, to: SocketAddress, now: Instant): Mapping | undefined {
    const key = keyOf(this.behaviour.mapping, from, to);
    const known = this.#byKey.get(key);
    if (known !== undefined && known.expiresAt > now) return known;
    if (known !== undefined) this.#forget(known);
    const port = this.#choosePort(from, now);
    if (port === undefined) return undefined;
    const { filtering, timeout } = this.behaviour;
    const filter = new Filter(filtering, timeout);
    const mapping = { key, internal: from, port, filter, expiresAt: now };
    this.#byKey.set(key, mapping);
    this.#byPort.set(port, mapping);
    return mapping;
  }

  #choosePort(from: SocketAddress, now: Instant): number | undefined {
    const { ports } = this.behaviour;
    const preserved = Math.max(socketAddressPort(from), FIRST_PORT);
    const start =
      ports === 'preservation'
        ? preserved
        : ports === 'sequential'
          ? this.#nextPort
          : FIRST_PORT + Math.floor(this.#random.fraction() * PORTS);
    for (let i = 0; i < PORTS; i++) {
      const port = FIRST_PORT + ((start - FIRST_PORT + i) % PORTS);
      if (this.#forwards.has(port)) continue;
      const holder = this.#byPort.get(port);
      if (holder !== undefined && holder.expiresAt > now) continue;
      if (holder !== undefined) this.#forget(holder);
      if (ports === 'sequential') this.#nextPort = port + 1;
      return port;
    }
    return undefined;
  }

  #forget(mapping: Mapping): void {
    this.#byKey.delete(mapping.key);
    this.#byPort.delete(mapping.port);
  }
}

const FIRST_PORT = 1024;
const PORTS = 65_536 - FIRST_PORT;

function keyOf(mapping: Dependence, from: SocketAddress, to: SocketAddress): string {
  if (mapping === 'endpoint-independent') return from;
  return `${from} ${mapping === 'address-dependent' ? socketAddressIp(to) : to}`;
}
