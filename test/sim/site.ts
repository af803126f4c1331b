import type { Configuration } from '../../core/config/configuration.ts';
import { parseConfiguration } from '../../core/config/configuration.ts';
import type { Command } from '../../core/engine/command.ts';
import { Engine } from '../../core/engine/engine.ts';
import type { Event } from '../../core/engine/event.ts';
import type { Input } from '../../core/engine/input.ts';
import type { Transmit } from '../../core/engine/userspace-plane.ts';
import type { FleetDeviceOptions } from '../../core/fleet/fleet-device.ts';
import type { DomainName } from '../../core/dns/name.ts';
import { createPortableCipher } from '../../core/fastpath/portable-cipher.ts';
import { createTwinKernel } from '../../core/fastpath/twin/kernel.ts';
import { parseIpAddress, type IpAddress } from '../../core/net/ip-address.ts';
import type { Clock } from '../../core/plugin/clock.ts';
import { Driver } from '../../core/plugin/driver.ts';
import { FlightRecorder } from '../../core/plugin/flight-recorder.ts';
import type { ControlChannel, Publication } from '../../core/plugin/control-channel.ts';
import type { Files } from '../../core/plugin/files.ts';
import type { Links } from '../../core/plugin/links.ts';
import { NO_FLOWS, type KeptFlows } from '../../core/engine/kept-sessions.ts';
import type { KeptCandidates } from '../../core/engine/kept-candidates.ts';
import type { Streams } from '../../core/plugin/streams.ts';
import { encodeBase64 } from '../../core/sansio/base64.ts';
import { nullLog, type Log } from '../../core/sansio/log.ts';
import { BugError, ok } from '../../core/sansio/outcome.ts';
import type { NamesReach } from '../../openwrt/world-names.ts';
import { World } from '../../openwrt/world.ts';
import type { MemoryNetwork } from '../memory/datagrams.ts';
import { MemoryTunHost, type MemoryTun } from '../memory/packet-device.ts';
import { crypto } from './crypto.ts';
import { MemoryNames } from './memory-names.ts';
import { recordCalls, type Call } from './recording.ts';
import { SeededRandom } from './seeded-random.ts';
import type { VirtualTime } from './virtual-time.ts';

/** A state directory that takes everything and holds nothing. */
const NO_FILES: Files = {
  read: () => undefined,
  write: () => ok(undefined),
  remove: () => undefined,
};

/** Links that are always as wanted. */
const NO_LINKS: Links = {
  apply: () => ({ ...ok({ changes: 0 }), failures: [] }),
  localAddresses: () => [],
  clear: () => undefined,
  monitor: () => () => undefined,
};

/** A machine that dials nobody. */
const NO_STREAMS: Streams = {
  listenTo: () => undefined,
  dial: () => undefined,
  listen: async () => ok(undefined),
  send: () => false,
  close: () => undefined,
  waiting: 0,
};

/** The loop around the engine complains of bugs alone, such as a deadline that does not pass. */
const STRICT_LOG: Log = {
  ...nullLog,
  warn: (message, fields) => {
    throw new BugError(`${message} ${JSON.stringify(fields)}`);
  },
};

/** A daemon of the simulation: the real engine, driver and wiring over devices in memory. */
export class Site {
  readonly publicKey: string;
  readonly engine: Engine;
  readonly tun: MemoryTun;
  readonly events: Event[] = [];
  readonly published: Publication[] = [];
  /** What the LAN asks, and who answers it. */
  readonly names: MemoryNames;
  /** Its outer addresses; the kernel chooses the first one. */
  addresses: readonly IpAddress[];
  readonly #driver: Driver<Input, Event, Transmit, Command>;
  readonly #world: World;

