import t from 'tap';
import { ipFamily } from '../../core/net/ip-address.ts';
import { RouteTable } from '../../core/netlink/rtnetlink/constants.ts';
import type { RuleKey } from '../../core/netlink/rtnetlink/rule.ts';
import { formatRule } from '../../core/netlink/wanted-rules.ts';
import type { Clock } from '../../core/plugin/clock.ts';
import type { PluginHost } from '../../core/plugin/plugin.ts';
import { nullLog } from '../../core/sansio/log.ts';
import { createMemoryLinks, DEFAULT_TABLE, MemoryKernel } from '../../plugins/netlink/index.ts';
import { linksContract, prefixes, type LinksWorld } from '../contract/links.ts';

await linksContract(t, async () => memoryWorld());

function memoryWorld(): LinksWorld {
  const kernel = new MemoryKernel();
  kernel.addLink('culvert0');
  const waiting: (() => void)[] = [];
  const settle = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) next();
  };
  const plugin = createMemoryLinks(kernel).create(hostWith((onYield) => waiting.push(onYield)));
  if ('skip' in plugin) throw new Error(plugin.skip);
  const link = 'culvert0';
  const one = (text: string) => prefixes(text)[0]!;
  return {
    links: plugin.api,
    link,
    read() {
      const observed = kernel.observe(link);
      if (observed === undefined) return undefined;
      const text = ({ address, length }: { address: string; length: number }) =>
        `${address}/${length}`;
      return {
        mtu: observed.link.mtu,
        isUp: observed.link.isUp,
        addresses: observed.addresses.map(({ address }) => text(address)).sort(),
        routes: observed.routes
          .filter(({ protocol, table }) => protocol !== 2 && table === RouteTable.main)
          .map(({ destination, protocol }) => `${text(destination)} ${protocol}`)
          .sort(),
      };
    },
    readRules() {
      const rules = kernel.rules().filter(({ protocol }) => protocol !== 2);
      const routes = kernel.observe(link)?.routes ?? [];
      return {
        rules: rules
          .map((rule) => `${rule.family} ${formatRule(rule).slice(10)} ${rule.protocol}`)
          .sort(),
        defaults: routes
          .filter(({ table }) => table === DEFAULT_TABLE)
          .map(({ destination, protocol }) => `${ipFamily(destination.address)} ${protocol}`)
          .sort(),
      };
    },
    addRule: (rule, protocol) => kernel.addRule(ruleOf(rule, protocol)),
    removeRule: (rule, protocol) => kernel.removeRule(ruleOf(rule, protocol)),
    addAddress: (address) => kernel.addAddress(link, one(address)),
    removeAddress: (address) => kernel.removeAddress(link, one(address)),
    addRoute: (destination, protocol) => kernel.addRoute(link, one(destination), protocol),
    removeRoute: (destination) => kernel.removeRoute(link, one(destination)),
    setDown: () => kernel.setDown(link),
    disableIpv6: () => kernel.disableIpv6(link),
    removeLink: () => kernel.removeLink(link),
    addLink(name) {
      kernel.addLink(name);
      kernel.setUp(name);
    },
    addAddressTo(name, address, state = 'preferred') {
      const flags = { preferred: 0, deprecated: 0x20, tentative: 0x40 };
      kernel.addAddress(name, one(address), flags[state]);
    },
    async addTemporary(name, address) {
      kernel.addAddress(name, one(address));
      const { length } = one(address);
      const temporary = address.replace(/[^:]+\/.*/, 'abcd');
      kernel.addAddress(name, one(`${temporary}/${length}`), 0x01);
      return temporary;
    },
    setLinkDown: (name) => kernel.setDown(name),
    settle,
    close: () => plugin.stop(),
  };
}

/** Reads `78 iif lan0 lookup 99`. */
function ruleOf(text: string, protocol: number): RuleKey {
  const [priority, , inputLink, , table] = text.split(' ');
  return {
    family: 4,
    priority: Number(priority),
    inputLink,
    table: Number(table),
    suppressPrefixLength: undefined,
    protocol,
  };
}

function hostWith(soon: Clock['soon']): PluginHost {
  const unused = () => {
    throw new Error('not used');
  };
  return {
    log: nullLog,
    clock: { now: unused, unixMs: unused, alarm: unused, cancelAlarm: unused, soon },
    use: unused,
  };
}
