import { mkdirSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import type { Bootstrap } from '../core/config/bootstrap.ts';
import type { Configuration } from '../core/config/configuration.ts';
import type { Command } from '../core/engine/command.ts';
import { Engine } from '../core/engine/engine.ts';
import type { Event } from '../core/engine/event.ts';
import { KEPT_CANDIDATES, readKeptCandidates } from '../core/engine/kept-candidates.ts';
import { KEPT_PROXIES, readKeptProxies } from '../core/engine/kept-proxies.ts';
import { KEPT_SESSIONS, readKeptFlows } from '../core/engine/kept-sessions.ts';
import type { Input } from '../core/engine/input.ts';
import type { Status } from '../core/engine/status.ts';
import type { UapiRefusal } from '../core/engine/uapi-configuration.ts';
import type { Transmit } from '../core/engine/userspace-plane.ts';
import { controlChannel } from '../core/plugin/control-channel.ts';
import type { Clock } from '../core/plugin/clock.ts';
import { datagrams } from '../core/plugin/datagrams.ts';
import { dnsInterception } from '../core/plugin/dns-interception.ts';
import { dnsListener } from '../core/plugin/dns-listener.ts';
import { dnsUpstreams } from '../core/plugin/dns-upstreams.ts';
import { Driver } from '../core/plugin/driver.ts';
import { files, type Files } from '../core/plugin/files.ts';
import { FlightRecorder } from '../core/plugin/flight-recorder.ts';
import { Plugins } from '../core/plugin/host.ts';
import { links } from '../core/plugin/links.ts';
import { native } from '../core/plugin/native.ts';
import { packetDevice } from '../core/plugin/packet-device.ts';
import { ruleset } from '../core/plugin/ruleset.ts';
import { systemNames } from '../core/plugin/system-names.ts';
import { streams } from '../core/plugin/streams.ts';
import type { Log, Severity } from '../core/sansio/log.ts';
import type { UapiSet } from '../core/wireguard/uapi.ts';
import { createNobleCrypto } from '../plugins/crypto-noble/index.ts';
import { createNodeCrypto } from '../plugins/crypto-node/index.ts';
import { createTunDataplane } from '../plugins/dataplane-tun/index.ts';
import { createMqttControlChannel } from '../plugins/fleet-mqtt/index.ts';
import { createLocalApi, createUapiSocket, type LocalServer } from '../plugins/local-api/index.ts';
import { createLog, type LogSink } from '../plugins/log/index.ts';
import { createDnsInterception } from '../plugins/dns-intercept/index.ts';
import { createDnsListener } from '../plugins/dns-listener/index.ts';
import { createDnsUpstreams } from '../plugins/dns-upstream/index.ts';
import { createConntrack, createNetlink, createRuleset } from '../plugins/netlink/index.ts';
import {
  createFiles,
  createNative,
  createNodeClock,
  nodeRandom,
} from '../plugins/platform-node/index.ts';
import { createSystemNames } from '../plugins/system-names/index.ts';
import { createStreamTransport } from '../plugins/transport-stream/index.ts';
import { createUdpTransport } from '../plugins/transport-udp/index.ts';
import { readPem } from './configuration-file.ts';
import { resourceMethods } from './daemon-methods.ts';
import type { DaemonStatus } from './daemon-status.ts';
import { logEvent } from './event-log.ts';
import { CommandError } from './exit-code.ts';
import { createFastPath, formatTrial, type CipherName, type CryptoReport } from './fast-path.ts';
import { fleetOptions } from './fleet-device.ts';
import { messageOf, writeFlightRecord } from './flight-record.ts';
import { loadIdentity, type Identity } from './identity.ts';
import { UAPI_DIRECTORY } from './paths.ts';
import { createResolve, systemLookUp } from './resolve.ts';
import { socketError, startError } from './start-error.ts';
import { readStateFile } from './state-file.ts';
import { commit, version } from './version.ts';
import { World, type Reach } from './world.ts';

export interface DaemonOptions {
  /** Stand-alone with a configuration, or a device of a fleet. */
  readonly mode:
    | { readonly type: 'local'; configuration(): Configuration }
    | { readonly type: 'fleet'; readonly bootstrap: Bootstrap };
  readonly stateDirectory: string;
  readonly socket: string;
  readonly logDirectory: string | undefined;
  readonly logLevel: Severity | undefined;
  readonly nativeFile: string;
  /** Seals packets with this one instead of the fastest. */
  readonly cipher: CipherName | undefined;
}

/** Inputs kept for the flight record: a few minutes of a busy router. */
const RECORDED_INPUTS = 1024;
const WALL_CLOCK_INTERVAL_MS = 60_000;
/** Size at which a log file is put aside, and how many of these stay. */
const LOG_FILE_BYTES = 4 * 2 ** 20;
const LOG_FILES = 3;
/** How long the last messages to the broker may take at the end. */
const STOP_GRACE_MS = 1000;

/** Runs the daemon until it is told to stop; throws `CommandError` where it cannot start. */
export async function runDaemon(options: DaemonOptions): Promise<void> {
  const clock = createNodeClock();
  const { mode } = options;
  const configuration = mode.type === 'local' ? mode.configuration() : undefined;
  const sink = createLog({
    level: options.logLevel ?? configuration?.log.level ?? 'info',
    clock,
    version,
    commit,
    descriptor: 1,
    ...(options.logDirectory === undefined ? {} : { file: logFile(options.logDirectory) }),
  });
  const plugins = new Plugins(sink.log, clock);
  try {
    plugins.start([
      createFiles({ directory: options.stateDirectory }),
      createNative({ path: options.nativeFile }),
      createTunDataplane(),
      createUdpTransport(),
      createStreamTransport(),
      createNetlink(),
      createRuleset(),
      createConntrack(),
      createDnsListener(),
      createDnsUpstreams(),
      createDnsInterception(),
      createSystemNames(),
      ...(mode.type === 'fleet' ? [createMqttControlChannel()] : []),
    ]);
    await new Daemon(options, { sink, clock, plugins, configuration }).run();
  } finally {
    await plugins.stop();
    sink.close();
  }
}

interface Surroundings {
  readonly sink: LogSink;
  readonly clock: Clock;
  readonly plugins: Plugins;
  readonly configuration: Configuration | undefined;
}

class Daemon {
  readonly #options: DaemonOptions;
  readonly #sink: LogSink;
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #reach: Reach;
  readonly #crypto: CryptoReport;
  readonly #engine: Engine;
  readonly #world: World;
  readonly #driver: Driver<Input, Event, Transmit, Command>;
  readonly #first: Configuration | undefined;
  readonly #recorder = new FlightRecorder<Input>(RECORDED_INPUTS);
  #uapi: { readonly path: string; readonly server: LocalServer } | undefined;
  #isRunning = false;
  /** Whether an error of our own ends us. */
  #isBroken = false;
  /** Ends `run`. */
  #end: (failure: CommandError | undefined) => void = () => undefined;

  constructor(options: DaemonOptions, { sink, clock, plugins, configuration }: Surroundings) {
    const { log } = sink;
    const crypto = createNodeCrypto(createNobleCrypto());
    this.#options = options;
    this.#sink = sink;
    this.#log = log;
    this.#clock = clock;
    this.#first = configuration;
    const store = filesOf(plugins);
    const identity = loadIdentity(store, crypto, nodeRandom);
    this.#reach = reachOf(plugins, store, identity);
    const { kernel, cipher, report } = createFastPath(crypto, options.cipher, plugins.find(native));
    this.#crypto = report;
    log.info('packet path chosen', {
      crypto: report.provider,
      cipher: report.cipher,
      trials: report.trials.map(formatTrial),
    });
    const { mode } = options;
    const unixMs = clock.unixMs();
    const fleet =
      mode.type === 'fleet'
        ? fleetOptions(mode.bootstrap, { identity, store: this.#reach.files, crypto, log, unixMs })
        : undefined;
    const { privateKey } = identity;
    this.#engine = new Engine(
      {
        privateKey,
        unixMs,
        crypto,
        random: nodeRandom,
        kernel,
        cipher,
        fleet,
        software: `culvert ${version}`,
        keptCandidates: readKeptCandidates(keptIn(store, KEPT_CANDIDATES)),
        keptProxies: readKeptProxies(keptIn(store, KEPT_PROXIES)),
        keptFlows: readKeptFlows(keptIn(store, KEPT_SESSIONS), unixMs),
        log,
      },
      clock.now(),
    );
    this.#world = new World({
      engine: this.#engine,
      reach: this.#reach,
      clock,
      onEvent: (event) => this.#onEvent(event),
    });
    this.#driver = new Driver({
      agent: this.#engine,
      effects: this.#world,
      clock,
      recorder: this.#recorder,
      log,
    });
    this.#world.attach(this.#driver);
  }

  async run(): Promise<void> {
    const localApi = createLocalApi({
      path: this.#options.socket,
      methods: {
        ...resourceMethods(this.#engine.resources, this.#clock),
        status: () => this.#status(),
        drain: (params) => this.#drain(params),
      },
      log: this.#log,
    });
    const calendar = setInterval(() => this.#tellTime(), WALL_CLOCK_INTERVAL_MS);
    const signals = this.#listenToSignals();
    const onBug = (error: unknown): void => this.#end(this.#onBug(error));
    // It stays to the end of the process: what is broken may break again on the way out.
    process.on('uncaughtException', onBug);
    try {
      const ended = new Promise<CommandError | undefined>((resolve) => {
        this.#end = resolve;
      });
      const started = await localApi.start();
      if (!started.ok) throw socketError(this.#options.socket, started.why);
      this.#begin();
      const failure = await ended;
      if (failure !== undefined) throw failure;
    } catch (error) {
      throw error instanceof CommandError ? error : this.#onBug(error);
    } finally {
      clearInterval(calendar);
      signals.abort();
      this.#world.detach();
      await Promise.all([this.#reach.control?.close(STOP_GRACE_MS), this.#flushStreams()]);
      this.#driver.stop();
      await this.#uapi?.server.stop();
      await localApi.stop();
    }
  }

  #begin(): void {
    if (this.#first !== undefined) {
      this.#driver.input({ type: 'configuration', configuration: this.#first });
    }
    if (this.#options.mode.type === 'fleet') this.#connect(this.#options.mode.bootstrap);
    this.#driver.drain();
  }

  #connect(bootstrap: Bootstrap): void {
    const { fleet } = this.#engine;
    const { control } = this.#reach;
    if (fleet === undefined || control === undefined) return;
    const connecting = control.connect({
      brokers: bootstrap.brokers,
      clientId: `culvert-${bootstrap.fleet}-${bootstrap.device}`,
      ca: readPem(bootstrap.ca, 'the authority of the broker'),
      certificate: readPem(bootstrap.certificate, 'the certificate of this device'),
      privateKey: readPem(bootstrap.privateKey, 'the key of the certificate'),
      username: bootstrap.username,
      password: bootstrap.password,
      subscriptions: fleet.subscriptions,
      will: () => fleet.will(),
      onEvent: (event) => this.#driver.input({ type: 'control', event }),
    });
    if (!connecting.ok) {
      throw new CommandError('configuration', 'brokers: one of them is not the URL of a broker');
    }
  }

  #status(): DaemonStatus {
    return { ...this.#engine.status(), crypto: this.#crypto };
  }

  /** The daemon ends by itself once its peers have done with it. */
  #drain(params: unknown): Status['phase'] {
    const isCancel = isObject(params) && params['cancel'] === true;
    this.#driver.input({ type: isCancel ? 'cancel-drain' : 'drain' });
    return this.#engine.status().phase;
  }

  #listenToSignals(): AbortController {
    const listening = new AbortController();
    const on = (signal: NodeJS.Signals, handle: () => void): void => {
      process.on(signal, handle);
      listening.signal.addEventListener('abort', () => process.off(signal, handle));
    };
    on('SIGTERM', () => this.#stop('leaving', { signal: 'SIGTERM' }));
    on('SIGINT', () => this.#stop('leaving', { signal: 'SIGINT' }));
    on('SIGUSR2', () => this.#stop('restarting', { signal: 'SIGUSR2' }));
    on('SIGHUP', () => this.#reload());
    return listening;
  }

  #stop(reason: 'leaving' | 'restarting', cause: { readonly signal?: string }): void {
    this.#log.info('stopping', { ...cause, reason });
    this.#driver.input({ type: 'stop', reason });
    this.#end(undefined);
  }

  /** Waits until the last messages to peers have left; UDP has taken its own already. */
  async #flushStreams(): Promise<void> {
    const deadline = performance.now() + STOP_GRACE_MS;
    while (this.#reach.streams.waiting > 0 && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  /** A file that is refused leaves the running configuration alone. */
  #reload(): void {
    const { mode } = this.#options;
    if (mode.type === 'fleet') return this.#log.info('nothing to reload: the fleet configures us');
    try {
      this.#driver.input({ type: 'configuration', configuration: mode.configuration() });
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      this.#log.warn('configuration refused, the running one stays', { why: error.message });
      this.#driver.input({ type: 'configuration-refused', why: error.message });
    }
  }

  /**
   * Whatever nobody expected: what led to it is written down, once, and the supervisor starts us anew.
   * Returns the end of the command.
   */
  #onBug(error: unknown): CommandError {
    this.#driver.stop();
    const message = messageOf(error);
    if (!this.#isBroken) {
      this.#isBroken = true;
      const file = writeFlightRecord(this.#options.socket, this.#recorder.inputs(), error);
      this.#log.error('error of culvert itself', { error: message, flightRecord: file });
    }
    return new CommandError('bug', `an error of culvert itself: ${message}`, { cause: error });
  }

  #tellTime(): void {
    this.#driver.input({ type: 'wall-clock', unixMs: this.#clock.unixMs() });
  }

  #onEvent(event: Event): void {
    logEvent(this.#log, event);
    const { type } = event;
    if (type === 'configuration-applied') this.#onRunning();
    else if (type === 'configuration-failed') this.#onFailed(event);
    else if (type === 'log-level' && this.#options.logLevel === undefined) {
      this.#sink.setLevel(event.level);
    } else if (type === 'drained') this.#stop('leaving', {});
  }

  #onFailed(event: Extract<Event, { type: 'configuration-failed' }>): void {
    if (event.running) return this.#onRunning();
    // Standing alone there is nobody who could send a better one.
    if (!this.#isRunning && event.version === undefined) this.#end(startError(event.failures));
  }

  #onRunning(): void {
    this.#isRunning = true;
    const name = this.#engine.status().interface?.name;
    if (name !== undefined) void this.#serveUapi(name);
  }

  async #serveUapi(name: string): Promise<void> {
    const path = join(UAPI_DIRECTORY, `${name}.sock`);
    if (this.#uapi?.path === path) return;
    await this.#uapi?.server.stop();
    const server = createUapiSocket({
      path,
      handler: {
        get: () => this.#engine.uapiState(),
        set: (request) => this.#setByUapi(request),
      },
      log: this.#log,
    });
    this.#uapi = { path, server };
    const started = await server.start();
    if (started.ok) return;
    const effect = 'wg show will not see this daemon';
    this.#log.warn('no socket for wg', { why: started.why, path, effect });
  }

  /** Returns the errno for `wg`. */
  #setByUapi(request: UapiSet): number {
    const refusal = this.#engine.uapiRefusal(request);
    if (refusal !== undefined) return UAPI_REFUSAL_ERRNO[refusal];
    this.#driver.input({ type: 'uapi-set', request });
    const { listenPort = 0 } = request;
    const isListening = listenPort === 0 || listenPort === this.#engine.uapiState().listenPort;
    return isListening ? 0 : constants.errno.EADDRINUSE;
  }
}

const UAPI_REFUSAL_ERRNO: Readonly<Record<UapiRefusal, number>> = {
  'too-many': constants.errno.ENOSPC,
  invalid: constants.errno.EINVAL,
};

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null;
}

