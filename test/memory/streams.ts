import type { StreamProtocol } from '../../core/ice/candidate.ts';
import { ipFamily, type IpAddress } from '../../core/net/ip-address.ts';
import {
  socketAddress,
  socketAddressIp,
  socketAddressPort,
  type SocketAddress,
} from '../../core/net/socket-address.ts';
import type { Clock } from '../../core/plugin/clock.ts';
import type { ListenFailure } from '../../core/plugin/datagrams.ts';
import {
  DIAL_TIMEOUT,
  SEND_QUEUE,
  type DialTarget,
  type StreamEvent,
  type StreamId,
  type StreamListenOptions,
  type Streams,
} from '../../core/plugin/streams.ts';
import { equalInConstantTime } from '../../core/sansio/crypto.ts';
import { after, type Instant } from '../../core/sansio/instant.ts';
import { BugError, failed, ok, type Outcome } from '../../core/sansio/outcome.ts';
import { ed25519 } from '../../plugins/crypto-node/curve25519.ts';

/** From where to where a stream goes. */
export interface MemoryRoute {
  readonly from: SocketAddress;
  readonly to: SocketAddress;
  readonly protocol: StreamProtocol;
  /** It is dialled through this proxy. */
  readonly proxy?: string;
}

/** Something on its way along one stream. */
export interface MemorySegment {
  /** As the dialler sees it, also for what goes back. */
  readonly route: MemoryRoute;
  /** Length of the data in it; 0 for the opening and the end. */
  readonly length: number;
  readonly arrive: () => void;
}

const MOST_DIALLING = 64;
const MOST_ACCEPTED = 256;

/**
 * A network in memory for the stream transports of any number of hosts. Nothing moves by itself: what was
 * sent waits in `wire` until `deliver`, and time passes on the clock that it is given. To block all TCP
 * but port 443:
 *
 *   network.path = ({ to }) => (socketAddressPort(to) === 443 ? 'passes' : 'stalls');
 */
export class MemoryStreamNetwork {
  readonly wire: MemorySegment[] = [];

  /**
   * What the network does to a stream, asked for each segment: one that stalls stays on the wire, since
   * TCP repeats it; one that is refused breaks the stream.
   */
  path: (route: MemoryRoute, segment: MemorySegment) => 'passes' | 'stalls' | 'refuses' = () =>
    'passes';

  /** Something came on the wire. */
  onSent: (segment: MemorySegment) => void = () => undefined;

  /** What the listener sees of a route: translators change both addresses. */
  translate: (route: MemoryRoute) => MemoryRoute = (route) => route;

  readonly #clock: Clock;
  readonly #hosts: MemoryStreamHost[] = [];
  readonly #connections = new Set<Connection>();
  readonly #local: (() => void)[] = [];
  readonly #alarms = new Map<Connection, { at: Instant; isDue: () => boolean }>();

  /** The clock is the network's alone: it sets its alarm. */
  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Adds a host that has all addresses for which `owns` answers true; `source` is its own by family. */
  host(
    owns: (address: IpAddress) => boolean,
    source: (family: 4 | 6) => IpAddress,
  ): MemoryStreamHost {
    const host = new MemoryStreamHost(this, owns, source);
    this.#hosts.push(host);
    return host;
  }

  /** Delivers what is on the wire and does not stall, and what is sent at once in answer. */
  deliver(): void {
    for (const happen of this.#local.splice(0)) happen();
    for (let at = 0; at < this.wire.length;) {
      const waiting = this.wire[at]!;
      const fate = this.path(waiting.route, waiting);
      if (fate === 'stalls') {
        at++;
        continue;
      }
      const [segment] = this.wire.splice(at, 1);
      if (fate === 'passes') segment?.arrive();
      else this.break((route) => route === segment?.route);
      // What stalled may have been freed, or joined by more.
      at = 0;
    }
  }

  /** Breaks streams as a reset does: both sides hear it. */
  break(which: (route: MemoryRoute) => boolean): void {
    for (const connection of this.#connections) {
      if (which(connection.route)) connection.reset('reset by the network');
    }
  }

  /** For hosts. */
  connect(dialler: Side, route: MemoryRoute, trust: DialTarget['trust']): Connection {
    const connection = new Connection(this, route, dialler);
    this.#connections.add(connection);
    this.#expire(connection, () => connection.state === 'dialling');
    const seen = this.translate(route);
    connection.put(0, () => {
      const host = this.#hosts.find(({ owns }) => owns(socketAddressIp(seen.to)));
      const why = host?.meet(connection, seen, trust) ?? (host ? undefined : 'no route');
      if (why !== undefined) connection.put(0, () => connection.reset(why));
      else if (!connection.isShown) this.#expire(connection, () => !connection.isShown);
    });
    return connection;
  }

  /** Happens with the next `deliver`, whatever the path is. */
  soon(happen: () => void): void {
    this.#local.push(happen);
  }

  forget(connection: Connection): void {
    this.#connections.delete(connection);
    this.#alarms.delete(connection);
    for (let i = this.wire.length - 1; i >= 0; i--) {
      if (this.wire[i]?.route === connection.route) this.wire.splice(i, 1);
    }
  }

  #expire(connection: Connection, isDue: () => boolean): void {
    this.#alarms.set(connection, { at: after(this.#clock.now(), DIAL_TIMEOUT), isDue });
    this.#setAlarm();
  }

