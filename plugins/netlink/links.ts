import { chooseLocalAddresses } from '../../core/netlink/local-addresses.ts';
import { RouteTable } from '../../core/netlink/rtnetlink/constants.ts';
import {
  encodeLinkChanges,
  planClearing,
  planRuleClearing,
  type LinkChange,
  type ObservedLink,
  type RouteMarks,
} from '../../core/netlink/wanted-link.ts';
import { links, type Links } from '../../core/plugin/links.ts';
import { native } from '../../core/plugin/native.ts';
import type { PluginDefinition } from '../../core/plugin/plugin.ts';
import { applyLink, type LinkKernel } from './apply.ts';
import { Monitor } from './monitor.ts';
import type { Answer, Refusal } from './refusal.ts';
import { Rtnetlink } from './rtnetlink.ts';

/** The protocol that marks a route or a rule as ours, of those that nobody has registered. */
export const ROUTE_PROTOCOL = 213;

/**
 * The table of the default route into our interface. Others count from 1 (mwan3), from 256 (pbr), or took
 * 52 (Tailscale), 253 to 255 (the kernel) and from 51820 on (wg-quick); nobody is known to be here.
 */
export const DEFAULT_TABLE = 2680;

export interface NetlinkOptions {
  /** 128 to 254; `ROUTE_PROTOCOL` by default. */
  readonly routeProtocol?: number;
  /** The table of our routes; the main one by default. */
  readonly routeTable?: number;
  /** The table of the default routes, for `WantedLink.defaultFor`; `DEFAULT_TABLE` by default. */
  readonly defaultTable?: number;
  /** Notifications that the kernel may hold for us, in bytes of its memory; 4 MB by default. */
  readonly monitorBuffer?: number;
}

/** Returns the plugin that configures our interface over rtnetlink. */
export function createNetlink(options: NetlinkOptions = {}): PluginDefinition<Links> {
  const marks: RouteMarks = {
    protocol: options.routeProtocol ?? ROUTE_PROTOCOL,
    table: options.routeTable ?? RouteTable.main,
    defaultTable: options.defaultTable ?? DEFAULT_TABLE,
  };
  return {
    name: 'netlink',
    provides: links,
    needs: [native],
    create(host) {
      const calls = host.use(native);
      const opened = Rtnetlink.open(calls);
      if (!opened.ok) return { skip: `this kernel has no rtnetlink: ${opened.refusal.message}` };
      const buffer = options.monitorBuffer ?? MONITOR_BUFFER;
      const monitor = new Monitor(calls, host.clock, host.log, buffer);
      return {
        api: new KernelLinks(opened.value, monitor, marks),
        stop() {
          monitor.close();
          opened.value.close();
        },
      };
    },
  };
}

class KernelLinks implements Links, LinkKernel {
  readonly #rtnetlink: Rtnetlink;
  readonly #monitor: Monitor;
  readonly #marks: RouteMarks;

  constructor(rtnetlink: Rtnetlink, monitor: Monitor, marks: RouteMarks) {
    this.#rtnetlink = rtnetlink;
    this.#monitor = monitor;
    this.#marks = marks;
  }

  apply(wanted: Parameters<Links['apply']>[0]): ReturnType<Links['apply']> {
    return applyLink(wanted, this, this.#marks);
  }

  localAddresses(except: string): ReturnType<Links['localAddresses']> {
    const read = this.#rtnetlink.readLinks();
    const addresses = this.#rtnetlink.readAddresses();
    if (!read.ok || !addresses.ok) return [];
    return chooseLocalAddresses(read.value, addresses.value, except);
  }

  clear(name: string): void {
    const observed = this.observe(name);
    if (observed.ok) {
      this.change(planClearing(observed.value, this.#marks));
      this.changed(observed.value.link.index);
      return;
    }
    const rules = this.#rtnetlink.readRules();
    if (!rules.ok) return;
    this.change(planRuleClearing(rules.value, this.#marks));
    this.changed(undefined);
  }

  monitor(onChange: () => void): () => void {
    return this.#monitor.subscribe(onChange);
  }

  observe(name: string): Answer<ObservedLink> {
    const link = this.#rtnetlink.readLink(name);
    if (!link.ok) return link;
    const { index } = link.value;
    const addresses = this.#rtnetlink.readAddresses({ link: index });
    if (!addresses.ok) return addresses;
    const routes = this.#rtnetlink.readRoutes({ link: index });
    if (!routes.ok) return routes;
    const rules = this.#rtnetlink.readRules();
    if (!rules.ok) return rules;
    const value = {
      link: link.value,
      addresses: addresses.value,
      routes: routes.value,
      rules: rules.value,
    };
    return { ok: true, value };
  }

  change(changes: readonly LinkChange[]): readonly (Refusal | undefined)[] {
    return this.#rtnetlink.change(encodeLinkChanges(changes));
  }

  changed(link: number | undefined): void {
    this.#monitor.absorb(link, this.#marks.protocol);
  }
}

const MONITOR_BUFFER = 4 * 1024 * 1024;
