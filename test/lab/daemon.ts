import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Status } from '../../core/engine/status.ts';
import type { CommandResult, Lab, Running } from './namespaces.ts';

const BUNDLE = 'dist/culvert.cjs';

export interface Keys {
  /** base64 */
  readonly publicKey: string;
  readonly signingPublicKey: string;
}

/** The bundle of the router in a namespace, with a folder of its own for state and socket. */
export class DaemonInLab {
  readonly #lab: Lab;
  readonly #namespace: string;
  readonly directory: string;
  readonly socket: string;
  /** For the engine of the daemon, such as `--trace-gc`. */
  nodeFlags: readonly string[] = [];
  /** For the process of the daemon. */
  environment: Readonly<Record<string, string>> = {};
  /** What the daemon runs inside. */
  prefix: readonly string[] = [];
  #running: Running | undefined;

  /** `directory` is made; state, socket and configuration lie in it. */
  constructor(lab: Lab, namespace: string, directory: string) {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    this.#lab = lab;
    this.#namespace = namespace;
    this.directory = directory;
    this.socket = join(directory, 'culvert.sock');
  }

  /** Makes the keys and returns their public halves. */
  async keys(): Promise<Keys> {
    const { stdout } = await this.command('keygen', '--state-dir', this.directory, '--json');
    return JSON.parse(stdout) as Keys;
  }

  get configurationFile(): string {
    return join(this.directory, 'culvert.json');
  }

  /** Writes the configuration: completes `{ interface, peers }` by the version of the schema. */
  configure(configuration: object): void {
    writeFileSync(this.configurationFile, JSON.stringify({ schema: 1, ...configuration }));
  }

  /** Starts the daemon alone with its configuration; does not wait for it. */
  spawn(...options: readonly string[]): Running {
    return this.spawnWith('--config', this.configurationFile, ...options);
  }

  spawnWith(...options: readonly string[]): Running {
    const own = ['--state-dir', this.directory, '--socket', this.socket];
    const node = [process.execPath, ...this.nodeFlags];
    const command = [...this.prefix, ...node, BUNDLE, 'run', ...own, ...options];
    this.#running = this.#lab.spawn(this.#namespace, command, { env: this.environment });
    return this.#running;
  }

  /** Starts the daemon and waits until its configuration runs. */
  async start(...options: readonly string[]): Promise<Running> {
    const running = this.spawn(...options);
    await running.waitFor(/configuration applied/, 15_000);
    return running;
  }

  async stop(): Promise<number> {
    return (await this.#running?.stop()) ?? -1;
  }

  signal(signal: NodeJS.Signals): void {
    this.#running?.signal(signal);
  }

  /** Ends it with a signal; by default as a crash does. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    this.signal(signal);
    await this.#running?.ended;
  }

  async status(): Promise<Status> {
    const { stdout } = await this.command('status', '--json', '--socket', this.socket);
    return JSON.parse(stdout) as Status;
  }

  /** Runs another command of the bundle in the namespace. */
  async command(...parameters: readonly string[]): Promise<CommandResult> {
    return this.#lab.exec(this.#namespace, [process.execPath, BUNDLE, ...parameters]);
  }
}

/** Asks again and again, until the answer satisfies or the time is over. */
export async function eventually<Answer>(
  ask: () => Promise<Answer>,
  satisfies: (answer: Answer) => boolean,
  timeoutMs: number,
): Promise<Answer> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const answer = await ask();
    if (satisfies(answer)) return answer;
    if (performance.now() > deadline) {
      throw new Error(`not within ${timeoutMs} ms; last: ${JSON.stringify(answer)}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
