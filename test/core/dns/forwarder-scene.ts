import { decodeQuery } from '../../../core/dns/message.ts';
import {
  Forwarder,
  type DnsClient,
  type DnsTransmit,
  type ForwarderEvent,
} from '../../../core/dns/forwarder.ts';
import type { Upstream, UpstreamTransport } from '../../../core/dns/upstream.ts';
import { instantAt, type Instant } from '../../../core/sansio/instant.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';
import { record, reply, type Message, decode } from './messages.ts';

/** What a server does with a query: answers, says nothing, or cannot be reached. */
export type Behaviour = (
  query: Uint8Array,
  transmit: DnsTransmit,
) => Uint8Array | 'silence' | 'unreachable';

export interface Sent {
  readonly at: number;
  readonly upstream: string;
  readonly transport: UpstreamTransport;
  readonly port: number;
  readonly id: number;
  readonly bytes: Uint8Array;
}

export interface Received {
  readonly at: number;
  readonly client: DnsClient;
  readonly bytes: Uint8Array;
  readonly message: Message;
}

export const FIRST: Upstream = { id: '192.0.2.1:53', protocol: 'plain' };
export const SECOND: Upstream = { id: '192.0.2.2:53', protocol: 'plain' };

/** A forwarder, its servers and its clients on a virtual clock. */
export class Scene {
  readonly forwarder: Forwarder;
  readonly sent: Sent[] = [];
  readonly probes: Sent[] = [];
  readonly received: Received[] = [];
  readonly changes: string[] = [];
  /** By id; others answer every question with one address. */
  readonly behaviours = new Map<string, Behaviour>();
  latency = 20;
  now: Instant = instantAt(0);
  readonly #inbox: { readonly at: number; readonly deliver: () => void }[] = [];

  constructor(upstreams: readonly Upstream[] = [FIRST, SECOND], seed = 1, isCached = false) {
    this.forwarder = new Forwarder({ random: new SeededRandom(seed) }, this.now);
    this.forwarder.setGroup('others', { upstreams, isCached });
  }

  ask(bytes: Uint8Array, client: DnsClient = udp('c1'), group = 'others'): void {
    const query = decodeQuery(bytes);
    if (!query.ok) throw new Error(query.why);
    this.forwarder.handleQuery(client, query.value, group, this.now);
    this.#drain();
  }

  /** Whatever anybody sends, now. */
  deliver(from: Pick<Sent, 'upstream' | 'transport' | 'port'>, bytes: Uint8Array): void {
    const { upstream, transport, port } = from;
    this.forwarder.handleAnswer({ upstream, transport, port, bytes }, this.now);
    this.#drain();
  }

  run(ms: number): void {
    const end = this.now + ms;
    for (let step = 0; step < 1_000_000; step++) {
      const [next] = this.#inbox;
      const due = this.forwarder.pollTimeout()?.at ?? Infinity;
      const at = Math.min(next?.at ?? Infinity, due);
      if (at > end) {
        this.now = instantAt(end);
        return;
      }
      this.now = instantAt(Math.max(at, this.now));
      if (next !== undefined && next.at <= this.now) {
        this.#inbox.shift();
        next.deliver();
      } else this.forwarder.handleTimeout(this.now);
      this.#drain();
      if ((this.forwarder.pollTimeout()?.at ?? Infinity) <= this.now && due <= this.now && !next) {
        throw new Error('it spins');
      }
    }
    throw new Error('it does not end');
  }

  #drain(): void {
    for (let event; (event = this.forwarder.pollEvent()) !== undefined;) this.#onEvent(event);
    for (let transmit; (transmit = this.forwarder.pollTransmit()) !== undefined;) {
      this.#onTransmit(transmit);
    }
  }

  #onEvent(event: ForwarderEvent): void {
    if (event.type !== 'response') {
      this.changes.push(`${this.now} ${event.type} ${event.upstream.id}`);
      return;
    }
    const { client, bytes } = event;
    this.received.push({ at: this.now, client, bytes, message: decode(bytes) });
  }

  #onTransmit(transmit: DnsTransmit): void {
    const { transport, port, bytes, upstream } = transmit;
    const sent = {
      at: this.now,
      upstream: upstream.id,
      transport,
      port,
      id: ((bytes[0] ?? 0) << 8) | (bytes[1] ?? 0),
      bytes,
    };
    (bytes.length === 17 ? this.probes : this.sent).push(sent);
    const behaviour = this.behaviours.get(upstream.id) ?? answering;
    const answer = behaviour(bytes, transmit);
    if (answer === 'silence') return;
    this.later(() => {
      if (answer === 'unreachable') {
        this.forwarder.handleFailure({ upstream: upstream.id, transport }, this.now);
      } else {
        this.forwarder.handleAnswer(
          { upstream: upstream.id, transport, port, bytes: answer },
          this.now,
        );
      }
    });
  }

  /** A call that nobody asked for. */
  timeout(): void {
    this.forwarder.handleTimeout(this.now);
    this.#drain();
  }

  later(deliver: () => void, ms: number = this.latency): void {
    this.#inbox.push({ at: this.now + ms, deliver });
    this.#inbox.sort((a, b) => a.at - b.at);
  }
}

export const answering: Behaviour = (query) => {
  const name = decode(query).questions?.[0]?.name ?? '.';
  return reply(query, { answers: [record(name, 'A', '198.51.100.1')] });
};
export const silent: Behaviour = () => 'silence';
export const unreachable: Behaviour = () => 'unreachable';
export const servfail: Behaviour = (query) => reply(query, { rcode: 2 });
export const refused: Behaviour = (query) => reply(query, { rcode: 5 });

export function udp(source: string): DnsClient {
  return { source, transport: 'udp' };
}

export function tcp(source: string): DnsClient {
  return { source, transport: 'tcp' };
}
