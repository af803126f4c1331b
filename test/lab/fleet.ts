import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Broker } from './broker.ts';
import { DaemonInLab, type Keys } from './daemon.ts';
import type { Lab, Running } from './namespaces.ts';

const OPERATOR = [process.execPath, 'dist/culvert-fleet.cjs'];

/** A fleet with its operator, who works in the namespace of the broker. */
export class FleetInLab {
  readonly #lab: Lab;
  readonly #namespace: string;
  readonly #directory: string;
  readonly #broker: Broker;
  readonly #operatorKey: string;
  readonly #devices = new Map<string, FleetDevice>();
  #version = 0;

  /** `directory` takes keys and documents; `namespace` is where the operator works. */
  static async create(
    lab: Lab,
    namespace: string,
    directory: string,
    broker: Broker,
  ): Promise<FleetInLab> {
    const keygen = [...OPERATOR, 'keygen', '--out', join(directory, 'operator.key'), '--json'];
    const { stdout, stderr } = await lab.exec(namespace, keygen);
    if (stdout === '') throw new Error(stderr);
    const { publicKey } = JSON.parse(stdout) as { publicKey: string };
    return new FleetInLab(lab, namespace, directory, broker, publicKey);
  }

  private constructor(
    lab: Lab,
    namespace: string,
    directory: string,
    broker: Broker,
    operatorKey: string,
  ) {
    this.#lab = lab;
    this.#namespace = namespace;
    this.#directory = directory;
    this.#broker = broker;
    this.#operatorKey = operatorKey;
  }

  /** Makes a device with its keys, which runs in a namespace; it is not started. */
  async device(name: string, namespace: string): Promise<FleetDevice> {
    const daemon = new DaemonInLab(this.#lab, namespace, join(this.#directory, name));
    const keys = await daemon.keys();
    const file = join(this.#directory, `${name}.bootstrap.json`);
    const bootstrap = {
      fleet: 'lab',
      device: name,
      brokers: [this.#broker.url],
      operatorKeys: [this.#operatorKey],
    };
    writeFileSync(file, JSON.stringify(bootstrap));
    const device = new FleetDevice(name, daemon, keys, file);
    this.#devices.set(name, device);
    return device;
  }

  /**
   * Signs a configuration for a device as a newer version and gives it to the broker. With `waitSeconds`
   * it returns when the device, which must run, has applied it, and rejects when it has not.
   */
  async push(name: string, configuration: object, waitSeconds?: number): Promise<void> {
    const file = join(this.#directory, `${name}.desired.json`);
    writeFileSync(file, JSON.stringify({ schema: 1, ...configuration }));
    const version = String(++this.#version);
    const key = join(this.#directory, 'operator.key');
    const signed = ['--fleet', 'lab', '--device', name, '--version', version, file];
    const envelope = join(this.#directory, `${name}.envelope.json`);
    writeFileSync(envelope, await this.#operate(['sign', '--key', key, ...signed]));
    const wait = waitSeconds === undefined ? [] : ['--wait', String(waitSeconds)];
    const deviceKey = ['--device-key', `${name}=${this.#devices.get(name)?.keys.signingPublicKey}`];
    await this.#operate(['push', '--broker', this.#broker.url, ...wait, ...deviceKey, envelope]);
  }

  async #operate(parameters: readonly string[]): Promise<string> {
    const command = [...OPERATOR, ...parameters];
    const result = await this.#lab.exec(this.#namespace, command, { timeoutMs: 60_000 });
    if (result.code !== 0) {
      throw new Error(
        `${parameters[0]} ended with ${result.code}: ${result.stdout}${result.stderr}`,
      );
    }
    return result.stdout;
  }
}

/** A daemon that knows nothing but its bootstrap. */
export class FleetDevice {
  readonly name: string;
  readonly daemon: DaemonInLab;
  readonly keys: Keys;
  readonly #bootstrap: string;
  #running: Running | undefined;

  constructor(name: string, daemon: DaemonInLab, keys: Keys, bootstrap: string) {
    this.name = name;
    this.daemon = daemon;
    this.keys = keys;
    this.#bootstrap = bootstrap;
  }

  /** Starts the daemon alone; does not wait for it. */
  spawn(...options: readonly string[]): Running {
    this.#running = this.daemon.spawnWith('--bootstrap', this.#bootstrap, ...options);
    return this.#running;
  }

  /** Starts the daemon and waits until its configuration runs: pushed, or kept from before. */
  async start(...options: readonly string[]): Promise<Running> {
    const running = this.spawn(...options);
    await running.waitFor(/configuration applied/, 20_000);
    return running;
  }

  /** The process as it was started last. */
  get running(): Running {
    if (this.#running === undefined) throw new Error(`${this.name} was never started`);
    return this.#running;
  }
}
