import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Lab, Running } from './namespaces.ts';

const MOSQUITTO = '/usr/sbin/mosquitto';

/** A Mosquitto in a namespace, over plain TCP, which lets anybody in. */
export class Broker {
  readonly url: string;
  readonly #lab: Lab;
  readonly #namespace: string;
  readonly #configuration: string;
  #running: Running | undefined;

  static async start(
    lab: Lab,
    namespace: string,
    directory: string,
    address: string,
    port = 1883,
  ): Promise<Broker> {
    const file = join(directory, `mosquitto-${address}.conf`);
    // It retains nothing over a restart: a broker that forgot all is the harder case.
    const lines = [
      `listener ${port} ${address}`,
      'allow_anonymous true',
      'user root',
      'log_type all',
    ];
    writeFileSync(file, `${lines.join('\n')}\n`);
    const broker = new Broker(lab, namespace, file, `mqtt://${address}:${port}`);
    await broker.start();
    return broker;
  }

  private constructor(lab: Lab, namespace: string, configuration: string, url: string) {
    this.#lab = lab;
    this.#namespace = namespace;
    this.#configuration = configuration;
    this.url = url;
  }

  async start(): Promise<void> {
    this.#running = this.#lab.spawn(this.#namespace, [MOSQUITTO, '-c', this.#configuration]);
    await this.#running.waitFor(/mosquitto version .* running/, 10_000);
  }

  async kill(): Promise<void> {
    this.#running?.signal('SIGKILL');
    await this.#running?.ended;
  }

  /** It holds the connections and says nothing. */
  freeze(): void {
    this.#running?.signal('SIGSTOP');
  }

  async stop(): Promise<void> {
    await this.#running?.stop();
  }
}
