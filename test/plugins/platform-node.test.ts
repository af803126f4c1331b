import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { spawnSync } from 'node:child_process';
import t from 'tap';
import { LONGEST_ALARM } from '../../core/plugin/clock.ts';
import { files as filesCapability } from '../../core/plugin/files.ts';
import { Plugins } from '../../core/plugin/host.ts';
import { after, elapsed, instantAt } from '../../core/sansio/instant.ts';
import { nullLog, type Log } from '../../core/sansio/log.ts';
import {
  createFiles,
  createNodeClock,
  errnoName,
  nodeRandom,
  openFiles,
} from '../../plugins/platform-node/index.ts';

await t.test('the clock is monotonic, whatever happens to the calendar', async (t) => {
  const { time, clock } = fakeClock();
  time.pass(10);
  t.equal(clock.now(), 10);
  time.stepCalendar(40 * 365 * 86_400_000); // the router's first answer from NTP
  time.pass(5);
  t.equal(clock.now(), 15);
  time.stepCalendar(-3_600_000);
  time.pass(5);
  t.equal(clock.now(), 20);
  t.equal(clock.unixMs(), time.wall());
});

await t.test('the clock counts the time that the machine slept', async (t) => {
  const { time, clock } = fakeClock();
  // The boot clock is read in hundredths of a second.
  const reads = (expected: number, message: string): void =>
    void t.ok(Math.abs(clock.now() - expected) <= 20, `${message}: ${clock.now()}, ${expected}`);
  const night = 8 * 3_600_000;
  time.pass(100);
  reads(100, 'awake');
  time.sleep(night);
  time.pass(1);
  reads(101 + night, 'after a night');
  time.pass(1);
  reads(102 + night, 'counted once');
  time.sleep(5000);
  time.stepCalendar(-5000);
  time.pass(1);
  reads(103 + night, 'a sleep that a step of the calendar hides');
  time.sleep(600);
  time.sleep(600);
  reads(103 + night + 6200, 'shows with the next drift');
});

await t.test('the clock never goes back, even where its sources do', async (t) => {
  const { time, clock } = fakeClock();
  time.pass(1000);
  const before = clock.now();
  time.pass(-500);
  t.equal(clock.now(), before);
});

await t.test(
  'reading the clock asks for the boot time only when the calendar drifted',
  async (t) => {
    const { time, clock } = fakeClock();
    const asked = time.bootReads;
    for (let i = 0; i < 1000; i++) {
      time.pass(1);
      clock.now();
    }
    t.equal(time.bootReads, asked);
    time.stepCalendar(2000);
    clock.now();
    clock.now();
    t.equal(time.bootReads, asked + 1);
  },
);

await t.test('an alarm rings once, at its time or soon after', async (t) => {
  const clock = createNodeClock();
  const at = after(clock.now(), 20);
  const rangAt = await new Promise<number>((resolve) => {
    clock.alarm(at, () => resolve(clock.now()));
  });
  t.ok(rangAt >= at);
  let rings = 0;
  clock.alarm(instantAt(0), () => rings++);
  await wait(20);
  t.equal(rings, 1, 'one in the past rings at once, and once');
});

await t.test('an alarm is not early when the loop was busy before it was set', async (t) => {
  const clock = createNodeClock();
  for (const started = clock.now(); elapsed(started, clock.now()) < 15;);
  const at = after(clock.now(), 10);
  const rangAt = await new Promise<number>((resolve) => {
    clock.alarm(at, () => resolve(clock.now()));
  });
  t.ok(rangAt >= at);
});

await t.test('a later call replaces the alarm, earlier or later', async (t) => {
  const clock = createNodeClock();
  const rung: string[] = [];
  clock.alarm(after(clock.now(), 5), () => rung.push('replaced by a later one'));
  clock.alarm(after(clock.now(), 30), () => rung.push('replaced by an earlier one'));
  clock.alarm(after(clock.now(), 10), () => rung.push('the last one'));
  await wait(60);
  t.same(rung, ['the last one']);
  clock.alarm(after(clock.now(), 5), () => rung.push('cancelled'));
  clock.cancelAlarm();
  clock.cancelAlarm();
  await wait(15);
  t.same(rung, ['the last one']);
});

