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
  addr_info: {
    local: string;
    prefixlen: number;
    scope: string;
    temporary?: boolean;
    tentative?: boolean;
  }[];
}

interface RouteRow {
  dst: string;
  protocol: string;
  table?: string;
}

interface RuleRow {
  priority: number;
  iif: string;
  table: string;
  suppress_prefixlen?: number;
  protocol: string;
}

function formatRow({ priority, iif, table, suppress_prefixlen, protocol }: RuleRow): string {
  const unless =
    suppress_prefixlen === undefined ? '' : ` suppress_prefixlength ${suppress_prefixlen}`;
  return `${priority} iif ${iif} lookup ${table}${unless} ${protocol}`;
}

function kernelWorld(calls: Parameters<typeof hostOf>[0]): LinksWorld {
  const link = 'culvert0';
  run('ip', 'tuntap', 'add', link, 'mode', 'tun');
  const plugin = createNetlink().create(hostOf(calls));
  if ('skip' in plugin) throw new Error(plugin.skip);
  const others: string[] = [];
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
    readRules() {
      const rules = (['4', '6'] as const).flatMap((family) =>
        ipJson<RuleRow>(`-${family}`, 'rule')
          .filter(({ protocol }) => protocol !== '2')
          .map((row) => `${family} ${formatRow(row)}`),
      );
      const defaults = (['4', '6'] as const).flatMap((family) =>
        ipJson<RouteRow>(`-${family}`, 'route', 'show', 'table', 'all')
          .filter(({ dst, table }) => dst === 'default' && table === '2680')
          .map(({ protocol }) => `${family} ${protocol}`),
      );
      return { rules: rules.sort(), defaults };
    },
    addRule(rule, protocol) {
      run('ip', 'rule', 'add', 'pref', ...rule.split(' '), 'proto', String(protocol));
    },
    removeRule(rule, protocol) {
      run('ip', 'rule', 'del', 'pref', ...rule.split(' '), 'proto', String(protocol));
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
    addLink(name) {
      // Without a carrier a tentative address stays so.
      run('ip', 'tuntap', 'add', name, 'mode', 'tap');
      run('ip', 'link', 'set', name, 'up');
      others.push(name);
    },
    addAddressTo(name, address, state = 'preferred') {
      const options = {
        preferred: ['nodad'],
        deprecated: ['nodad', 'preferred_lft', '0'],
        tentative: [],
      };
      const chosen = address.includes(':') ? options[state] : [];
      run('ip', 'address', 'add', address, 'dev', name, ...chosen);
    },
    async addTemporary(name, address) {
      for (const [option, value] of [
        ['use_tempaddr', '2'],
        ['accept_dad', '0'],
      ] as const) {
        writeFileSync(`/proc/sys/net/ipv6/conf/${name}/${option}`, value);
      }
      run('ip', 'address', 'add', address, 'dev', name, 'mngtmpaddr');
      for (;;) {
        const rows = ipJson<AddressRow>('-6', 'address', 'show', 'dev', name)
          .flatMap(({ addr_info }) => addr_info)
          .filter(({ local }) => local !== undefined && !local.startsWith('fe80:'));
        const temporary = rows.find((row) => row.temporary === true);
        const isDone = rows.every((row) => row.tentative !== true);
        if (temporary !== undefined && isDone) return temporary.local;
        await turns();
      }
    },
    setLinkDown: (name) => void run('ip', 'link', 'set', name, 'down'),
    settle: turns,
    async close() {
      await plugin.stop();
      for (const family of ['-4', '-6']) run('ip', family, 'rule', 'flush', 'iif', 'old0');
      for (const family of ['-4', '-6']) run('ip', family, 'rule', 'flush', 'iif', 'lan0');
      if (exists()) run('ip', 'link', 'del', link);
      for (const name of others) run('ip', 'link', 'del', name);
    },
  };
}
