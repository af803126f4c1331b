import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';

export const TURNSERVER = '/usr/bin/turnserver';

export interface CoturnOptions {
  /** Of both listeners: UDP and TCP on the one, TLS on the other. Free ones where absent. */
  readonly port?: number;
  readonly tlsPort?: number;
  /** The address that listens and relays. */
  readonly address?: string;
  readonly realm?: string;
  /** More of its command line, such as `--user=alice:secret`. */
  readonly options?: readonly string[];
}

/** A coturn of our own, on the loopback interface unless told otherwise. */
export class Coturn {
  readonly port: number;
  readonly tlsPort: number;
  readonly address: string;
  readonly #parameters: readonly string[];
  readonly #directory: string;
  #process: ChildProcess | undefined;
  #output = '';

  static async start(options: CoturnOptions = {}): Promise<Coturn> {
    const port = options.port ?? (await freePort());
    const tlsPort = options.tlsPort ?? (await freePort());
    const server = new Coturn({ ...options, port, tlsPort });
    await server.start();
    return server;
  }

  private constructor(options: CoturnOptions & { port: number; tlsPort: number }) {
    const { port, tlsPort, address = '127.0.0.1', realm = 'relay.test' } = options;
    this.port = port;
    this.tlsPort = tlsPort;
    this.address = address;
    this.#directory = mkdtempSync(join(tmpdir(), 'culvert-coturn-'));
    const file = (name: string) => join(this.#directory, name);
    const newKey = '-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2';
    const request = `req -x509 ${newKey} -subj /CN=localhost -keyout ${file('key')} -out ${file('crt')}`;
    execFileSync('openssl', request.split(' '), { stdio: 'pipe' });
    this.#parameters = [
      '-n',
      `--listening-ip=${address}`,
      `--relay-ip=${address}`,
      `--listening-port=${port}`,
      `--tls-listening-port=${tlsPort}`,
      `--cert=${file('crt')}`,
      `--pkey=${file('key')}`,
      `--db=${file('database')}`,
      `--pidfile=${file('pid')}`,
      `--realm=${realm}`,
      '--lt-cred-mech',
      '--allow-loopback-peers',
      '--no-cli',
      '--no-dtls',
      '--no-rfc5780',
      '--log-file=stdout',
      ...(options.options ?? []),
    ];
  }

  get output(): string {
    return this.#output;
  }

  async start(): Promise<void> {
    const child = spawn(TURNSERVER, this.#parameters, { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => (this.#output += chunk.toString()));
    }
    this.#process = child;
    // A test that breaks leaves no server behind.
    const kill = () => child.kill('SIGKILL');
    process.once('exit', kill);
    child.once('exit', () => process.off('exit', kill));
    // The ports answer some milliseconds after the process starts, and nothing tells when.
    for (let tries = 0; !(await answers(this.tlsPort, this.address)); tries++) {
      if (tries > 200 || child.exitCode !== null) throw new Error(`no coturn: ${this.#output}`);
      await wait(20);
    }
  }

  /** Ends the process; `start` brings it back on the same ports, without its allocations. */
  async stop(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.#process;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill(signal);
    await ended;
  }

  async remove(): Promise<void> {
    await this.stop();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

/** A port that no UDP socket has; the TCP one of the same number is free as a rule. */
async function freePort(): Promise<number> {
  const socket = createSocket('udp4');
  await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve));
  const { port } = socket.address();
  await new Promise<void>((resolve) => socket.close(resolve));
  return port;
}

function answers(port: number, address: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, address);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
