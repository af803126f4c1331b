import { ipFamily } from '../net/ip-address.ts';
import { formatIpPrefix, networkOf, type IpPrefix } from '../net/ip-prefix.ts';
import type { WantedLink } from '../plugin/links.ts';
import { unreachable } from '../sansio/outcome.ts';
import { MessageWriter } from './message-writer.ts';
import {
  encodeAddressAddition,
  encodeAddressRemoval,
  type AddressKey,
  type LinkAddress,
} from './rtnetlink/address.ts';
import { RouteTable, Scope } from './rtnetlink/constants.ts';
import { encodeLinkMtu, encodeLinkUp, type Link } from './rtnetlink/link.ts';
import { unspecified } from './rtnetlink/family.ts';
import {
  encodeRouteAddition,
  encodeRouteRemoval,
  type Route,
  type RouteKey,
} from './rtnetlink/route.ts';
import { encodeRuleAddition, encodeRuleRemoval, type Rule } from './rtnetlink/rule.ts';
import { formatRule, planRules, type RuleChange, type RuleMarks } from './wanted-rules.ts';

/** What tells our routes and rules from those of other programs. */
export interface RouteMarks extends RuleMarks {
  /** The table that our routes stand in. */
  readonly table: number;
}

/**
 * What was read of our interface: the link, its addresses, and all routes that lead into it; and all rules
 * of the machine.
 */
export interface ObservedLink {
  readonly link: Link;
  readonly addresses: readonly LinkAddress[];
  readonly routes: readonly Route[];
  readonly rules: readonly Rule[];
}

/** One step towards the wanted state; one request to the kernel. */
export type LinkChange =
  | { readonly type: 'set-mtu'; readonly link: number; readonly mtu: number }
  | { readonly type: 'set-up'; readonly link: number }
  | { readonly type: 'add-address' | 'remove-address'; readonly address: AddressKey }
  | { readonly type: 'add-route' | 'remove-route'; readonly route: RouteKey }
  | RuleChange;

/**
 * Returns what leads from the observed to the wanted state, in an order that keeps traffic flowing: what
 * is new goes in before what is old comes out, except where the kernel refuses both at a time. Empty when
 * nothing differs.
 *
 * The kernel has side effects (an interface that comes up gets routes, one that loses its last address
 * loses them), so the caller reads and plans again until the plan is empty.
 */
export function planLink(
  wanted: WantedLink,
  observed: ObservedLink,
  marks: RouteMarks,
): readonly LinkChange[] {
  const { link } = observed;
  const changes: LinkChange[] = [];
  if (link.mtu !== wanted.mtu) {
    changes.push({ type: 'set-mtu', link: link.index, mtu: wanted.mtu });
  }
  if (!link.isUp) changes.push({ type: 'set-up', link: link.index });
  changes.push(
    ...planAddresses(wanted, observed),
    ...planRoutes(wanted, observed, marks),
    ...planRules(wanted, observed.rules, marks),
  );
  return changes;
}

/** Returns what removes our rules and all of ours from the interface, and nothing else. */
export function planClearing(observed: ObservedLink, marks: RouteMarks): readonly LinkChange[] {
  const routes = observed.routes.filter((route) => isMarked(route, marks));
  return [
    ...planRuleClearing(observed.rules, marks),
    ...routes.map((route) => removeRoute(route, observed.link.index)),
    ...observed.addresses.filter(isOurs).map(removeAddress),
  ];
}

/** Returns what removes our rules. They stay when the interface goes away. */
export function planRuleClearing(rules: readonly Rule[], marks: RuleMarks): readonly LinkChange[] {
  return planRules({ name: '', defaultFor: [] }, rules, marks);
}

/** Returns the requests that carry out the changes, their sequences still zero. */
export function encodeLinkChanges(changes: readonly LinkChange[]): readonly Uint8Array[] {
  const writer = new MessageWriter();
  return changes.map((change) => encodeLinkChange(change, writer));
}

function encodeLinkChange(change: LinkChange, writer: MessageWriter): Uint8Array {
  switch (change.type) {
    case 'set-mtu':
      return encodeLinkMtu(change.link, change.mtu);
    case 'set-up':
      return encodeLinkUp(change.link);
    case 'add-address':
      return encodeAddressAddition(change.address);
    case 'remove-address':
      return encodeAddressRemoval(change.address);
    case 'add-route':
      return encodeRouteAddition(change.route, writer);
    case 'remove-route':
      return encodeRouteRemoval(change.route, writer);
    case 'add-rule':
      return encodeRuleAddition(change.rule);
    case 'remove-rule':
      return encodeRuleRemoval(change.rule);
    default:
      return unreachable(change);
  }
}

/** Returns the name of the object that a change is about, such as `route 192.0.2.0/24`. */
export function changedObject(change: LinkChange): string {
  switch (change.type) {
    case 'set-mtu':
      return `mtu ${change.mtu}`;
    case 'set-up':
      return 'link';
    case 'add-address':
    case 'remove-address':
      return `address ${formatIpPrefix(change.address.address)}`;
    case 'add-route':
    case 'remove-route':
      return routeName(change.route);
    case 'add-rule':
    case 'remove-rule':
      return formatRule(change.rule);
    default:
      return unreachable(change);
  }
}

