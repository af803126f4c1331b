import { ipFamily, type IpFamily } from '../../core/net/ip-address.ts';
import {
  socketAddress,
  socketAddressIp,
  socketAddressPort,
  type SocketAddress,
} from '../../core/net/socket-address.ts';
import type { Instant, Millis } from '../../core/sansio/instant.ts';
import { Firewall } from './firewall.ts';
import { Gateway } from './gateway.ts';
import { Host } from './host.ts';
import { Link, type Quality } from './link.ts';
import { Nat, NAT_PRESETS, type NatBehaviour, type NatKind } from './nat.ts';
import { Network } from './network.ts';
import { SeededRandom } from './seeded-random.ts';
import { Timeline } from './timeline.ts';

export const START_UNIX_MS = Date.UTC(2026, 0, 1);

/** One way through the Internet between two lines of this latency takes twice as long. */
const WAN_LATENCY: Millis = 10;
const LAN_LATENCY: Millis = 0.2;

/** A TCP stream that could be opened: who accepts it, and the endpoints as the two ends see them. */
export interface Dialled {
  readonly host: Host;
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
  /** Where it arrives: what was dialled, or what a NAT forwards that to. */
  readonly to: SocketAddress;
  /** One way. */
  readonly latency: Millis;
}

/**
 * An Internet with hosts, networks behind NATs, and their time. Everything that happens follows from
 * the seed and from what is called.
 */
export class World {
  readonly timeline = new Timeline();
  readonly random: SeededRandom;
  readonly internet: Network;
  readonly hosts: Host[] = [];
  #lastNetwork = 0;

  constructor(seed: number) {
    this.random = new SeededRandom(seed);
    this.internet = new Network('Internet', this.timeline, '198.51.100.', '2001:db8::');
  }

  get now(): Instant {
    return this.timeline.now;
  }

  /**
   * Makes a network behind a gateway. Its IPv6 is routed, behind a stateful firewall unless `isOpen`; so
   * is its IPv4 where the NAT is `none`, but its addresses are those of a LAN all the same.
   */
  network(options: {
    readonly behind: NatKind | NatBehaviour;
    /** What the gateway hangs on; the Internet unless given. */
    readonly outside?: Network;
    readonly isOpen?: boolean;
    /** `192.168.1.` for instance; one of its own unless given. */
    readonly ipv4Prefix?: string;
    readonly wan?: Partial<Quality>;
  }): { readonly network: Network; readonly gateway: Gateway } {
    const number = ++this.#lastNetwork;
    const { behind, outside = this.internet, ipv4Prefix = `192.168.${number}.` } = options;
    const network = new Network(
      `network ${number}`,
      this.timeline,
      ipv4Prefix,
      `2001:db8:${number.toString(16)}::`,
    );
    const behaviour: NatBehaviour | undefined =
      typeof behind === 'string' ? NAT_PRESETS[behind] : behind;
    const gateway = new Gateway({
      inside: network,
      outside,
      link: new Link({ latency: WAN_LATENCY, ...options.wan }, this.random),
      nat: behaviour && new Nat(behaviour, outside.newAddresses()[0], this.random),
      firewall: options.isOpen === true ? undefined : new Firewall(),
    });
    // A NAT sees no IPv6, but who forbids UDP forbids it there too.
    if (behaviour?.blocksUdp === true) gateway.block(({ protocol }) => protocol === 'udp');
    return { network, gateway };
  }

  /** Makes a host on a network; on the Internet it is public. */
  host(
    name: string,
    network: Network = this.internet,
    options: { readonly families?: readonly IpFamily[]; readonly line?: Partial<Quality> } = {},
  ): Host {
    const { families = [4], line } = options;
    const latency = network === this.internet ? WAN_LATENCY : LAN_LATENCY;
    const host = new Host({
      name,
      network,
      link: new Link({ latency, ...line }, this.random),
      addresses: network.newAddresses().filter((address) => families.includes(ipFamily(address))),
      startUnixMs: START_UNIX_MS,
    });
    this.hosts.push(host);
    return host;
  }

  /** Opens a TCP stream from an ephemeral port, where NATs, firewalls and blocks let it pass. */
  dial(from: Host, to: SocketAddress, localPort = 49_152): Dialled | undefined {
    const source = from.address(ipFamily(socketAddressIp(to)));
    if (source === undefined || from.isAsleep || from.link.up.isDown) return undefined;
    const local = socketAddress(source, localPort);
    const up = climb(from, local, to);
    const host = up && descend(up.network, up.seenAs, up.to);
    if (up === undefined || host === undefined) return undefined;
    return {
      host: host.host,
      local,
      remote: up.seenAs,
      to: host.to,
      latency: from.link.up.quality.latency + up.latency + host.latency,
    };
  }

  canDial(from: Host, to: SocketAddress): boolean {
    return this.dial(from, to) !== undefined;
  }

  run(ms: Millis): void {
    this.timeline.run(ms);
  }

  runUntil(isMet: () => boolean, most: Millis): boolean {
    return this.timeline.runUntil(isMet, most);
  }
}

/** Goes out from a host until a network knows the destination. */
function climb(from: Host, local: SocketAddress, to: SocketAddress) {
  const ip = socketAddressIp(to);
  let { network } = from;
  let seenAs = local;
  let latency = 0;
  while (network.memberAt(ip) === undefined) {
    const gateway = network.wayOut;
    if (!(gateway instanceof Gateway)) return undefined;
    if (gateway.translates(ip) && gateway.nat !== undefined) {
      seenAs = socketAddress(gateway.nat.external, socketAddressPort(seenAs));
    }
    if (gateway.blocks({ protocol: 'tcp', local: seenAs, remote: to })) return undefined;
    const forwarded = hairpin(gateway, to);
    if (forwarded !== undefined) return { network, seenAs, to: forwarded, latency };
    if (gateway.owns(ip) || gateway.link.up.isDown) return undefined;
    latency += gateway.link.up.quality.latency;
    network = gateway.outside;
  }
  return { network, seenAs, to, latency };
}

/** Goes in from the network that knows the destination. */
function descend(start: Network, from: SocketAddress, destination: SocketAddress) {
  let network = start;
  let to = destination;
  let latency = 0;
  for (;;) {
    const member = network.memberAt(socketAddressIp(to));
    if (member instanceof Host) {
      if (member.isAsleep || member.link.down.isDown) return undefined;
      return { host: member, to, latency: latency + member.link.down.quality.latency };
    }
    if (!(member instanceof Gateway) || member.link.down.isDown) return undefined;
    if (member.blocks({ protocol: 'tcp', local: to, remote: from })) return undefined;
    latency += member.link.down.quality.latency;
    if (member.owns(socketAddressIp(to))) {
      const forwarded = member.nat?.forwarded(socketAddressPort(to));
      if (forwarded === undefined) return undefined;
      to = forwarded;
    } else if (member.firewall?.isOpen(to) === false) {
      return undefined;
    }
    network = member.inside;
  }
}

function hairpin(gateway: Gateway, to: SocketAddress): SocketAddress | undefined {
  const { nat } = gateway;
  if (nat === undefined || !gateway.owns(socketAddressIp(to)) || !nat.behaviour.hairpinning) {
    return undefined;
  }
  return nat.forwarded(socketAddressPort(to));
}
