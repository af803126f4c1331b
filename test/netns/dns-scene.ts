import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';
import { buildNative } from '../../openwrt/build/native.mjs';
import type { DnsmasqPlace } from '../../plugins/dns-intercept/index.ts';
import { Lab, type Running } from '../lab/namespaces.ts';
import type { Parameters, Step } from './dns-router.ts';

const PROGRAM = new URL('dns-router.ts', import.meta.url).pathname;

/** What dnsmasq at the provider says of every name, and what our program says of ordinary ones. */
export const UPSTREAM = '9.9.9.1';
export const OURS = '9.9.9.53';

/**
 *   client --- br-lan [ router ] --- upstream
 *
 *   br-lan has two subnets: 192.168.1.1/24 with fd00:1::1/64, and 10.20.0.1/24. The upstream has
 *   10.9.0.2 and fd00:9::2, and behind them the public resolvers. dnsmasq runs on the upstream, and on
 *   the router as it does on OpenWrt, with rebind protection and negative caching.
 */
export class DnsScene {
  readonly lab: Lab;
  readonly directory: string;
  /** What the router's dnsmasq is started from. */
  readonly confDir: string;
  #program: Running | undefined;

  static async create(prefix: string): Promise<DnsScene> {
    const lab = await Lab.create(prefix);
    for (const name of ['client', 'router', 'upstream']) {
      await lab.namespace(name);
      // Without duplicate address detection, so that link-local addresses are of use at once.
      await lab.exec(name, ['sysctl', '-qw', 'net.ipv6.conf.default.accept_dad=0']);
    }
    const [lan] = await lab.link('router', 'client', [], ['192.168.1.50/24', 'fd00:1::50/64']);
    await lab.link(
      'router',
      'upstream',
      ['10.9.0.1/24', 'fd00:9::1/64'],
      ['10.9.0.2/24', 'fd00:9::2/64'],
    );
    await lab.ip('router', 'link add br-lan type bridge');
    await lab.ip('router', `link set ${lan} master br-lan`);
    for (const address of [
      '192.168.1.1/24',
      'fd00:1::1/64 nodad',
      '10.20.0.1/24',
      'fe80::1/64 nodad',
    ]) {
      const [plain = '', ...flags] = address.split(' ');
      await lab.ip('router', ['address add', plain, 'dev br-lan', ...flags].join(' '));
    }
    await lab.ip('router', 'link set br-lan up');
    await lab.ip('client', 'address add 10.20.0.50/24 dev to-router');
    await lab.ip('client', 'route add default via 192.168.1.1');
    await lab.ip('client', 'route add default via fd00:1::1');
    await lab.ip('router', 'route add default via 10.9.0.2');
    await lab.ip('router', 'route add default via fd00:9::2');
    await lab.ip('upstream', 'route add default via 10.9.0.1');
    await lab.ip('upstream', 'route add default via fd00:9::1');
    await lab.ip('upstream', 'address add 8.8.8.8/32 dev lo');
    await lab.ip('upstream', 'address add 2001:4860:4860::8888/128 dev lo nodad');
    await lab.exec('router', [
      'sysctl',
      '-qw',
      'net.ipv4.ip_forward=1',
      'net.ipv6.conf.all.forwarding=1',
    ]);
    const scene = new DnsScene(lab);
    const upstream = lab.spawn(
      'upstream',
      words(
        'dnsmasq --no-daemon -C /dev/null --user=root --log-queries --no-hosts --no-resolv',
        `--address=/#/${UPSTREAM}`,
      ),
    );
    await upstream.waitFor(/started/, 10_000);
    scene.upstreamLog = upstream.lines;
    // A bridge takes a moment before it lets neighbours find each other.
    const isThere = async () =>
      (await scene.dig('client', '@2001:4860:4860::8888', 'first.example')) === UPSTREAM;
    for (let tries = 0; tries < 10 && !(await isThere()); tries++);
    return scene;
  }

