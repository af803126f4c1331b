import { Connections } from '../../../core/connection/connections.ts';
import { wrap } from '../../../core/connection/route.ts';
import type { ConnectionsEvent } from '../../../core/connection/event.ts';
import type { Route } from '../../../core/connection/route.ts';
import type { IpAddress } from '../../../core/net/ip-address.ts';
import type { SocketAddress } from '../../../core/net/socket-address.ts';
import { instantAt, type Instant } from '../../../core/sansio/instant.ts';
import { nullLog } from '../../../core/sansio/log.ts';
import { decodeChannelData, encodeChannelData } from '../../../core/turn/channel-data.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';
import { crypto, UNIX_MS } from '../turn/turn-scene.ts';
import { configurationOf, type Server } from './relay-scene.ts';

/** Two devices that reach each other over the relays of the left one alone, on a virtual clock. */

const LEFT = '192.0.2.1:1000' as SocketAddress;
const RIGHT = '198.51.100.1:2000' as SocketAddress;
const DATA_INTERVAL = 100;

class End {
  readonly connections: Connections;
  readonly publicKey: Uint8Array;
  readonly events: { readonly at: number; readonly event: ConnectionsEvent }[] = [];
  readonly receivedAt: number[] = [];
  route: Route | undefined;

  constructor(seed: number, address: SocketAddress, now: Instant) {
    const random = new SeededRandom(seed);
    const privateKey = new Uint8Array(32);
    random.fill(privateKey);
    this.publicKey = crypto.x25519.publicKey(privateKey);
    const names = { fleet: 'lab', device: address, software: 'test' };
    const own = { privateKey, ...names, unixMs: UNIX_MS, crypto, random, log: nullLog };
    this.connections = new Connections(own, now);
    const [ip = '', port] = address.split(':');
    this.connections.setLocal({ addresses: [ip as IpAddress], port: Number(port) }, now);
  }

  /** Events of one type since the last call, which forgets all. */
  take<T extends ConnectionsEvent['type']>(
    type: T,
  ): (Extract<ConnectionsEvent, { type: T }> & { readonly at: number })[] {
    return this.events.splice(0).flatMap(({ at, event }) => {
      return event.type === type
        ? [{ ...(event as Extract<ConnectionsEvent, { type: T }>), at }]
        : [];
    });
  }
}

export class RelayedWorld {
  readonly left: End;
  readonly right: End;
  readonly servers: readonly Server[];
  #now = 0;
  #nextDataAt = Infinity;
  #due: { readonly at: number; readonly act: () => void }[] = [];

  constructor(seed: number, servers: readonly Server[]) {
    this.servers = servers;
    this.left = new End(seed, LEFT, this.now);
    this.right = new End(seed + 1, RIGHT, this.now);
  }

  get now(): Instant {
    return instantAt(this.#now);
  }

  setRelays(...servers: readonly Server[]): void {
    const urls = servers.map(({ address }) => configurationOf(`turn:${address}?transport=udp`));
    this.left.connections.setRelays(urls, this.now);
    this.settle();
  }

  /** Has each side know the other one, and send it packets. */
  meet(): void {
    this.left.connections.setPeer(0, this.right.publicKey, this.now);
    this.right.connections.setPeer(0, this.left.publicKey, this.now);
    this.#nextDataAt = this.#now;
    this.settle();
  }

  /** The server that the left side's packets go through. */
  get relay(): Server | undefined {
    return this.servers.find(({ address }) => address === this.left.route?.remote);
  }

  run(ms: number): void {
    const end = this.#now + ms;
    for (let rounds = 0; ; rounds++) {
      if (rounds > 200_000) throw new Error('the connections spin');
      this.settle();
      const deadlines = this.#ends.map(({ connections }) => connections.pollTimeout()?.at);
      const arrivals = this.#due.map(({ at }) => at);
      const all = [...deadlines, ...arrivals, this.#nextDataAt].map((at) => at ?? Infinity);
      const next = Math.min(...all);
      if (next > end) break;
      this.#now = Math.max(this.#now, next);
      const arrived = this.#due.filter(({ at }) => at <= this.#now);
      this.#due = this.#due.filter(({ at }) => at > this.#now);
      for (const { act } of arrived) act();
      if (this.#nextDataAt <= this.#now) this.#sendData();
      for (const { connections } of this.#ends) connections.handleTimeout(this.now);
    }
    this.#now = end;
  }

  settle(): void {
    for (const end of this.#ends) {
      for (let event; (event = end.connections.pollEvent()) !== undefined;) {
        end.events.push({ at: this.#now, event });
        this.#handle(end, event);
      }
      for (let sent; (sent = end.connections.pollTransmit()) !== undefined;) {
        this.#carry(end, sent.route.remote, sent.payload);
      }
    }
  }

  get #ends(): readonly End[] {
    return [this.left, this.right];
  }

  #handle(end: End, event: ConnectionsEvent): void {
    if (event.type === 'path') end.route = event.route;
    if (event.type === 'handshake-due') {
      for (const { connections } of this.#ends) connections.handleSession(0, this.now);
    }
    if (event.type !== 'candidates' || event.peer !== 0) return;
    const { candidates } = event;
    const other = end === this.left ? this.right : this.left;
    this.#later(50, () => {
      const signal = { candidates, deviceKey: new Uint8Array(32), isRestart: false };
      other.connections.handleSignal(0, signal, this.now);
    });
  }

  #sendData(): void {
    this.#nextDataAt += DATA_INTERVAL;
    for (const end of this.#ends) {
      if (end.route === undefined) continue;
      this.#carry(end, end.route.remote, wrap(Uint8Array.of(4, 0, 0, 0), end.route));
      const facts = { sent: true, received: false, elsewhere: false };
      end.connections.handleTransport(0, facts, this.now);
    }
  }

  #carry(from: End, to: SocketAddress, payload: Uint8Array): void {
    const isRelayed = (server: Server) => server.relayed.includes(to);
    const server = this.servers.find((one) => one.address === to || isRelayed(one));
    if (server === undefined || server.isDown) return;
    const { latency } = server;
    if (from === this.left && to === server.address) {
      const data = decodeChannelData(payload);
      if (data === undefined) {
        const answer = server.answer(payload);
        if (answer !== undefined) this.#deliver(this.left, to, answer, 2 * latency);
      } else if (server.allocation?.channels.get(data.channel) === RIGHT) {
        this.#deliver(this.right, server.relayed[0]!, data.payload.slice(), latency);
      }
    } else if (from === this.right && isRelayed(server)) {
      const channels = [...(server.allocation?.channels ?? [])];
      const channel = channels.find(([, peer]) => peer === RIGHT)?.[0];
      if (channel === undefined) return;
      this.#deliver(
        this.left,
        server.address,
        encodeChannelData({ channel, payload }, 'udp'),
        latency,
      );
    }
  }

  #deliver(end: End, from: SocketAddress, payload: Uint8Array, delay: number): void {
    this.#later(delay, () => {
      const datagram = { payload, from, path: { fd: 1, remote: from } };
      if (end.connections.handleDatagram(datagram, this.now) === undefined) return;
      end.receivedAt.push(this.#now);
      const facts = { sent: false, received: true, elsewhere: false };
      end.connections.handleTransport(0, facts, this.now);
    });
  }

  #later(ms: number, act: () => void): void {
    this.#due.push({ at: this.#now + ms, act });
  }
}
