import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { spawn } from 'node:child_process';
import t, { type Test } from 'tap';
import { nullLog, type Log } from '../../../core/sansio/log.ts';
import {
  LocalApiError,
  callLocalApi,
  createLocalApi,
  type LocalApiMethod,
} from '../../../plugins/local-api/index.ts';

const directory = mkdtempSync(join(tmpdir(), 'culvert-local-api-'));
t.teardown(() => rmSync(directory, { recursive: true }));
let paths = 0;

await t.test('a method is called and its result comes back', async (t) => {
  const path = await serve(t, { sum: (params) => (params as number[]).reduce((a, b) => a + b, 0) });
  t.same(await callLocalApi(path, 'sum', [1, 2, 3], 5000), { ok: true, value: 6 });
});

await t.test('the socket is for root alone, and gone after the stop', async (t) => {
  const path = freshPath();
  const api = createLocalApi({ path, methods: {}, log: nullLog });
  t.match(await api.start(), { ok: true });
  t.equal(statSync(path).mode & 0o777, 0o600);
  t.match(await api.start(), { ok: true }, 'starting twice is harmless');
  await api.stop();
  await api.stop();
  t.equal(existsSync(path), false);
  t.match(await api.start(), { ok: true }, 'and it starts again');
  await api.stop();
});

await t.test('a missing directory is made', async (t) => {
  const path = join(directory, 'deep', 'down', 'a.sock');
  const api = createLocalApi({ path, methods: {}, log: nullLog });
  t.match(await api.start(), { ok: true });
  await api.stop();
});

await t.test('a socket on which somebody answers is left alone', async (t) => {
  const path = await serve(t, { who: () => 'first' });
  const second = createLocalApi({ path, methods: { who: () => 'second' }, log: nullLog });
  t.same(await second.start(), { ok: false, why: 'in-use' });
  await second.stop();
  t.same(await callLocalApi(path, 'who', {}, 5000), { ok: true, value: 'first' });
});

