import { ipFamily, type IpAddress, type IpFamily } from '../../core/net/ip-address.ts';
import {
  socketAddress,
  socketAddressIp,
  socketAddressPort,
  type SocketAddress,
} from '../../core/net/socket-address.ts';
import type { Clock } from '../../core/plugin/clock.ts';
import type { Datagrams } from '../../core/plugin/datagrams.ts';
import { after, instantAt, type Instant, type Millis } from '../../core/sansio/instant.ts';
import { MemoryNetwork, type MemoryDatagram } from '../memory/datagrams.ts';
import type { Happening } from './event-queue.ts';
import type { Link } from './link.ts';
import type { Member, Network, Packet } from './network.ts';
import type { Timeline } from './timeline.ts';

/** Takes a datagram: from whom, to which address of the host, and what. */
export type OnDatagram = (from: SocketAddress, to: SocketAddress, payload: Uint8Array) => void;

/** A machine: addresses on one network, a clock, sockets. */
export class Host implements Member {
  readonly name: string;
  /** The line to its network. */
  readonly link: Link;
  readonly timeline: Timeline;
  readonly #startUnixMs: number;
  #network: Network;
  #addresses: readonly IpAddress[] = [];
  readonly #sockets = new Map<number, OnDatagram>();
  #clocks: HostClock[] = [];
  #transports: MemoryNetwork | undefined;
  #asleepUntil: Instant | undefined;
  /** How much of its sleep its monotonic clock did not count. */
  #missed: Millis = 0;

  constructor(options: {
    readonly name: string;
    readonly network: Network;
    readonly link: Link;
    readonly addresses: readonly IpAddress[];
    readonly startUnixMs: number;
  }) {
    this.name = options.name;
    this.link = options.link;
    this.#network = options.network;
    this.timeline = options.network.timeline;
    this.#startUnixMs = options.startUnixMs;
    this.readdress(options.addresses);
  }

  get network(): Network {
    return this.#network;
  }

  /** At most one of each family, which is all that it sends from. */
  get addresses(): readonly IpAddress[] {
    return this.#addresses;
  }

  address(family: IpFamily): IpAddress | undefined {
    return this.#addresses.find((address) => ipFamily(address) === family);
  }