  constructor(options: {
    readonly time: Pick<VirtualTime, 'clock'>;
    readonly network: Pick<MemoryNetwork, 'host'>;
    /** Outer IPv4 address. */
    readonly address: string;
    readonly seed: number;
    /** How often it was started before: the keys stay, all else is drawn anew. */
    readonly restarts?: number;
    /** What the engine works in, all zero; one of its own unless given. */
    readonly arena?: ArrayBuffer;
    /** Returns the addresses of a host name; the answer comes as time goes on. */
    readonly lookUp?: (host: string) => readonly string[];
    readonly links?: Links;
    /** Where it may dial and be dialled; nowhere without it. */
    readonly streams?: Streams;
    readonly keptCandidates?: KeptCandidates;
    readonly keptProxies?: Iterable<readonly [DomainName, number]>;
    readonly keptFlows?: KeptFlows;
    readonly files?: Files;
    /** Of a device of a fleet. */
    readonly fleet?: FleetDeviceOptions;
    /** Where it connects to the fleet by itself; `published` has what it says unless given. */
    readonly control?: ControlChannel;
    /** Takes down every call of the engine. */
    readonly calls?: Call[];
  }) {
    const { time, network, seed, calls } = options;
    this.addresses = [address(options.address)];
    this.publicKey = encodeBase64(crypto.x25519.publicKey(privateKeyOf(new SeededRandom(seed))));
    this.tun = new MemoryTunHost().createDevice();

    const clock = time.clock();
    this.names = new MemoryNames(clock);
    const engine = createEngine(seed, clock, options);
    this.engine = calls === undefined ? engine : recordCalls(engine, calls);
    const host = network.host(
      (candidate) => this.addresses.includes(candidate),
      () => this.addresses[0] ?? address('192.0.2.255'),
    );
    const world = new World({
      engine: this.engine,
      reach: {
        device: this.tun,
        datagrams: host.createDatagrams(),
        links: options.links ?? NO_LINKS,
        files: options.files ?? NO_FILES,
        streams: options.streams ?? NO_STREAMS,
        deviceKey: options.fleet?.signingKey ?? new Uint8Array(32).fill(seed & 0xff),
        control: options.control ?? {
          connect: () => ok(undefined),
          publish: (publication) => void this.published.push(publication),
          checkConnection: () => undefined,
          close: async () => undefined,
        },
        ...reachOfNames(this.names),
        resolve: (host, onAnswer) => clock.soon(() => onAnswer(options.lookUp?.(host) ?? [])),
      },
      clock,
      onEvent: (event) => void this.events.push(event),
    });
    const recorder = new FlightRecorder<Input>(16);
    this.#driver = new Driver({
      agent: this.engine,
      effects: world,
      clock,
      recorder,
      log: STRICT_LOG,
    });
    world.attach(this.#driver);
    this.#world = world;
    if (options.control !== undefined) this.#connect(options.control, options.fleet);
  }

  /** Applies a configuration: the document without its schema version. */
  configure(document: object): void {
    this.input({ type: 'configuration', configuration: configuration(document) });
  }

  input(input: Input): void {
    this.#driver.input(input);
  }

  /** Ends it as a kill does: it says and hears nothing from here on. */
  kill(): void {
    this.#world.detach();
    this.#driver.stop();
  }

  #connect(control: ControlChannel, fleet: FleetDeviceOptions | undefined): void {
    const device = this.engine.fleet;
    if (fleet === undefined || device === undefined) return;
    control.connect({
      brokers: ['mqtt://broker'],
      clientId: fleet.device,
      ca: undefined,
      certificate: undefined,
      privateKey: undefined,
      username: undefined,
      password: undefined,
      subscriptions: device.subscriptions,
      will: () => device.will(),
      onEvent: (event) => this.input({ type: 'control', event }),
    });
  }
}

/** The getters and fields of the class, to be spread. */
function reachOfNames(names: MemoryNames): NamesReach {
  const { dnsListener, dnsUpstreams, dnsInterception, systemNames, ruleset } = names;
  return { dnsListener, dnsUpstreams, dnsInterception, systemNames, ruleset };
}

/** Makes the engine of a seed: its keys and all of its randomness. */
export function createEngine(
  seed: number,
  clock: Clock,
  options: {
    readonly fleet?: FleetDeviceOptions;
    readonly keptCandidates?: KeptCandidates;
    readonly keptProxies?: Iterable<readonly [DomainName, number]>;
    readonly keptFlows?: KeptFlows;
    readonly restarts?: number;
    readonly arena?: ArrayBuffer;
  } = {},
): Engine {
  const { fleet, keptCandidates = new Map(), keptProxies = [], restarts = 0, arena } = options;
  const first = new SeededRandom(seed);
  const privateKey = privateKeyOf(first);
  const random = restarts === 0 ? first : new SeededRandom(seed + restarts * RESTART);
  const kernel = createTwinKernel(arena);
  return new Engine(
    {
      privateKey,
      unixMs: clock.unixMs(),
      crypto,
      random,
      kernel,
      cipher: createPortableCipher('node', crypto.chacha20poly1305, kernel.memory),
      fleet,
      software: 'simulation',
      keptCandidates,
      keptProxies,
      keptFlows: options.keptFlows ?? NO_FLOWS,
      log: nullLog,
    },
    clock.now(),
  );
}

/** Far from the seeds of other sites. */
const RESTART = 1_000_003;

function privateKeyOf(random: SeededRandom): Uint8Array {
  const key = new Uint8Array(32);
  random.fill(key);
  return key;
}

export function configuration(document: object): Configuration {
  const parsed = parseConfiguration({ schema: 1, ...document });
  if (!parsed.ok) throw new Error(JSON.stringify(parsed.errors));
  return parsed.value;
}

export function address(text: string): IpAddress {
  const parsed = parseIpAddress(text);
  if (!parsed.ok) throw new Error(`not an address: ${text}`);
  return parsed.value;
}
