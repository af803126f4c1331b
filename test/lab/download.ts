import { setTimeout as wait } from 'node:timers/promises';
import type { Lab, Running } from './namespaces.ts';

export interface DownloadOptions {
  /** The namespaces of server and client, and the address at which the client finds the server. */
  readonly server: string;
  readonly client: string;
  readonly address: string;
  readonly bytes: number;
  /** At most this much: what a download must last longer than a disturbance. Unlimited by default. */
  readonly bytesPerSecond?: number;
}

export interface Downloaded {
  readonly bytes: number;
  readonly seconds: number;
  /** The longest time without a byte, the one before the first included. */
  readonly longestGapMs: number;
  /** Whether the SHA-256 is that of the file. */
  readonly isIntact: boolean;
}

const PORT = 8080;

/** A file that is fetched over one TCP connection while something else happens. */
export class Download {
  readonly #client: Running;
  readonly #server: Running;
  readonly #sha256: string;

  static async start(lab: Lab, options: DownloadOptions): Promise<Download> {
    const { address, bytes, bytesPerSecond } = options;
    const rate = bytesPerSecond === undefined ? [] : [String(bytesPerSecond)];
    const serve = ['test/lab/file-server.mjs', '0.0.0.0', String(PORT), String(bytes), ...rate];
    const server = lab.spawn(options.server, [process.execPath, ...serve]);
    const [, sha256 = ''] = await server.waitFor(/listening (\w+)/, 20_000);
    const fetch = ['test/lab/download.mjs', `http://${address}:${PORT}/`, '--progress'];
    const client = lab.spawn(options.client, [process.execPath, ...fetch]);
    return new Download(client, server, sha256);
  }

  private constructor(client: Running, server: Running, sha256: string) {
    this.#client = client;
    this.#server = server;
    this.#sha256 = sha256;
  }

  /** Bytes that have come. */
  get bytes(): number {
    const last = this.#client.lines.findLast((line) => line.startsWith('at '));
    return Number(last?.slice(3) ?? 0);
  }

  /** Waits until so many bytes have come. Rejects, with what it says, when it fails. */
  async reaches(bytes: number, timeoutMs: number): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    while (this.bytes < bytes) {
      const failure = this.#client.lines.find((line) => line.startsWith('failed'));
      if (failure !== undefined) throw new Error(failure);
      if (performance.now() > deadline) {
        throw new Error(`${this.bytes} of ${bytes} bytes in ${timeoutMs} ms`);
      }
      await wait(50);
    }
  }

  async finish(timeoutMs: number): Promise<Downloaded> {
    try {
      const [line] = await this.#client.waitFor(/^\{.*\}$/, timeoutMs);
      const { sha256, ...result } = JSON.parse(line) as Downloaded & { sha256: string };
      return { ...result, isIntact: sha256 === this.#sha256 };
    } finally {
      await this.end();
    }
  }

  /** Gives up what has not come yet. */
  async end(): Promise<void> {
    await Promise.all([this.#client.stop(), this.#server.stop()]);
  }
}
