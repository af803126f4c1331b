import { ipFamily, type IpAddress, type IpFamily } from '../../core/net/ip-address.ts';
import { socketAddress } from '../../core/net/socket-address.ts';
import type { Dependence } from './filter.ts';
import { Gateway } from './gateway.ts';
import type { Host } from './host.ts';
import type { Network } from './network.ts';
import type { World } from './world.ts';

/**
 * Predicts from NATs, firewalls and blocks alone, after RFC 4787 and RFC 5128, which paths can exist
 * between two hosts that do ICE: each knows the host addresses and the mapped address of the other, the
 * mapped one as the Internet sees it, and learns where checks come from. Loss, and whether anything is
 * switched on, are no matter of it. Blocks are asked with port 0: they are to look at addresses alone.
 */
export function directPathPossible(a: Host, b: Host): boolean {
  return (
    isReachedAtHostAddress(a, b) ||
    isReachedAtHostAddress(b, a) ||
    ([4, 6] as const).some((family) => isPunchable(a, b, family))
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

/** Whether the addresses of b's own interfaces lead to b from where a is, with or without punching. */
function isReachedAtHostAddress(a: Host, b: Host): boolean {
  return b.addresses.some((address) => {
    const source = a.address(ipFamily(address));
    if (source === undefined) return false;
    const up = climb(a, address);
    const down = up && descend(up.network, address, b);
    if (up === undefined || down === undefined) return false;
    const seenAs = outerAddress(up.gateways, source);
    if (isBlocked(up.gateways, seenAs, address) || isBlocked(down, address, seenAs)) return false;
    // Who is behind a firewall has to send first, to where a can be seen from; it was told so only of
    // the Internet, and of a's own address.
    const isSeen = up.network.wayOut === undefined || seenAs === source;
    const isOpen = sideOf(down, address).filtering === 'endpoint-independent';
    return (isSeen || isOpen) && canPunch(sideOf(up.gateways, source), sideOf(down, address));
  });
}

/** Whether both meet at their mapped addresses on the Internet, or at a NAT that sends them back in. */
function isPunchable(a: Host, b: Host, family: IpFamily): boolean {
  const [sourceA, sourceB] = [a.address(family), b.address(family)];
  if (sourceA === undefined || sourceB === undefined) return false;
  const [gatewaysA, gatewaysB] = [gatewaysOf(a), gatewaysOf(b)];
  const seenA = outerAddress(gatewaysA, sourceA);
  const seenB = outerAddress(gatewaysB, sourceB);
  // Without a NAT the mapped address is the host's.
  if (seenA === sourceA && seenB === sourceB) return false;
  const shared = gatewaysA.filter((gateway) => gatewaysB.includes(gateway));
  if (shared.length > 0) {
    const outermost = shared.findLast((gateway) => gateway.translates(sourceA));
    if (outermost?.nat?.behaviour.hairpinning !== true) return false;
  }
  if (isBlocked(gatewaysA, seenA, seenB) || isBlocked(gatewaysB, seenB, seenA)) return false;
  return canPunch(sideOf(gatewaysA, sourceA), sideOf(gatewaysB, sourceB));
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

/** The gateways that a packet from the host passes until a network knows its destination. */
function climb(host: Host, to: IpAddress) {
  const gateways: Gateway[] = [];
  let { network } = host;
  while (network.memberAt(to) === undefined) {
    const gateway = network.wayOut;
    if (!(gateway instanceof Gateway)) return undefined;
    gateways.push(gateway);
    network = gateway.outside;
  }
  return { network, gateways };
}

/** The gateways from there to the host, or `undefined` where the address is another's. */
function descend(start: Network, to: IpAddress, host: Host): readonly Gateway[] | undefined {
  const gateways: Gateway[] = [];
  let member = start.memberAt(to);
  while (member instanceof Gateway && !member.owns(to)) {
    gateways.push(member);
    member = member.inside.memberAt(to);
  }
  return member === host ? gateways : undefined;
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