function routeName({ destination, table }: Pick<RouteKey, 'destination' | 'table'>): string {
  const name = `route ${formatIpPrefix(destination)}`;
  return table === RouteTable.main ? name : `${name} of table ${table}`;
}

function planAddresses(wanted: WantedLink, observed: ObservedLink): LinkChange[] {
  const missing = new Map(wanted.addresses.map((prefix) => [formatIpPrefix(prefix), prefix]));
  const removals: AddressKey[] = [];
  for (const address of observed.addresses) {
    const isWanted = address.peer === undefined && missing.delete(formatIpPrefix(address.address));
    if (!isWanted && isOurs(address)) removals.push(address);
  }
  const link = observed.link.index;
  const additions = Array.from(missing.values(), (address): AddressKey => ({
    link,
    address,
    peer: undefined,
  }));
  return inOrder(removals, additions, exclusiveAddresses).map(({ isAddition, item }) =>
    isAddition ? { type: 'add-address', address: item } : removeAddress(item),
  );
}

/** The interface is ours with all its addresses, except for the link-local ones that the kernel makes. */
function isOurs({ address, scope }: LinkAddress): boolean {
  return !(ipFamily(address.address) === 6 && scope === Scope.link);
}

/**
 * IPv6 has an address once, whatever its length. A second IPv4 address of a subnet hangs on the first and
 * goes with it.
 */
function exclusiveAddresses({ address }: AddressKey): readonly string[] {
  const isAlone = ipFamily(address.address) === 6;
  return isAlone ? [address.address] : [address.address, formatIpPrefix(networkOf(address))];
}

function planRoutes(wanted: WantedLink, observed: ObservedLink, marks: RouteMarks): LinkChange[] {
  const link = observed.link.index;
  const missing = new Map(
    wantedRoutes(wanted, marks).map(({ destination, table }): readonly [string, RouteKey] => {
      const { protocol } = marks;
      const route = { destination, type: 'unicast', table, protocol, link, metric: 0 } as const;
      return [routeName(route), route];
    }),
  );
  const candidates = observed.routes.filter((route) => !route.isCloned);
  const removals: RouteKey[] = [];
  for (const route of candidates.filter((candidate) => isMarked(candidate, marks))) {
    const isWanted = leadsInto(route, link) && missing.delete(routeName(route));
    if (!isWanted) removals.push(routeKey(route, link));
  }
  // Where the kernel or another program routes the destination into our interface, ours is not needed.
  for (const route of missing.size > 0 ? candidates : []) {
    if (leadsInto(route, link)) missing.delete(routeName(route));
  }
  const additions = Array.from(missing.values());
  return inOrder(removals, additions, (route) => [routeName(route)]).map(
    ({ isAddition, item }) => ({
      type: isAddition ? 'add-route' : 'remove-route',
      route: item,
    }),
  );
}

function wantedRoutes(
  { routes, defaultFor }: WantedLink,
  { table, defaultTable }: RouteMarks,
): readonly Pick<RouteKey, 'destination' | 'table'>[] {
  const specific = routes.map((prefix) => ({ destination: networkOf(prefix), table }));
  return defaultFor.length === 0
    ? specific
    : [...specific, ...DEFAULTS.map((destination) => ({ destination, table: defaultTable }))];
}

const DEFAULTS: readonly IpPrefix[] = [
  { address: unspecified(4), length: 0 },
  { address: unspecified(6), length: 0 },
];

/** Ours by its mark. A multipath route is never made by us, whatever it carries. */
function isMarked(route: Route, marks: RouteMarks): boolean {
  return route.protocol === marks.protocol && route.nextHops.length === 1 && !route.isCloned;
}

/** Whether it is a plain route as we would make it, whoever made it. */
function leadsInto(route: Route, link: number): boolean {
  const [hop, ...others] = route.nextHops;
  return (
    route.type === 'unicast' &&
    route.source === undefined &&
    hop?.link === link &&
    hop.gateway === undefined &&
    others.length === 0
  );
}

interface Step<Item> {
  readonly isAddition: boolean;
  readonly item: Item;
}

/** Additions before removals, except that what shares a key with an addition is removed before all. */
function inOrder<Item>(
  removals: readonly Item[],
  additions: readonly Item[],
  exclusiveKeys: (item: Item) => readonly string[],
): readonly Step<Item>[] {
  // Nothing is in the way of what goes in, or nothing goes in: there may be tens of thousands.
  const areBoth = removals.length > 0 && additions.length > 0;
  const taken = new Set(areBoth ? additions.flatMap(exclusiveKeys) : []);
  const isInTheWay = (old: Item) => exclusiveKeys(old).some((key) => taken.has(key));
  const before = removals.filter(isInTheWay);
  const after = removals.filter((old) => !isInTheWay(old));
  return [
    ...before.map((item) => ({ isAddition: false, item })),
    ...additions.map((item) => ({ isAddition: true, item })),
    ...after.map((item) => ({ isAddition: false, item })),
  ];
}

function removeAddress(address: AddressKey): LinkChange {
  return { type: 'remove-address', address };
}

function removeRoute(route: Route, link: number): LinkChange {
  return { type: 'remove-route', route: routeKey(route, link) };
}

function routeKey(route: Route, link: number): RouteKey {
  const { destination, type, table, protocol, metric } = route;
  return { destination, type, table, protocol, metric, link };
}
