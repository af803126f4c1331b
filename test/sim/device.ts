import { parseName, type Name } from '../../core/config/name.ts';
import type { Engine } from '../../core/engine/engine.ts';
import { KEPT_CANDIDATES, readKeptCandidates } from '../../core/engine/kept-candidates.ts';
import type { PathsStatus } from '../../core/engine/path-status.ts';
import type { FleetDeviceOptions } from '../../core/fleet/fleet-device.ts';
import type { IpAddress } from '../../core/net/ip-address.ts';
import type { Files } from '../../core/plugin/files.ts';
import type { Links } from '../../core/plugin/links.ts';
import type { Millis } from '../../core/sansio/instant.ts';
import { nullLog } from '../../core/sansio/log.ts';
import { ok } from '../../core/sansio/outcome.ts';
import type { MemoryStreams } from '../memory/streams.ts';
import type { Arenas } from './arenas.ts';
import type { Broker, Channel } from './broker.ts';
import { crypto } from './crypto.ts';
import type { Host } from './host.ts';
import { receivedNumbers, sendNumber } from './numbered-packets.ts';
import type { Call } from './recording.ts';
import { SeededRandom } from './seeded-random.ts';
import { createEngine, Site } from './site.ts';
import { START_UNIX_MS } from './world.ts';

/**
 * A router of a simulated world with a daemon, which may be killed and started again: its keys, its
 * state directory and its configuration outlast that.
 */
export class Device {
  readonly name: Name;
  readonly host: Host;
  /** Its address in the tunnel. */
  readonly address: string;
  readonly publicKey: string;
  readonly #seed: number;
  readonly #broker: Broker;
  readonly #arenas: Arenas;
  readonly #makeStreams: (() => MemoryStreams) | undefined;
  #streams: MemoryStreams | undefined;
  readonly #calls: Call[] | undefined;
  readonly #files = new Map<string, Uint8Array>();
  #arena: ArrayBuffer;
  #channel: Channel;
  #site: Site;
  #document: object = {};
  #restarts = 0;
  #isRunning = true;
  #onLinksChanged: () => void = () => undefined;
  /** What arrived at daemons of earlier starts. */
  readonly #receivedBefore: number[] = [];

  constructor(options: {
    readonly name: string;
    readonly host: Host;
    readonly address: string;
    readonly seed: number;
    readonly broker: Broker;
    readonly arenas: Arenas;
    /** Takes down every call of the engine of the first start. */
    readonly calls?: Call[];
    /** Makes the stream transport of one start. */
    readonly streams?: () => MemoryStreams;
  }) {
    const name = parseName(options.name);
    if (name === undefined) throw new Error(`no name: ${options.name}`);
    this.name = name;
    this.host = options.host;
    this.address = options.address;
    this.#seed = options.seed;
    this.#broker = options.broker;
    this.#arenas = options.arenas;
    this.#calls = options.calls;
    this.#makeStreams = options.streams;
    [this.#arena, this.#channel, this.#site] = this.#begin();
    this.publicKey = this.#site.publicKey;
  }

  get site(): Site {
    return this.#site;
  }

  /** Applies a configuration: the document without its schema version. It holds after a restart too. */
  configure(document: object): void {
    this.#document = document;
    this.#site.configure(document);
  }

  /** The machine has other addresses, and tells the daemon. */
  readdress(addresses: readonly IpAddress[]): void {
    this.host.readdress(addresses);
    this.#site.addresses = addresses;
    this.#onLinksChanged();
  }

  /** The daemon is killed without a word, and starts again after so many milliseconds. */
  restart(downFor: Millis): void {
    if (!this.#isRunning) return;
    this.#end();
    this.#restarts++;
    this.host.timeline.in(downFor, () => {
      [this.#arena, this.#channel, this.#site] = this.#begin();
      this.#isRunning = true;
      this.#site.configure(this.#document);
    });
  }

  /** At the end of its world. */
  dispose(): void {
    if (this.#isRunning) this.#end();
  }

  send(to: Device, number: number): void {
    sendNumber(this.#site.tun, this.address, to.address, number);
  }

  get received(): readonly number[] {
    return [...this.#receivedBefore, ...receivedNumbers(this.#site.tun)];
  }

  /** Makes the engine of the first start again, to replay its calls on; at the start of a world. */
  twin(): Engine {
    return createEngine(this.#seed, this.host.clock(), { fleet: this.#fleetOptions() });
  }

  /** How packets get to a peer, as its status tells. */
  path(peer: Device): PathsStatus | undefined {
    return this.#site.engine.status().peers.find(({ id }) => id === peer.name)?.path;
  }

  #end(): void {
    this.#isRunning = false;
    this.#receivedBefore.push(...receivedNumbers(this.#site.tun));
    this.#site.kill();
    this.#channel.kill();
    this.#streams?.stop();
    this.host.kill();
    this.#arenas.giveBack(this.#arena);
  }

  #begin(): [ArrayBuffer, Channel, Site] {
    const seed = this.#seed;
    const arena = this.#arenas.take();
    const channel = this.#broker.channel();
    const links: Links = {
      apply: () => ({ ...ok({ changes: 0 }), failures: [] }),
      localAddresses: () => this.host.addresses,
      clear: () => undefined,
      monitor: (onChange) => {
        this.#onLinksChanged = onChange;
        return () => {
          this.#onLinksChanged = () => undefined;
        };
      },
    };
    const files: Files = {
      read: (name) => this.#files.get(name),
      write: (name, bytes) => {
        this.#files.set(name, bytes.slice());
        return ok(undefined);
      },
      remove: (name) => void this.#files.delete(name),
    };
    this.#streams = this.#makeStreams?.();
    const site = new Site({
      time: this.host,
      network: this.host.transports,
      address: '192.0.2.255',
      seed,
      restarts: this.#restarts,
      arena,
      links,
      files,
      control: channel,
      ...(this.#streams && { streams: this.#streams }),
      keptCandidates: readKeptCandidates(this.#files.get(KEPT_CANDIDATES) ?? new Uint8Array(0)),
      fleet: this.#fleetOptions(),
      ...(this.#calls && this.#restarts === 0 && { calls: this.#calls }),
    });
    site.addresses = this.host.addresses;
    return [arena, channel, site];
  }

  #fleetOptions(): FleetDeviceOptions {
    const signingKey = new Uint8Array(32);
    new SeededRandom(this.#seed + 78).fill(signingKey);
    return {
      fleet: 'sim' as Name,
      device: this.name,
      operatorKeys: [],
      signingKey,
      bootId: 1 + this.#restarts,
      software: 'simulation',
      kept: undefined,
      unixMs: this.host.unixMs,
      clockFloorMs: START_UNIX_MS,
      crypto,
      random: new SeededRandom(this.#seed + 77 + this.#restarts),
      log: nullLog,
    };
  }
}
