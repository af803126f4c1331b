import { native } from '../../core/plugin/native.ts';
import type { PluginDefinition } from '../../core/plugin/plugin.ts';
import { streams, type Streams } from '../../core/plugin/streams.ts';
import { StreamTransport } from './stream-transport.ts';

/** Returns a plugin that offers TCP, TLS and WebSocket, dialled, accepted and through HTTP proxies. */
export function createStreamTransport(): PluginDefinition<Streams> {
  return {
    name: 'transport-stream',
    provides: streams,
    needs: [native],
    create(host) {
      const transport = new StreamTransport(host.use(native), host.log);
      return { api: transport, stop: () => transport.stop() };
    },
  };
}
