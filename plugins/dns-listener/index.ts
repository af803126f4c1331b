import { dnsListener, type DnsListener } from '../../core/plugin/dns-listener.ts';
import type { PluginDefinition } from '../../core/plugin/plugin.ts';
import { Listener } from './listener.ts';

/** Returns the plugin that takes queries of clients over UDP and TCP. */
export function createDnsListener(): PluginDefinition<DnsListener> {
  return {
    name: 'dns-listener',
    provides: dnsListener,
    needs: [],
    create(host) {
      const listener = new Listener(host.log);
      return { api: listener, stop: () => listener.stop() };
    },
  };
}
