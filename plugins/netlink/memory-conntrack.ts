import type { Connection, ConnectionEvent } from '../../core/netlink/conntrack/connection.ts';
import { matchesConnection } from '../../core/netlink/conntrack/filter.ts';
import type { Tuple } from '../../core/netlink/conntrack/tuple.ts';
import { conntrack, type Conntrack } from '../../core/plugin/conntrack.ts';
import type { PluginDefinition } from '../../core/plugin/plugin.ts';
import { ok } from '../../core/sansio/outcome.ts';

/** Connections in memory; a test makes them and lets them end. */
export class MemoryConnections {
  readonly #connections = new Map<string, Connection>();
  readonly #listeners = new Set<(event: ConnectionEvent) => void>();

  get all(): readonly Connection[] {
    return Array.from(this.#connections.values());
  }

  /** Makes a connection, or changes the one with this original tuple. */
  put(connection: Connection): void {
    const key = keyOf(connection.original, connection.zone);
    const type = this.#connections.has(key) ? 'update' : 'new';
    this.#connections.set(key, connection);
    this.#tell({ type, connection });
  }

  /** Returns whether it was there. */
  remove(original: Tuple, zone: number): boolean {
    const key = keyOf(original, zone);
    const connection = this.#connections.get(key);
    if (connection === undefined) return false;
    this.#connections.delete(key);
    this.#tell({ type: 'destroy', connection });
    return true;
  }

  subscribe(onEvent: (event: ConnectionEvent) => void): () => void {
    const listener = (event: ConnectionEvent) => onEvent(event);
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #tell(event: ConnectionEvent): void {
    for (const listener of Array.from(this.#listeners)) listener(event);
  }
}

/** Returns the plugin that tracks connections in memory. */
export function createMemoryConntrack(connections: MemoryConnections): PluginDefinition<Conntrack> {
  return {
    name: 'conntrack-memory',
    provides: conntrack,
    needs: [],
    create({ clock }) {
      const subscriptions = new Set<() => void>();
      const api: Conntrack = {
        dump: (filter) =>
          ok(connections.all.filter((connection) => matchesConnection(connection, filter))),
        remove: (original, zone = 0) => ok({ removed: connections.remove(original, zone) ? 1 : 0 }),
        removeAll(filter) {
          const found = connections.all.filter((one) => matchesConnection(one, filter));
          for (const { original, zone } of found) connections.remove(original, zone);
          return ok({ removed: found.length });
        },
        monitor(handler, filter = {}) {
          const unsubscribe = connections.subscribe((event) => {
            if (!matchesConnection(event.connection, filter)) return;
            clock.soon(() => {
              if (subscriptions.has(unsubscribe)) handler.onEvent(event);
            });
          });
          subscriptions.add(unsubscribe);
          return () => {
            subscriptions.delete(unsubscribe);
            unsubscribe();
          };
        },
      };
      return {
        api,
        stop() {
          for (const unsubscribe of subscriptions) unsubscribe();
          subscriptions.clear();
        },
      };
    },
  };
}

function keyOf({ source, destination, protocol, ...ports }: Tuple, zone: number): string {
  return JSON.stringify([source, destination, protocol, ports, zone]);
}
