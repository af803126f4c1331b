import { execFileSync } from 'node:child_process';
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
