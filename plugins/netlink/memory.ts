import { ipFamily, type IpFamily } from '../../core/net/ip-address.ts';
import { formatIpPrefix, networkOf, type IpPrefix } from '../../core/net/ip-prefix.ts';
import { chooseLocalAddresses } from '../../core/netlink/local-addresses.ts';
import type { AddressKey, LinkAddress } from '../../core/netlink/rtnetlink/address.ts';
import {
  HardwareType,
  RouteProtocol,
  RouteTable,
  Scope,
} from '../../core/netlink/rtnetlink/constants.ts';
import type { Link } from '../../core/netlink/rtnetlink/link.ts';
import type { Route, RouteKey } from '../../core/netlink/rtnetlink/route.ts';
import type { Rule, RuleKey } from '../../core/netlink/rtnetlink/rule.ts';
import {
  planClearing,
  planRuleClearing,
  type LinkChange,
  type ObservedLink,
  type RouteMarks,
} from '../../core/netlink/wanted-link.ts';
import type { RuleChange } from '../../core/netlink/wanted-rules.ts';
import { links, type Links } from '../../core/plugin/links.ts';
import type { PluginDefinition } from '../../core/plugin/plugin.ts';
import { unreachable } from '../../core/sansio/outcome.ts';
import { applyLink, type LinkKernel } from './apply.ts';
import { DEFAULT_TABLE, ROUTE_PROTOCOL } from './links.ts';
import { MemoryRules } from './memory-rules.ts';
import { ownRefusal, type Answer, type Refusal } from './refusal.ts';

/**
 * Links, addresses, routes and rules in memory, with the side effects of the kernel that a caller can meet:
 * connected routes, routes lost with the link or the last address, IPv6 switched off. Its methods act as
 * another program would.
 */
export class MemoryKernel {
  readonly #links = new Map<string, MemoryLink>();
  readonly #rules = new MemoryRules();
  readonly #listeners = new Set<() => void>();
  #lastIndex = 1;

