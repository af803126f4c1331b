import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';

export const MOSQUITTO = '/usr/sbin/mosquitto';

/** Files of a test; `write` returns the path. */
export interface Directory {
  readonly path: string;
  write(name: string, text: string): string;
  remove(): void;
}

export function makeDirectory(): Directory {
  const path = mkdtempSync(join(tmpdir(), 'culvert-mosquitto-'));
  return {
    path,
    write(name, text) {
      writeFileSync(join(path, name), text);
      return join(path, name);
    },
    remove: () => rmSync(path, { recursive: true, force: true }),
  };
}

/** A Mosquitto of our own on a free port of the loopback interface. */
export class Mosquitto {
  readonly port: number;
  readonly #configuration: string;
  #process: ChildProcess | undefined;
  #output = '';

  /** `lines` go into mosquitto.conf behind the listener. */
  static async start(directory: Directory, lines: readonly string[]): Promise<Mosquitto> {
    const broker = new Mosquitto(directory, await freePort(), lines);
    await broker.start();
    return broker;
  }

  private constructor(directory: Directory, port: number, lines: readonly string[]) {
    this.port = port;
    this.#configuration = directory.write(
      'mosquitto.conf',
      [`listener ${port} 127.0.0.1`, 'user root', ...lines, ''].join('\n'),
    );
  }

  get pid(): number | undefined {
    return this.#process?.pid;
  }

  async start(): Promise<void> {
    const child = spawn(MOSQUITTO, ['-c', this.#configuration], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => (this.#output += chunk.toString()));
    }
    this.#process = child;
    // The port answers some milliseconds after the process starts, and nothing tells when.
    for (let tries = 0; !(await answers(this.port)); tries++) {
      if (tries > 200 || child.exitCode !== null) throw new Error(`no mosquitto: ${this.#output}`);
      await wait(20);
    }
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const child = this.#process;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill(signal);
    await ended;
  }
}

/** A certificate authority made with openssl. */
export class Authority {
  readonly #directory: Directory;
  readonly #name: string;

  constructor(directory: Directory, name: string) {
    this.#directory = directory;
    this.#name = name;
    this.#openssl(
      `req -x509 ${NEW_KEY} -days 2 -subj /CN=${name} -keyout ${this.path('key')} -out ${this.path('crt')}`,
    );
  }

  path(kind: 'key' | 'crt', name: string = this.#name): string {
    return join(this.#directory.path, `${name}.${kind}`);
  }

  get certificate(): string {
    return readFileSync(this.path('crt'), 'utf8');
  }

  /** Issues a certificate with this common name. */
  issue(commonName: string, alternativeName?: string): { certificate: string; privateKey: string } {
    const [key, request] = [
      this.path('key', commonName),
      this.path('crt', `${commonName}.request`),
    ];
    this.#openssl(`req ${NEW_KEY} -subj /CN=${commonName} -keyout ${key} -out ${request}`);
    const extensions = this.#directory.write(
      `${commonName}.ext`,
      alternativeName === undefined ? '' : `subjectAltName=${alternativeName}\n`,
    );
    const issued = this.path('crt', commonName);
    const by = `-CA ${this.path('crt')} -CAkey ${this.path('key')} -CAcreateserial`;
    this.#openssl(`x509 -req -days 2 ${by} -in ${request} -extfile ${extensions} -out ${issued}`);
    return {
      certificate: readFileSync(issued, 'utf8'),
      privateKey: readFileSync(key, 'utf8'),
    };
  }

  #openssl(command: string): void {
    execFileSync('openssl', command.split(' '), { stdio: 'pipe' });
  }
}

const NEW_KEY = '-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes';

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
