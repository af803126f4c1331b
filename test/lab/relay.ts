import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import type { Lab, Running } from './namespaces.ts';

export interface RelayOptions {
  readonly address: string;
  /** With a second address it answers the questions of RFC 5780, which find out a NAT. */
  readonly alternateAddress?: string;
  /** UDP and TCP. 3478 by default. */
  readonly port?: number;
  /** 5349 by default. */
  readonly tlsPort?: number;
  /** Long-term credentials; without a secret, `culvert` with `correct-horse` by default. */
  readonly users?: Readonly<Record<string, string>>;
  /** In place of users: the secret from which clients mint credentials of limited time. */
  readonly secret?: string;
  /** More options of turnserver(1). */
  readonly own?: readonly string[];
}

/** A coturn in a namespace. */
export class Relay {
  readonly address: string;
  readonly port: number;
  readonly tlsPort: number;
  readonly realm = 'lab.test';
  /** PEM file of the certificate, which signs itself. */
  readonly certificate: string;
  readonly log: string;
  readonly #lab: Lab;
  readonly #namespace: string;
  readonly #options: RelayOptions;
  readonly #directory: string;
  #running: Running | undefined;

  static async start(
    lab: Lab,
    namespace: string,
    directory: string,
    options: RelayOptions,
  ): Promise<Relay> {
    const relay = new Relay(lab, namespace, directory, options);
    relay.#makeCertificate();
    await relay.start();
    return relay;
  }

  private constructor(lab: Lab, namespace: string, directory: string, options: RelayOptions) {
    this.#lab = lab;
    this.#namespace = namespace;
    this.#options = options;
    this.#directory = directory;
    this.address = options.address;
    this.port = options.port ?? 3478;
    this.tlsPort = options.tlsPort ?? 5349;
    this.certificate = this.#file('crt');
    this.log = this.#file('log');
  }

  /** The entries of a device's configuration for this relay, by transport. */
  configuration(transport: 'udp' | 'tcp' | 'tls'): object {
    const url =
      transport === 'tls'
        ? `turns:${this.address}:${this.tlsPort}`
        : `turn:${this.address}:${this.port}?transport=${transport}`;
    const { secret } = this.#options;
    if (secret !== undefined) return { url, secret };
    const [[username, credential] = []] = Object.entries(this.#users());
    return { url, username, credential };
  }

  async start(): Promise<void> {
    this.#running = this.#lab.spawn(this.#namespace, ['turnserver', ...this.#parameters()]);
    await this.#waitUntilItAnswers(this.#running);
  }

  /** It says goodbye to nobody: allocations are just gone. */
  async kill(): Promise<void> {
    this.#running?.signal('SIGKILL');
    await this.#running?.ended;
  }

  async stop(): Promise<void> {
    await this.#running?.stop();
  }

  async restart(): Promise<void> {
    await this.kill();
    await this.start();
  }

  /** Of its process. */
  get pid(): number {
    if (this.#running === undefined) throw new Error('the relay was never started');
    return this.#running.pid;
  }

  /** What it has logged, over all its starts. */
  get lines(): readonly string[] {
    return readFileSync(this.log, 'utf8').split('\n');
  }

  #parameters(): readonly string[] {
    const { address, alternateAddress, secret, own = [] } = this.#options;
    const addresses = alternateAddress === undefined ? [address] : [address, alternateAddress];
    const auth =
      secret === undefined
        ? ['--lt-cred-mech', ...Object.entries(this.#users()).map(([n, p]) => `--user=${n}:${p}`)]
        : ['--use-auth-secret', `--static-auth-secret=${secret}`];
    return [
      '-n',
      ...addresses.map((each) => `--listening-ip=${each}`),
      `--relay-ip=${address}`,
      `--listening-port=${this.port}`,
      `--tls-listening-port=${this.tlsPort}`,
      `--realm=${this.realm}`,
      ...auth,
      `--cert=${this.certificate}`,
      `--pkey=${this.#file('key')}`,
      '--no-dtls',
      '--no-cli',
      '--no-multicast-peers',
      '--allow-loopback-peers',
      '--relay-threads=0',
      `--userdb=${this.#file('db')}`,
      `--pidfile=${this.#file('pid')}`,
      `--log-file=${this.log}`,
      '--simple-log',
      '--verbose',
      ...own,
    ];
  }

  #users(): Readonly<Record<string, string>> {
    return this.#options.users ?? { culvert: 'correct-horse' };
  }

  /** It serves a while after it has started, and nothing but an answer tells when. */
  async #waitUntilItAnswers(running: Running): Promise<void> {
    const ask = ['turnutils_stunclient', '-p', String(this.port), this.address];
    const deadline = performance.now() + 10_000;
    while (performance.now() < deadline) {
      if (await this.#answers(ask)) return;
      await wait(50);
    }
    throw new Error(`coturn at ${this.address} does not answer: ${running.lines.join('\n')}`);
  }

  async #answers(ask: readonly string[]): Promise<boolean> {
    // The client waits for ever.
    const command = ['timeout', '0.5', ...ask];
    const { stdout } = await this.#lab.exec(this.#namespace, command);
    return stdout.includes('reflexive addr');
  }

  #makeCertificate(): void {
    const subject = `-subj /CN=${this.address} -addext subjectAltName=IP:${this.address}`;
    const key = '-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes';
    const files = `-keyout ${this.#file('key')} -out ${this.certificate}`;
    const command = `req -x509 ${key} -days 2 ${subject} ${files}`;
    execFileSync('openssl', command.split(' '), { stdio: 'pipe' });
  }

  #file(extension: string): string {
    return join(this.#directory, `relay-${this.address}.${extension}`);
  }
}
