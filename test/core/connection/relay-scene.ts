import type { RelayConfiguration } from '../../../core/config/configuration.ts';
import { parseRelayUrl } from '../../../core/config/relay-url.ts';
import type { RelayEvent } from '../../../core/connection/relay.ts';
import { Relays } from '../../../core/connection/relays.ts';
import type { IpAddress } from '../../../core/net/ip-address.ts';
import type { SocketAddress } from '../../../core/net/socket-address.ts';
import { instantAt, type Instant } from '../../../core/sansio/instant.ts';
import { nullLog } from '../../../core/sansio/log.ts';
import { decodeStun, type ReceivedStun } from '../../../core/stun/message.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';
import { crypto, TurnServer, UNIX_MS } from '../turn/turn-scene.ts';

/** Relays of a device, and the servers that they are, on a virtual clock. */

export class Server extends TurnServer {
  readonly address: SocketAddress;
  /** One way. */
  latency = 10;
  isDown = false;
  /** How many of the next requests are lost on their way. */
  losses = 0;

  constructor(address: string, relayed: string) {
    super();
    this.address = address as SocketAddress;
    this.relayed = [relayed as SocketAddress];
  }

  override answer(message: Uint8Array): Uint8Array | undefined {
    if (this.isDown) return undefined;
    if (this.losses > 0) {
      this.losses--;
      return undefined;
    }
    return super.answer(message);
  }
}

export function configurationOf(text: string, credential = 'secret'): RelayConfiguration {
  const url = parseRelayUrl(text);
  if (!url.ok) throw new Error(text);
  return { url: url.value, username: 'alice', credential };
}

type Sent = { readonly at: number; readonly to: SocketAddress; readonly request: ReceivedStun };

export class RelayScene {
  readonly relays: Relays;
  readonly servers: readonly Server[];
  readonly names = new Map<string, readonly string[]>();
  /** Whether dialled streams open. */
  opens = true;
  #now = 0;
  #lastStream = 0;
  #sent: Sent[] = [];
  #events: { readonly at: number; readonly event: RelayEvent }[] = [];
  #due: { readonly at: number; readonly act: () => void }[] = [];

  constructor(servers: readonly Server[], seed = 1) {
    this.servers = servers;
    this.relays = new Relays({
      random: new SeededRandom(seed),
      crypto,
      log: nullLog,
      software: 'culvert',
      device: 'left',
      unixMs: (at) => UNIX_MS + at,
      nextStream: () => (this.#lastStream += 2),
    });
  }

  get now(): Instant {
    return instantAt(this.#now);
  }

  set(...relays: readonly (string | RelayConfiguration)[]): readonly string[] {
    const wanted = relays.map((one) => (typeof one === 'string' ? configurationOf(one) : one));
    return this.relays.set(wanted, this.now);
  }

  run(ms: number): this {
    const end = this.#now + ms;
    for (let rounds = 0; ; rounds++) {
      if (rounds > 50_000) throw new Error('the relays spin');
      this.settle();
      const deadline = this.relays.pollTimeout();
      if (deadline?.at !== this.relays.pollTimeout()?.at) throw new Error('polls differ');
      const arrival = Math.min(...this.#due.map(({ at }) => at));
      const next = Math.min(deadline?.at ?? Infinity, arrival);
      if (next > end) break;
      if (next < this.#now) throw new Error(`${deadline?.reason} is due in the past`);
      this.#now = next;
      if (arrival <= next) this.#due.splice(this.#indexOfDue(), 1)[0]?.act();
      else this.timeout();
    }
    this.#now = end;
    return this;
  }

  /** Asserts that nothing stays due. */
  timeout(): void {
    this.relays.handleTimeout(this.now);
    this.settle();
    const next = this.relays.pollTimeout();
    if (next !== undefined && next.at <= this.#now) throw new Error(`${next.reason} stays due`);
  }

  sleep(ms: number): void {
    this.#now += ms;
  }

  settle(): void {
    for (let sent; (sent = this.relays.pollTransmit()) !== undefined;) {
      const { to, stream, payload } = sent;
      const decoded = decodeStun(payload);
      if (!decoded.ok) throw new Error('sent what does not decode');
      this.#sent.push({ at: this.#now, to, request: decoded.value });
      const server = this.#at(to);
      const answer = server?.answer(payload);
      if (server === undefined || answer === undefined) continue;
      this.#later(2 * server.latency, () => this.#deliver(to, stream, answer));
    }
    for (let event; (event = this.relays.pollEvent()) !== undefined;) {
      this.#events.push({ at: this.#now, event });
      this.#handle(event);
    }
  }

  takeEvents(): readonly RelayEvent[] {
    return this.#events.splice(0).map(({ event }) => event);
  }

  /** Seconds and method of what was sent since the last call. */
  takeSent(): readonly Sent[] {
    return this.#sent.splice(0);
  }

  methods(): readonly string[] {
    return this.takeSent().map(({ request }) => request.method);
  }

  #handle(event: RelayEvent): void {
    if (event.type === 'resolve') {
      const found = this.names.get(event.host) ?? [];
      const { relay } = event;
      this.#later(5, () => {
        this.relays.handleResolved(relay, found as readonly IpAddress[], this.now);
      });
    } else if (event.type === 'dial') {
      const { stream } = event;
      const isUp = this.opens && this.#at(event.target.address)?.isDown === false;
      this.#later(10, () => {
        if (isUp) this.relays.of(stream)?.handleOpened(this.now);
        else this.relays.of(stream)?.handleClosed('refused', this.now);
      });
    }
  }

  #deliver(from: SocketAddress, stream: number | undefined, message: Uint8Array): void {
    const relay = stream === undefined ? this.relays.at(from) : this.relays.of(stream);
    if (relay === undefined) return;
    if (stream === undefined) return this.relays.handleMessage(relay, message, this.now);
    for (const frame of relay.takeFrames(message, this.now)) relay.handleMessage(frame, this.now);
  }

  #at(address: SocketAddress): Server | undefined {
    return this.servers.find((server) => server.address === address);
  }

  #later(ms: number, act: () => void): void {
    this.#due.push({ at: this.#now + ms, act });
  }

  #indexOfDue(): number {
    return this.#due.findIndex(({ at }) => at <= this.#now);
  }
}
