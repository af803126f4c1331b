import { createServer as createHttpServer, type IncomingMessage } from 'node:http';
import { createServer, type Server, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { createSecureContext, TLSSocket, type SecureContext } from 'node:tls';
import type { StreamProtocol } from '../../core/ice/candidate.ts';
import { parseIpAddress } from '../../core/net/ip-address.ts';
import { socketAddress, type SocketAddress } from '../../core/net/socket-address.ts';
import type { ListenFailure } from '../../core/plugin/datagrams.ts';
import { DIAL_TIMEOUT, type StreamListenOptions } from '../../core/plugin/streams.ts';
import type { Log } from '../../core/sansio/log.ts';
import { failed, ok, type Outcome } from '../../core/sansio/outcome.ts';
import { createDeviceCertificate } from './certificate.ts';
import type { Carrier } from './open-stream.ts';
import { sniff } from './sniff.ts';
import { OPTIONS, type TcpSockets } from './tcp-sockets.ts';
import { WebSocketUpgrade } from './websocket.ts';

/** Accepted streams at the same time, those included that have not shown what they are: newer ones are refused. */
export const MOST_ACCEPTED = 256;

/** Of these, how many may not have shown what they are: a flood of them leaves room for the others. */
export const MOST_UNIDENTIFIED = 64;

export interface Accepted extends Carrier {
  readonly protocol: StreamProtocol;
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
}

/**
 * One TCP port for all protocols. Each stream is peeled until bytes are left that belong to none of them:
 * TLS, then HTTP, of which only the upgrade to a WebSocket is answered with anything but 404.
 */
export class Listener {
  readonly #tcp: TcpSockets;
  readonly #log: Log;
  readonly #onAccepted: (accepted: Accepted) => void;
  #bound: { readonly server: Server; readonly port: number } | undefined;
  #context: SecureContext | undefined;
  /** Calls of `move` follow each other. */
  #moved: Promise<unknown> = Promise.resolve();
  #isStopped = false;

  readonly #sockets = new Set<Socket>();
  readonly #unidentified = new Set<Socket>();
  /** Those that HTTP has, until it makes WebSockets of them. */
  readonly #upgrading = new WeakMap<Duplex, Arrival>();
  readonly #upgrade = new WebSocketUpgrade();
  readonly #http = createHttpServer({ maxHeaderSize: LARGEST_HEADER })
    .on('request', (_request, response) => {
      response.writeHead(404, { connection: 'close', 'content-type': 'text/plain' });
      response.end('not found\n');
    })
    .on('upgrade', (request, _socket, head) => this.#onUpgrade(request, head));

  constructor(tcp: TcpSockets, log: Log, onAccepted: (accepted: Accepted) => void) {
    this.#tcp = tcp;
    this.#log = log;
    this.#onAccepted = onAccepted;
  }

  /** Moves to the port and certificate, or stops to listen. What was accepted stays. */
  move(options: StreamListenOptions | undefined): Promise<Outcome<void, ListenFailure>> {
    const moved = this.#moved.then(() => this.#move(options));
    this.#moved = moved;
    return moved;
  }

  /** Ends everything at once, for good. */
  stop(): void {
    this.#isStopped = true;
    this.#close();
    for (const socket of this.#sockets) socket.destroy();
  }

  async #move(options: StreamListenOptions | undefined): Promise<Outcome<void, ListenFailure>> {
    if (options === undefined) {
      this.#close();
      return ok(undefined);
    }
    const { certificate: cert, privateKey: key } = createDeviceCertificate(options.deviceKey);
    const context = createSecureContext({ cert, key, minVersion: 'TLSv1.3' });
    if (options.port !== this.#bound?.port) {
      const server = createServer(OPTIONS, (socket) => this.#admit(socket));
      const failure = await listen(server, options.port);
      if (failure !== undefined) return failed(failure);
      // What accept(2) refuses, such as too many open files, concerns one caller only.
      server.on('error', ({ message }) => this.#log.debug('not accepted', { error: message }));
      this.#close();
      this.#bound = { server, port: options.port };
    }
    this.#context = context;
    if (this.#isStopped) this.#close();
    return ok(undefined);
  }

  #close(): void {
    this.#bound?.server.close();
    this.#bound = undefined;
  }

  #admit(socket: Socket): void {
    // Who closes early is no error of ours.
    socket.on('error', () => undefined);
    const local = addressOf(socket.localAddress, socket.localPort);
    const remote = addressOf(socket.remoteAddress, socket.remotePort);
    const isFull =
      this.#sockets.size >= MOST_ACCEPTED || this.#unidentified.size >= MOST_UNIDENTIFIED;
    if (isFull || local === undefined || remote === undefined) {
      this.#log.debug('stream not accepted', { accepted: this.#sockets.size });
      socket.destroy();
      return;
    }
    this.#tcp.keepShallow(socket);
    const timer = setTimeout(() => socket.destroy(), DIAL_TIMEOUT);
    this.#sockets.add(socket);
    this.#unidentified.add(socket);
    socket.once('close', () => {
      clearTimeout(timer);
      this.#sockets.delete(socket);
      this.#unidentified.delete(socket);
    });
    const onIdentified = (): void => {
      clearTimeout(timer);
      this.#unidentified.delete(socket);
    };
    this.#peel(socket, { local, remote, isSecure: false, onIdentified });
  }

  #peel(socket: Socket, arrival: Arrival): void {
    sniff(socket, (what) => {
      if (what === 'tls' && !arrival.isSecure) {
        this.#secure(socket, arrival);
      } else if (what === 'http') {
        this.#upgrading.set(socket, arrival);
        this.#http.emit('connection', socket);
        socket.resume();
      } else {
        this.#accept({ duplex: socket, socket }, arrival, arrival.isSecure ? 'tls' : 'tcp');
      }
    });
  }

  #secure(socket: Socket, arrival: Arrival): void {
    const secure = new TLSSocket(socket, {
      isServer: true,
      ...(this.#context === undefined ? {} : { secureContext: this.#context }),
    });
    secure.on('error', () => socket.destroy());
    secure.once('secure', () => this.#peel(secure, { ...arrival, isSecure: true }));
  }

  #onUpgrade(request: IncomingMessage, head: Buffer): void {
    const arrival = this.#upgrading.get(request.socket);
    if (arrival === undefined) return;
    this.#upgrade.accept(request, head, (duplex) => {
      const carrier = { duplex, socket: request.socket };
      this.#accept(carrier, arrival, arrival.isSecure ? 'wss' : 'ws');
    });
  }

  #accept(carrier: Carrier, arrival: Arrival, protocol: StreamProtocol): void {
    arrival.onIdentified();
    if (carrier.socket.destroyed) return;
    const { local, remote } = arrival;
    this.#onAccepted({ ...carrier, protocol, local, remote });
  }
}

