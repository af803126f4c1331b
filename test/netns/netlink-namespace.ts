import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { Clock } from '../../core/plugin/clock.ts';
import { native, type Native } from '../../core/plugin/native.ts';
import type { PluginHost } from '../../core/plugin/plugin.ts';
import { nullLog } from '../../core/sansio/log.ts';
import { buildNative } from '../../openwrt/build/native.mjs';
import { loadNative } from '../../plugins/platform-node/index.ts';

const INSIDE = 'CULVERT_TEST_NAMESPACE';

/**
 * Runs the file that calls it a second time, in a network namespace of its own that goes away with the
 * process, and returns true there. Outside it only reports what the inside says.
 */
export async function inNamespace(url: string): Promise<boolean> {
  if (process.env[INSIDE] === '1') {
    run('ip', 'link', 'set', 'lo', 'up');
    return true;
  }
  if (process.platform !== 'linux' || process.getuid?.() !== 0) {
    t.pass('skipped', { skip: 'network namespaces need Linux and root' });
    return false;
  }
  const node = [process.execPath, ...process.execArgv, fileURLToPath(url)];
  await t.spawn(
    'unshare',
    ['--net', ...node],
    { env: { ...process.env, [INSIDE]: '1' } },
    'inside',
  );
  return false;
}

/** Runs a program and returns what it prints. */
export function run(program: string, ...args: readonly string[]): string {
  return execFileSync(program, args, { encoding: 'utf8', maxBuffer: 1 << 28 });
}

/** Runs `ip` and returns its JSON. */
export function ipJson<Row>(...args: readonly string[]): Row[] {
  const text = run('ip', '-j', '-d', '-N', ...args).trim();
  return text === '' ? [] : JSON.parse(text);
}

/** Another machine at the other end of a link. */
export interface Machine {
  /** Arguments of nsenter(1) that lead into it. */
  readonly enter: readonly string[];
  stop(): void;
}

/**
 * Makes a network namespace at the other end of a link with these addresses (`10.1.0.1/24`), which can be
 * used at once. It lives as long as a process that sleeps in it, a minute at most.
 */
export async function machine(
  link: string,
  near: readonly string[],
  far: readonly string[],
  ...gateways: readonly string[]
): Promise<Machine> {
  const sleeper = spawn('unshare', ['--net', 'sh', '-c', 'echo ready; exec sleep 60'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  await once(sleeper.stdout, 'data');
  const enter = ['-t', String(sleeper.pid), '-n'];
  const here = (text: string) => void run('ip', ...text.split(' '));
  const there = (text: string) => void run('nsenter', ...enter, 'ip', ...text.split(' '));
  const nodad = (address: string) => (address.includes(':') ? ' nodad' : '');
  here(`link add ${link} type veth peer name eth0 netns ${sleeper.pid}`);
  for (const address of near) here(`address add ${address} dev ${link}${nodad(address)}`);
  here(`link set ${link} up`);
  there('link set lo up');
  for (const address of far) there(`address add ${address} dev eth0${nodad(address)}`);
  there('link set eth0 up');
  for (const gateway of gateways) there(`route add default via ${gateway}`);
  return { enter, stop: () => void sleeper.kill() };
}

export async function loadSystemCalls(): Promise<Native> {
  const loaded = loadNative(await buildNative());
  if ('skip' in loaded) throw new Error(loaded.skip);
  return loaded;
}

/** Lets everything that the kernel has queued so far be delivered and handled. */
export async function turns(): Promise<void> {
  for (let turn = 0; turn < 16; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** A host that offers the native calls and nothing else. */
export function hostOf(calls: Native): PluginHost {
  const unused = () => {
    throw new Error('not used');
  };
  const clock: Clock = {
    now: unused,
    unixMs: unused,
    alarm: unused,
    cancelAlarm: unused,
    soon: (onYield) => void setImmediate(onYield),
  };
  return {
    log: nullLog,
    clock,
    use: (wanted) => {
      if (wanted.name !== native.name) throw new Error(`not offered: ${wanted.name}`);
      return calls as never;
    },
  };
}
