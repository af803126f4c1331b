import { execFileSync } from 'node:child_process';
import type { Lab, Running } from './namespaces.ts';

export interface WireguardGoOptions {
  readonly lab: Lab;
  readonly namespace: string;
  /** Name of the interface: one per machine, since the control socket is named for it. */
  readonly name: string;
  /** Addresses of the interface, with prefix length. */
  readonly addresses: readonly string[];
  readonly listenPort: number;
  /** MTU of the interface in bytes. */
  readonly mtu?: number;
}

/** Debian's wireguard-go in a namespace, steered by Debian's wg. */
export class WireguardGo {
  readonly privateKey: string;
  readonly publicKey: string;
  readonly #options: WireguardGoOptions;
  readonly #running: Running;

  static async start(options: WireguardGoOptions): Promise<WireguardGo> {
    const { lab, namespace, name } = options;
    const running = lab.spawn(namespace, ['wireguard-go', '-f', name], {
      env: { WG_PROCESS_FOREGROUND: '1', LOG_LEVEL: 'verbose' },
    });
    await running.waitFor(/UAPI listener started/, 10_000);
    const wireguardGo = new WireguardGo(options, running);
    await wireguardGo.wg(
      `private-key /dev/stdin listen-port ${options.listenPort}`,
      wireguardGo.privateKey,
    );
    for (const address of options.addresses) {
      await lab.ip(namespace, `address add ${address} dev ${name}`);
    }
    await lab.ip(namespace, `link set ${name} mtu ${options.mtu ?? 1408} up`);
    return wireguardGo;
  }

  private constructor(options: WireguardGoOptions, running: Running) {
    this.#options = options;
    this.#running = running;
    this.privateKey = run('wg', ['genkey'], '');
    this.publicKey = run('wg', ['pubkey'], this.privateKey);
  }

  get pid(): number {
    return this.#running.pid;
  }

  /** Runs `wg set <interface> <words>`; rejects when it fails. */
  async wg(words: string, input = ''): Promise<void> {
    const { lab, namespace, name } = this.#options;
    // wg opens /dev/stdin anew, which works with the pipe of cat and not with our socket.
    const command = ['sh', '-c', `cat | wg set ${name} ${words}`];
    const { code, stderr } = await lab.exec(namespace, command, { input });
    if (code !== 0) throw new Error(`wg set ${words}: ${stderr}`);
  }

  /** Seconds since 1970 of the last handshake with the only peer; 0 before the first. */
  async latestHandshake(): Promise<number> {
    const { lab, namespace, name } = this.#options;
    const { stdout } = await lab.exec(namespace, ['wg', 'show', name, 'latest-handshakes']);
    return Number(stdout.trim().split('\t')[1] ?? 0);
  }

  /** Where it sends to, for its only peer. */
  async endpoint(): Promise<string> {
    const { lab, namespace, name } = this.#options;
    const { stdout } = await lab.exec(namespace, ['wg', 'show', name, 'endpoints']);
    return stdout.trim().split('\t')[1] ?? '';
  }

  async stop(): Promise<void> {
    await this.#running.stop();
  }
}

function run(command: string, parameters: readonly string[], input: string): string {
  return execFileSync(command, parameters, { input, encoding: 'utf8' }).trim();
}
