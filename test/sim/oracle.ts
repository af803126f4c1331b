import { ipFamily, type IpAddress } from '../../core/net/ip-address.ts';
import { socketAddress } from '../../core/net/socket-address.ts';
import type { Dependence } from './filter.ts';
import { Gateway } from './gateway.ts';
import type { Host } from './host.ts';
import type { World } from './world.ts';

/**
 * Predicts from NATs, firewalls and blocks alone, after RFC 4787 and RFC 5128, which paths can exist
 * between two hosts that do ICE: each knows the host addresses and the mapped address of the other, the
 * mapped one as the Internet sees it, and learns where checks come from. Loss, and whether anything is
 * switched on, are no matter of it. Blocks are asked with port 0: they are to look at addresses alone.
 */
export function directPathPossible(a: Host, b: Host): boolean {
  return (
    addressesOf(b).some((address) => isReachedAt(a, b, address)) ||
    addressesOf(a).some((address) => isReachedAt(b, a, address))
  );
}

/** Whether some relay of these carries a path, over UDP or, where that is on offer, over TCP. */
export function relayPossible(
  world: World,
  a: Host,
  b: Host,
  relays: readonly { readonly host: Host; readonly isRunning: boolean }[],
  options: { readonly overTcp: boolean },
): boolean {
  const running = relays.filter(({ isRunning }) => isRunning).map(({ host }) => host);
  const uses = (host: Host, relay: Host): boolean =>
    sendsUdpTo(host, relay) || (options.overTcp && dialsTo(world, host, relay));
  return running.some((relay) => {
    const others = running.filter((other) => other !== relay);
    const isFor = (one: Host, other: Host): boolean =>
      uses(one, relay) &&
      (sendsUdpTo(other, relay) || [relay, ...others].some((second) => uses(other, second)));
    return isFor(a, b) || isFor(b, a);
  });
}

/** Whether one of them can dial the other's listener on this port. */
export function streamPossible(world: World, a: Host, b: Host, port: number): boolean {
  const dials = (from: Host, to: Host): boolean =>
    to.addresses.some((address) => world.canDial(from, socketAddress(address, port)));
  return dials(a, b) || dials(b, a);
}

/** What is between a host and some network, seen as one NAT. */
interface Side {
  readonly mapping: Dependence;
  readonly filtering: Dependence;
}

const ORDER: readonly Dependence[] = [
  'endpoint-independent',
  'address-dependent',
  'address-and-port-dependent',
];

/** The rule for two sides that learn each other's mapped address from a third one. */
export function canPunch(a: Side, b: Side): boolean {
  const isIndependent = (side: Side): boolean => side.mapping === 'endpoint-independent';
  if (isIndependent(a) && isIndependent(b)) return true;
  if (isIndependent(a)) return admitsUnknownPort(a);
  if (isIndependent(b)) return admitsUnknownPort(b);
  // Both come from ports that the other was not told of. One must let in anybody, to learn such a port;
  // the other must let in the port that the answer comes from; and one of them must keep to one port
  // towards the other, or the two would change ports for ever.
  const sides = [a, b];
  return (
    sides.some(({ filtering }) => filtering === 'endpoint-independent') &&
    sides.every(admitsUnknownPort) &&
    sides.some(({ mapping }) => mapping === 'address-dependent')
  );
}

/** Whether a packet gets in from a known address, but from a port that was never sent to. */
function admitsUnknownPort({ filtering }: Side): boolean {
  return filtering !== 'address-and-port-dependent';
}

/** The addresses that a host can tell others: its own, and those under which the Internet sees it. */
function addressesOf(host: Host): readonly IpAddress[] {
  const gateways = gatewaysOf(host);
  const mapped = host.addresses.map((address) => outerAddress(gateways, address));
  return [...new Set([...host.addresses, ...mapped])];
}

/** Whether checks of a to this address of b, and what b sends on its own, make a path. */
function isReachedAt(a: Host, b: Host, address: IpAddress): boolean {
  const source = a.address(ipFamily(address));
  const inner = b.address(ipFamily(address));
  const way = wayTo(a, address, b);
  if (source === undefined || inner === undefined || way === undefined) return false;
  const seenAs = outerAddress(way.up, source);
  if (isBlocked(way.up, seenAs, address) || isBlocked(way.down, address, seenAs)) return false;
  const [near, far] = [sideOf(way.up, source), sideOf(way.down, inner)];
  // Who filters has to send first, and knows to where only if a could tell it.
  const isKnown = addressesOf(a).includes(seenAs) || far.filtering === 'endpoint-independent';
  return isKnown && canPunch(near, far);
}

