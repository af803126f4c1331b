import type { IpAddress, IpFamily } from '../../core/net/ip-address.ts';
import { socketAddressIp, socketAddressPort } from '../../core/net/socket-address.ts';
import type { Clock } from '../../core/plugin/clock.ts';
import type { StreamId } from '../../core/plugin/streams.ts';
import { after, type Instant, type Millis } from '../../core/sansio/instant.ts';
import {
  MemoryStreamNetwork,
  type MemoryRoute,
  type MemorySegment,
  type MemoryStreamHost,
  type MemoryStreams,
} from '../memory/streams.ts';
import type { Host } from './host.ts';
import type { Timeline } from './timeline.ts';
import { TURN_PORT, type TurnServer } from './turn-server.ts';
import type { Dialled, World } from './world.ts';

/** A segment that got lost is repeated after this long. */
const REPETITION: Millis = 1_000;

/**
 * The TCP of a world. A stream takes as long as the lines that it crosses, stalls while it could not be
 * opened, and for ever once its ends would look different: its address is gone, and nobody resets it.
 * Loss does not show. The networks of the world must have different prefixes.
 */
export class WorldStreams {
  readonly #world: World;
  readonly #network: MemoryStreamNetwork;
  readonly #hosts = new Map<Host, MemoryStreamHost>();
  readonly #arrivals = new WeakMap<MemorySegment, Instant>();
  /** How a stream was first seen at its other end. */
  readonly #opened = new WeakMap<MemoryRoute, Dialled>();
  #isRepeating = false;

  constructor(world: World) {
    this.#world = world;
    this.#network = new MemoryStreamNetwork(clockOf(world.timeline));
    this.#network.path = (route, segment) => this.#fateOf(route, segment);
    this.#network.translate = (route) => {
      const seen = this.#opened.get(route);
      return seen === undefined ? route : { ...route, from: seen.remote, to: seen.to };
    };
    this.#network.onSent = (segment) => this.#carry(segment);
  }

  /** Makes the stream transport of one start of a daemon. */
  createStreams(host: Host): MemoryStreams {
    return this.#hostOf(host).createStreams();
  }

  /** Has a TURN server take streams too. */
  serve(host: Host, server: TurnServer): void {
    const streams = this.createStreams(host);
    const clients = new Map<StreamId, ReturnType<TurnServer['accept']>>();
    streams.listenTo((event) => {
      if (event.type === 'accepted') {
        const { stream, remote } = event;
        const send = (bytes: Uint8Array): void => void streams.send(stream, bytes);
        const close = (): void => streams.close(stream);
        if (server.isRunning) clients.set(stream, server.accept(remote, { send, close }));
        else close();
      }
      if (event.type === 'data') clients.get(event.stream)?.receive(event.bytes);
      if (event.type === 'closed') {
        clients.get(event.stream)?.close();
        clients.delete(event.stream);
      }
    });
    void streams.listen({ port: TURN_PORT, deviceKey: new Uint8Array(32) });
  }

  /** Resets the streams that a host has dialled, as a NAT does that forgot them. */
  reset(host: Host): void {
    this.#network.break(({ from }) => host.addresses.includes(socketAddressIp(from)));
  }

  #hostOf(host: Host): MemoryStreamHost {
    let known = this.#hosts.get(host);
    if (known === undefined) {
      const owns = (address: IpAddress): boolean => host.addresses.includes(address);
      const source = (family: IpFamily): IpAddress => host.address(family) ?? NO_ADDRESS[family];
      known = this.#network.host(owns, source);
      this.#hosts.set(host, known);
    }
    return known;
  }

  #carry(segment: MemorySegment): void {
    const { timeline } = this.#world;
    const latency = this.#dial(segment.route)?.latency ?? 0;
    this.#arrivals.set(segment, after(timeline.now, latency));
    timeline.in(latency, () => this.#deliver());
  }

  #deliver(): void {
    this.#network.deliver();
    const { timeline } = this.#world;
    if (this.#isRepeating || this.#network.wire.length === 0) return;
    this.#isRepeating = true;
    timeline.in(REPETITION, () => {
      this.#isRepeating = false;
      this.#deliver();
    });
  }

  #fateOf(route: MemoryRoute, segment: MemorySegment): 'passes' | 'stalls' {
    const arrival = this.#arrivals.get(segment);
    if (arrival === undefined || arrival > this.#world.now) return 'stalls';
    const now = this.#dial(route);
    if (now === undefined) return 'stalls';
    const opened = this.#opened.get(route) ?? now;
    this.#opened.set(route, opened);
    const isSame = opened.host === now.host && opened.remote === now.remote;
    return isSame ? 'passes' : 'stalls';
  }

  #dial({ from, to }: MemoryRoute): Dialled | undefined {
    const ip = socketAddressIp(from);
    const host = this.#world.hosts.find(({ addresses }) => addresses.includes(ip));
    return host && this.#world.dial(host, to, socketAddressPort(from));
  }
}

/** What a source is where the family has none: nothing gets out from it. */
const NO_ADDRESS = { 4: '0.0.0.0' as IpAddress, 6: '::' as IpAddress };

/** The clock of the network alone: it never sleeps. */
function clockOf(timeline: Timeline): Clock {
  let latest = {};
  return {
    now: () => timeline.now,
    unixMs: () => timeline.now,
    alarm: (at, ring) => {
      const alarm = {};
      latest = alarm;
      timeline.at(at, () => {
        if (alarm === latest) ring();
      });
    },
    cancelAlarm: () => {
      latest = {};
    },
    soon: (onYield) => timeline.in(0, onYield),
  };
}
