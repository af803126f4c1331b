import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  watch,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { Plugins } from '../../core/plugin/host.ts';
import { systemNames, type SystemNames } from '../../core/plugin/system-names.ts';
import { nullLog, type Log } from '../../core/sansio/log.ts';
import { nameOf } from '../core/dns/messages.ts';
import { createSystemNames } from '../../plugins/system-names/index.ts';
import { PathMonitor, type MonitorOptions } from '../../plugins/system-names/path-monitor.ts';
import { createNodeClock } from '../../plugins/platform-node/index.ts';

const HOSTS = '10.0.0.1 db.site.example\n';

await t.test('resolvers and hosts are read from all files, each once', async (t) => {
  const { names, write } = scene(t);
  write('resolv.conf', 'nameserver 127.0.0.1\nnameserver ::1\n');
  write('auto', 'nameserver 192.0.2.1\nnameserver 192.0.2.2\n');
  write('run/systemd/resolv.conf', 'nameserver 192.0.2.2\nnameserver 192.0.2.3\n');
  write('hosts', HOSTS);
  write('hosts.d/odhcpd', '10.0.0.2 db.site.example nas\n');
  write('hosts.d/.unfinished', '10.0.0.3 nas\n');
  write('hosts.d/old~', '10.0.0.4 nas\n');
  const { nameservers, providerNameservers, hosts } = names.read();
  t.same(nameservers, ['127.0.0.1:53', '[::1]:53']);
  t.same(providerNameservers, ['192.0.2.1:53', '192.0.2.2:53', '192.0.2.3:53']);
  t.same(hosts.get(nameOf('db.site.example')), ['10.0.0.1', '10.0.0.2']);
  t.same(hosts.get(nameOf('nas')), ['10.0.0.2']);
});

await t.test('missing files are empty', async (t) => {
  const { names, warnings } = scene(t);
  t.same(names.read(), { nameservers: [], providerNameservers: [], hosts: new Map() });
  t.same(warnings, []);
});

await t.test('what is no file is empty, and does not block', async (t) => {
  const { names, top } = scene(t);
  execFileSync('mkfifo', [join(top, 'hosts'), join(top, 'resolv.conf')]);
  mkdirSync(join(top, 'auto'));
  t.same(names.read(), { nameservers: [], providerNameservers: [], hosts: new Map() });
});

await t.test('what cannot be read is told and empty', async (t) => {
  const { names, top, warnings } = scene(t);
  symlinkSync('resolv.conf', join(top, 'resolv.conf'));
  t.same(names.read().nameservers, []);
  t.match(warnings, [/cannot be read.*ELOOP/]);
});

await t.test('of a large file whole lines are read, up to a limit', async (t) => {
  const { names, write } = scene(t);
  // The limit is in the middle of the last line, and what stands before it would be another name.
  const filler = `${'#'.repeat(1020)}\n`.repeat(5 * 1024);
  const cut = 4 * 1024 * 1024 - 20;
  write('hosts', `${HOSTS}${filler}`.slice(0, cut) + `\n10.0.0.9 nas.site.example\n`);
  const { hosts } = names.read();
  t.same([...hosts.keys()], ['db.site.example']);
  write('resolv.conf', `nameserver 192.0.2.1\n${'#'.repeat(70_000)}\nnameserver 192.0.2.2\n`);
  t.same(names.read().nameservers, ['192.0.2.1:53']);
});

await t.test('bytes that are no text are no names', async (t) => {
  const { names, top, write } = scene(t);
  write('hosts', '');
  writeFileSync(join(top, 'hosts'), Buffer.from([...Buffer.from('10.0.0.1 b'), 0xff, 0xfe, 10, 0]));
  t.equal(names.read().hosts.size, 0);
});

