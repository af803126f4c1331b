import { AttributeReader } from '../attribute.ts';
import { HOST_IS_LITTLE_ENDIAN } from '../byte-order.ts';
import type { NetlinkMessage } from '../message.ts';
import { decodeAddress } from './address.ts';
import { AF_UNSPEC, LINK_HEADER, LinkAttribute, RouteMessage } from './constants.ts';
import { decodeRoute } from './route.ts';
import { decodeRule } from './rule.ts';

/** Something about links, addresses, routes or rules changed. */
export interface RouteNotification {
  /** The interface concerned, where it is exactly one. */
  readonly link: number | undefined;
  /** Of a rule: who made it. */
  readonly ruleProtocol?: number;
}

/**
 * Reads a multicast message of the link, address, route and rule groups. Returns `undefined` for what is
 * no change of the four: bridge port states, wireless scans (each sends an RTM_NEWLINK) and route caches.
 */
export function readNotification(message: NetlinkMessage): RouteNotification | undefined {
  switch (message.type) {
    case RouteMessage.newLink:
    case RouteMessage.removeLink:
      return readLinkNotification(message.body);
    case RouteMessage.newAddress:
    case RouteMessage.removeAddress:
      return { link: decodeAddress(message)?.link };
    case RouteMessage.newRoute:
    case RouteMessage.removeRoute: {
      const route = decodeRoute(message);
      if (route === undefined) return { link: undefined };
      if (route.isCloned) return undefined;
      return { link: route.nextHops.length === 1 ? route.nextHops[0]?.link : undefined };
    }
    case RouteMessage.newRule:
    case RouteMessage.removeRule: {
      const rule = decodeRule(message);
      return rule && { link: undefined, ruleProtocol: rule.protocol };
    }
    default:
      return undefined;
  }
}

function readLinkNotification(body: Uint8Array): RouteNotification | undefined {
  if (body.length < LINK_HEADER || body[0] !== AF_UNSPEC) return undefined;
  const reader = new AttributeReader(body.subarray(LINK_HEADER));
  while (reader.next()) if (reader.type === LinkAttribute.wireless) return undefined;
  const header = new DataView(body.buffer, body.byteOffset, LINK_HEADER);
  return { link: header.getInt32(4, HOST_IS_LITTLE_ENDIAN) };
}
