import { ipAddressBytes, ipFamily, type IpAddress, type IpFamily } from '../../net/ip-address.ts';
import type { IpPrefix } from '../../net/ip-prefix.ts';
import { AttributeReader } from '../attribute.ts';
import { aligned, HOST_IS_LITTLE_ENDIAN } from '../byte-order.ts';
import { MessageFlag } from '../constants.ts';
import { MessageWriter } from '../message-writer.ts';
import type { NetlinkMessage } from '../message.ts';
import {
  NEXT_HOP_HEADER,
  ROUTE_CLONED,
  ROUTE_HEADER,
  ROUTE_TYPES,
  RouteAttribute,
  RouteMessage,
  Scope,
} from './constants.ts';
import { decodeFamily, decodeIp, encodeFamily, familyBits, unspecified } from './family.ts';

export type RouteType = (typeof ROUTE_TYPES)[number];

/** More next hops than this make a route malformed; a message could hold 8,000. */
export const MOST_NEXT_HOPS = 256;

/** A route, as RTM_NEWROUTE tells it. */
export interface Route {
  /** `0.0.0.0/0` or `::/0` for the default route. */
  readonly destination: IpPrefix;
  readonly type: RouteType;
  /** `RouteTable` or any 32-bit number. */
  readonly table: number;
  /** Who made it: `RouteProtocol` or a daemon's number. */
  readonly protocol: number;
  readonly scope: number;
  /** Lower wins; 0 where the kernel tells none. */
  readonly metric: number;
  /** Only packets from here (IPv6), where it is restricted. */
  readonly source: IpPrefix | undefined;
  readonly preferredSource: IpAddress | undefined;
  /** Empty for blackhole, unreachable, prohibit and throw; several for multipath. */
  readonly nextHops: readonly NextHop[];
  /** A cache entry for one destination, not configuration. */
  readonly isCloned: boolean;
}

export interface NextHop {
  /** Index of the interface. */
  readonly link: number | undefined;
  /** Absent where the destination is on the link. May be of the other family (RTA_VIA). */
  readonly gateway: IpAddress | undefined;
  /** Share of the flows, ≥ 1. */
  readonly weight: number;
}

export interface RouteFilter {
  readonly family: IpFamily;
  readonly table?: number | undefined;
  readonly link?: number | undefined;
  readonly protocol?: number | undefined;
}

/** What names a route towards the kernel. Without `link` it is a route of a type that has none. */
export interface RouteKey {
  readonly destination: IpPrefix;
  readonly type: RouteType;
  readonly table: number;
  readonly protocol: number;
  readonly link: number | undefined;
  /** 0 leaves the choice to the kernel: 0 for IPv4, 1024 for IPv6. */
  readonly metric: number;
}

/**
 * Requests the routes (a dump) of one family that pass the filter. Kernels before 4.20 ignore all but the
 * family, and one without IPv6 answers with IPv4: filter the answer too.
 */
export function encodeRoutesQuery(filter: RouteFilter): Uint8Array {
  const flags = MessageFlag.request | MessageFlag.dump;
  const writer = new MessageWriter().begin(RouteMessage.getRoute, flags);
  const header = writer.fixed(ROUTE_HEADER);
  header.setUint8(0, encodeFamily(filter.family));
  header.setUint8(5, filter.protocol ?? 0);
  if (filter.table !== undefined) writer.u32(RouteAttribute.table, filter.table);
  if (filter.link !== undefined) writer.u32(RouteAttribute.outgoingLink, filter.link);
  return writer.end().take();
}

/** Whether a route read with `encodeRoutesQuery(filter)` was asked for. */
export function matchesRouteFilter(route: Route, filter: RouteFilter): boolean {
  const { family, table, link, protocol } = filter;
  return (
    ipFamily(route.destination.address) === family &&
    (table === undefined || route.table === table) &&
    (protocol === undefined || route.protocol === protocol) &&
    (link === undefined || route.nextHops.some((hop) => hop.link === link))
  );
}

/**
 * Adds a route; fails with EEXIST where one of the same destination, table and metric is. A `writer` that
 * many requests share spares each its own memory.
 */
export function encodeRouteAddition(
  route: RouteKey,
  writer: MessageWriter = new MessageWriter(),
): Uint8Array {
  const isOnLink = ipFamily(route.destination.address) === 4 && route.link !== undefined;
  const flags = MessageFlag.create | MessageFlag.exclusive;
  const scope = isOnLink ? Scope.link : Scope.universe;
  return encodeChange(writer.begin(RouteMessage.newRoute, CHANGE | flags), route, scope);
}

export function encodeRouteRemoval(
  route: RouteKey,
  writer: MessageWriter = new MessageWriter(),
): Uint8Array {
  const isIpv4 = ipFamily(route.destination.address) === 4;
  const scope = isIpv4 ? Scope.nowhere : Scope.universe;
  return encodeChange(writer.begin(RouteMessage.removeRoute, CHANGE), route, scope);
}

const CHANGE = MessageFlag.request | MessageFlag.ack;