const CHANGES: Readonly<Record<string, (scene: Scene) => void>> = {
  'written in place': ({ top }) => appendFileSync(join(top, 'hosts'), '10.0.0.2 b\n'),
  'replaced by rename': ({ top, write }) => {
    write('hosts.new', '10.0.0.2 b\n');
    renameSync(join(top, 'hosts.new'), join(top, 'hosts'));
  },
  removed: ({ top }) => unlinkSync(join(top, 'hosts')),
  'put where there was none': ({ write }) => write('auto', 'nameserver 192.0.2.1\n'),
  'put into a directory that was missing': ({ write }) => write('run/systemd/resolv.conf', 'x'),
  'put into a directory of hosts files': ({ write }) => write('hosts.d/dhcp', HOSTS),
  'behind a symbolic link and changed': ({ write }) => write('tmp/conf', 'nameserver 192.0.2.7\n'),
  'a symbolic link that leads elsewhere now': ({ top }) => {
    symlinkSync('tmp/other', join(top, 'link'));
    renameSync(join(top, 'link'), join(top, 'resolv.conf'));
  },
};

for (const [what, change] of Object.entries(CHANGES)) {
  await t.test(`a change is told: a file ${what}`, async (t) => {
    const made = scene(t);
    made.write('hosts', HOSTS);
    made.write('hosts.d/odhcpd', HOSTS);
    made.write('tmp/conf', 'nameserver 192.0.2.1\n');
    symlinkSync('tmp/conf', join(made.top, 'resolv.conf'));
    let calls = 0;
    const end = made.names.monitor(() => calls++);
    // Twice: what was replaced is watched as the first one was.
    for (const step of [change, change]) {
      calls = 0;
      step(made);
      await until(() => calls > 0);
      if (what !== 'removed') continue;
      calls = 0;
      made.write('hosts', HOSTS);
      await until(() => calls > 0);
    }
    t.pass();
    end();
  });
}

await t.test('a way that is removed and comes again is watched again', async (t) => {
  const made = scene(t);
  made.write('run/systemd/resolv.conf', 'nameserver 192.0.2.1\n');
  let calls = 0;
  made.names.monitor(() => calls++);
  rmSync(join(made.top, 'run'), { recursive: true });
  await until(() => calls > 0);
  made.write('run/systemd/resolv.conf', 'nameserver 192.0.2.2\n');
  await until(() => made.names.read().providerNameservers[0] === '192.0.2.2:53' && calls > 1);
  calls = 0;
  made.write('run/systemd/resolv.conf', 'nameserver 192.0.2.3\n');
  await until(() => calls > 0);
  t.pass();
});

await t.test('many changes in a row are one, and other files are none', async (t) => {
  const made = scene(t);
  made.write('hosts', HOSTS);
  let calls = 0;
  const { sign } = monitor(t, [join(made.top, 'hosts')], () => calls++, { debounce: 300 });
  for (let i = 0; i < 20; i++) made.write('beside', String(i));
  await sign();
  t.equal(calls, 0, 'what lies beside');
  for (let i = 0; i < 50; i++) made.write('hosts', `10.0.0.${i} a\n`);
  await until(() => calls > 0);
  t.equal(calls, 1);
});

await t.test('nothing is told after the end, nor after the plugin stopped', async (t) => {
  const made = scene(t);
  made.write('hosts', HOSTS);
  const calls: string[] = [];
  const end = made.names.monitor(() => calls.push('first'));
  made.names.monitor(() => calls.push('second'));
  end();
  end();
  let seen = 0;
  monitor(t, [join(made.top, 'hosts')], () => seen++, { debounce: 400 });
  made.write('hosts', '10.0.0.2 b\n');
  await until(() => seen > 0);
  t.same(calls, ['second']);
  await made.plugins.stop();
  made.write('hosts', '10.0.0.3 b\n');
  await until(() => seen > 1);
  t.same(calls, ['second']);
});

await t.test('where nothing can be watched, the files are looked at', async (t) => {
  const made = scene(t);
  made.write('hosts.d/a', HOSTS);
  const options: MonitorOptions = {
    debounce: 1,
    pollInterval: 20,
    watch: () => {
      throw Object.assign(new Error('no space for watches'), { code: 'ENOSPC' });
    },
  };
  let calls = 0;
  const paths = [join(made.top, 'hosts'), join(made.top, 'hosts.d')];
  monitor(t, paths, () => calls++, options);
  const changes = [
    () => made.write('hosts', HOSTS),
    () => made.write('hosts', '10.0.0.2 b\n10.0.0.3 c\n'),
    () => made.write('hosts.d/b', HOSTS),
    () => unlinkSync(join(made.top, 'hosts')),
  ];
  for (const [i, change] of changes.entries()) {
    change();
    await until(() => calls > i);
    t.equal(calls, i + 1);
  }
});

