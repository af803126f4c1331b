import type { Command } from '../core/engine/command.ts';
import type { Engine } from '../core/engine/engine.ts';
import type { Event } from '../core/engine/event.ts';
import type { CommandResult, Input } from '../core/engine/input.ts';
import type { Transmit } from '../core/engine/userspace-plane.ts';
import { takeStreamTrains } from '../core/fastpath/stream-train.ts';
import { parseIpAddress, type IpAddress } from '../core/net/ip-address.ts';
import type { Clock } from '../core/plugin/clock.ts';
import type { ControlChannel } from '../core/plugin/control-channel.ts';
import type { Datagrams } from '../core/plugin/datagrams.ts';
import type { Driver, Effects } from '../core/plugin/driver.ts';
import type { Files } from '../core/plugin/files.ts';
import type { Links } from '../core/plugin/links.ts';
import type { StreamEvent, StreamId, Streams } from '../core/plugin/streams.ts';
import type { PacketDevice } from '../core/plugin/packet-device.ts';
import { failed, ok, unreachable, type Outcome } from '../core/sansio/outcome.ts';
import { NamesWorld, type NamesReach } from './world-names.ts';

/** The capabilities through which the engine reaches the world. */
export interface Reach extends NamesReach {
  readonly device: PacketDevice;
  readonly datagrams: Datagrams;
  readonly links: Links;
  readonly files: Files;
  /** `undefined` where the device stands alone. */
  readonly control: ControlChannel | undefined;
  readonly streams: Streams;
  /** Ed25519 seed of the device, which signs the certificate of its stream listener. Secret. */
  readonly deviceKey: Uint8Array;
  readonly resolve: Resolve;
}

/** Looks up a host name; answers once and later, with IP addresses, the best first, or with none. */
export type Resolve = (host: string, onAnswer: (addresses: readonly string[]) => void) => void;

/** Batches of one wake-up before other sockets and timers get their turn. */
const MOST_BATCHES = 8;

/**
 * Connects the engine's outputs with the plugins, and what the plugins deliver with the engine. Packets
 * never leave the arena on their way through here.
 */
export class World implements Effects<Input, Event, Transmit, Command> {
  readonly #engine: Engine;
  readonly #reach: Reach;
  readonly #clock: Clock;
  readonly #onEvent: (event: Event) => void;
  #driver: Driver<Input, Event, Transmit, Command> | undefined;
  readonly #names: NamesWorld;
  #endMonitor: (() => void) | undefined;
  /** The name of the interface that was configured. */
  #link: string | undefined;
  readonly #openStreams = new Set<StreamId>();
  /** Relays whose name is being looked up: to ask once more brings no other answer. */
  readonly #soughtRelays = new Set<string>();

