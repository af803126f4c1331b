import type { IpFamily } from '../../core/net/ip-address.ts';
import { NETLINK_ROUTE } from '../../core/netlink/constants.ts';
import {
  decodeAddress,
  encodeAddressesQuery,
  type LinkAddress,
} from '../../core/netlink/rtnetlink/address.ts';
import {
  decodeLink,
  encodeLinkQuery,
  encodeLinksQuery,
  type Link,
} from '../../core/netlink/rtnetlink/link.ts';
import {
  decodeRoute,
  encodeRoutesQuery,
  matchesRouteFilter,
  type Route,
  type RouteFilter,
} from '../../core/netlink/rtnetlink/route.ts';
import { decodeRule, encodeRulesQuery, type Rule } from '../../core/netlink/rtnetlink/rule.ts';
import type { Native } from '../../core/plugin/native.ts';
import { ownRefusal, type Answer, type Refusal } from './refusal.ts';
import { RequestSocket } from './request-socket.ts';

/** Reads links, addresses, routes and rules of this network namespace, and sends changes. Reading needs no rights. */
export class Rtnetlink {
  readonly #socket: RequestSocket;

  static open(native: Native): Answer<Rtnetlink> {
    const socket = RequestSocket.open(native, NETLINK_ROUTE);
    return socket.ok ? { ok: true, value: new Rtnetlink(socket.value) } : socket;
  }

  constructor(socket: RequestSocket) {
    this.#socket = socket;
  }

  get stats(): Readonly<RequestSocket['stats']> {
    return this.#socket.stats;
  }

  readLinks(): Answer<readonly Link[]> {
    return this.#socket.dump(encodeLinksQuery(), decodeLink);
  }

  /** Refused with ENODEV where no interface has the name. */
  readLink(name: string): Answer<Link> {
    let link: Link | undefined;
    const refusal = this.#socket.request(encodeLinkQuery(name), (message) => {
      link = decodeLink(message);
    });
    if (refusal !== undefined) return { ok: false, refusal };
    if (link !== undefined) return { ok: true, value: link };
    return { ok: false, refusal: ownRefusal('EBADMSG', 'the kernel answered without a link') };
  }

  /** Returns the addresses of both families, of one interface or of all. */
  readAddresses(filter: { readonly link?: number } = {}): Answer<readonly LinkAddress[]> {
    return this.#socket.dump(
      encodeAddressesQuery(filter),
      decodeAddress,
      ({ link }) => filter.link === undefined || link === filter.link,
    );
  }

  /** Returns the routes of one family or both, from all tables unless told otherwise. */
  readRoutes(
    filter: Omit<RouteFilter, 'family'> & { readonly family?: IpFamily } = {},
  ): Answer<readonly Route[]> {
    const tables: (readonly Route[])[] = [];
    for (const family of filter.family === undefined ? ([4, 6] as const) : [filter.family]) {
      const query = { ...filter, family };
      const read = this.#socket.dump(encodeRoutesQuery(query), decodeRoute, (route) =>
        matchesRouteFilter(route, query),
      );
      if (read.ok) tables.push(read.value);
      else if (!meansNone(read.refusal)) return read;
    }
    return { ok: true, value: tables.flat() };
  }

  /** Returns the rules of both families. */
  readRules(): Answer<readonly Rule[]> {
    const rules: Rule[] = [];
    for (const family of [4, 6] as const) {
      const read = this.#socket.dump(
        encodeRulesQuery(family),
        decodeRule,
        (rule) => rule.family === family,
      );
      if (read.ok) rules.push(...read.value);
      else if (!meansNone(read.refusal)) return read;
    }
    return { ok: true, value: rules };
  }

  /** Sends changes in order. Returns why the kernel refused each, `undefined` where it did not. */
  change(requests: readonly Uint8Array[]): readonly (Refusal | undefined)[] {
    return this.#socket.requestAll(requests);
  }

  close(): void {
    this.#socket.close();
  }
}

/** A table that has no routes does not exist; a kernel may come without IPv6 or without rules. */
function meansNone({ code }: Refusal): boolean {
  return code === 'ENOENT' || code === 'EAFNOSUPPORT' || code === 'EOPNOTSUPP';
}