  /** Has other addresses from now on, on another network where one is given. */
  readdress(addresses: readonly IpAddress[], network: Network = this.#network): void {
    for (const address of this.#addresses) this.#network.detach(address);
    this.#network = network;
    this.#addresses = addresses;
    for (const address of addresses) network.attach(address, this, this.link.down);
  }

  /** Opens a UDP socket for both families; returns what sends from it. */
  listen(port: number, onDatagram: OnDatagram): UdpSocket {
    if (this.#sockets.has(port)) throw new Error(`port ${port} of ${this.name} is taken`);
    this.#sockets.set(port, onDatagram);
    return {
      port,
      send: (to, payload) => this.#send(this.#sourceFor(to, port), to, payload, 0),
      close: () => void this.#sockets.delete(port),
    };
  }

  /** What transports and sites are attached to: `network.host()`. */
  get transports(): MemoryNetwork {
    if (this.#transports === undefined) {
      const transports = new MemoryNetwork();
      transports.fate = (datagram) => {
        // What a daemon still sends that the machine has forgotten goes nowhere.
        if (transports === this.#transports) this.#transmit(datagram);
        return [];
      };
      this.#transports = transports;
    }
    return this.#transports;
  }

  /** Makes a UDP transport that the engine can listen on. */
  createDatagrams(): Datagrams {
    const source = (family: IpFamily): IpAddress => this.address(family) ?? NO_ADDRESS[family];
    const owns = (address: IpAddress): boolean => this.#addresses.includes(address);
    return this.transports.host(owns, source).createDatagrams();
  }

  /** Makes a clock of this machine; each has its own alarm. */
  clock(): Clock {
    const clock = new HostClock(this.timeline, this.#startUnixMs, {
      missed: () => this.#missed,
      asleepUntil: () => this.#asleepUntil,
    });
    this.#clocks.push(clock);
    return clock;
  }

  /**
   * Sleeps: it hears nothing, and alarms ring when it wakes. Its calendar goes on; so does its monotonic
   * clock where the platform counts sleep.
   */
  sleep(ms: Millis, options: { readonly isCounted: boolean }): void {
    const { timeline } = this;
    this.#asleepUntil = after(timeline.now, ms);
    if (!options.isCounted) this.#missed += ms;
    timeline.in(ms, () => {
      this.#asleepUntil = undefined;
    });
  }

  /** The calendar, which is right. */
  get unixMs(): number {
    return this.#startUnixMs + this.timeline.now;
  }

  get isAsleep(): boolean {
    return this.#asleepUntil !== undefined;
  }

  /** Ends all that runs here: sockets, transports and alarms. Addresses stay. */
  kill(): void {
    for (const clock of this.#clocks) clock.end();
    this.#clocks = [];
    this.#sockets.clear();
    this.#transports = undefined;
  }

  receive({ from, to, payload, tos }: Packet): void {
    if (this.isAsleep) return;
    const onDatagram = this.#sockets.get(socketAddressPort(to));
    if (onDatagram !== undefined) return onDatagram(from, to, payload);
    if (this.#transports === undefined) return;
    this.#transports.wire.push({ from, to, payload, tos, segment: 0 });
    this.#transports.deliver();
  }

  /** A train goes out as the datagrams that it consists of. */
  #transmit({ from, to, payload, segment, tos }: MemoryDatagram): void {
    if (segment === 0) return this.#send(from, to, payload, tos);
    for (let start = 0; start < payload.length; start += segment) {
      this.#send(from, to, payload.subarray(start, start + segment), tos);
    }
  }

  #sourceFor(to: SocketAddress, port: number): SocketAddress | undefined {
    const address = this.address(ipFamily(socketAddressIp(to)));
    return address === undefined ? undefined : socketAddress(address, port);
  }

  #send(from: SocketAddress | undefined, to: SocketAddress, payload: Uint8Array, tos: number) {
    if (from === undefined || !this.#addresses.includes(socketAddressIp(from))) return;
    this.#network.send({ from, to, payload, tos }, this.link.up);
  }
}

export interface UdpSocket {
  readonly port: number;
  send(to: SocketAddress, payload: Uint8Array): void;
  close(): void;
}

/** What a source is where the family has none: sending from it fails. */
const NO_ADDRESS = { 4: '0.0.0.0' as IpAddress, 6: '::' as IpAddress };

interface Sleep {
  missed(): Millis;
  asleepUntil(): Instant | undefined;
}

class HostClock implements Clock, Happening {
  readonly #timeline: Timeline;
  readonly #startUnixMs: number;
  readonly #sleep: Sleep;
  /** When to ring, on this clock. */
  #at: Instant | undefined;
  /** The earliest time for which the clock waits in the queue: it may wait there more than once. */
  #queuedAt = Infinity;
  #ring: () => void = () => undefined;
  #hasEnded = false;
  /** The last alarm that rang: rounding must not put the clock in front of it. */
  #rangAt = instantAt(0);

  constructor(timeline: Timeline, startUnixMs: number, sleep: Sleep) {
    this.#timeline = timeline;
    this.#startUnixMs = startUnixMs;
    this.#sleep = sleep;
  }

  now(): Instant {
    return instantAt(Math.max(this.#timeline.now - this.#sleep.missed(), this.#rangAt));
  }

  unixMs(): number {
    return this.#startUnixMs + this.#timeline.now;
  }

  alarm(at: Instant, onAlarm: () => void): void {
    if (this.#hasEnded) return;
    this.#ring = onAlarm;
    this.#at = at;
    this.#queue();
  }

  cancelAlarm(): void {
    this.#at = undefined;
  }

  soon(onYield: () => void): void {
    this.#timeline.in(0, () => {
      if (!this.#hasEnded) onYield();
    });
  }

  end(): void {
    this.#hasEnded = true;
    this.#at = undefined;
  }

  happen(): void {
    // One that was overtaken by an earlier alarm is done with, or each would queue another for ever.
    if (this.#queuedAt !== this.#timeline.now) return;
    this.#queuedAt = Infinity;
    if (this.#at === undefined) return;
    const isLater = this.#at + this.#sleep.missed() > this.#timeline.now;
    if (isLater || this.#sleep.asleepUntil() !== undefined) return this.#queue();
    this.#rangAt = this.#at;
    this.#at = undefined;
    this.#ring();
  }

  #queue(): void {
    if (this.#at === undefined) return;
    const { now } = this.#timeline;
    const at = Math.max(this.#at + this.#sleep.missed(), this.#sleep.asleepUntil() ?? now);
    if (this.#queuedAt <= at) return;
    this.#queuedAt = at;
    this.#timeline.schedule(instantAt(at), this);
  }
}