/**
 * The gateways out of which and into which a packet from a goes on its way to an address of b, each
 * from the inside out; `undefined` where it does not come to b. At a NAT that sends it back it goes
 * through both ways.
 */
function wayTo(a: Host, address: IpAddress, b: Host) {
  const up: Gateway[] = [];
  let { network } = a;
  while (network.memberAt(address) === undefined) {
    const gateway = network.wayOut;
    if (!(gateway instanceof Gateway)) return undefined;
    up.push(gateway);
    if (gateway.owns(address)) {
      const isSentBack = gateway.nat?.behaviour.hairpinning === true;
      const isBehind = gatewaysOf(b).includes(gateway);
      return isSentBack && isBehind ? { up, down: gatewaysUpTo(b, gateway) } : undefined;
    }
    network = gateway.outside;
  }
  const member = network.memberAt(address);
  if (member === b) return { up, down: [] };
  // What owns the address, or routes to it, has to be in front of b and not of another.
  const first = member instanceof Gateway ? member : undefined;
  if (first === undefined || !gatewaysOf(b).includes(first) || !leadsTo(first, address, b)) {
    return undefined;
  }
  return { up, down: gatewaysUpTo(b, first) };
}

/** Whether a packet that a gateway takes from outside ends at b, and at no other of that address. */
function leadsTo(first: Gateway, address: IpAddress, b: Host): boolean {
  let member: unknown = first;
  while (member instanceof Gateway && !member.owns(address)) {
    member = member.inside.memberAt(address);
  }
  return member === b || (member instanceof Gateway && gatewaysOf(b).includes(member));
}

function gatewaysUpTo(host: Host, last: Gateway): readonly Gateway[] {
  const gateways = gatewaysOf(host);
  return gateways.slice(0, gateways.indexOf(last) + 1);
}

/** Whether datagrams get from a host to a public one, and answers back. */
function sendsUdpTo(host: Host, relay: Host): boolean {
  return relay.addresses.some((address) => {
    const source = host.address(ipFamily(address));
    if (source === undefined) return false;
    const gateways = gatewaysOf(host);
    return !isBlocked(gateways, outerAddress(gateways, source), address);
  });
}

function dialsTo(world: World, host: Host, relay: Host): boolean {
  return relay.addresses.some((address) => world.canDial(host, socketAddress(address, 0)));
}

/** The gateways between a host and the Internet, the nearest first. */
function gatewaysOf(host: Host): readonly Gateway[] {
  const gateways: Gateway[] = [];
  let { wayOut } = host.network;
  while (wayOut instanceof Gateway) {
    gateways.push(wayOut);
    wayOut = wayOut.outside.wayOut;
  }
  return gateways;
}

/** Under which address a host is seen behind these gateways. */
function outerAddress(gateways: readonly Gateway[], address: IpAddress): IpAddress {
  const outermost = gateways.findLast((gateway) => gateway.translates(address));
  return outermost?.nat?.external ?? address;
}

/** A chain of NATs depends on as much as its most dependent one, and filters as the strictest. */
function sideOf(gateways: readonly Gateway[], address: IpAddress): Side {
  let mapping = 0;
  let filtering = 0;
  for (const gateway of gateways) {
    const { nat, firewall } = gateway;
    if (gateway.translates(address) && nat !== undefined) {
      mapping = Math.max(mapping, ORDER.indexOf(nat.behaviour.mapping));
      filtering = Math.max(filtering, ORDER.indexOf(nat.behaviour.filtering));
    } else if (firewall !== undefined) {
      filtering = Math.max(filtering, ORDER.indexOf(firewall.filtering));
    }
  }
  return { mapping: ORDER[mapping]!, filtering: ORDER[filtering]! };
}

function isBlocked(gateways: readonly Gateway[], local: IpAddress, remote: IpAddress): boolean {
  const passing = { local: socketAddress(local, 0), remote: socketAddress(remote, 0) };
  return gateways.some((gateway) => gateway.blocks({ protocol: 'udp', ...passing }));
}
