import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import type { Test } from 'tap';
import type { StreamProtocol } from '../../../core/ice/candidate.ts';
import { parseIpAddress } from '../../../core/net/ip-address.ts';
import {
  socketAddress,
  socketAddressIp,
  socketAddressPort,
  type SocketAddress,
} from '../../../core/net/socket-address.ts';
import type { Native } from '../../../core/plugin/native.ts';
import { nullLog } from '../../../core/sansio/log.ts';
import { StreamTransport } from '../../../plugins/transport-stream/stream-transport.ts';
import type { RudeStream, StreamsWorld } from '../../contract/transport.ts';

/** Transports with real sockets on the loopback interface, whose timers only `pass` moves. */
export class Loopback implements StreamsWorld {
  readonly protocols: readonly StreamProtocol[] = ['tcp', 'tls', 'ws', 'wss'];
  readonly #t: Test;
  readonly #ip: string;
  readonly #native: Native | undefined;
  readonly #timers = new ManualTimers();

  constructor(t: Test, { ip = '127.0.0.1', native }: { ip?: string; native?: Native } = {}) {
    this.#t = t;
    this.#ip = ip;
    this.#native = native;
    t.teardown(this.#timers.replaceGlobals());
  }

  create(): StreamTransport {
    return new StreamTransport(this.#native, nullLog);
  }

  stop(transport: StreamTransport): void {
    transport.stop();
  }

  async freePort(): Promise<{ port: number; address: SocketAddress }> {
    const server = await listening(createServer());
    const { port } = server.address() as AddressInfo;
    server.close();
    await once(server, 'close');
    return { port, address: address(this.#ip, port) };
  }

  async until(condition: () => boolean): Promise<void> {
    for (const end = performance.now() + PATIENCE; !condition(); await turn()) {
      if (performance.now() > end) throw new Error(`waited in vain for ${String(condition)}`);
    }
  }

  async pass(ms: number): Promise<void> {
    // What is on its way arrives before the time is over.
    for (let i = 0; i < 50; i++) await turn();
    this.#timers.advance(ms);
    for (let i = 0; i < 50; i++) await turn();
  }

  async listenSilently(protocol: StreamProtocol): Promise<SocketAddress | undefined> {
    if (protocol === 'tcp') return undefined;
    const server = await listening(createServer((socket) => this.#keep(socket)));
    this.#t.teardown(() => server.close());
    return address(this.#ip, (server.address() as AddressInfo).port);
  }

  async connectRudely(to: SocketAddress): Promise<RudeStream> {
    const options = { host: socketAddressIp(to), port: socketAddressPort(to), allowHalfOpen: true };
    const socket = this.#keep(connect(options)).resume();
    await once(socket, 'connect');
    socket.on('end', () => socket.end());
    return {
      write: (bytes) => void socket.write(bytes),
      end: () => void socket.end(),
      reset: () => void socket.resetAndDestroy(),
      get isClosed() {
        return socket.closed;
      },
    };
  }

  #keep(socket: Socket): Socket {
    this.#t.teardown(() => socket.destroy());
    return socket.on('error', () => undefined);
  }
}

export function address(ip: string, port: number): SocketAddress {
  const parsed = parseIpAddress(ip);
  if (!parsed.ok) throw new Error(parsed.why);
  return socketAddress(parsed.value, port);
}

export async function listening(server: Server, port = 0): Promise<Server> {
  server.listen(port);
  await once(server, 'listening');
  return server;
}

/** Timers that run only when told. Those of node:test mix up the timers of worlds that follow each other. */
class ManualTimers {
  #now = 0;
  readonly #due = new Map<object, { readonly at: number; readonly run: () => void }>();

  /** Returns what restores them. */
  replaceGlobals(): () => void {
    const { setTimeout, clearTimeout } = globalThis;
    const replace = (functions: object): void => void Object.assign(globalThis, functions);
    replace({
      setTimeout: (run: () => void, ms: number) => {
        const timer = {};
        this.#due.set(timer, { at: this.#now + ms, run });
        return timer;
      },
      clearTimeout: (timer: object) => void this.#due.delete(timer),
    });
    return () => replace({ setTimeout, clearTimeout });
  }

  advance(ms: number): void {
    this.#now += ms;
    for (const [timer, { at, run }] of [...this.#due].sort(([, a], [, b]) => a.at - b.at)) {
      if (at <= this.#now && this.#due.delete(timer)) run();
    }
  }
}

/** Real milliseconds. */
const PATIENCE = 20_000;
