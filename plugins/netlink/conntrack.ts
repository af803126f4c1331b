import { NETLINK_NETFILTER } from '../../core/netlink/constants.ts';
import {
  decodeConnection,
  decodeConnectionEvent,
  type Connection,
} from '../../core/netlink/conntrack/connection.ts';
import {
  filterFamilies,
  matchesConnection,
  type ConnectionFilter,
} from '../../core/netlink/conntrack/filter.ts';
import {
  encodeConnectionRemoval,
  encodeConnectionsQuery,
  encodeStatisticsQuery,
} from '../../core/netlink/conntrack/request.ts';
import { MessageWriter } from '../../core/netlink/message-writer.ts';
import { readMessages } from '../../core/netlink/message.ts';
import { NetfilterGroup } from '../../core/netlink/nfnetlink.ts';
import {
  conntrack,
  type Conntrack,
  type ConntrackHandler,
  type ConntrackProblem,
} from '../../core/plugin/conntrack.ts';
import { native, type Native } from '../../core/plugin/native.ts';
import type { PluginDefinition } from '../../core/plugin/plugin.ts';
import type { Log } from '../../core/sansio/log.ts';
import { failed, ok } from '../../core/sansio/outcome.ts';
import { MulticastSocket } from './multicast-socket.ts';
import type { Refusal } from './refusal.ts';
import { RequestSocket } from './request-socket.ts';

export interface ConntrackOptions {
  /** Events that the kernel may hold for us, in bytes of its memory; 8 MB by default, 20,000 flows. */
  readonly monitorBuffer?: number;
}

/** Returns the plugin that reads and changes the connections that the kernel tracks. */
export function createConntrack(options: ConntrackOptions = {}): PluginDefinition<Conntrack> {
  return {
    name: 'conntrack',
    provides: conntrack,
    needs: [native],
    create(host) {
      const calls = host.use(native);
      const opened = RequestSocket.open(calls, NETLINK_NETFILTER);
      if (!opened.ok) return { skip: `this kernel has no netfilter: ${opened.refusal.message}` };
      const refusal = opened.value.request(encodeStatisticsQuery(new MessageWriter()));
      if (refusal !== undefined && refusal.code !== 'EPERM') {
        opened.value.close();
        return { skip: `this kernel has no nf_conntrack_netlink: ${refusal.message}` };
      }
      const buffer = options.monitorBuffer ?? MONITOR_BUFFER;
      const api = new KernelConntrack(opened.value, calls, host.log, buffer);
      return { api, stop: () => api.close() };
    },
  };
}

class KernelConntrack implements Conntrack {
  readonly #socket: RequestSocket;
  readonly #native: Native;
  readonly #log: Log;
  readonly #monitorBuffer: number;
  readonly #writer = new MessageWriter();
  readonly #monitors = new Set<MulticastSocket>();

  constructor(socket: RequestSocket, calls: Native, log: Log, monitorBuffer: number) {
    this.#socket = socket;
    this.#native = calls;
    this.#log = log;
    this.#monitorBuffer = monitorBuffer;
  }

  dump(filter: ConnectionFilter): ReturnType<Conntrack['dump']> {
    const connections: Connection[] = [];
    for (const family of filterFamilies(filter)) {
      const query = encodeConnectionsQuery(this.#writer, family, filter);
      const read = this.#socket.dump(query, decodeConnection, (connection) =>
        matchesConnection(connection, filter),
      );
      if (!read.ok) return failed(this.#problem(read.refusal));
      for (const connection of read.value) connections.push(connection);
    }
    return ok(connections);
  }

  remove(original: Connection['original'], zone = 0): ReturnType<Conntrack['remove']> {
    const request = encodeConnectionRemoval(this.#writer, { original, zone, id: undefined });
    const refusal = this.#socket.request(request);
    if (refusal === undefined) return ok({ removed: 1 });
    return isGone(refusal) ? ok({ removed: 0 }) : failed(this.#problem(refusal));
  }

  removeAll(filter: ConnectionFilter): ReturnType<Conntrack['removeAll']> {
    const found = this.dump(filter);
    if (!found.ok) return found;
    const requests = found.value.map((connection) =>
      encodeConnectionRemoval(this.#writer, connection),
    );
    let removed = 0;
    let problem: ConntrackProblem | undefined;
    for (const refusal of this.#socket.requestAll(requests)) {
      if (refusal === undefined) removed++;
      // It ended by itself meanwhile.
      else if (!isGone(refusal)) problem ??= this.#problem(refusal);
    }
    return problem === undefined ? ok({ removed }) : failed(problem);
  }

  monitor(handler: ConntrackHandler, filter: ConnectionFilter = {}): () => void {
    const groups = [
      NetfilterGroup.conntrackNew,
      NetfilterGroup.conntrackUpdate,
      NetfilterGroup.conntrackDestroy,
    ];
    const opened = MulticastSocket.open(
      this.#native,
      NETLINK_NETFILTER,
      groups,
      this.#monitorBuffer,
      {
        onDatagram: (datagram) => tell(datagram, handler, filter),
        onOverrun: () => handler.onLost(),
      },
    );
    const refusal = opened.ok ? opened.value.refusal : opened.refusal;
    if (refusal !== undefined) {
      this.#log.warn('connections go unseen', { why: refusal.message });
    }
    if (!opened.ok) return () => undefined;
    const socket = opened.value;
    this.#monitors.add(socket);
    return () => {
      if (this.#monitors.delete(socket)) socket.close();
    };
  }

  close(): void {
    for (const monitor of this.#monitors) monitor.close();
    this.#monitors.clear();
    this.#socket.close();
  }

  #problem(refusal: Refusal): ConntrackProblem {
    this.#log.debug('connections could not be read or changed', { why: refusal.message });
    return refusal.code === 'EPERM' ? 'not-permitted' : 'refused';
  }
}

const MONITOR_BUFFER = 8 * 1024 * 1024;

function isGone({ code }: Refusal): boolean {
  return code === 'ENOENT';
}

function tell(datagram: Uint8Array, handler: ConntrackHandler, filter: ConnectionFilter): void {
  for (const message of readMessages(datagram).messages) {
    const event = decodeConnectionEvent(message);
    if (event !== undefined && matchesConnection(event.connection, filter)) handler.onEvent(event);
  }
}
