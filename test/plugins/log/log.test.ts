import { execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import t, { type Test } from 'tap';
import { instantAt } from '../../../core/sansio/instant.ts';
import type { LogFields, Severity } from '../../../core/sansio/log.ts';
import { createLog, type LogSink } from '../../../plugins/log/index.ts';

const top = mkdtempSync(join(tmpdir(), 'culvert-log-'));
t.teardown(() => rmSync(top, { recursive: true }));
let logs = 0;

await t.test('the first line tells version and commit, jq reads them all', async (t) => {
  const { sink, path, lines } = openLog(t);
  sink.log.info('tunnel up', {
    peer: 'branch',
    tookMs: 12.5,
    ok: true,
    none: undefined,
    all: ['a', 'b'],
  });
  sink.log
    .with({ plugin: 'netlink' })
    .warn('route "lost"\n', { plugin: 'x', time: 1, message: 'm' });
  sink.flush();
  t.same(lines(), [
    {
      time: '2023-11-14T22:13:20.123Z',
      severity: 'info',
      message: 'culvert log',
      version: '1.2.3',
      commit: 'abc',
    },
    {
      time: '2023-11-14T22:13:20.123Z',
      severity: 'info',
      message: 'tunnel up',
      peer: 'branch',
      tookMs: 12.5,
      ok: true,
      all: ['a', 'b'],
    },
    {
      time: '2023-11-14T22:13:20.123Z',
      severity: 'warn',
      message: 'route "lost"\n',
      plugin: 'x',
      time_: 1,
      message_: 'm',
    },
  ]);
  const text = execFileSync('jq', ['-r', '"\\(.time) \\(.severity) \\(.message)"', path], {
    encoding: 'utf8',
  });
  t.match(
    text,
    /^2023-11-14T22:13:20\.123Z info culvert log\n2023-11-14T22:13:20\.123Z info tunnel up\n/,
  );
  t.equal(
    Object.keys(JSON.parse(readFileSync(path, 'utf8').split('\n')[1] ?? ''))
      .slice(0, 3)
      .join(),
    'time,severity,message',
  );
});

await t.test('lines below the level are not written', async (t) => {
  const { sink, messages } = openLog(t, { level: 'warn' });
  const severities: readonly Severity[] = ['trace', 'debug', 'info', 'warn', 'error'];
  const child = sink.log.with({ a: 1 });
  const writeAll = (): void => severities.forEach((severity) => child[severity](`a ${severity}`));
  writeAll();
  t.same(
    severities.map((s) => child.enabled(s)),
    [false, false, false, true, true],
  );
  sink.flush();
  t.same(messages(), ['culvert log', 'a warn', 'a error']);
  sink.setLevel('trace');
  t.equal(child.enabled('trace'), true);
  writeAll();
  sink.flush();
  t.equal(messages().length, 3 + 5);
});

await t.test('a message that repeats is limited, and how often is told', async (t) => {
  const clock = { ms: 0 };
  const { sink, lines, messages } = openLog(t, { level: 'debug', clock });
  const count = (message: string): number => messages().filter((m) => m === message).length;
  for (let i = 0; i < 100; i++) {
    sink.log.warn('often', { i });
    sink.log.debug('all of it');
  }
  sink.log.warn('seldom');
  sink.flush();
  t.same([count('often'), count('seldom'), count('all of it')], [20, 1, 100]);
  clock.ms += 1000;
  sink.log.warn('often', { i: 100 });
  sink.log.warn('often', { i: 101 });
  sink.flush();
  t.match(lines().at(-1), { message: 'often', i: 100, suppressed: 80 });
  sink.close();
  t.match(lines().at(-1), { message: 'log lines suppressed', of: 'often', suppressed: 1 });
});

await t.test('a file is rotated before it becomes too large, and the oldest goes', async (t) => {
  const { sink, path } = openLog(t, { level: 'debug', maxBytes: 2000, keep: 2 });
  chmodSync(path, 0o644);
  for (let i = 0; i < 200; i++) {
    sink.log.debug('line', { i });
    if (i % 7 === 0) sink.flush();
  }
  sink.close();
  const names = readdirSync(join(path, '..')).sort();
  t.same(names, ['culvert.log', 'culvert.log.1', 'culvert.log.2']);
  const numbers: number[] = [];
  for (const name of names.reverse()) {
    const file = join(path, '..', name);
    const { size, mode } = statSync(file);
    t.ok(size <= 2000, `${name} has ${size} bytes`);
    t.equal(mode & 0o777, 0o600);
    const [first, ...rest] = readFileSync(file, 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as LogFields);
    t.match(first, { message: 'culvert log', version: '1.2.3' }, 'each file tells the version');
    numbers.push(...rest.map((line) => Number(line['i'])));
  }
  t.same(
    numbers,
    numbers.map((_, k) => 200 - numbers.length + k),
    'the youngest lines, in order',
  );
});

await t.test('a restart goes on in the same file and drops a torn last line', async (t) => {
  const { sink, path, messages } = openLog(t);
  sink.log.info('before');
  sink.close();
  sink.log.info('too late');
  writeFileSync(path, '{"time":"torn', { flag: 'a' });
  const again = createLog(options(path));
  again.log.info('after');
  again.close();
  t.same(messages(), ['culvert log', 'before', 'culvert log', 'after']);
});

await t.test('a link in place of the file is not followed', async (t) => {
  const directory = freshDirectory();
  const victim = join(directory, 'victim');
  writeFileSync(victim, 'precious');
  const path = join(directory, 'culvert.log');
  symlinkSync(victim, path);
  const sink = createLog(options(path));
  sink.log.error('broken');
  sink.close();
  t.equal(readFileSync(victim, 'utf8'), 'precious');
});

await t.test('a directory that comes back is written to, and the loss is told', async (t) => {
  const directory = join(freshDirectory(), 'later');
  const sink = createLog(options(join(directory, 'culvert.log')));
  sink.log.info('lost');
  sink.log.info('lost too');
  sink.flush();
  mkdirSync(directory);
  sink.log.info('kept');
  sink.close();
  const lines = readLines(join(directory, 'culvert.log'));
  t.match(lines, [
    { message: 'culvert log' },
    { message: 'log lines lost', lost: 2 },
    { message: 'kept' },
  ]);
});

const mounted = freshDirectory();
const mount = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=16k', 'tmpfs', mounted]);
const noMount = mount.status === 0 ? false : 'needs root to mount a small file system';
await t.test('a full disk loses lines and nothing else', { skip: noMount }, async (t) => {
  t.teardown(() => spawnSync('umount', [mounted]));
  const path = join(mounted, 'culvert.log');
  writeFileSync(join(mounted, 'ballast'), Buffer.alloc(8 * 1024));
  const sink = createLog({ ...options(path), level: 'debug' });
  for (let i = 0; i < 100; i++) {
    sink.log.debug('line', { i, text: 'x'.repeat(200) });
    sink.flush();
  }
  rmSync(join(mounted, 'ballast'));
  sink.log.debug('room again');
  sink.close();
  const lines = readLines(path);
  const lost = Number(lines.find((line) => line['message'] === 'log lines lost')?.['lost']);
  t.ok(lost > 50, `${lost} lines lost`);
  t.equal(
    lines.filter((line) => line['message'] === 'line').length + lost,
    100,
    'none torn, none twice',
  );
  t.equal(lines.at(-1)?.['message'], 'room again');
});

await t.test('odd values do not throw and long ones are cut', async (t) => {
  const { sink, lines } = openLog(t);
  const odd = { big: 1n, nan: NaN, text: '\ud800 \u2028 \0', long: 'y'.repeat(10_000) };
  sink.log.info('odd', odd as unknown as LogFields);
  sink.flush();
  const line = lines().at(-1);
  t.match(line, { big: '1', nan: null });
  t.equal(String(line?.['long']).length, 2049);
});

await t.test('what waits is written when the process exits or fails', async (t) => {
  for (const [last, status] of [
    ['process.exit(3)', 3],
    ['throw new Error("bug")', 1],
  ] as const) {
    const { child, ended } = start(`log.info('last words'); ${last}`);
    child.stdin.end();
    const { stdout, exitCode } = await ended;
    t.equal(exitCode, status);
    t.match(parseLines(stdout), [{ message: 'culvert log' }, { message: 'last words' }], last);
  }
});

await t.test('a reader that is gone ends the output and not the process', async (t) => {
  const path = join(freshDirectory(), 'culvert.log');
  const script = `
    process.stdin.once('data', () => {
      for (let i = 0; i < 1000; i++) { log.debug('line', { i }); sink.flush(); }
      log.info('survived');
      process.exit(0);
    });`;
  const { child, ended } = start(script, path);
  child.stdout.destroy();
  child.stdin.write('go\n');
  t.equal((await ended).exitCode, 0);
  const lines = readLines(path);
  t.equal(lines.length, 1002);
  t.equal(lines.at(-1)?.['message'], 'survived');
});

await t.test('a reader that is slow loses lines, holds up nothing, and is told', async (t) => {
  const script = `
    for (let i = 0; i < 3000; i++) { log.debug('line', { i, text: 'x'.repeat(400) }); sink.flush(); }
    process.stderr.write('waiting\\n');
    process.stdin.once('data', () => { log.debug('awake'); process.exit(0); });`;
  const { child, ended } = start(script);
  child.stdout.pause();
  await new Promise((resolve) => child.stderr.once('data', resolve));
  child.stdout.resume();
  // The backlog is written while the process waits; only then is there room to tell.
  await until(() => Number(Reflect.get(child.stdout, 'bytesRead')) > 300_000);
  child.stdin.write('go\n');
  const lines = parseLines((await ended).stdout);
  const lost = lines.reduce((sum, line) => sum + Number(line['lost'] ?? 0), 0);
  t.ok(lost > 0, `${lost} lines lost`);
  t.equal(lines.filter((line) => line['message'] === 'line').length + lost, 3000);
  t.equal(lines.at(-1)?.['message'], 'awake');
});

function options(path: string, clock: { ms: number } = { ms: 0 }) {
  return {
    level: 'info' as Severity,
    version: '1.2.3',
    commit: 'abc',
    clock: { now: () => instantAt(clock.ms), unixMs: () => 1_700_000_000_123 },
    file: { path, maxBytes: 1_000_000, keep: 2 },
  };
}

function openLog(
  t: Test,
  given: { level?: Severity; clock?: { ms: number }; maxBytes?: number; keep?: number } = {},
) {
  const path = join(freshDirectory(), 'culvert.log');
  const { maxBytes = 1_000_000, keep = 2 } = given;
  const base = options(path, given.clock);
  const sink: LogSink = createLog({
    ...base,
    level: given.level ?? 'info',
    file: { path, maxBytes, keep },
  });
  t.teardown(() => sink.close());
  const lines = (): LogFields[] => readLines(path);
  return { sink, path, lines, messages: () => lines().map((line) => line['message']) };
}

function readLines(path: string): LogFields[] {
  return parseLines(readFileSync(path, 'utf8'));
}

function parseLines(text: string): LogFields[] {
  return text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as LogFields);
}

