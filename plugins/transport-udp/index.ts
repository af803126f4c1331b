import { datagrams, type Datagrams } from '../../core/plugin/datagrams.ts';
import { native } from '../../core/plugin/native.ts';
import type { PluginDefinition } from '../../core/plugin/plugin.ts';
import { UdpTransport } from './udp-transport.ts';

/** Returns a plugin that offers UDP in batches, with GSO and GRO where the kernel has them. */
export function createUdpTransport(): PluginDefinition<Datagrams> {
  return {
    name: 'transport-udp',
    provides: datagrams,
    needs: [native],
    create(host) {
      const transport = new UdpTransport(host.use(native), host.log);
      return { api: transport, stop: () => transport.close() };
    },
  };
}