  #setAlarm(): void {
    const next = Math.min(...[...this.#alarms.values()].map(({ at }) => at)) as Instant;
    if (next !== Infinity) this.#clock.alarm(next, () => this.#ring());
  }

  #ring(): void {
    const now = this.#clock.now();
    for (const [connection, { at, isDue }] of this.#alarms) {
      if (at > now) continue;
      this.#alarms.delete(connection);
      if (isDue()) connection.reset('no answer');
    }
    this.#setAlarm();
  }
}

export class MemoryStreamHost {
  readonly owns: (address: IpAddress) => boolean;
  readonly source: (family: 4 | 6) => IpAddress;
  readonly network: MemoryStreamNetwork;
  readonly #listeners = new Map<number, MemoryStreams>();
  #lastPort = 49_151;

  constructor(
    network: MemoryStreamNetwork,
    owns: (address: IpAddress) => boolean,
    source: (family: 4 | 6) => IpAddress,
  ) {
    this.network = network;
    this.owns = owns;
    this.source = source;
  }

  createStreams(): MemoryStreams {
    return new MemoryStreams(this);
  }

  /** An address that no other stream of the host has. */
  localFor(remote: SocketAddress): SocketAddress {
    return socketAddress(this.source(ipFamily(socketAddressIp(remote))), ++this.#lastPort);
  }

  bind(port: number, streams: MemoryStreams): boolean {
    const bound = this.#listeners.get(port);
    if (bound !== undefined && bound !== streams) return false;
    this.#listeners.set(port, streams);
    return true;
  }

  unbind(port: number): void {
    this.#listeners.delete(port);
  }

  /** Brings a stream to its listener; returns why it is refused. */
  meet(connection: Connection, seen: MemoryRoute, trust: DialTarget['trust']): string | undefined {
    const listener = this.#listeners.get(socketAddressPort(seen.to));
    if (listener === undefined) return 'nothing listens on that port';
    return listener.accept(connection, seen, trust);
  }
}

/** One end of a stream. */
interface Side {
  readonly streams: MemoryStreams;
  readonly id: StreamId;
}

interface End {
  readonly side: Side;
  waiting: number;
  isRefusing: boolean;
  /** After close() no more is told. */
  isClosed: boolean;
}

class Connection {
  readonly route: MemoryRoute;
  state: 'dialling' | 'open' | 'ended' = 'dialling';
  /** Whether the listener knows what it is. */
  isShown = false;

  readonly #network: MemoryStreamNetwork;
  readonly #dialler: End;
  #listener: End | undefined;
  #makeListener: (() => Side) | undefined;

  constructor(network: MemoryStreamNetwork, route: MemoryRoute, dialler: Side) {
    this.#network = network;
    this.route = route;
    this.#dialler = endOf(dialler);
  }

  put(length: number, arrive: () => void): void {
    const segment = { route: this.route, length, arrive };
    this.#network.wire.push(segment);
    this.#network.onSent(segment);
  }

  /** The listener takes it, and calls `accept` once it knows what it is. */
  take(listener: () => Side): void {
    this.put(0, () => {
      this.state = 'open';
      this.#dialler.side.streams.onOpened(this.#dialler.side.id, this.route.from);
    });
    this.#makeListener = listener;
    // A WebSocket shows what it is before the first byte that it carries.
    if (this.route.protocol === 'ws' || this.route.protocol === 'wss') this.#show();
  }

  #show(): void {
    if (this.isShown || this.#makeListener === undefined) return;
    this.isShown = true;
    this.#listener = endOf(this.#makeListener());
  }

  send(from: Side, bytes: Uint8Array): boolean {
    const end = this.#endOf(from);
    if (end === undefined || end.isClosed || this.state !== 'open') return false;
    if (end.waiting > SEND_QUEUE) {
      end.isRefusing = true;
      return false;
    }
    const copy = bytes.slice();
    end.waiting += copy.length;
    this.put(copy.length, () => {
      end.waiting -= copy.length;
      if (end === this.#dialler) this.#show();
      const other = this.#other(end);
      if (other?.isClosed === false) other.side.streams.onData(other.side.id, copy);
      if (!end.isRefusing || end.isClosed || end.waiting >= SEND_QUEUE / 2) return;
      end.isRefusing = false;
      end.side.streams.onWritable(end.side.id);
    });
    return true;
  }

  waiting(side: Side): number {
    return this.#endOf(side)?.waiting ?? 0;
  }

  /** Ends it behind what was sent. */
  close(side: Side): void {
    const end = this.#endOf(side);
    if (end === undefined || end.isClosed) return;
    end.isClosed = true;
    if (this.state === 'dialling') this.reset('given up');
    else this.put(0, () => this.reset('the other side closed it'));
  }

  reset(why: string): void {
    if (this.state === 'ended') return;
    this.state = 'ended';
    this.#network.forget(this);
    for (const end of [this.#dialler, this.#listener]) {
      if (end !== undefined) end.side.streams.onEnded(end.side.id, end.isClosed ? undefined : why);
    }
  }

  #endOf(side: Side): End | undefined {
    return this.#dialler.side === side ? this.#dialler : this.#listener;
  }

  #other(end: End): End | undefined {
    return end === this.#dialler ? this.#listener : this.#dialler;
  }
}

function endOf(side: Side): End {
  return { side, waiting: 0, isRefusing: false, isClosed: false };
}

/** The memory twin of the stream transport. */
export class MemoryStreams implements Streams {
  readonly #host: MemoryStreamHost;
  readonly #open = new Map<StreamId, { readonly side: Side; readonly connection: Connection }>();
  /** Those that the owner closed and that still have bytes on the wire. */
  readonly #closing = new Set<{ readonly side: Side; readonly connection: Connection }>();
  #listening: StreamListenOptions | undefined;
  #lastAccepted = -1;
  #onEvent: (event: StreamEvent) => void = () => undefined;