/** Reads the body of RTM_NEWROUTE or RTM_DELROUTE; `undefined` when it is not one of IPv4 or IPv6. */
export function decodeRoute(message: Pick<NetlinkMessage, 'body'>): Route | undefined {
  const { body } = message;
  if (body.length < ROUTE_HEADER) return undefined;
  const header = new DataView(body.buffer, body.byteOffset, ROUTE_HEADER);
  const family = decodeFamily(header.getUint8(0));
  const type = ROUTE_TYPES[header.getUint8(7)];
  if (family === undefined || type === undefined) return undefined;
  const attributes = readAttributes(body.subarray(ROUTE_HEADER), family);
  const { destination, source, link, gateway } = attributes;
  const length = header.getUint8(1);
  const sourceLength = header.getUint8(2);
  const isTooLong = Math.max(length, sourceLength) > familyBits(family);
  if (attributes.malformed || !destination || !source || isTooLong) return undefined;
  const isSingle = link !== undefined || gateway !== undefined;
  return {
    destination: { address: destination, length },
    type,
    table: attributes.table ?? header.getUint8(4),
    protocol: header.getUint8(5),
    scope: header.getUint8(6),
    metric: attributes.metric ?? 0,
    source: sourceLength === 0 ? undefined : { address: source, length: sourceLength },
    preferredSource: attributes.preferredSource,
    nextHops: attributes.nextHops ?? (isSingle ? [{ link, gateway, weight: 1 }] : []),
    isCloned: (header.getUint32(8, HOST_IS_LITTLE_ENDIAN) & ROUTE_CLONED) !== 0,
  };
}

interface RouteAttributes {
  destination: IpAddress | undefined;
  source: IpAddress | undefined;
  table?: number | undefined;
  metric?: number | undefined;
  preferredSource?: IpAddress | undefined;
  link?: number | undefined;
  gateway?: IpAddress | undefined;
  nextHops?: readonly NextHop[] | undefined;
  malformed: boolean;
}

function readAttributes(bytes: Uint8Array, family: IpFamily): RouteAttributes {
  // The default route has no destination attribute.
  const any = unspecified(family);
  const found: RouteAttributes = { destination: any, source: any, malformed: false };
  const reader = new AttributeReader(bytes);
  while (reader.next()) {
    switch (reader.type) {
      case RouteAttribute.destination:
        found.destination = decodeIp(reader.value, family);
        break;
      case RouteAttribute.source:
        found.source = decodeIp(reader.value, family);
        break;
      case RouteAttribute.table:
        found.table = reader.u32();
        break;
      case RouteAttribute.metric:
        found.metric = reader.u32();
        break;
      case RouteAttribute.preferredSource:
        found.preferredSource = decodeIp(reader.value, family);
        break;
      case RouteAttribute.outgoingLink:
        found.link = reader.u32();
        break;
      case RouteAttribute.gateway:
        found.gateway = decodeIp(reader.value, family);
        break;
      case RouteAttribute.via:
        found.gateway = decodeVia(reader.value);
        break;
      case RouteAttribute.multipath:
        found.nextHops = decodeNextHops(reader.value, family);
        found.malformed ||= found.nextHops === undefined;
        break;
    }
  }
  found.malformed ||= reader.malformed;
  return found;
}

function encodeChange(writer: MessageWriter, route: RouteKey, scope: number): Uint8Array {
  const { address, length } = route.destination;
  const header = writer.fixed(ROUTE_HEADER);
  header.setUint8(0, encodeFamily(ipFamily(address)));
  header.setUint8(1, length);
  header.setUint8(4, route.table > 0xff ? 0 : route.table);
  header.setUint8(5, route.protocol);
  header.setUint8(6, scope);
  header.setUint8(7, ROUTE_TYPES.indexOf(route.type));
  writer.bytes(RouteAttribute.destination, ipAddressBytes(address));
  if (route.table > 0xff) writer.u32(RouteAttribute.table, route.table);
  if (route.metric !== 0) writer.u32(RouteAttribute.metric, route.metric);
  if (route.link !== undefined) writer.u32(RouteAttribute.outgoingLink, route.link);
  return writer.end().take();
}

/** struct rtvia: an address family and an address. */
function decodeVia(value: Uint8Array): IpAddress | undefined {
  if (value.length < 2) return undefined;
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
  const family = decodeFamily(view.getUint16(0, HOST_IS_LITTLE_ENDIAN));
  return family === undefined ? undefined : decodeIp(value.subarray(2), family);
}

/** An array of struct rtnexthop, each with attributes of its own; `undefined` when it is not one. */
function decodeNextHops(value: Uint8Array, family: IpFamily): readonly NextHop[] | undefined {
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
  const hops: NextHop[] = [];
  for (let at = 0; at < value.length;) {
    const left = value.length - at;
    const length = left < NEXT_HOP_HEADER ? 0 : view.getUint16(at, HOST_IS_LITTLE_ENDIAN);
    if (length < NEXT_HOP_HEADER || length > left || hops.length === MOST_NEXT_HOPS) {
      return undefined;
    }
    let gateway: IpAddress | undefined;
    const reader = new AttributeReader(value.subarray(at + NEXT_HOP_HEADER, at + length));
    while (reader.next()) {
      if (reader.type === RouteAttribute.gateway) gateway = decodeIp(reader.value, family);
      else if (reader.type === RouteAttribute.via) gateway = decodeVia(reader.value);
    }
    if (reader.malformed) return undefined;
    const link = view.getInt32(at + 4, HOST_IS_LITTLE_ENDIAN);
    hops.push({ link: link === 0 ? undefined : link, gateway, weight: view.getUint8(at + 3) + 1 });
    at += aligned(length);
  }
  return hops;
}
