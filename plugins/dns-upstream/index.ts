import { dnsUpstreams, type DnsUpstreams } from '../../core/plugin/dns-upstreams.ts';
import type { PluginDefinition } from '../../core/plugin/plugin.ts';
import { UpstreamTransports } from './upstream-transports.ts';

export interface DnsUpstreamsOptions {
  /** PEM certificates of those who vouch for servers, in place of the ones that Node.js brings. */
  readonly authorities?: readonly string[];
}

/** Returns a plugin that asks DNS servers over UDP, TCP, TLS and HTTPS. */
export function createDnsUpstreams(
  options: DnsUpstreamsOptions = {},
): PluginDefinition<DnsUpstreams> {
  return {
    name: 'dns-upstream',
    provides: dnsUpstreams,
    needs: [],
    create(host) {
      const transports = new UpstreamTransports(host.clock, host.log, options.authorities);
      return { api: transports, stop: () => transports.stop() };
    },
  };
}
