import { execFile, spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

/** What a command printed and how it ended; `code` is −1 when a signal ended it. */
export interface CommandResult {
  readonly stdout: string;
  readonly stderr: string;
  readonly code: number;
}

export interface ExecOptions {
  /** What the command reads on its standard input. */
  readonly input?: string;
  /** After this long the command is killed and `exec` rejects. 10 s by default. */
  readonly timeoutMs?: number;
  readonly env?: Readonly<Record<string, string>>;
}

/** Why no namespaces can be built here, for the `skip` option of a test, or `false`. */
export function whyNoLab(): string | false {
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  if (!existsSync('/proc/self/ns/net')) return 'the kernel has no network namespaces';
  return spawnSync('ip', ['-V']).status === 0 ? false : 'there is no ip command (iproute2)';
}

/**
 * Network namespaces joined by veth pairs, built with the `ip` command, for tests and the demo.
 *
 * All that a lab makes bears its prefix. It goes away with `destroy`, at exit, on a signal, and at
 * the latest when the next lab with the same prefix is created: at any time there is one lab of a
 * prefix on the machine.
 */
export class Lab {
  readonly #prefix: string;
  readonly #running = new Set<Running>();
  readonly #onExit = (): void => removeNamespaces(this.#prefix);
  readonly #onSignal = (signal: NodeJS.Signals): void => {
    this.#forget();
    process.kill(process.pid, signal); // the signal keeps its meaning
  };

  /** `prefix`: lower-case letters, digits and `-`. Removes what an earlier run left behind. */
  static async create(prefix: string): Promise<Lab> {
    if (!NAME.test(prefix)) throw new Error(`not a prefix for namespaces: ${prefix}`);
    removeNamespaces(prefix);
    return new Lab(prefix);
  }

  private constructor(prefix: string) {
    this.#prefix = prefix;
    process.on('exit', this.#onExit);
    process.on(TIMEOUT_SIGNAL, this.#onExit);
    for (const signal of SIGNALS) process.on(signal, this.#onSignal);
  }

  /** Makes a namespace with its loopback up. */
  async namespace(name: string): Promise<void> {
    if (!NAME.test(name)) throw new Error(`not a name for a namespace: ${name}`);
    await succeed('ip', ['netns', 'add', this.#full(name)]);
    await this.ip(name, 'link set lo up');
  }

  /**
   * Joins two namespaces with a veth pair that is up and whose addresses (`10.0.0.1/24`,
   * `fd00::1/64`) can be used at once. Returns the names of the two devices, `to-<other end>`.
   */
  async link(
    a: string,
    b: string,
    addressesOfA: readonly string[],
    addressesOfB: readonly string[],
  ): Promise<readonly [string, string]> {
    const [deviceOfA, deviceOfB] = [deviceName(b), deviceName(a)];
    await this.ip(
      a,
      `link add ${deviceOfA} type veth peer name ${deviceOfB} netns ${this.#full(b)}`,
    );
    await this.#bringUp(a, deviceOfA, addressesOfA);
    await this.#bringUp(b, deviceOfB, addressesOfB);
    return [deviceOfA, deviceOfB];
  }

  /** Gives the programs of a namespace that start after this their own /etc/hosts (ip-netns(8)). */
  hosts(namespace: string, lines: readonly string[]): void {
    const directory = join(NETNS_FILES, this.#full(namespace));
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, 'hosts'), `${lines.join('\n')}\n`);
  }

  /** Runs `ip <command>` inside a namespace: words separated by blanks. Rejects when it fails. */
  async ip(namespace: string, command: string): Promise<string> {
    return succeed('ip', ['-n', this.#full(namespace), ...command.split(' ')]);
  }

  /** Runs a command inside a namespace to its end. Rejects only when it cannot run or takes too long. */
  async exec(
    namespace: string,
    command: readonly string[],
    options: ExecOptions = {},
  ): Promise<CommandResult> {
    return execute('ip', this.#inside(namespace, command), options);
  }

  /** Starts a command inside a namespace. It is stopped with the lab at the latest. */
  spawn(
    namespace: string,
    command: readonly string[],
    options: Pick<ExecOptions, 'env'> = {},
  ): Running {
    const child = spawn('ip', this.#inside(namespace, command), {
      env: { ...process.env, ...options.env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const running = new Running(command.join(' '), child);
    this.#running.add(running);
    return running;
  }

  /** Stops every command and removes every namespace. */
  async destroy(): Promise<void> {
    await Promise.all([...this.#running].map((running) => running.stop()));
    this.#forget();
  }

  async #bringUp(namespace: string, device: string, addresses: readonly string[]): Promise<void> {
    for (const address of addresses) {
      // Without duplicate address detection, which would take seconds.
      const flags = address.includes(':') ? ' nodad' : '';
      await this.ip(namespace, `address add ${address} dev ${device}${flags}`);
    }
    await this.ip(namespace, `link set ${device} up`);
  }

  #inside(namespace: string, command: readonly string[]): readonly string[] {
    // Each of these replaces itself by the next, so that the pid is that of the command. tap puts a
    // loader into the options of every Node.js that a test starts.
    return ['netns', 'exec', this.#full(namespace), 'env', '-u', 'NODE_OPTIONS', ...command];
  }

  #full(name: string): string {
    return `${this.#prefix}.${name}`;
  }

  #forget(): void {
    process.off('exit', this.#onExit);
    process.off(TIMEOUT_SIGNAL, this.#onExit);
    for (const signal of SIGNALS) process.off(signal, this.#onSignal);
    removeNamespaces(this.#prefix);
  }
}

/** A command that runs in a namespace. */
export class Running {
  /** What it has printed so far, on both outputs, line by line. */
  readonly lines: string[] = [];
  /** Resolves with its exit code when it has ended, −1 when a signal ended it. */
  readonly ended: Promise<number>;
  readonly #command: string;
  readonly #child: ChildProcess;
  #code: number | undefined;
  #onProgress: (() => void)[] = [];

  constructor(command: string, child: ChildProcess) {
    this.#command = command;
    this.#child = child;
    for (const output of [child.stdout, child.stderr]) {
      if (output === null) continue;
      createInterface({ input: output }).on('line', (line) => {
        this.lines.push(line);
        this.#progress();
      });
    }
    this.ended = new Promise((resolve) => {
      const end = (code: number | null): void => {
        this.#code ??= code ?? -1;
        child.stdout?.destroy();
        child.stderr?.destroy();
        this.#progress();
        resolve(this.#code);
      };
      child.on('close', end); // after the last line
      child.on('error', () => end(-1));
      child.on('exit', (code) => {
        // A child of the command may keep its outputs open for ever.
        setTimeout(() => end(code), LAST_LINES_MS).unref();
      });
    });
  }

  /** The process id of the command itself. */
  get pid(): number {
    if (this.#child.pid === undefined) throw new Error(`did not start: ${this.#command}`);
    return this.#child.pid;
  }

  /**
   * Waits for a line that matches, counting those printed before. Rejects, with what was printed,
   * when the command ends or the time is over.
   */
  async waitFor(pattern: RegExp, timeoutMs: number): Promise<RegExpMatchArray> {
    let isOver = false;
    const timer = setTimeout(() => {
      isOver = true;
      this.#progress();
    }, timeoutMs);
    try {
      for (let seen = 0; ;) {
        for (; seen < this.lines.length; seen++) {
          const match = this.lines[seen]?.match(pattern);
          if (match) return match;
        }
        if (this.#code !== undefined) throw this.#failure(`ended with ${this.#code}`, pattern);
        if (isOver) throw this.#failure(`no such line in ${timeoutMs} ms`, pattern);
        await new Promise<void>((resolve) => this.#onProgress.push(resolve));
      }
    } finally {
      clearTimeout(timer);
    }
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Ends the command with SIGTERM, after 3 s with SIGKILL. Resolves with its exit code. */
  async stop(): Promise<number> {
    if (this.#code !== undefined) return this.#code;
    this.signal('SIGTERM');
    const impatience = setTimeout(() => this.signal('SIGKILL'), 3000);
    const code = await this.ended;
    clearTimeout(impatience);
    return code;
  }

  #progress(): void {
    for (const resolve of this.#onProgress.splice(0)) resolve();
  }

  #failure(what: string, pattern: RegExp): Error {
    const tail = this.lines.slice(-20).join('\n  ');
    return new Error(`${this.#command}: ${what}, waiting for ${String(pattern)}\n  ${tail}`);
  }
}

/** Names of namespaces and prefixes; the dot between them keeps one prefix out of another. */
const NAME = /^[a-z][a-z0-9-]*$/;

/** What tap sends to a test that takes too long, half a second before it kills it. */
const TIMEOUT_SIGNAL = 'SIGALRM';

/** How long the last lines of a command may take to arrive after its end. */
const LAST_LINES_MS = 200;

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** The kernel's limit of a device name is 15 bytes. */
function deviceName(other: string): string {
  return `to-${other}`.slice(0, 15);
}

/** Kills what runs in the namespaces of a prefix and removes them; synchronous, for use at exit. */
/** Where `ip netns exec` finds what lies over /etc. */
const NETNS_FILES = '/etc/netns';

function removeNamespaces(prefix: string): void {
  const list = spawnSync('ip', ['netns', 'list'], { encoding: 'utf8' }).stdout ?? '';
  for (const line of list.split('\n')) {
    const [name = ''] = line.split(' ');
    if (!name.startsWith(`${prefix}.`)) continue;
    const pids = spawnSync('ip', ['netns', 'pids', name], { encoding: 'utf8' }).stdout ?? '';
    for (const pid of pids.split('\n').filter(Boolean).map(Number)) {
      if (pid !== process.pid) kill(pid);
    }
    spawnSync('ip', ['netns', 'delete', name]);
    rmSync(join(NETNS_FILES, name), { recursive: true, force: true });
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended meanwhile.
  }
}

async function succeed(command: string, parameters: readonly string[]): Promise<string> {
  const { stdout, stderr, code } = await execute(command, parameters, {});
  if (code !== 0) throw new Error(`${command} ${parameters.join(' ')}: ${stderr.trim()}`);
  return stdout;
}

async function execute(
  command: string,
  parameters: readonly string[],
  { input, timeoutMs = 10_000, env }: ExecOptions,
): Promise<CommandResult> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      command,
      parameters,
      {
        env: { ...process.env, ...env },
        timeout: timeoutMs,
        killSignal: 'SIGKILL',
        maxBuffer: 64 * 2 ** 20,
      },
      (error, stdout, stderr) => {
        const code = error === null ? 0 : error.code;
        if (error?.killed === true || typeof code === 'string') {
          reject(new Error(`${command} ${parameters.join(' ')}: ${error?.message}`));
        } else {
          resolve({ stdout, stderr, code: code ?? -1 });
        }
      },
    );
    child.stdin?.on('error', () => undefined); // it did not want to read
    child.stdin?.end(input);
  });
}
