/*
 * A whole stream transport, as a third party would add one: streams over Unix sockets, one file a port.
 *
 * To add a transport to Culvert:
 *  1. Make a folder plugins/transport-<name>/ whose index.ts exports a factory of a
 *     PluginDefinition<Streams> (core/plugin/streams.ts), as `createUnixTransport` is here. It may import
 *     core and Node.js, and no other plugin; what it needs of others it names in `needs`.
 *  2. Test it with `streamTransportContract`, as example-transport.test.ts does.
 *  3. List it in openwrt/daemon.ts in place of the one that offers `streams`.
 * Peers agree on a transport by the protocol of their candidates; one that speaks none of the four may
 * still stand behind one of these names where both ends use it.
 */
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { IpAddress } from '../../core/net/ip-address.ts';
import { socketAddress, socketAddressPort } from '../../core/net/socket-address.ts';
import type { PluginDefinition } from '../../core/plugin/plugin.ts';
import * as contract from '../../core/plugin/streams.ts';
import type { StreamEvent, StreamId, StreamListenOptions } from '../../core/plugin/streams.ts';
import { failed, ok } from '../../core/sansio/outcome.ts';

const MOST_STREAMS = 256;
const HERE = socketAddress('127.0.0.1' as IpAddress, 1);

/** Returns a plugin that dials and listens on the sockets `<directory>/<port>`. */
export function createUnixTransport(directory: string): PluginDefinition<contract.Streams> {
  return {
    name: 'transport-unix',
    provides: contract.streams,
    needs: [],
    create() {
      const transport = new UnixStreams(directory);
      return { api: transport, stop: () => transport.stop() };
    },
  };
}

export class UnixStreams implements contract.Streams {
  readonly #directory: string;
  readonly #sockets = new Map<StreamId, Socket>();
  /** Those that were closed too, while they have bytes to get rid of. */
  readonly #alive = new Set<Socket>();
  readonly #refusing = new Set<Socket>();
  #listening: { readonly server: Server; readonly port: number } | undefined;
  #moved: Promise<unknown> = Promise.resolve();
  #lastAccepted = -1;
  #tell: (event: StreamEvent) => void = () => undefined;

  constructor(directory: string) {
    this.#directory = directory;
  }

  listenTo(onEvent: (event: StreamEvent) => void): void {
    this.#tell = onEvent;
  }

  dial(stream: StreamId, { address }: contract.DialTarget): void {
    // A dial too many fails as any other does: with an error that comes later.
    const isFull = this.#alive.size >= MOST_STREAMS;
    const socket = connect(this.#path(isFull ? 0 : socketAddressPort(address)));
    const timer = setTimeout(() => socket.destroy(), contract.DIAL_TIMEOUT);
    socket
      .once('close', () => clearTimeout(timer))
      .once('connect', () => {
        clearTimeout(timer);
        if (this.#has(stream, socket)) this.#tell({ type: 'opened', stream, local: HERE });
      });
    this.#add(stream, socket);
  }

  listen(options: StreamListenOptions | undefined): ReturnType<contract.Streams['listen']> {
    const moved = this.#moved.then(() => this.#move(options));
    this.#moved = moved;
    return moved;
  }

  send(stream: StreamId, bytes: Uint8Array): boolean {
    const socket = this.#sockets.get(stream);
    if (socket === undefined || socket.connecting) return false;
    if (socket.writableLength > contract.SEND_QUEUE) this.#refusing.add(socket);
    else socket.write(Uint8Array.from(bytes));
    return !this.#refusing.has(socket);
  }

  close(stream: StreamId): void {
    const socket = this.#sockets.get(stream);
    this.#sockets.delete(stream);
    socket?.[socket.connecting ? 'destroy' : 'end']();
  }

  get waiting(): number {
    return [...this.#alive].reduce((sum, { writableLength }) => sum + writableLength, 0);
  }

  stop(): void {
    this.#sockets.clear();
    for (const socket of this.#alive) socket.destroy();
    void this.listen(undefined);
  }

  async #move(options: StreamListenOptions | undefined): ReturnType<contract.Streams['listen']> {
    if (options !== undefined && options.port === this.#listening?.port) return ok(undefined);
    const next = options && { port: options.port, server: createServer((it) => this.#accept(it)) };
    const isUp = await new Promise((resolve) => {
      next?.server.on('error', () => resolve(false));
      if (next === undefined) resolve(true);
      else next.server.listen(this.#path(next.port), () => resolve(true));
    });
    if (isUp !== true) return failed('port-taken');
    this.#listening?.server.close();
    this.#listening = next;
    return ok(undefined);
  }

  /** There is one protocol only, so who connects is accepted without a look at the first bytes. */
  #accept(socket: Socket): void {
    const stream = (this.#lastAccepted += 2);
    if (this.#alive.size >= MOST_STREAMS) return void socket.destroy();
    this.#add(stream, socket);
    this.#tell({ type: 'accepted', stream, protocol: 'tcp', local: HERE, remote: HERE });
  }

  #add(stream: StreamId, socket: Socket): void {
    let why = 'the other side closed it';
    const tell = (event: StreamEvent): void => {
      if (this.#has(stream, socket)) this.#tell(event);
    };
    this.#sockets.set(stream, socket);
    this.#alive.add(socket);
    socket.on('data', (bytes) => tell({ type: 'data', stream, bytes }));
    socket.on('drain', () => this.#refusing.delete(socket) && tell({ type: 'writable', stream }));
    socket.on('error', (error) => (why = error.message));
    socket.on('close', () => {
      this.#alive.delete(socket);
      this.#refusing.delete(socket);
      tell({ type: 'closed', stream, why });
      if (this.#has(stream, socket)) this.#sockets.delete(stream);
    });
  }

  #has(stream: StreamId, socket: Socket): boolean {
    return this.#sockets.get(stream) === socket;
  }

  #path(port: number): string {
    return `${this.#directory}/${port}`;
  }
}