/** A stream that has not shown what it is. */
interface Arrival {
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
  readonly isSecure: boolean;
  onIdentified(): void;
}

/** Bytes: an opening handshake has less than 1 KB, some more where a proxy adds to it. */
const LARGEST_HEADER = 8192;

/** Listens on both families, or on IPv4 alone where there is no IPv6. */
async function listen(server: Server, port: number): Promise<ListenFailure | undefined> {
  const failure = await tryListen(server, port, '::');
  return failure === 'no-such-family' ? fallBack(server, port) : failure;
}

async function fallBack(server: Server, port: number): Promise<ListenFailure | undefined> {
  const failure = await tryListen(server, port, '0.0.0.0');
  return failure === 'no-such-family' ? 'refused' : failure;
}

function tryListen(
  server: Server,
  port: number,
  host: string,
): Promise<ListenFailure | 'no-such-family' | undefined> {
  return new Promise((resolve) => {
    const onError = (error: NodeJS.ErrnoException): void => resolve(listenFailure(error));
    server.once('error', onError);
    server.listen({ port, host }, () => {
      server.off('error', onError);
      resolve(undefined);
    });
  });
}

function listenFailure({ code }: NodeJS.ErrnoException): ListenFailure | 'no-such-family' {
  switch (code ?? '') {
    case 'EADDRINUSE':
      return 'port-taken';
    case 'EACCES':
    case 'EPERM':
      return 'not-permitted';
    case 'EAFNOSUPPORT':
    case 'EADDRNOTAVAIL':
    case 'EINVAL':
      return 'no-such-family';
    default:
      return 'refused';
  }
}

/** An IPv4 address that a dual-stack socket reports is IPv4 again; a zone id has no place in candidates. */
export function addressOf(
  ip: string | undefined,
  port: number | undefined,
): SocketAddress | undefined {
  const parsed = parseIpAddress((ip ?? '').replace(/^::ffff:(?=\d+\.)/i, '').replace(/%.*$/, ''));
  return parsed.ok && port !== undefined ? socketAddress(parsed.value, port) : undefined;
}
