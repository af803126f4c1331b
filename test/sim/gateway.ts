import type { IpAddress } from '../../core/net/ip-address.ts';
import { ipFamily } from '../../core/net/ip-address.ts';
import { socketAddressIp, type SocketAddress } from '../../core/net/socket-address.ts';
import type { Firewall } from './firewall.ts';
import type { Link } from './link.ts';
import type { Nat } from './nat.ts';
import type { Member, Network, Packet, WayOut } from './network.ts';

/** What a gateway is about to pass, as it looks outside. */
export interface Passing {
  readonly protocol: 'udp' | 'tcp';
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
}

/**
 * The router between a network and the one outside of it. IPv4 is translated where there is a NAT; all
 * else is routed, past the firewall where there is one.
 */
export class Gateway implements Member, WayOut {
  readonly inside: Network;
  readonly outside: Network;
  /** The line to the network outside. */
  readonly link: Link;
  readonly nat: Nat | undefined;
  readonly firewall: Firewall | undefined;
  readonly #blocks = new Set<(passing: Passing) => boolean>();

  constructor(options: {
    readonly inside: Network;
    readonly outside: Network;
    readonly link: Link;
    readonly nat: Nat | undefined;
    readonly firewall: Firewall | undefined;
  }) {
    this.inside = options.inside;
    this.outside = options.outside;
    this.link = options.link;
    this.nat = options.nat;
    this.firewall = options.firewall;
    this.inside.wayOut = this;
    if (this.nat !== undefined) this.outside.attach(this.nat.external, this, this.link.down);
  }

  /** Loses all state, as a router that restarts. */
  rebind(): void {
    this.nat?.rebind();
    this.firewall?.flush();
  }

  /** The provider gives another IPv4 address. */
  readdress(address: IpAddress): void {
    if (this.nat === undefined) throw new Error(`${this.inside.name} has no NAT`);
    this.outside.detach(this.nat.external);
    this.nat.external = address;
    this.outside.attach(address, this, this.link.down);
  }

  /** Drops what the predicate is true for, in both directions; returns how to end that. */
  block(predicate: (passing: Passing) => boolean): () => void {
    this.#blocks.add(predicate);
    return () => void this.#blocks.delete(predicate);
  }

  blocks(passing: Passing): boolean {
    if (this.#blocks.size === 0) return false;
    return [...this.#blocks].some((predicate) => predicate(passing));
  }

  /** Whether the gateway has the address itself: where a NAT translates to. */
  owns(address: IpAddress): boolean {
    return this.nat?.external === address;
  }

  /** Whether it translates addresses of this family. */
  translates(address: IpAddress): boolean {
    return this.nat !== undefined && ipFamily(address) === 4;
  }

  announce(address: IpAddress): void {
    if (!this.translates(address)) this.outside.attach(address, this, this.link.down);
  }

  withdraw(address: IpAddress): void {
    if (!this.translates(address)) this.outside.detach(address);
  }

  /** A packet from inside. */
  leave(packet: Packet): void {
    const { now } = this.inside.timeline;
    const { from, to } = packet;
    if (this.nat === undefined || ipFamily(socketAddressIp(to)) === 6) {
      if (this.blocks({ protocol: 'udp', local: from, remote: to })) return;
      this.firewall?.outbound(from, to, now);
      this.outside.send(packet, this.link.up);
      return;
    }
    const isHairpin = socketAddressIp(to) === this.nat.external;
    if (isHairpin && !this.nat.behaviour.hairpinning) return;
    const external = this.nat.outbound(from, to, now);
    if (external === undefined) return;
    if (this.blocks({ protocol: 'udp', local: external, remote: to })) return;
    const translated = { ...packet, from: external };
    if (isHairpin) this.receive(translated);
    else this.outside.send(translated, this.link.up);
  }

  /** A packet from outside. */
  receive(packet: Packet): void {
    const { now } = this.inside.timeline;
    const { from, to } = packet;
    if (this.blocks({ protocol: 'udp', local: to, remote: from })) return;
    if (this.nat !== undefined && this.owns(socketAddressIp(to))) {
      const internal = this.nat.inbound(from, to, now);
      if (internal !== undefined) this.inside.enter({ ...packet, to: internal });
    } else if (this.firewall === undefined || this.firewall.admits(from, to, now)) {
      this.inside.enter(packet);
    }
  }
}