function freshDirectory(): string {
  const directory = join(top, String(logs++));
  mkdirSync(directory);
  return directory;
}

/** Starts a process that logs to its standard output and, where given, to a file. */
function start(script: string, path?: string) {
  const bundle = join(top, 'log.cjs');
  if (!existsSync(bundle)) {
    const entry = resolve('plugins/log/index.ts');
    const flags = ['--bundle', '--platform=node', '--format=cjs', '--log-level=error'];
    execFileSync('node_modules/.bin/esbuild', [entry, ...flags, `--outfile=${bundle}`]);
  }
  const file = path === undefined ? 'undefined' : JSON.stringify({ path, maxBytes: 1e6, keep: 1 });
  const program = `
    const { createLog } = require(${JSON.stringify(bundle)});
    const clock = { now: () => performance.now(), unixMs: () => Date.now() };
    const sink = createLog({ level: 'debug', version: 'v', commit: 'c', clock, descriptor: 1, file: ${file} });
    const { log } = sink;
    ${script}`;
  // Through a pipe, as procd has it: node itself gives its children sockets.
  const shell = '{ "$0" -e "$1"; echo $? >&2; } | cat';
  const child = spawn('sh', ['-c', shell, process.execPath, program]);
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (piece: string) => (stdout += piece));
  child.stderr.setEncoding('utf8').on('data', (piece: string) => (stderr += piece));
  const ended = new Promise<{ stdout: string; exitCode: number }>((resolve) => {
    child.once('close', () => {
      resolve({ stdout, exitCode: Number(stderr.trim().split('\n').at(-1)) });
    });
  });
  return { child, ended };
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}
