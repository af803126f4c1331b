import type { DnsDatagram, DnsTransmit, TransportFailure } from '../../core/dns/forwarder.ts';
import type { UpstreamTransport } from '../../core/dns/upstream.ts';
import { placeOf } from '../../core/dns/upstream-url.ts';
import { readUint16 } from '../../core/packet/big-endian.ts';
import type { Clock } from '../../core/plugin/clock.ts';
import type { DnsUpstreams } from '../../core/plugin/dns-upstreams.ts';
import type { Log } from '../../core/sansio/log.ts';
import { Dialler } from './dialler.ts';
import { FramedCarrier } from './framed-carrier.ts';
import { HttpCarrier } from './http-carrier.ts';
import { QueryStream, type Connect } from './query-stream.ts';
import { UdpSockets } from './udp-sockets.ts';

/** Carries queries to servers, and tells of what comes from them. */
export class UpstreamTransports implements DnsUpstreams {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #dialler: Dialler;
  readonly #udp: UdpSockets;
  /** By transport and id of the server; those that are idle are not here. */
  readonly #streams = new Map<string, QueryStream>();
  #isStopped = false;
  #onAnswer: (datagram: DnsDatagram) => void = () => undefined;
  #onFailure: (failure: TransportFailure) => void = () => undefined;

  constructor(clock: Clock, log: Log, authorities: readonly string[] | undefined) {
    this.#clock = clock;
    this.#log = log;
    this.#dialler = new Dialler(log, authorities);
    this.#udp = new UdpSockets({
      onAnswer: (upstream, port, bytes) => {
        this.#onAnswer({ upstream, transport: 'udp', port, bytes });
      },
      onFailure: (upstream, why) => {
        this.#log.debug('dns server is out of reach', { upstream, transport: 'udp', why });
        this.#onFailure({ upstream, transport: 'udp' });
      },
    });
  }

  listenTo(handlers: {
    onAnswer(datagram: DnsDatagram): void;
    onFailure(failure: TransportFailure): void;
  }): void {
    this.#onAnswer = (datagram) => handlers.onAnswer(datagram);
    this.#onFailure = (failure) => handlers.onFailure(failure);
  }

  send({ upstream: { id: upstream }, transport, port, bytes }: DnsTransmit): void {
    if (this.#isStopped) return;
    const isCarried =
      transport === 'udp'
        ? this.#udp.send(upstream, port, bytes)
        : this.#stream(upstream, transport)?.send(bytes) === true;
    if (isCarried) return;
    const id = readUint16(bytes, 0);
    setImmediate(() => {
      if (!this.#isStopped) this.#onFailure({ upstream, transport, id });
    });
  }

  /** Ends everything at once; nothing is told after it. */
  stop(): void {
    this.#isStopped = true;
    this.#udp.stop();
    for (const stream of this.#streams.values()) stream.stop();
    this.#streams.clear();
  }

  #stream(upstream: string, transport: StreamTransport): QueryStream | undefined {
    const key = `${transport} ${upstream}`;
    const existing = this.#streams.get(key);
    if (existing !== undefined) return existing;
    const connect = this.#connector(upstream, transport);
    if (connect === undefined) return undefined;
    const stream = new QueryStream(connect, this.#clock, {
      onAnswer: (bytes) => this.#onAnswer({ upstream, transport, port: 0, bytes }),
      onFailure: (why, id) => {
        this.#log.debug('dns server is out of reach', { upstream, transport, why });
        this.#onFailure(id === undefined ? { upstream, transport } : { upstream, transport, id });
      },
      onIdle: () => this.#streams.delete(key),
    });
    this.#streams.set(key, stream);
    return stream;
  }

  #connector(upstream: string, transport: StreamTransport): Connect | undefined {
    const place = placeOf(upstream);
    const dialler = this.#dialler;
    if (transport === 'tcp' && place?.protocol === 'plain') {
      return (events) => new FramedCarrier(dialler.tcp(place.endpoint), events);
    }
    if (transport === 'tls' && place?.protocol === 'tls') {
      return (events) => new FramedCarrier(dialler.tls(upstream, place.endpoint), events);
    }
    if (transport === 'https' && place?.protocol === 'https') {
      return (events) =>
        new HttpCarrier(dialler.tls(upstream, place.endpoint, 'h2'), place, events);
    }
    return undefined;
  }
}

type StreamTransport = Exclude<UpstreamTransport, 'udp'>;
