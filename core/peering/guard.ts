import type { Flow, FlowVerdict } from '../fastpath/flow.ts';
import { ipAddressFromBytes } from '../net/ip-address.ts';
import { PROTOCOL_UDP } from '../packet/ip-packet.ts';
import { PEERING_PORT } from './message.ts';
import type { Peering } from './peering.ts';

/*
 * Only daemons speak on the peering port. A packet from the TUN comes from a host of the LAN or a program
 * of this router, and behind a router that masquerades, it has our address: a peer could not tell it from
 * ours. So it is dropped before it enters the tunnel.
 *
 * Fragments do not get around this. The header of a datagram is in its first fragment (RFC 791 §3.2: they
 * are cut at 8 bytes, and that is all of the header), which the packet path shows with its ports; without
 * it, nobody puts the datagram together. IPv6 could hide the header behind extension headers in a later
 * fragment (RFC 7112 forbids it, old kernels take it), or behind one that the packet path does not know; what
 * it shows with such a protocol is dropped too.
 */

/** Whether packets of the flow are peering messages, or such that one may hide in them. */
export function isPeering({ family, protocol, destinationPort }: Flow): boolean {
  if (protocol === PROTOCOL_UDP) return destinationPort === PEERING_PORT;
  return family === 6 && EXTENSION_HEADERS.includes(protocol);
}

/** Decides about a flow from the TUN that would go to the peer; `undefined` where it is no concern of ours. */
export function guardOutbound(peering: Peering, peer: number, flow: Flow): FlowVerdict | undefined {
  if (!isPeering(flow)) return undefined;
  const isToDaemon = peering.mayBeDaemon(peer, ipAddressFromBytes(flow.destination));
  return isToDaemon ? { type: 'drop', reason: 'peering-from-lan' } : undefined;
}

/** Decides about a flow from a peer whose source is allowed; `undefined` where it is no concern of ours. */
export function guardInbound(peering: Peering, flow: Flow): FlowVerdict | undefined {
  if (!isPeering(flow)) return undefined;
  const isToUs = peering.isOwnAddress(ipAddressFromBytes(flow.destination));
  return isToUs ? { type: 'local' } : undefined;
}

/**
 * IANA, "IPv6 Extension Header Types", that something can follow: hop-by-hop, routing, fragment,
 * authentication, destination options, mobility, host identity, shim6. ESP hides from us whatever it has,
 * and from everybody without its keys.
 */
const EXTENSION_HEADERS: readonly number[] = [0, 43, 44, 51, 60, 135, 139, 140];