function logFile(directory: string): { path: string; maxBytes: number; keep: number } {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  } catch {
    // The log says so itself when it cannot write; that is no reason not to start.
  }
  return { path: join(directory, 'culvert.log'), maxBytes: LOG_FILE_BYTES, keep: LOG_FILES };
}

function filesOf(plugins: Plugins): Files {
  const store = plugins.find(files);
  if (store === undefined) throw new CommandError('failure', 'the state directory cannot be used');
  return store;
}

/** Nothing where it cannot be read: it is only a start. */
function keptIn(store: Files, name: string): Uint8Array {
  return readStateFile(store, name) ?? new Uint8Array(0);
}

function reachOf(plugins: Plugins, store: Files, { signingKey }: Identity): Reach {
  const [native] = plugins.skipped;
  const device = plugins.find(packetDevice);
  const sockets = plugins.find(datagrams);
  const connected = plugins.find(streams);
  const network = plugins.find(links);
  const listener = plugins.find(dnsListener);
  const upstreams = plugins.find(dnsUpstreams);
  const names = plugins.find(systemNames);
  if (!device || !sockets || !connected || !network || !listener || !upstreams || !names) {
    throw new CommandError('no-native', native?.why ?? 'a plugin is missing');
  }
  return {
    device,
    datagrams: sockets,
    streams: connected,
    deviceKey: signingKey,
    links: network,
    files: store,
    control: plugins.find(controlChannel),
    resolve: createResolve(systemLookUp),
    dnsListener: listener,
    dnsUpstreams: upstreams,
    systemNames: names,
    dnsInterception: plugins.find(dnsInterception),
    ruleset: plugins.find(ruleset),
  };
}