  addLink(name: string, mtu = 1500): void {
    this.#lastIndex++;
    const link = { index: this.#lastIndex, name, mtu, isUp: false };
    this.#links.set(name, { ...link, hasIpv6: true, addresses: [], routes: [] });
    this.#tell();
  }

  removeLink(name: string): void {
    this.#links.delete(name);
    this.#tell();
  }

  setUp(name: string): void {
    const link = this.#links.get(name);
    if (link !== undefined) this.change({ type: 'set-up', link: link.index });
    this.#tell();
  }

  setDown(name: string): void {
    const link = this.#links.get(name);
    if (link === undefined) return;
    link.isUp = false;
    link.routes = [];
    this.#tell();
  }

  disableIpv6(name: string): void {
    const link = this.#links.get(name);
    if (link === undefined) return;
    link.hasIpv6 = false;
    link.addresses = link.addresses.filter(({ address }) => ipFamily(address.address) === 4);
    link.routes = link.routes.filter((route) => familyOf(route) === 4);
    this.#tell();
  }

  /** `flags` are `AddressFlag` bits. */
  addAddress(name: string, address: IpPrefix, flags = 0): void {
    const link = this.#links.get(name);
    if (link !== undefined) {
      addAddress(link, { link: link.index, address, peer: undefined }, flags);
    }
    this.#tell();
  }

  removeAddress(name: string, address: IpPrefix): void {
    this.#act(name, (link) => ({
      type: 'remove-address',
      address: { link, address, peer: undefined },
    }));
  }

  addRoute(name: string, destination: IpPrefix, protocol: number): void {
    this.#act(name, (link) => ({
      type: 'add-route',
      route: { ...PLAIN_ROUTE, destination, protocol, link },
    }));
  }

  removeRoute(name: string, destination: IpPrefix): void {
    const link = this.#links.get(name);
    if (link === undefined) return;
    const text = formatIpPrefix(destination);
    link.routes = link.routes.filter((route) => formatIpPrefix(route.destination) !== text);
    this.#tell();
  }

  addRule(rule: RuleKey): void {
    this.change({ type: 'add-rule', rule });
    this.#tell();
  }

  removeRule(rule: RuleKey): void {
    this.change({ type: 'remove-rule', rule });
    this.#tell();
  }

  observe(name: string): ObservedLink | undefined {
    const link = this.#links.get(name);
    return link === undefined ? undefined : this.#observed(link);
  }

  observeAll(): readonly ObservedLink[] {
    return Array.from(this.#links.values(), (link) => this.#observed(link));
  }

  rules(): readonly Rule[] {
    return this.#rules.all();
  }

  /** Carries out a change without telling the listeners; returns why it cannot. */
  change(change: LinkChange): Refusal | undefined {
    if ('rule' in change) return this.#rules.change(change);
    const index = linkOf(change);
    const link = Array.from(this.#links.values()).find((candidate) => candidate.index === index);
    if (link === undefined) return ownRefusal('ENODEV', 'no such device');
    switch (change.type) {
      case 'set-mtu':
        link.mtu = change.mtu;
        return undefined;
      case 'set-up':
        link.isUp = true;
        for (const address of link.addresses) addConnectedRoute(link, address);
        return undefined;
      case 'add-address':
        return addAddress(link, change.address);
      case 'remove-address':
        return removeAddress(link, change.address);
      case 'add-route':
        return this.#addRoute(link, change.route);
      case 'remove-route':
        return removeRoute(link, change.route);
      default:
        return unreachable(change);
    }
  }

  subscribe(onChange: () => void): () => void {
    const listener = () => onChange();
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #act(name: string, change: (index: number) => LinkChange): void {
    const link = this.#links.get(name);
    if (link !== undefined) this.change(change(link.index));
    this.#tell();
  }

  #addRoute(link: MemoryLink, key: RouteKey): Refusal | undefined {
    if (!link.isUp) return ownRefusal('ENETDOWN', 'network is down');
    if (!link.hasIpv6 && familyOf(key) === 6) return ownRefusal('EACCES', 'permission denied');
    const route = routeOf(link, key);
    const routes = Array.from(this.#links.values()).flatMap((other) => other.routes);
    if (routes.some((other) => isSameRoute(other, route))) {
      return ownRefusal('EEXIST', 'file exists');
    }
    link.routes = [...link.routes, route];
    return undefined;
  }

  #observed({ index, name, mtu, isUp, addresses, routes }: MemoryLink): ObservedLink {
    const link = { ...NO_HARDWARE, index, name, mtu, isUp };
    return { link, addresses, routes, rules: this.rules() };
  }

  #tell(): void {
    for (const listener of Array.from(this.#listeners)) listener();
  }
}

/** Returns the plugin that configures a kernel in memory. */
export function createMemoryLinks(kernel: MemoryKernel): PluginDefinition<Links> {
  const marks: RouteMarks = {
    protocol: ROUTE_PROTOCOL,
    table: RouteTable.main,
    defaultTable: DEFAULT_TABLE,
  };
  return {
    name: 'netlink-memory',
    provides: links,
    needs: [],
    create({ clock }) {
      const subscriptions = new Set<() => void>();
      const adapter: LinkKernel = {
        observe: (name) => observe(kernel, name),
        change: (changes) => changes.map((change) => kernel.change(change)),
        changed: () => undefined,
      };
      const api: Links = {
        apply: (wanted) => applyLink(wanted, adapter, marks),
        localAddresses(except) {
          const observed = kernel.observeAll();
          return chooseLocalAddresses(
            observed.map(({ link }) => link),
            observed.flatMap(({ addresses }) => addresses),
            except,
          );
        },
        clear(name) {
          const observed = kernel.observe(name);
          const plan =
            observed === undefined
              ? planRuleClearing(kernel.rules(), marks)
              : planClearing(observed, marks);
          for (const change of plan) kernel.change(change);
        },
        monitor(onChange) {
          let isEnded = false;
          let isTelling = false;
          const unsubscribe = kernel.subscribe(() => {
            if (isTelling) return;
            isTelling = true;
            clock.soon(() => {
              isTelling = false;
              if (!isEnded) onChange();
            });
          });
          const end = () => {
            isEnded = true;
            unsubscribe();
            subscriptions.delete(end);
          };
          subscriptions.add(end);
          return end;
        },
      };
      return {
        api,
        stop() {
          for (const end of Array.from(subscriptions)) end();
        },
      };
    },
  };
}

interface MemoryLink {
  readonly index: number;
  readonly name: string;
  mtu: number;
  isUp: boolean;
  hasIpv6: boolean;
  addresses: readonly LinkAddress[];
  routes: readonly Route[];
}

const NO_HARDWARE: Omit<Link, 'index' | 'name' | 'mtu' | 'isUp'> = {
  kind: 'tun',
  hardwareType: HardwareType.none,
  hasCarrier: true,
  state: 'unknown',
  hardwareAddress: undefined,
  controller: undefined,
  lower: undefined,
};

const PLAIN_ROUTE = { type: 'unicast', table: RouteTable.main, metric: 0 } as const;

/** What IPv6 gives a route that asks for no metric. */
const IPV6_METRIC = 1024;

function observe(kernel: MemoryKernel, name: string): Answer<ObservedLink> {
  const value = kernel.observe(name);
  if (value !== undefined) return { ok: true, value };
  return { ok: false, refusal: ownRefusal('ENODEV', 'no such device') };
}

function addAddress(link: MemoryLink, key: AddressKey, flags = 0): Refusal | undefined {
  if (!link.hasIpv6 && ipFamily(key.address.address) === 6) {
    return ownRefusal('EACCES', 'permission denied');
  }
  const text = formatIpPrefix(key.address);
  if (link.addresses.some(({ address }) => formatIpPrefix(address) === text)) {
    return ownRefusal('EEXIST', 'address already assigned');
  }
  const scope = Scope.universe;
  const address = { ...key, scope, flags, label: undefined, protocol: undefined };
  link.addresses = [...link.addresses, address];
  if (link.isUp) addConnectedRoute(link, address);
  return undefined;
}

function removeAddress(link: MemoryLink, key: AddressKey): Refusal | undefined {
  const text = formatIpPrefix(key.address);
  const left = link.addresses.filter(({ address }) => formatIpPrefix(address) !== text);
  if (left.length === link.addresses.length) {
    return ownRefusal('EADDRNOTAVAIL', 'cannot assign requested address');
  }
  link.addresses = left;
  const network = formatIpPrefix(networkOf(key.address));
  link.routes = link.routes.filter(
    ({ protocol, destination }) =>
      protocol !== RouteProtocol.kernel || formatIpPrefix(destination) !== network,
  );
  // The last IPv4 address takes all IPv4 routes of the interface along.
  if (!left.some(({ address }) => ipFamily(address.address) === 4)) {
    link.routes = link.routes.filter((route) => familyOf(route) === 6);
  }
  return undefined;
}

function addConnectedRoute(link: MemoryLink, { address }: AddressKey): void {
  const isHost = address.length === (ipFamily(address.address) === 4 ? 32 : 128);
  if (isHost) return;
  const key = { ...PLAIN_ROUTE, destination: networkOf(address), protocol: RouteProtocol.kernel };
  const route = routeOf(link, { ...key, link: link.index });
  if (!link.routes.some((other) => isSameRoute(other, route))) {
    link.routes = [...link.routes, route];
  }
}

function removeRoute(link: MemoryLink, key: RouteKey): Refusal | undefined {
  const text = formatIpPrefix(key.destination);
  const index = link.routes.findIndex(
    ({ destination, protocol, table, metric }) =>
      formatIpPrefix(destination) === text &&
      protocol === key.protocol &&
      table === key.table &&
      (key.metric === 0 || metric === key.metric),
  );
  if (index < 0) return ownRefusal('ESRCH', 'no such process');
  link.routes = link.routes.filter((_, position) => position !== index);
  return undefined;
}

function routeOf(link: MemoryLink, { destination, type, table, ...key }: RouteKey): Route {
  const isIpv6 = ipFamily(destination.address) === 6;
  return {
    destination,
    type,
    table,
    protocol: key.protocol,
    scope: isIpv6 ? Scope.universe : Scope.link,
    metric: isIpv6 && key.metric === 0 ? IPV6_METRIC : key.metric,
    source: undefined,
    preferredSource: undefined,
    nextHops: [{ link: link.index, gateway: undefined, weight: 1 }],
    isCloned: false,
  };
}

function isSameRoute(a: Route, b: Route): boolean {
  return (
    formatIpPrefix(a.destination) === formatIpPrefix(b.destination) &&
    a.table === b.table &&
    a.metric === b.metric
  );
}

function familyOf({ destination }: Pick<Route, 'destination'>): IpFamily {
  return ipFamily(destination.address);
}

function linkOf(change: Exclude<LinkChange, RuleChange>): number | undefined {
  switch (change.type) {
    case 'set-mtu':
    case 'set-up':
      return change.link;
    case 'add-address':
    case 'remove-address':
      return change.address.link;
    case 'add-route':
    case 'remove-route':
      return change.route.link;
    default:
      return unreachable(change);
  }
}
