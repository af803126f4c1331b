import { conntrack } from '../../core/plugin/conntrack.ts';
import { dnsInterception, type DnsInterception } from '../../core/plugin/dns-interception.ts';
import type { PluginDefinition } from '../../core/plugin/plugin.ts';
import { ruleset } from '../../core/plugin/ruleset.ts';
import { Dnsmasq, type DnsmasqPlace } from './dnsmasq.ts';
import { Interception } from './interception.ts';
import { findOnOpenWrt } from './openwrt.ts';
import { Redirection } from './redirection.ts';

export type { DnsmasqPlace } from './dnsmasq.ts';

export interface DnsInterceptionOptions {
  /** Where the resolver of this machine is; on OpenWrt it is found. */
  readonly dnsmasq?: DnsmasqPlace;
}

/** Returns the plugin that brings the queries of the LAN to our listener. */
export function createDnsInterception({
  dnsmasq,
}: DnsInterceptionOptions = {}): PluginDefinition<DnsInterception> {
  return {
    name: 'dns-intercept',
    provides: dnsInterception,
    needs: [ruleset, conntrack],
    create(host) {
      const find = dnsmasq === undefined ? findOnOpenWrt : () => Promise.resolve(dnsmasq);
      const interception = new Interception(
        new Redirection(host.use(ruleset), host.use(conntrack), host.log),
        new Dnsmasq(find, host.log),
      );
      return { api: interception, stop: () => interception.stop() };
    },
  };
}
