import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { connect as connectTcp, type Socket } from 'node:net';
import { performance } from 'node:perf_hooks';
import { connect as connectTls } from 'node:tls';
import type { SocketAddress } from '../../core/net/socket-address.ts';
import { instantAt, type Instant } from '../../core/sansio/instant.ts';
import { nullLog } from '../../core/sansio/log.ts';
import {
  Allocation,
  type AllocationEvent,
  type TurnCredentials,
} from '../../core/turn/allocation.ts';
import {
  decodeChannelData,
  encodeChannelData,
  isChannelData,
} from '../../core/turn/channel-data.ts';
import { TurnStreamFraming } from '../../core/turn/stream-framing.ts';
import { createNobleCrypto } from '../../plugins/crypto-noble/index.ts';
import { createNodeCrypto } from '../../plugins/crypto-node/index.ts';
import { nodeRandom } from '../../plugins/platform-node/index.ts';
import type { Coturn } from './coturn.ts';

const crypto = createNodeCrypto(createNobleCrypto());

export type Carrier = 'udp' | 'tcp' | 'tls';

/** One way to a server, which carries whole messages. */
export interface Line {
  readonly transport: 'udp' | 'stream';
  send(message: Uint8Array): void;
  onMessage(handle: (message: Uint8Array) => void): void;
  close(): void;
}

export async function openLine(carrier: Carrier, server: Coturn): Promise<Line> {
  if (carrier === 'udp') return udpLine(server);
  const { address: host } = server;
  const socket =
    carrier === 'tcp'
      ? connectTcp({ port: server.port, host })
      : connectTls({ port: server.tlsPort, host, rejectUnauthorized: false });
  await new Promise<void>((resolve, reject) => {
    socket.once(carrier === 'tcp' ? 'connect' : 'secureConnect', () => resolve());
    socket.once('error', reject);
  });
  return streamLine(socket);
}

async function udpLine(server: Coturn): Promise<Line> {
  const socket: UdpSocket = createSocket('udp4');
  await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve));
  let handle = (_message: Uint8Array): void => undefined;
  socket.on('message', (message) => handle(message));
  return {
    transport: 'udp',
    send: (message) => socket.send(message, server.port, server.address),
    onMessage: (next) => void (handle = next),
    close: () => socket.close(),
  };
}

function streamLine(socket: Socket): Line {
  const framing = new TurnStreamFraming();
  let handle = (_message: Uint8Array): void => undefined;
  socket.on('error', () => undefined);
  socket.on('data', (chunk: Buffer) => {
    framing.push(chunk);
    for (let frame; (frame = framing.next()) !== undefined;) handle(frame);
    if (framing.isBroken) throw new Error('the stream broke');
  });
  return {
    transport: 'stream',
    send: (message) => void socket.write(message),
    onMessage: (next) => void (handle = next),
    close: () => socket.destroy(),
  };
}

/** An allocation on a line, driven by the clock of this machine. */
export class TurnClient {
  readonly allocation: Allocation;
  readonly events: AllocationEvent[] = [];
  /** Text of what came through channels, with the peer in front. */
  readonly received: string[] = [];
  /** How many messages were sent to the server. */
  sent = 0;
  readonly #line: Line;
  #timer: NodeJS.Timeout | undefined;
  #isStopped = false;
  readonly #waiting = new Set<() => void>();

  constructor(line: Line, credentials: TurnCredentials) {
    this.#line = line;
    const { transport } = line;
    this.allocation = new Allocation(
      {
        credentials,
        transport,
        software: 'culvert test',
        unixMs: () => Date.now(),
        random: nodeRandom,
        crypto,
        log: nullLog,
      },
      now(),
    );
    line.onMessage((message) => this.#handle(message));
    this.#settle();
  }

  do(act: (allocation: Allocation, now: Instant) => void): void {
    act(this.allocation, now());
    this.#settle();
  }

  /** Sends text to the peer through a channel. */
  send(peer: SocketAddress, text: string): void {
    this.do((allocation, at) => {
      const channel = allocation.channelTo(peer, at);
      if (channel === undefined) return;
      const data = { channel, payload: new TextEncoder().encode(text) };
      this.#line.send(encodeChannelData(data, this.#line.transport));
      allocation.handleTraffic(channel, at);
    });
  }

  /** Waits for an event of this type from position `from` on. */
  event<Type extends AllocationEvent['type']>(
    type: Type,
    from = 0,
  ): Promise<AllocationEvent & { readonly type: Type }> {
    const isWanted = (event: AllocationEvent): event is AllocationEvent & { readonly type: Type } =>
      event.type === type;
    return this.#until(type, () => this.events.slice(from).find(isWanted));
  }

  receives(text: string): Promise<true> {
    return this.#until(text, () => this.received.includes(text) || undefined);
  }

  /** Stops driving the allocation, which stays at the server. */
  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }

  close(): void {
    if (this.#isStopped) return;
    this.do((allocation, at) => allocation.close(at));
    this.stop();
    // Behind what was written last.
    setTimeout(() => this.#line.close(), 20);
  }

  #handle(message: Uint8Array): void {
    if (this.#isStopped) return;
    const data = isChannelData(message) ? decodeChannelData(message) : undefined;
    if (data === undefined)
      return this.do((allocation, at) => allocation.handleMessage(message, at));
    const peer = this.allocation.peerOf(data.channel);
    this.received.push(`${peer} ${new TextDecoder().decode(data.payload)}`);
    this.do((allocation, at) => allocation.handleTraffic(data.channel, at));
  }

  #settle(): void {
    for (let message; (message = this.allocation.pollTransmit()) !== undefined;) {
      this.sent++;
      this.#line.send(message);
    }
    for (let event; (event = this.allocation.pollEvent()) !== undefined;) this.events.push(event);
    clearTimeout(this.#timer);
    const deadline = this.allocation.pollTimeout();
    if (deadline !== undefined && !this.#isStopped) {
      const due = () => this.do((allocation, at) => allocation.handleTimeout(at));
      this.#timer = setTimeout(due, Math.max(deadline.at - now(), 1));
    }
    for (const look of this.#waiting) look();
  }

  #until<T>(what: string, find: () => T | undefined): Promise<T> {
    return new Promise((resolve, reject) => {
      const patience = setTimeout(() => {
        this.#waiting.delete(look);
        const seen = JSON.stringify([this.events, this.received]);
        reject(new Error(`waited in vain for ${what}: ${seen}`));
      }, 12_000);
      const look = () => {
        const found = find();
        if (found === undefined) return;
        clearTimeout(patience);
        this.#waiting.delete(look);
        resolve(found);
      };
      this.#waiting.add(look);
      look();
    });
  }
}

function now(): Instant {
  return instantAt(performance.now());
}
