/*
 * A whole stream transport, as a third party would add one: streams over Unix sockets, one file a port.
 *
 * To add a transport, make a folder plugins/transport-<name>/ whose index.ts exports a factory of a
 * PluginDefinition<Streams> (core/plugin/streams.ts) and imports core and Node.js only. Test it with
 * `streamTransportContract`, as example-transport.test.ts does, and list it in openwrt/daemon.ts instead of
 * the one that offers `streams`. It goes by one of the protocols of core/ice/candidate.ts on both ends.
 */
import { connect, createServer, type Server, type Socket } from 'node:net';
import { socketAddressPort, type SocketAddress } from '../../core/net/socket-address.ts';
import type { Plugin, PluginDefinition } from '../../core/plugin/plugin.ts';
import { SEND_QUEUE, streams, type Streams } from '../../core/plugin/streams.ts';
import type { StreamEvent, StreamId } from '../../core/plugin/streams.ts';
import { failed, ok } from '../../core/sansio/outcome.ts';

const MOST_STREAMS = 256;
const HERE = '127.0.0.1:1' as SocketAddress;

/** Returns a plugin that dials and listens on the sockets `<directory>/<port>`. */
export function createUnixTransport(directory: string): PluginDefinition<Streams> {
  const create = () => openUnix(directory);
  return { name: 'transport-unix', provides: streams, needs: [], create };
}

export function openUnix(directory: string): Plugin<Streams> {
  const sockets = new Map<StreamId, Socket>();
  /** Also those closed that have bytes to get rid of; their numbers may name others by then. */
  const alive = new Set<Socket>();
  const refusing = new WeakSet<Socket>();
  let server: Server | undefined;
  let lastAccepted = -1;
  let onEvent: (event: StreamEvent) => void = () => undefined;

  function add(stream: StreamId, socket: Socket): void {
    let why = 'the other side closed it';
    const tell = (event: StreamEvent): void => {
      if (sockets.get(stream) !== socket) return;
      if (event.type === 'closed') sockets.delete(stream);
      onEvent(event);
    };
    sockets.set(stream, socket);
    alive.add(socket);
    socket.on('connect', () => tell({ type: 'opened', stream, local: HERE }));
    socket.on('data', (bytes) => tell({ type: 'data', stream, bytes }));
    socket.on('drain', () => refusing.delete(socket) && tell({ type: 'writable', stream }));
    socket.on('error', (error) => (why = error.message));
    socket.on('close', () => alive.delete(socket) && tell({ type: 'closed', stream, why }));
  }

  /** There is one protocol only: who connects is accepted without a look at the first bytes. */
  function accept(socket: Socket): void {
    if (alive.size >= MOST_STREAMS) return void socket.destroy();
    const stream = (lastAccepted += 2);
    add(stream, socket);
    onEvent({ type: 'accepted', stream, protocol: 'tcp', local: HERE, remote: HERE });
  }

  const api: Streams = {
    listenTo: (listener) => void (onEvent = listener),
    // Needs no DIAL_TIMEOUT: a Unix socket connects at once or fails.
    dial(stream, { address }) {
      const socket = connect(`${directory}/${socketAddressPort(address)}`);
      add(stream, socket);
      if (alive.size > MOST_STREAMS) socket.destroy(new Error('too many streams'));
    },
    // A Unix socket is bound or refused at once: nothing is awaited, and the last call counts.
    async listen(options) {
      const path = options && `${directory}/${options.port}`;
      if (path === server?.address()) return ok(undefined);
      const next = path === undefined ? undefined : createServer(accept).listen(path);
      next?.on('error', () => undefined);
      if (next?.listening === false) return failed('port-taken');
      server?.close();
      server = next;
      return ok(undefined);
    },
    send(stream, bytes) {
      const socket = sockets.get(stream);
      if (socket?.readyState !== 'open') return false;
      const isFull = socket.writableLength > SEND_QUEUE;
      if (isFull) refusing.add(socket);
      else socket.write(Uint8Array.from(bytes));
      return !isFull;
    },
    close(stream) {
      sockets.get(stream)?.end();
      sockets.delete(stream);
    },
    get waiting() {
      return [...alive].reduce((sum, { writableLength }) => sum + writableLength, 0);
    },
  };
  const stop = (): void => {
    sockets.clear();
    for (const socket of alive) socket.destroy();
    server?.close();
  };
  return { api, stop };
}