await t.test('an alarm may be set from an alarm, and moved thousands of times', async (t) => {
  const clock = createNodeClock();
  const from = clock.now();
  await new Promise<void>((resolve) => {
    let left = 3;
    const again = (): void => {
      if (left-- === 0) return resolve();
      for (let i = 0; i < 1000; i++) clock.alarm(after(clock.now(), 50 + i), again);
      clock.alarm(after(clock.now(), 2), again);
    };
    again();
  });
  t.ok(elapsed(from, clock.now()) >= 6);
});

await t.test('an alarm beyond what timers take neither rings at once nor warns', async (t) => {
  const clock = createNodeClock();
  const warnings: string[] = [];
  const onWarning = (warning: Error): void => void warnings.push(warning.name);
  process.on('warning', onWarning);
  clock.alarm(after(clock.now(), LONGEST_ALARM * 5), () => t.fail('it rang'));
  clock.alarm(instantAt(Infinity), () => t.fail('it rang'));
  await wait(20);
  clock.cancelAlarm();
  process.off('warning', onWarning);
  t.same(warnings, []);
});

await t.test('what is to come soon comes after pending input', async (t) => {
  const order: string[] = [];
  await new Promise<void>((resolve) => {
    createNodeClock().soon(() => {
      order.push('soon');
      resolve();
    });
    process.nextTick(() => order.push('tick'));
  });
  t.same(order, ['tick', 'soon']);
});

await t.test('files are kept with mode 0600 in a directory of mode 0700', async (t) => {
  const { directory, files } = state(t);
  t.equal(files.read('key'), undefined);
  t.same(files.write('key', bytes('secret')), { ok: true, value: undefined });
  t.same(files.read('key'), bytes('secret'));
  t.equal(statSync(directory).mode & 0o777, 0o700);
  t.equal(statSync(join(directory, 'key')).mode & 0o777, 0o600);
  t.ok(files.write('key', bytes('')).ok);
  t.same(files.read('key'), bytes(''));
  t.same(readdirSync(directory), ['key'], 'and nothing else');
  files.remove('key');
  files.remove('key');
  t.equal(files.read('key'), undefined);
});

await t.test('the same bytes are not written again', async (t) => {
  const { directory, files } = state(t);
  files.write('last-good', bytes('one'));
  const path = join(directory, 'last-good');
  utimesSync(path, 1, 1);
  const before = statSync(path);
  files.write('last-good', bytes('one'));
  t.same([statSync(path).ino, statSync(path).mtimeMs], [before.ino, before.mtimeMs]);
  chmodSync(path, 0o644);
  files.write('last-good', bytes('one'));
  t.equal(statSync(path).mode & 0o777, 0o600, 'but a wrong mode is put right');
  files.write('last-good', bytes('two'));
  t.not(statSync(path).ino, before.ino, 'others are a new file, renamed over the old');
});

await t.test('the daemon removes what a crash left, and no file of an operator', async (t) => {
  const { directory, files } = state(t);
  files.write('key', bytes('whole'));
  writeFileSync(join(directory, '.key.unfinished'), 'ha');
  writeFileSync(join(directory, 'notes.unfinished'), 'mine');
  const plugins = new Plugins(nullLog, createNodeClock());
  plugins.start([createFiles({ directory })]);
  t.same(readdirSync(directory).sort(), ['key', 'notes.unfinished']);
  t.same(plugins.find(filesCapability)?.read('key'), bytes('whole'));
  await plugins.stop();
});

await t.test('a command beside the daemon leaves alone what the daemon is writing', async (t) => {
  const { directory, files } = state(t);
  files.write('key', bytes('whole'));
  writeFileSync(join(directory, '.desired.json.unfinished'), 'ha');
  t.ok(openFiles(directory, nullLog).write('device.key', bytes('made')).ok);
  t.ok(existsSync(join(directory, '.desired.json.unfinished')));
});

await t.test('a link in the place of a file is replaced, not followed', async (t) => {
  const { directory, files } = state(t);
  files.write('key', bytes('first'));
  const elsewhere = join(directory, 'elsewhere');
  writeFileSync(elsewhere, 'theirs');
  rmSync(join(directory, 'key'));
  symlinkSync(elsewhere, join(directory, 'key'));
  t.ok(files.write('key', bytes('theirs')).ok);
  t.ok(statSync(join(directory, 'key')).isFile());
  files.write('key', bytes('ours'));
  t.same(openFiles(directory, nullLog).read('elsewhere'), bytes('theirs'));
});