await t.test('a watch that breaks is replaced by looking', async (t) => {
  const made = scene(t);
  const watchers: ReturnType<typeof watch>[] = [];
  const opened = ((...args: Parameters<typeof watch>) => {
    const watcher = watch(...args);
    watchers.push(watcher);
    return watcher;
  }) as typeof watch;
  let calls = 0;
  const options = { debounce: 1, pollInterval: 20, watch: opened };
  monitor(t, [join(made.top, 'hosts')], () => calls++, options);
  for (const watcher of watchers) {
    watcher.close();
    watcher.emit('error', new Error('EMFILE'));
  }
  made.write('hosts', HOSTS);
  await until(() => calls > 0);
  t.pass();
});

await t.test('links in a circle end, and monitors keep no process alive', async (t) => {
  const made = scene(t);
  symlinkSync('resolv.conf', join(made.top, 'resolv.conf'));
  symlinkSync('.', join(made.top, 'hosts'));
  const before = process.getActiveResourcesInfo().sort();
  const end = made.names.monitor(() => undefined);
  // A watch of what is missing is closed at the end of the turn.
  await wait(10);
  t.same(process.getActiveResourcesInfo().sort(), before);
  end();
});

await t.test('the files of this machine are read', async (t) => {
  const plugins = new Plugins(nullLog, createNodeClock());
  plugins.start([createSystemNames()]);
  const names = plugins.find(systemNames);
  t.ok(names?.read().hosts);
  names?.monitor(() => undefined);
  await plugins.stop();
});

interface Scene {
  readonly top: string;
  readonly names: SystemNames;
  readonly plugins: Plugins;
  readonly warnings: readonly string[];
  /** In place; makes the directories. */
  readonly write: (path: string, text: string) => void;
}

/** The files of a system in a directory of its own. */
function scene(t: Test): Scene {
  const top = mkdtempSync(join(tmpdir(), 'culvert-names-'));
  const at = (path: string) => join(top, path);
  const warnings: string[] = [];
  const log: Log = {
    ...nullLog,
    warn: (message, fields) => void warnings.push(`${message} ${JSON.stringify(fields)}`),
    with: () => log,
  };
  const plugins = new Plugins(log, createNodeClock());
  plugins.start([
    createSystemNames({
      resolvConf: [at('resolv.conf')],
      providerResolvConf: [at('auto'), at('run/systemd/resolv.conf')],
      hosts: [at('hosts'), at('hosts.d')],
    }),
  ]);
  const names = plugins.find(systemNames);
  if (names === undefined) throw new Error('no plugin');
  t.teardown(async () => {
    await plugins.stop();
    rmSync(top, { recursive: true });
  });
  const write = (path: string, text: string) => {
    mkdirSync(dirname(at(path)), { recursive: true });
    writeFileSync(at(path), text);
  };
  return { top, names, plugins, warnings, write };
}

/** A monitor, and a way to wait until it must have seen what was done before. */
function monitor(t: Test, paths: readonly string[], onChange: () => void, options: MonitorOptions) {
  const made = new PathMonitor(paths, onChange, options);
  t.teardown(() => made.close());
  const sign = async () => {
    // A second one on a file beside gets its events after those of the first.
    const top = mkdtempSync(join(tmpdir(), 'culvert-sign-'));
    let calls = 0;
    const debounce = (options.debounce ?? 0) + 100;
    const other = new PathMonitor([join(top, 'sign')], () => calls++, { debounce });
    writeFileSync(join(top, 'sign'), '');
    await until(() => calls > 0);
    other.close();
    rmSync(top, { recursive: true });
  };
  return { sign };
}

async function until(isSo: () => boolean): Promise<void> {
  for (let waited = 0; !isSo(); waited += 10) {
    if (waited > 20_000) throw new Error('it does not come');
    await wait(10);
  }
}