  private constructor(lab: Lab) {
    this.lab = lab;
    this.directory = mkdtempSync(join(tmpdir(), 'culvert-dns-'));
    this.confDir = join(this.directory, 'router.d');
  }

  /** Where our program finds the router's dnsmasq. */
  get dnsmasq(): DnsmasqPlace {
    return { confDirs: [this.confDir], restart: [join(this.directory, 'restart')] };
  }

  /** Starts dnsmasq on the router, and makes the command that restarts it. */
  async startDnsmasq(): Promise<void> {
    const pidFile = join(this.directory, 'router.pid');
    const command = words(
      `dnsmasq -C /dev/null --conf-dir=${this.confDir} --pid-file=${pidFile} --user=root`,
      '--no-hosts --no-resolv --server=10.9.0.2 --domain-needed --bogus-priv',
      '--stop-dns-rebind --rebind-localhost-ok --localise-queries',
    ).join(' ');
    const restart = [
      '#!/bin/sh',
      `[ -e ${pidFile} ] && pid=$(cat ${pidFile}) && kill $pid && while kill -0 $pid 2>/dev/null; do sleep 0.02; done`,
      `mkdir -p ${this.confDir}`,
      `echo restarted >> ${join(this.directory, 'restarts')}`,
      `exec ${command}`,
    ];
    writeFileSync(join(this.directory, 'restart'), `${restart.join('\n')}\n`, { mode: 0o755 });
    const started = await this.lab.exec('router', [join(this.directory, 'restart')]);
    if (started.code !== 0) throw new Error(started.stderr);
  }

  /** Starts our program on the router and waits for its first step. */
  async run(steps: readonly Step[]): Promise<string> {
    const parameters = { steps, dnsmasq: this.dnsmasq, native: await buildNative() };
    const program = await this.#bundle();
    this.#program = this.lab.spawn('router', [
      process.execPath,
      program,
      JSON.stringify(parameters satisfies Parameters),
    ]);
    return this.#result(0);
  }

  /** Goes to a step and returns what came of it. */
  async step(number: number): Promise<string> {
    this.#program?.signal('SIGUSR2');
    return this.#result(number);
  }

  async kill(): Promise<void> {
    this.#program?.signal('SIGKILL');
    await this.#program?.ended;
  }

  async stop(): Promise<void> {
    await this.#program?.stop();
  }

  /** Returns what `dig` prints, in short form without options; `none` for nothing. */
  async dig(namespace: string, ...parameters: readonly string[]): Promise<string> {
    const isShort = !parameters.includes('+noshort');
    const { stdout, stderr } = await this.lab.exec(namespace, [
      'dig',
      '+time=1',
      '+tries=1',
      '+nocookie',
      isShort ? '+short' : '+all',
      ...parameters.filter((word) => word !== '+noshort'),
    ]);
    return (stdout.trim() || stderr.trim() || 'none').replaceAll('\n', ' ');
  }

  async destroy(): Promise<void> {
    await this.stop();
    await this.lab.destroy();
    rmSync(this.directory, { recursive: true });
  }

  /** In one file the program starts in no time: what tap loads TypeScript with takes seconds. */
  async #bundle(): Promise<string> {
    const outfile = join(this.directory, 'router.mjs');
    if (existsSync(outfile)) return outfile;
    await build({
      entryPoints: [PROGRAM],
      outfile,
      bundle: true,
      platform: 'node',
      format: 'esm',
      logLevel: 'error',
      banner: {
        js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
      },
    });
    return outfile;
  }

  /** What the upstream was asked. */
  upstreamLog: readonly string[] = [];

  async #result(number: number): Promise<string> {
    if (this.#program === undefined) throw new Error('it was not started');
    const [, result = ''] = await this.#program.waitFor(new RegExp(`^step ${number} (.*)`), 60_000);
    return result;
  }
}

function words(...lines: readonly string[]): readonly string[] {
  return lines.flatMap((line) => line.split(' '));
}
