import { lookup } from 'node:dns/promises';
import { isIP, type Socket } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { socketAddressIp, socketAddressPort } from '../../core/net/socket-address.ts';
import { DIAL_TIMEOUT, type DialTarget } from '../../core/plugin/streams.ts';
import { failed, ok, type Outcome } from '../../core/sansio/outcome.ts';
import { isOfDevice } from './certificate.ts';
import type { Carrier } from './open-stream.ts';
import { describeProblem, Refusal } from './problem.ts';
import { connectThrough, parseProxy, type Proxy } from './proxy.ts';
import type { TcpSockets } from './tcp-sockets.ts';
import { openWebSocket } from './websocket.ts';

/** Dials through all layers: TCP, the proxy, TLS, WebSocket. */
export class Dial {
  readonly #target: DialTarget;
  readonly #tcp: TcpSockets;
  readonly #timer: NodeJS.Timeout;
  #socket: Socket | undefined;
  #isOver = false;
  /** What nobody answered when the time is over. */
  #silence = 'no answer: check the address, the route and the firewall';

  /** `onDone` is called once, later, and not after `abort`. */
  constructor(target: DialTarget, tcp: TcpSockets, onDone: (outcome: Outcome<Carrier>) => void) {
    this.#target = target;
    this.#tcp = tcp;
    const finish = (outcome: Outcome<Carrier>): void => {
      if (this.#isOver) return;
      if (!outcome.ok) this.abort();
      this.#isOver = true;
      clearTimeout(this.#timer);
      onDone(outcome);
    };
    this.#timer = setTimeout(() => finish(failed(this.#silence)), DIAL_TIMEOUT);
    void this.#open().then(
      (carrier) => finish(ok(carrier)),
      (error: unknown) => finish(failed(describeProblem(error))),
    );
  }

  abort(): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#socket?.destroy();
  }

  async #open(): Promise<Carrier> {
    const { protocol, proxy } = this.#target;
    let socket = proxy === undefined ? await this.#connect() : await this.#connectBy(proxy);
    if (protocol === 'tls' || protocol === 'wss') socket = await this.#secure(socket);
    if (protocol === 'tcp' || protocol === 'tls') return { duplex: socket, socket };
    this.#silence = 'connected, but no WebSocket answers: is that the port of a peer?';
    return { duplex: await openWebSocket(socket, this.#authority), socket };
  }

  /** Host and port as others are told. */
  get #authority(): string {
    const { host, address } = this.#target;
    return host === undefined ? address : `${host}:${socketAddressPort(address)}`;
  }

  async #connect(): Promise<Socket> {
    const { address } = this.#target;
    return this.#connectTo(socketAddressIp(address), socketAddressPort(address));
  }

  async #connectBy(url: string): Promise<Socket> {
    this.#silence = 'the proxy does not answer: check streams.proxy';
    const proxy: Proxy = parseProxy(url);
    const { address } = await lookup(proxy.host);
    if (this.#isOver) throw new Refusal('given up');
    const socket = await this.#connectTo(address, proxy.port);
    this.#silence = 'the proxy does not reach the other side in time';
    await connectThrough(socket, proxy, this.#authority);
    return socket;
  }

  async #connectTo(ip: string, port: number): Promise<Socket> {
    const socket = this.#tcp.connect(ip, port, this.#target.mark);
    this.#socket = socket;
    await happens(socket, 'connect');
    this.#tcp.keepShallow(socket);
    return socket;
  }

  async #secure(below: Socket): Promise<TLSSocket> {
    this.#silence = 'connected, but no TLS answers: is that the port of a peer?';
    const { host = socketAddressIp(this.#target.address), trust } = this.#target;
    const socket = connectTls({
      socket: below,
      host,
      // RFC 6066 §3: an address is no server name.
      ...(isIP(host) === 0 ? { servername: host } : {}),
      rejectUnauthorized: trust.type === 'authorities',
      minVersion: trust.type === 'pinned' ? 'TLSv1.3' : 'TLSv1.2',
    });
    await happens(socket, 'secureConnect');
    if (trust.type === 'pinned' && !isOfDevice(socket.getPeerX509Certificate(), trust.deviceKey)) {
      throw new Refusal(
        'the certificate is not of this peer: another device answers, or something on the way opens TLS',
      );
    }
    return socket;
  }
}

/** Waits for an event of a socket that may fail or close before. */
function happens(socket: Socket, event: string): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once(event, resolve);
    // Stays for good: an error that nobody listens to would end the process.
    socket.on('error', reject);
    socket.once('close', () => reject(new Refusal('closed by the other side')));
  });
}
