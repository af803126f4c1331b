import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Lab, Running } from './namespaces.ts';

/** A tinyproxy in a namespace that lets CONNECT pass to port 443 only, as proxies of offices do. */
export class Proxy {
  readonly url: string;
  readonly #running: Running;

  static async start(
    lab: Lab,
    namespace: string,
    directory: string,
    address: string,
    port = 3128,
  ): Promise<Proxy> {
    const file = join(directory, 'tinyproxy.conf');
    const lines = [
      `Port ${port}`,
      `Listen ${address}`,
      `Bind ${address}`,
      'Timeout 600',
      'MaxClients 50',
      'ConnectPort 443',
      'LogLevel Info',
    ];
    writeFileSync(file, `${lines.join('\n')}\n`);
    const running = lab.spawn(namespace, ['tinyproxy', '-d', '-c', file]);
    await running.waitFor(/Accepting connections/, 10_000);
    return new Proxy(`http://${address}:${port}`, running);
  }

  private constructor(url: string, running: Running) {
    this.url = url;
    this.#running = running;
  }

  /** What it has logged: `CONNECT host:port` per stream. */
  get lines(): readonly string[] {
    return this.#running.lines;
  }

  async kill(): Promise<void> {
    this.#running.signal('SIGKILL');
    await this.#running.ended;
  }
}
