import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { randomBytes, randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { encodeStun } from '../../core/stun/message.ts';
import { createNobleCrypto } from '../../plugins/crypto-noble/index.ts';

const crypto = createNobleCrypto();

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
    for (let tries = 0; !(await this.#answers()); tries++) {
      if (tries > 200 || child.exitCode !== null) {
        await this.remove();
        throw new Error(`no coturn: ${this.#output}`);
      }
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

  /** The listeners open one after another, in no certain order. */
  async #answers(): Promise<boolean> {
    const { port, tlsPort, address } = this;
    return (await takesConnections(tlsPort, address)) && (await answersBinding(port, address));
  }

  async remove(): Promise<void> {
    await this.stop();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

/**
 * A port that nobody has, neither for UDP nor for TCP, outside of the range from which the kernel gives
 * ports to the connections of this and other tests.
 */
async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(20_000, 32_000);
    if ((await canBindUdp(port)) && (await canListen(port))) return port;
  }
}

function canBindUdp(port: number): Promise<boolean> {
  const socket = createSocket('udp4');
  return new Promise((resolve) => {
    socket.once('error', () => resolve(false));
    socket.bind(port, '127.0.0.1', () => socket.close(() => resolve(true)));
  });
}

function canListen(port: number): Promise<boolean> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

function takesConnections(port: number, address: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, address);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

/** Whether a binding request is answered within 50 ms. */
function answersBinding(port: number, address: string): Promise<boolean> {
  const socket = createSocket('udp4');
  return new Promise((resolve) => {
    const end = (isAnswered: boolean) => {
      clearTimeout(patience);
      socket.close();
      resolve(isAnswered);
    };
    const patience = setTimeout(() => end(false), 50);
    socket.once('message', () => end(true));
    socket.once('error', () => end(false));
    const request = { class: 'request', method: 'binding', attributes: {} } as const;
    const transactionId = randomBytes(12);
    socket.send(encodeStun({ ...request, transactionId }, { crypto }), port, address);
  });
}
