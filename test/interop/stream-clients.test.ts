import { execFile, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import { socketAddressPort } from '../../core/net/socket-address.ts';
import type { StreamEvent } from '../../core/plugin/streams.ts';
import { nullLog } from '../../core/sansio/log.ts';
import { StreamTransport } from '../../plugins/transport-stream/stream-transport.ts';
import { Loopback } from '../plugins/transport-stream/loopback.ts';

/* Other programs at our listener: OpenSSL's client, curl, and the WebSocket client of Python. */

const run = promisify(execFile);

await t.test('openssl finds TLS 1.3 with an Ed25519 certificate, and bytes inside', async (t) => {
  const { port, events } = await echo(t);
  const { stdout } = await spawned(
    'openssl',
    ['s_client', '-connect', `127.0.0.1:${port}`, '-ign_eof'],
    'hello\n',
    'hello',
  );
  t.match(stdout, /Protocol *: TLSv1\.3|New, TLSv1\.3/);
  t.match(stdout, /ed25519/i);
  t.match(stdout, /subject=CN ?= ?culvert/);
  t.match(events, [{ type: 'accepted', protocol: 'tls' }]);
});

await t.test('openssl gets nothing older than TLS 1.3', async (t) => {
  const { port, events } = await echo(t);
  await t.rejects(run('openssl', ['s_client', '-connect', `127.0.0.1:${port}`, '-tls1_2']));
  t.same(events, []);
});

await t.test('curl gets 404 and the connection is closed, with and without TLS', async (t) => {
  const { port, events } = await echo(t);
  for (const scheme of ['http', 'https']) {
    const { stdout } = await run('curl', [
      '-sik',
      '--max-time',
      '10',
      `${scheme}://127.0.0.1:${port}/index.html`,
    ]);
    t.match(stdout, /^HTTP\/1\.1 404 Not Found/);
    t.match(stdout, /connection: close/i);
  }
  t.same(events, []);
});

await t.test(
  "Python's WebSocket client is understood, in fragments and between pings",
  async (t) => {
    const { port, events } = await echo(t);
    const client = fileURLToPath(new URL('websocket-client.py', import.meta.url));
    for (const protocol of ['ws', 'wss']) {
      const { stdout } = await run('/usr/bin/python3', [
        client,
        `${protocol}://127.0.0.1:${port}/any`,
        '100000',
      ]);
      t.equal(stdout, 'same\n');
    }
    const accepted = events.filter(({ type }) => type === 'accepted');
    t.match(accepted, [{ protocol: 'ws' }, { protocol: 'wss' }]);
  },
);

/** Starts a listener that sends back what it gets. */
async function echo(t: Test): Promise<{ readonly port: number; readonly events: StreamEvent[] }> {
  const world = new Loopback(t);
  const streams = new StreamTransport(undefined, nullLog);
  t.teardown(() => streams.stop());
  const events: StreamEvent[] = [];
  streams.listenTo((event) => {
    if (event.type === 'data') streams.send(event.stream, event.bytes);
    else events.push(event);
  });
  const { port, address } = await world.freePort();
  await streams.listen({ port, deviceKey: new Uint8Array(32).fill(5) });
  t.equal(socketAddressPort(address), port);
  return { port, events };
}

/** Runs a program with this input until its output ends with what is awaited. */
function spawned(
  command: string,
  parameters: readonly string[],
  input: string,
  awaited: string,
): Promise<{ stdout: string }> {
  return new Promise((resolve) => {
    const child = spawn(command, parameters, { stdio: 'pipe' });
    let stdout = '';
    child.stdout.on('data', (chunk: Buffer) => {
      stdout += chunk.toString();
      if (stdout.trimEnd().endsWith(awaited)) child.kill();
    });
    child.stdin.write(input);
    child.once('close', () => resolve({ stdout }));
  });
}