await t.test('the socket of a killed process is replaced', async (t) => {
  const path = freshPath();
  const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => console.log('up'))`;
  const child = spawn(process.execPath, ['-e', script]);
  await new Promise((resolve) => child.stdout.once('data', resolve));
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGKILL');
  await ended;
  t.equal(existsSync(path), true, 'it left its socket');
  const api = createLocalApi({ path, methods: { who: () => 'me' }, log: nullLog });
  t.match(await api.start(), { ok: true });
  t.same(await callLocalApi(path, 'who', {}, 5000), { ok: true, value: 'me' });
  await api.stop();
});

await t.test('a file that is no socket is never removed', async (t) => {
  const path = freshPath();
  writeFileSync(path, 'precious');
  const api = createLocalApi({ path, methods: {}, log: nullLog });
  t.same(await api.start(), { ok: false, why: 'in-use' });
  t.equal(statSync(path).size, 8);
});

await t.test('JSON-RPC 2.0: requests, notifications and every error', async (t) => {
  let notified = 0;
  const errors: string[] = [];
  const path = await serve(
    t,
    {
      echo: (params) => params,
      nothing: () => undefined,
      later: async () => Promise.resolve('later'),
      notify: () => notified++,
      refuse: () => {
        throw new LocalApiError('unknown peer');
      },
      fail: () => {
        throw new Error('secret detail');
      },
      cycle: () => 1n,
    },
    {
      ...nullLog,
      error: (message, fields) => errors.push(`${message} ${String(fields?.['cause'])}`),
    },
  );
  const call = (method: string, params: unknown): string =>
    JSON.stringify({ jsonrpc: '2.0', id: 7, method, params });
  const error = (code: number, message: string, id: number | null = 7): object => ({
    jsonrpc: '2.0',
    id,
    error: { code, message },
  });
  const cases: [string, object][] = [
    [call('echo', { a: 'ü🎉' }), { jsonrpc: '2.0', id: 7, result: { a: 'ü🎉' } }],
    [call('nothing', {}), { jsonrpc: '2.0', id: 7, result: null }],
    ['{"jsonrpc":"2.0","id":"x","method":"later"}', { jsonrpc: '2.0', id: 'x', result: 'later' }],
    ['{"jsonrpc":"2.0","id":null,"method":"later"}', { jsonrpc: '2.0', id: null, result: 'later' }],
    [call('missing', {}), error(-32601, 'no such method')],
    [call('constructor', {}), error(-32601, 'no such method')],
    [call('__proto__', {}), error(-32601, 'no such method')],
    [call('refuse', {}), error(-32602, 'unknown peer')],
    [call('fail', {}), error(-32603, 'internal error, see the log')],
    [call('cycle', {}), error(-32603, 'internal error, see the log')],
    ['{', error(-32700, 'not JSON', null)],
    ['1', error(-32600, 'not a JSON-RPC 2.0 request', null)],
    ['null', error(-32600, 'not a JSON-RPC 2.0 request', null)],
    ['[]', error(-32600, 'not a JSON-RPC 2.0 request', null)],
    ['{"jsonrpc":"1.0","id":1,"method":"echo"}', error(-32600, 'not a JSON-RPC 2.0 request', null)],
    ['{"jsonrpc":"2.0","id":{},"method":"echo"}', error(-32600, 'not a request id', null)],
  ];
  const notifications = [
    '',
    '{"jsonrpc":"2.0","method":"notify"}',
    '{"jsonrpc":"2.0","method":"missing"}',
  ];
  const lines = [...notifications, ...cases.map(([line]) => line)];
  const answers = (await converse(path, lines.map((line) => `${line}\n`).join('')))
    .trim()
    .split('\n');
  t.equal(answers.length, cases.length);
  for (const [i, [line, expected]] of cases.entries()) {
    t.same(JSON.parse(answers[i] ?? 'null'), expected, line);
  }
  t.equal(notified, 1);
  t.equal(errors[0], 'local method failed Error: secret detail');
});

await t.test('a request that is too large ends its connection only', async (t) => {
  const path = await serve(t, { ping: () => 'pong' });
  const answer = await converse(path, 'x'.repeat(2 ** 20 + 1));
  t.match(JSON.parse(answer), { error: { message: 'request too large' } });
  t.match(await callLocalApi(path, 'ping', {}, 5000), { ok: true, value: 'pong' });
});

await t.test('silent clients are pushed out and harm nobody', async (t) => {
  const path = await serve(t, { ping: () => 'pong' });
  let closed = 0;
  const idle = Array.from({ length: 40 }, () => {
    const socket = connect(path);
    socket.on('error', () => undefined);
    socket.once('close', () => closed++);
    return socket;
  });
  t.match(await callLocalApi(path, 'ping', {}, 5000), { ok: true, value: 'pong' });
  await until(() => closed >= 25);
  t.equal(closed, 25, '41 connections, 16 stay');
  for (const socket of idle) socket.destroy();
});

await t.test('a client that asks and does not read costs one answer', async (t) => {
  let calls = 0;
  const path = await serve(t, {
    large: () => {
      calls++;
      return 'x'.repeat(2 ** 20);
    },
  });
  const socket = connect(path);
  socket.on('error', () => undefined);
  socket.write('{"jsonrpc":"2.0","id":1,"method":"large"}\n'.repeat(1000));
  await until(() => calls > 0);
  for (let i = 0; i < 5; i++) await callLocalApi(path, 'large', {}, 5000);
  t.ok(calls < 12, `${calls} calls`);
  socket.destroy();
});

await t.test('the client names the cure', async (t) => {
  const message = async (path: string, timeoutMs = 5000): Promise<string> => {
    const answer = await callLocalApi(path, 'status', {}, timeoutMs);
    return answer.ok ? 'answered' : `${answer.why}: ${answer.message}`;
  };
  t.match(await message(freshPath()), /^not-running: culvert is not running .*start it with/);
  const other = await serve(t, {});
  t.match(await message(other), 'refused: culvert refused "status": no such method');

  const dumb = async (answer: string | undefined): Promise<string> => {
    const path = freshPath();
    const server = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.on('data', () => answer !== undefined && socket.end(answer));
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    t.teardown(() => server.close());
    return path;
  };
  t.match(
    await message(await dumb(undefined), 50),
    /^timeout: culvert does not answer within 0.05 s/,
  );
  t.match(await message(await dumb('')), /^closed: culvert closed the connection/);
  t.match(await message(await dumb('HTTP/1.1 400\n')), /^failed: what answers .* is not culvert/);
  t.match(await message(await dumb('null\n')), /^failed: what answers .* is not culvert/);
});

async function serve(
  t: Test,
  methods: Record<string, LocalApiMethod>,
  log: Log = nullLog,
): Promise<string> {
  const path = freshPath();
  const api = createLocalApi({ path, methods, log });
  const started = await api.start();
  if (!started.ok) throw new Error(started.why);
  t.teardown(() => api.stop());
  return path;
}

function freshPath(): string {
  return join(directory, `${paths++}.sock`);
}

/** Sends the text, closes that direction and returns all that comes back. */
function converse(path: string, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path, allowHalfOpen: true });
    let received = '';
    socket.setEncoding('utf8');
    socket.on('data', (piece: string) => (received += piece));
    socket.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') resolve(received);
      else reject(error);
    });
    socket.once('end', () => {
      socket.destroy();
      resolve(received);
    });
    socket.end(text);
  });
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}