await t.test('what cannot be written is an outcome, and leaves the old bytes', async (t) => {
  const lines: string[] = [];
  const { directory, files } = state(t, logInto(lines));
  files.write('key', bytes('old'));
  // A directory in the way of the temporary file fails for root as well.
  mkdirSync(join(directory, '.key.unfinished'));
  t.same(files.write('key', bytes('new')), { ok: false, why: 'not-writable' });
  t.same(files.read('key'), bytes('old'));
  t.equal(lines.length, 1);
  const nowhere = openFiles('/proc/culvert', nullLog);
  t.same(nowhere.write('key', bytes('x')), { ok: false, why: 'not-writable' });
});

await t.test('a file that is there and cannot be read is not taken for absent', async (t) => {
  const { directory, files } = state(t);
  mkdirSync(join(directory, 'key'), { recursive: true });
  t.throws(() => files.read('key'), { code: 'EISDIR' });
});

await t.test('a name that leaves the directory is a bug', async (t) => {
  const { files } = state(t);
  for (const name of ['../key', 'a/b', '', '.', '..', '.hidden', 'a\0b', '-x']) {
    t.throws(() => files.read(name), { name: 'BugError' }, JSON.stringify(name));
    t.throws(() => files.write(name, bytes('x')), { name: 'BugError' }, JSON.stringify(name));
    t.throws(() => files.remove(name), { name: 'BugError' }, JSON.stringify(name));
  }
});

await t.test('a write is on the disk before its name is', async (t) => {
  const { directory } = state(t);
  const script = `import { openFiles } from '${new URL('../../plugins/platform-node/index.ts', import.meta.url).pathname}';
    const log = new Proxy({}, { get: () => () => undefined });
    openFiles(process.argv[1], log).write('key', new Uint8Array([1]));`;
  const node = [process.execPath, ...process.execArgv, '--input-type=module', '-e', script];
  const calls = '--trace=fsync,rename,openat,write';
  const { stderr, error } = spawnSync('strace', ['-f', '-qq', calls, ...node, directory], {
    encoding: 'utf8',
  });
  if (error !== undefined) {
    t.pass('skipped', { skip: 'there is no strace' });
    return;
  }
  const from = stderr.slice(stderr.indexOf('.key.unfinished", O_WRONLY'));
  const order = [...from.matchAll(/(write|fsync|rename|O_RDONLY)\S*\(?/g)].map(([, call]) => call);
  t.same(order.slice(0, 5), ['write', 'fsync', 'rename', 'O_RDONLY', 'fsync'], from.slice(0, 600));
});

await t.test('errors have the names of this machine', async (t) => {
  t.equal(errnoName(-2), 'ENOENT');
  t.equal(errnoName(-constants.errno.EAGAIN), 'EAGAIN');
  t.equal(errnoName(-constants.errno.ENOBUFS), 'ENOBUFS');
  t.equal(errnoName(-77_777), 'errno 77777');
});

await t.test('random bytes fill all of what was given', async (t) => {
  const out = new Uint8Array(4096);
  nodeRandom.fill(out);
  t.ok(new Set(out).size > 200);
  const window = new Uint8Array(64);
  nodeRandom.fill(window.subarray(16, 48));
  t.ok(window.subarray(0, 16).every((byte) => byte === 0));
  t.ok(window.subarray(48).every((byte) => byte === 0));
});

/** Three clocks that a test moves. */
function fakeClock() {
  let monotonic = 0;
  let wall = 1_700_000_000_000;
  let boot = 50_000;
  const time = {
    bootReads: 0,
    pass(ms: number) {
      monotonic += ms;
      wall += ms;
      boot += ms;
    },
    sleep(ms: number) {
      wall += ms;
      boot += ms;
    },
    stepCalendar(ms: number) {
      wall += ms;
    },
    monotonic: () => monotonic,
    wall: () => wall,
    boot() {
      time.bootReads++;
      return Math.floor(boot / 10) * 10; // as /proc/uptime has it
    },
  };
  return { time, clock: createNodeClock(time) };
}

function state(t: { teardown(end: () => void): void }, log: Log = nullLog) {
  const parent = mkdtempSync(join(tmpdir(), 'culvert-files-'));
  t.teardown(() => rmSync(parent, { recursive: true }));
  const directory = join(parent, 'state');
  const files = openFiles(directory, log);
  if (existsSync(directory)) throw new Error('the first write makes the directory');
  return { directory, files };
}

function bytes(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text));
}

async function wait(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}

function logInto(lines: string[]): Log {
  const line = (message: string): void => void lines.push(message);
  return { ...nullLog, warn: line, error: line };
}
