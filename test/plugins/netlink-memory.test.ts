import t from 'tap';
import type { Clock } from '../../core/plugin/clock.ts';
import type { PluginHost } from '../../core/plugin/plugin.ts';
import { nullLog } from '../../core/sansio/log.ts';
import { createMemoryLinks, MemoryKernel } from '../../plugins/netlink/index.ts';
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
          .filter(({ protocol }) => protocol !== 2)
          .map(({ destination, protocol }) => `${text(destination)} ${protocol}`)
          .sort(),
      };
    },
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