  constructor(host: MemoryStreamHost) {
    this.#host = host;
  }

  listenTo(onEvent: (event: StreamEvent) => void): void {
    this.#onEvent = onEvent;
  }

  dial(id: StreamId, { protocol, address, trust, proxy }: DialTarget): void {
    if (this.#open.has(id)) throw new BugError(`stream ${id} is dialled twice`);
    const { network } = this.#host;
    const dialling = [...this.#open.values()].filter(
      ({ connection }) => connection.state === 'dialling',
    );
    const from = this.#host.localFor(address);
    const route = { from, to: address, protocol, ...(proxy === undefined ? {} : { proxy }) };
    const side = { streams: this, id };
    const connection = network.connect(side, route, trust);
    this.#open.set(id, { side, connection });
    if (dialling.length >= MOST_DIALLING) {
      network.soon(() => connection.reset('too many dials'));
    }
  }

  async listen(options: StreamListenOptions | undefined): Promise<Outcome<void, ListenFailure>> {
    const before = this.#listening?.port;
    if (options !== undefined && !this.#host.bind(options.port, this)) return failed('port-taken');
    if (before !== undefined && before !== options?.port) this.#host.unbind(before);
    this.#listening = options;
    return ok(undefined);
  }

  send(id: StreamId, bytes: Uint8Array): boolean {
    const stream = this.#open.get(id);
    return stream !== undefined && stream.connection.send(stream.side, bytes);
  }

  close(id: StreamId): void {
    const stream = this.#open.get(id);
    if (stream === undefined) return;
    this.#open.delete(id);
    this.#closing.add(stream);
    stream.connection.close(stream.side);
    if (stream.connection.state === 'ended') this.#closing.delete(stream);
  }

  get waiting(): number {
    return [...this.#open.values(), ...this.#closing]
      .map(({ connection, side }) => connection.waiting(side))
      .reduce((sum, waiting) => sum + waiting, 0);
  }

  /** What stopping the plugin does. */
  stop(): void {
    for (const id of this.#open.keys()) this.close(id);
    if (this.#listening !== undefined) this.#host.unbind(this.#listening.port);
    this.#listening = undefined;
    this.#onEvent = () => undefined;
  }

  /** From here on for the network. */
  accept(
    connection: Connection,
    { from, to, protocol }: MemoryRoute,
    trust: DialTarget['trust'],
  ): string | undefined {
    if (this.#open.size >= MOST_ACCEPTED) return 'too many streams';
    const isSecure = protocol === 'tls' || protocol === 'wss';
    if (isSecure && !this.#isTrusted(trust)) return 'the certificate is not of this peer';
    connection.take(() => {
      const side = { streams: this, id: (this.#lastAccepted += 2) };
      this.#open.set(side.id, { side, connection });
      this.#onEvent({ type: 'accepted', stream: side.id, protocol, local: to, remote: from });
      return side;
    });
    return undefined;
  }

  onOpened(stream: StreamId, local: SocketAddress): void {
    this.#onEvent({ type: 'opened', stream, local });
  }

  onData(stream: StreamId, bytes: Uint8Array): void {
    this.#onEvent({ type: 'data', stream, bytes });
  }

  onWritable(stream: StreamId): void {
    this.#onEvent({ type: 'writable', stream });
  }

  /** `why` is told where the owner has not closed it. */
  onEnded(stream: StreamId, why: string | undefined): void {
    for (const closing of this.#closing) {
      if (closing.side.id === stream) this.#closing.delete(closing);
    }
    if (why === undefined) return;
    this.#open.delete(stream);
    this.#onEvent({ type: 'closed', stream, why });
  }

  #isTrusted(trust: DialTarget['trust']): boolean {
    if (trust.type === 'any') return true;
    if (trust.type === 'authorities' || this.#listening === undefined) return false;
    return equalInConstantTime(ed25519.publicKey(this.#listening.deviceKey), trust.deviceKey);
  }
}