  constructor(options: {
    readonly engine: Engine;
    readonly reach: Reach;
    readonly clock: Clock;
    readonly onEvent: (event: Event) => void;
  }) {
    this.#engine = options.engine;
    this.#reach = options.reach;
    this.#clock = options.clock;
    this.#onEvent = options.onEvent;
    this.#reach.streams.listenTo((event) => this.#handleStream(event));
    this.#names = new NamesWorld({
      reach: options.reach,
      onDns: (input) => {
        this.#engine.handleDns(input, this.#clock.now());
        this.#driver?.drain();
      },
      onInput: (input) => this.#driver?.input(input),
    });
  }

  /** Where results and events of plugins go. To be called once, before anything runs. */
  attach(driver: Driver<Input, Event, Transmit, Command>): void {
    this.#driver = driver;
  }

  transmit({ route, payload }: Transmit): void {
    const { remote, source, stream } = route;
    if (stream === undefined) this.#reach.datagrams.sendTo(remote, payload, source);
    else this.#reach.streams.send(stream, payload);
  }

  event(event: Event): void {
    this.#onEvent(event);
  }

  flushPackets(): void {
    for (;;) {
      const sends = this.#engine.takeSends();
      const onSockets = this.#openStreams.size > 0 ? this.#sendOnStreams(sends) : sends;
      if (onSockets > 0) this.#reach.datagrams.send(onSockets);
      const writes = this.#engine.takeWrites();
      if (writes > 0) this.#reach.device.write(writes);
      if (sends === 0 && writes === 0) return;
    }
  }

  execute(command: Command): CommandResult | undefined {
    switch (command.type) {
      case 'open-device':
        return this.#openDevice(command);
      case 'listen':
        return this.#listen(command);
      case 'apply-link':
        return this.#applyLink(command);
      case 'resolve':
        return this.#resolve(command);
      case 'read-addresses':
        return {
          type: 'local-addresses',
          addresses: this.#reach.links.localAddresses(command.except),
        };
      case 'resolve-relay':
        return this.#resolveRelay(command);
      case 'dial':
        this.#reach.streams.dial(command.stream, command.target);
        return undefined;
      case 'hang-up':
        this.#reach.streams.close(command.stream);
        this.#openStreams.delete(command.stream);
        return undefined;
      case 'listen-streams':
        return this.#listenStreams(command.port);
      case 'check-broker':
        this.#reach.control?.checkConnection();
        return undefined;
      case 'publish':
        this.#reach.control?.publish(command.publication);
        return undefined;
      case 'store':
        return { type: 'stored', outcome: this.#reach.files.write(command.name, command.bytes) };
      case 'listen-dns':
      case 'intercept-dns':
      case 'read-names':
      case 'ask-dns':
      case 'answer-dns':
      case 'apply-ruleset':
        return this.#names.execute(command);
      default:
        return unreachable(command);
    }
  }

  /** Stops delivering what happens outside, and takes back what would outlive the process. */
  detach(): void {
    this.#endMonitor?.();
    this.#endMonitor = undefined;
    this.#names.detach();
    if (this.#link !== undefined) this.#reach.links.clear(this.#link);
  }

  #openDevice({ name, mtu }: Extract<Command, { type: 'open-device' }>): CommandResult {
    const { device } = this.#reach;
    const outcome = device.open({ name, mtu }, this.#engine.arena, () => this.#readPackets());
    return { type: 'device-opened', outcome };
  }

  #listen({ port, mark }: Extract<Command, { type: 'listen' }>): CommandResult {
    const { datagrams } = this.#reach;
    const outcome = datagrams.listen(port, { mark }, this.#engine.arena, (fd) => this.#receive(fd));
    return { type: 'listening', outcome };
  }

  #applyLink({ link }: Extract<Command, { type: 'apply-link' }>): CommandResult {
    const { links } = this.#reach;
    // Watching begins with the first link, before it is read: no change is missed in between.
    this.#endMonitor ??= links.monitor(() => this.#driver?.input({ type: 'links-changed' }));
    this.#link = link.name;
    const applied = links.apply(link);
    if (applied.ok) {
      return { type: 'link-applied', changes: applied.value.changes, failures: applied.failures };
    }
    const whole = { object: 'interface', code: applied.why, message: applied.why };
    const failures = applied.failures.length > 0 ? applied.failures : [whole];
    return { type: 'link-applied', changes: 0, failures };
  }

  #resolve({ peer, host }: Extract<Command, { type: 'resolve' }>): undefined {
    this.#lookUp(host, (outcome) => this.#driver?.input({ type: 'resolved', peer, host, outcome }));
  }

  #resolveRelay({ relay, host }: Extract<Command, { type: 'resolve-relay' }>): undefined {
    if (this.#soughtRelays.has(relay)) return;
    this.#soughtRelays.add(relay);
    this.#lookUp(host, (outcome) => {
      this.#soughtRelays.delete(relay);
      this.#driver?.input({ type: 'relay-resolved', relay, outcome });
    });
  }

  #lookUp(
    host: string,
    onOutcome: (outcome: Outcome<readonly IpAddress[], 'not-resolved'>) => void,
  ): void {
    this.#reach.resolve(host, (found) => {
      const parsed = found.map((address) => parseIpAddress(address));
      const addresses = parsed.flatMap((address) => (address.ok ? [address.value] : []));
      onOutcome(addresses.length > 0 ? ok(addresses) : failed('not-resolved'));
    });
  }

  #listenStreams(port: number): undefined {
    const { streams, deviceKey } = this.#reach;
    const listening = streams.listen(port === 0 ? undefined : { port, deviceKey });
    void listening.then((outcome) => this.#driver?.input({ type: 'streams-listening', outcome }));
  }

  #handleStream(event: StreamEvent): void {
    const { type, stream } = event;
    if (type === 'opened' || type === 'accepted') this.#openStreams.add(stream);
    if (type === 'closed') this.#openStreams.delete(stream);
    const now = this.#clock.now();
    for (let more = this.#engine.handleStream(event, now); more;) {
      this.flushPackets();
      more = this.#engine.handleMore(now);
    }
    this.#driver?.drain();
  }

  /** Carries the sends whose path is a stream; returns how many are left. */
  #sendOnStreams(count: number): number {
    const { buffer, sends } = this.#engine.arena;
    const { streams } = this.#reach;
    return takeStreamTrains(buffer, sends, count, (stream, bytes) => streams.send(stream, bytes));
  }

  #readPackets(): void {
    const now = this.#clock.now();
    for (let batch = 0; batch < MOST_BATCHES; batch++) {
      const count = this.#reach.device.read();
      if (count === 0) break;
      this.#engine.handlePackets(count, now);
      this.flushPackets();
    }
    this.#driver?.drain();
  }

  #receive(fd: number): void {
    const now = this.#clock.now();
    for (let batch = 0; batch < MOST_BATCHES; batch++) {
      const count = this.#reach.datagrams.receive(fd);
      if (count === 0) break;
      this.#engine.handleDatagrams(count, fd, now);
      this.flushPackets();
    }
    this.#driver?.drain();
  }
}
