import t from 'tap';
import type { Clock } from '../../core/plugin/clock.ts';
import type { PluginHost } from '../../core/plugin/plugin.ts';
import { nullLog } from '../../core/sansio/log.ts';
import { createMemoryConntrack, MemoryConnections } from '../../plugins/netlink/index.ts';
import { conntrackContract, type ConntrackWorld } from '../contract/conntrack.ts';

await conntrackContract(t, async () => memoryWorld());

function memoryWorld(): ConntrackWorld {
  const connections = new MemoryConnections();
  const waiting: (() => void)[] = [];
  const plugin = createMemoryConntrack(connections).create(
    hostWith((onYield) => waiting.push(onYield)),
  );
  if ('skip' in plugin) throw new Error(plugin.skip);
  return {
    conntrack: plugin.api,
    add({ original, mark = 0 }) {
      const { source, destination, sourcePort, destinationPort } = original;
      connections.put({
        original,
        reply: {
          ...original,
          source: destination,
          destination: source,
          sourcePort: destinationPort,
          destinationPort: sourcePort,
        },
        id: undefined,
        status: 0,
        mark,
        zone: 0,
        timeoutSeconds: 100,
        tcpState: undefined,
        sent: undefined,
        received: undefined,
      });
    },
    count: () => connections.all.length,
    async settle() {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) next();
    },
    close: () => plugin.stop(),
  };
}

function hostWith(soon: Clock['soon']): PluginHost {
  const unused = () => {
    throw new Error('not used');
  };
  const clock = { now: unused, unixMs: unused, alarm: unused, cancelAlarm: unused, soon };
  return { log: nullLog, clock, use: unused };
}
