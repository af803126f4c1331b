import type { Flow } from '../fastpath/flow.ts';
import { isIcmpProtocol, isPortless } from '../nat/tuple.ts';
import { unreachable } from '../sansio/outcome.ts';
import { PROTOCOL_TCP, PROTOCOL_UDP } from '../packet/ip-packet.ts';

/** Something that a resource offers, or an authorization allows. */
export type Filter =
  | { readonly protocol: 'icmp' }
  | {
      readonly protocol: 'tcp' | 'udp';
      /** Of the resource; none means all of them. */
      readonly ports: readonly PortRange[];
    };

/** Both ends are part of it. */
export interface PortRange {
  readonly first: number;
  readonly last: number;
}

/** Whether one of the filters fits to a flow towards the resource. Without filters everything is permitted. */
export function isPermitted(filters: readonly Filter[], flow: Flow): boolean {
  return filters.length === 0 || filters.some((filter) => doesFit(filter, flow));
}

function doesFit(filter: Filter, flow: Flow): boolean {
  switch (filter.protocol) {
    case 'icmp':
      return isIcmpProtocol(flow.protocol);
    case 'tcp':
      // The port in the first fragment is not seen, and TCP has no need of fragments.
      return flow.protocol === PROTOCOL_TCP && hasPort(filter.ports, flow);
    case 'udp':
      // The first fragment shows its port, and without it the others are nothing.
      return flow.protocol === PROTOCOL_UDP && (isPortless(flow) || hasPort(filter.ports, flow));
    default:
      return unreachable(filter);
  }
}

function hasPort(ranges: readonly PortRange[], { destinationPort }: Flow): boolean {
  if (ranges.length === 0) return true;
  return ranges.some(({ first, last }) => first <= destinationPort && destinationPort <= last);
}
