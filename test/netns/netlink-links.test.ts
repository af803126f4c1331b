import { writeFileSync } from 'node:fs';
import t from 'tap';
import { createNetlink } from '../../plugins/netlink/index.ts';
import { linksContract, type LinksWorld } from '../contract/links.ts';
import { hostOf, inNamespace, ipJson, loadSystemCalls, run, turns } from './netlink-namespace.ts';

if (await inNamespace(import.meta.url)) {
  const calls = await loadSystemCalls();
  await linksContract(t, async () => kernelWorld(calls));
}

interface LinkRow {
  mtu: number;
  flags: string[];
}

interface AddressRow {
  addr_info: { local: string; prefixlen: number; scope: string }[];
}

interface RouteRow {
  dst: string;
  protocol: string;
}

function kernelWorld(calls: Parameters<typeof hostOf>[0]): LinksWorld {
  const link = 'culvert0';
  run('ip', 'tuntap', 'add', link, 'mode', 'tun');
  const plugin = createNetlink().create(hostOf(calls));
  if ('skip' in plugin) throw new Error(plugin.skip);
  const exists = () => ipJson<{ ifname: string }>('link').some(({ ifname }) => ifname === link);
  return {
    links: plugin.api,
    link,
    read() {
      if (!exists()) return undefined;
      const [row] = ipJson<LinkRow>('link', 'show', 'dev', link);
      const addresses = ipJson<AddressRow>('address', 'show', 'dev', link)
        .flatMap(({ addr_info }) => addr_info)
        .filter(({ local }) => local !== undefined && !local.startsWith('fe80:'))
        .map(({ local, prefixlen }) => `${local}/${prefixlen}`);
      const routes = (['-4', '-6'] as const)
        .flatMap((family) => ipJson<RouteRow>(family, 'route', 'show', 'dev', link))
        .filter(({ protocol }) => protocol !== '2')
        .map(({ dst, protocol }) => `${dst} ${protocol}`);
      return {
        mtu: row?.mtu ?? 0,
        isUp: row?.flags.includes('UP') ?? false,
        addresses: addresses.sort(),
        routes: routes.sort(),
      };
    },
    addAddress: (address) => void run('ip', 'address', 'add', address, 'dev', link),
    removeAddress: (address) => void run('ip', 'address', 'del', address, 'dev', link),
    addRoute(destination, protocol) {
      run('ip', 'route', 'add', destination, 'dev', link, 'proto', String(protocol));
    },
    removeRoute: (destination) => void run('ip', 'route', 'del', destination, 'dev', link),
    setDown: () => void run('ip', 'link', 'set', link, 'down'),
    disableIpv6: () => writeFileSync(`/proc/sys/net/ipv6/conf/${link}/disable_ipv6`, '1'),
    removeLink: () => void run('ip', 'link', 'del', link),
    settle: turns,
    async close() {
      await plugin.stop();
      if (exists()) run('ip', 'link', 'del', link);
    },
  };
}
