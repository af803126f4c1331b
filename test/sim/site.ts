import type { Configuration } from '../../core/config/configuration.ts';
import { parseConfiguration } from '../../core/config/configuration.ts';
import type { Command } from '../../core/engine/command.ts';
import { Engine } from '../../core/engine/engine.ts';
import type { Event } from '../../core/engine/event.ts';
import type { Input } from '../../core/engine/input.ts';
import type { Transmit } from '../../core/engine/userspace-plane.ts';
import type { FleetDeviceOptions } from '../../core/fleet/fleet-device.ts';
import { createPortableCipher } from '../../core/fastpath/portable-cipher.ts';
import { createTwinKernel } from '../../core/fastpath/twin/kernel.ts';
import { parseIpAddress, type IpAddress } from '../../core/net/ip-address.ts';
import type { Clock } from '../../core/plugin/clock.ts';
import { Driver } from '../../core/plugin/driver.ts';
import { FlightRecorder } from '../../core/plugin/flight-recorder.ts';
import type { Publication } from '../../core/plugin/control-channel.ts';
import type { Files } from '../../core/plugin/files.ts';
import type { Links } from '../../core/plugin/links.ts';
import type { KeptCandidates } from '../../core/engine/kept-candidates.ts';
import type { Streams } from '../../core/plugin/streams.ts';
import { encodeBase64 } from '../../core/sansio/base64.ts';
import { nullLog } from '../../core/sansio/log.ts';
import { ok } from '../../core/sansio/outcome.ts';
import { World } from '../../openwrt/world.ts';
import { createNobleCrypto } from '../../plugins/crypto-noble/index.ts';
import { createNodeCrypto } from '../../plugins/crypto-node/index.ts';
import type { MemoryNetwork } from '../memory/datagrams.ts';
import { MemoryTunHost, type MemoryTun } from '../memory/packet-device.ts';
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

const crypto = createNodeCrypto(createNobleCrypto());

/** A daemon of the simulation: the real engine, driver and wiring over devices in memory. */
export class Site {
  readonly publicKey: string;
  readonly engine: Engine;
  readonly tun: MemoryTun;
  readonly events: Event[] = [];
  readonly published: Publication[] = [];
  /** Its outer addresses; the kernel chooses the first one. */
  addresses: readonly IpAddress[];
  readonly #driver: Driver<Input, Event, Transmit, Command>;

  constructor(options: {
    readonly time: VirtualTime;
    readonly network: MemoryNetwork;
    /** Outer IPv4 address. */
    readonly address: string;
    readonly seed: number;
    /** Returns the addresses of a host name; the answer comes as time goes on. */
    readonly lookUp?: (host: string) => readonly string[];
    readonly links?: Links;
    /** Where it may dial and be dialled; nowhere without it. */
    readonly streams?: Streams;
    readonly keptCandidates?: KeptCandidates;
    readonly files?: Files;
    /** Of a device of a fleet. */
    readonly fleet?: FleetDeviceOptions;
    /** Takes down every call of the engine. */
    readonly calls?: Call[];
  }) {
    const { time, network, seed, calls } = options;
    this.addresses = [address(options.address)];
    this.publicKey = encodeBase64(crypto.x25519.publicKey(privateKeyOf(new SeededRandom(seed))));
    this.tun = new MemoryTunHost().createDevice();

    const clock = time.clock();
    const engine = createEngine(seed, clock, options.fleet, options.keptCandidates);
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
        deviceKey: new Uint8Array(32).fill(seed & 0xff),
        control: {
          connect: () => ok(undefined),
          publish: (publication) => void this.published.push(publication),
          checkConnection: () => undefined,
          close: async () => undefined,
        },
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
      log: nullLog,
    });
    world.attach(this.#driver);
  }

  /** Applies a configuration: the document without its schema version. */
  configure(document: object): void {
    this.input({ type: 'configuration', configuration: configuration(document) });
  }

  input(input: Input): void {
    this.#driver.input(input);
  }
}

/** Makes the engine of a seed: its keys and all of its randomness. */
export function createEngine(
  seed: number,
  clock: Clock,
  fleet?: FleetDeviceOptions,
  keptCandidates: KeptCandidates = new Map(),
): Engine {
  const random = new SeededRandom(seed);
  const kernel = createTwinKernel();
  return new Engine(
    {
      privateKey: privateKeyOf(random),
      unixMs: clock.unixMs(),
      crypto,
      random,
      kernel,
      cipher: createPortableCipher('node', crypto.chacha20poly1305, kernel.memory),
      fleet,
      software: 'simulation',
      keptCandidates,
      log: nullLog,
    },
    clock.now(),
  );
}

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
