import { createServer, type AddressInfo, type Socket } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';
import { once } from 'node:events';
import t, { type Test } from 'tap';
import { EXCHANGE_PATIENCE } from '../../../core/dns/forwarder.ts';
import {
  MOST_OPEN,
  STREAM_IDLE,
  STREAM_PATIENCE,
} from '../../../plugins/dns-upstream/query-stream.ts';
import { FrameReader } from '../../../plugins/dns-upstream/frame-reader.ts';
import { question, reply } from '../../core/dns/messages.ts';
import { Authority, makeDirectory } from '../../interop/mosquitto-broker.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';
import { Scene } from './scene.ts';
import { freePort } from './servers.ts';

await t.test('messages are found however the stream is cut', async (t) => {
  const seed = Number(process.env['SEED'] ?? Date.now() % 1e6);
  t.comment(`SEED=${seed}`);
  const random = new SeededRandom(seed);
  const messages = [0, 1, 12, 300, 65_535, 2, 0, 4_096].map((length) => {
    const message = new Uint8Array(length);
    random.fill(message);
    return message;
  });
  const stream = Buffer.concat(messages.map(frame));
  for (let round = 0; round < 20; round++) {
    const found: Uint8Array[] = [];
    const reader = new FrameReader((message) => found.push(message));
    const most = round === 0 ? 1 : 1 + Math.floor(random.fraction() * 2_000);
    for (let at = 0; at < stream.length;) {
      const end = at + 1 + Math.floor(random.fraction() * most);
      reader.push(stream.subarray(at, end));
      at = end;
    }
    if (!found.every((message, i) => Buffer.compare(message, messages[i] ?? message) === 0)) {
      t.fail(`pieces of ${most}`);
    }
    t.equal(found.length, messages.length);
  }
});

await t.test('queries share a connection, and are answered in any order', async (t) => {
  const scene = new Scene(t, { isManual: true });
  const waiting: Uint8Array[] = [];
  const server = await tcpServer(t, (query, socket) => {
    waiting.push(query);
    if (waiting.length < 3) return;
    // In pieces of one byte, the last query first.
    const answer = Buffer.concat(waiting.reverse().map((one) => frame(reply(one))));
    for (const byte of answer) socket.write(Uint8Array.of(byte));
  });
  for (const id of [1, 2, 3]) scene.ask(server.id, 'tcp', id);
  await scene.until(() => scene.answers.length === 3);
  t.same(
    scene.answers.map(({ id }) => id),
    [3, 2, 1],
  );
  t.match(scene.answers[0], { upstream: server.id, transport: 'tcp', port: 0 });
  t.equal(server.connections.length, 1);
});

await t.test('an idle connection is closed, and a new one opened', async (t) => {
  const scene = new Scene(t, { isManual: true });
  const server = await tcpServer(t, (query, socket) => socket.write(frame(reply(query))));
  for (let id = 0; id < 3; id++) {
    scene.ask(server.id, 'tcp', id);
    await scene.until(() => scene.answers.length === id + 1);
    await scene.pass(STREAM_IDLE - 1);
  }
  t.equal(server.connections.length, 1);
  await scene.pass(1);
  await scene.until(() => server.connections[0]?.closed === true);
  scene.ask(server.id, 'tcp', 4);
  await scene.until(() => scene.answers.length === 4);
  t.equal(server.connections.length, 2);
  t.same(scene.failures, []);
});

await t.test('a server fails that refuses, closes, resets or talks nonsense', async (t) => {
  const scene = new Scene(t, { isManual: true });
  const behaviours: Record<string, (query: Uint8Array, socket: Socket) => void> = {
    closes: (_, socket) => socket.end(),
    resets: (_, socket) => socket.resetAndDestroy(),
    'half a length': (_, socket) => socket.end(Uint8Array.of(1)),
    'half a message': (query, socket) => socket.end(frame(reply(query)).subarray(0, 20)),
    'an empty message': (_, socket) => socket.write(frame(new Uint8Array())),
    'a message without a header': (_, socket) => socket.write(frame(new Uint8Array(11))),
    HTTP: (_, socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'),
    'an answer to nobody, then closes': (_, socket) =>
      socket.end(frame(reply(question('a.test', 'A', { id: 999 })))),
  };
  for (const [name, behaviour] of Object.entries(behaviours)) {
    const server = await tcpServer(t, behaviour);
    for (const id of [1, 2]) scene.ask(server.id, 'tcp', id);
    await scene.until(() => scene.failures.length > 0);
    await scene.settle();
    t.same(scene.failures.splice(0), [{ upstream: server.id, transport: 'tcp' }], name);
    t.equal(server.connections.length, 1);
  }
  const nobody = `127.0.0.1:${await freePort()}`;
  scene.ask(nobody, 'tcp', 1);
  await scene.until(() => scene.failures.length > 0);
  t.same(scene.failures, [{ upstream: nobody, transport: 'tcp' }]);
});

await t.test('what a server leaves open after an answer is asked again', async (t) => {
  const scene = new Scene(t, { isManual: true });
  // Answers once a connection, as servers did before they knew of pipelining.
  const server = await tcpServer(t, (query, socket) => {
    if (socket.writable) socket.end(frame(reply(query)));
  });
  const ids = Array.from({ length: 20 }, (_, i) => i);
  for (const id of ids) scene.ask(server.id, 'tcp', id);
  await scene.until(() => scene.answers.length === ids.length);
  t.same(scene.answeredIds, ids);
  t.equal(server.connections.length, ids.length);
  t.same(scene.failures, []);
});

await t.test('a server that closes while idle costs nothing', async (t) => {
  const scene = new Scene(t, { isManual: true });
  const server = await tcpServer(t, (query, socket) => socket.write(frame(reply(query))));
  scene.ask(server.id, 'tcp', 1);
  await scene.until(() => scene.answers.length === 1);
  server.connections[0]?.end();
  // Both may be under way at the same time.
  scene.ask(server.id, 'tcp', 2);
  await scene.until(() => scene.answers.length === 2);
  t.same(scene.failures, []);
});

await t.test('a silent server fails; a lost query alone does not matter', async (t) => {
  const scene = new Scene(t, { isManual: true });
  const silent = await tcpServer(t, () => undefined);
  scene.ask(silent.id, 'tcp', 1);
  await scene.until(() => silent.connections.length === 1);
  await scene.pass(STREAM_PATIENCE - 1);
  t.same(scene.failures, []);
  await scene.pass(1);
  t.same(scene.failures.splice(0), [{ upstream: silent.id, transport: 'tcp' }]);
  await scene.until(() => silent.connections[0]?.closed === true);

  const forgetful = await tcpServer(t, (query, socket) => {
    if (query[1] !== 1) socket.write(frame(reply(query)));
  });
  scene.ask(forgetful.id, 'tcp', 1);
  for (let id = 2; id < 12; id++) {
    scene.ask(forgetful.id, 'tcp', id);
    await scene.until(() => scene.answers.length === id - 1);
    await scene.pass(STREAM_PATIENCE / 3);
  }
  t.equal(forgetful.connections.length, 1);
  t.same(scene.failures, []);
});

await t.test('a connection that fell silent is replaced by one that works', async (t) => {
  const scene = new Scene(t, { isManual: true });
  const server = await tcpServer(t, (query, socket) => {
    if (query[1] === 1 || socket !== server.connections[0]) socket.write(frame(reply(query)));
  });
  scene.ask(server.id, 'tcp', 1);
  await scene.until(() => scene.answers.length === 1);
  await scene.pass(1);
  scene.ask(server.id, 'tcp', 2);
  await scene.pass(STREAM_PATIENCE);
  await scene.until(() => scene.answers.length === 2);
  t.equal(server.connections.length, 2);
  t.same(scene.failures, []);
  t.ok(STREAM_PATIENCE < EXCHANGE_PATIENCE, 'while somebody still waits');
});

await t.test('queries beyond the limits are refused one by one', async (t) => {
  const scene = new Scene(t, { isManual: true });
  const server = await tcpServer(t, () => undefined);
  for (let id = 0; id <= MOST_OPEN; id++) scene.ask(server.id, 'tcp', id);
  await scene.until(() => scene.failures.length > 0);
  t.same(scene.failures.splice(0), [{ upstream: server.id, transport: 'tcp', id: MOST_OPEN }]);

  const deaf = await tcpServer(t, () => undefined, { isDeaf: true });
  const long = new Uint8Array(60_000);
  for (let id = 0; id < 200; id++) {
    long[1] = id;
    scene.send(deaf.id, 'tcp', long.slice());
    await scene.settle();
  }
  t.ok(scene.failures.length > 50, 'nothing piles up');
  t.ok(scene.failures.every(({ id, upstream }) => id !== undefined && upstream === deaf.id));
});

await t.test('10,000 frames of a hostile server change nothing', async (t) => {
  const seed = Number(process.env['SEED'] ?? Date.now() % 1e6);
  t.comment(`SEED=${seed}`);
  const random = new SeededRandom(seed);
  const scene = new Scene(t, { isManual: true });
  const server = await tcpServer(t, (query, socket) => {
    const frames: Uint8Array[] = [];
    for (let i = 0; i < 10_000; i++) {
      const junk = new Uint8Array(12 + Math.floor(random.fraction() ** 3 * 1_000));
      random.fill(junk);
      frames.push(frame(junk));
    }
    socket.write(Buffer.concat([...frames, frame(reply(query))]));
  });
  scene.ask(server.id, 'tcp', 5);
  await scene.until(() => scene.answers.length === 10_001);
  t.equal(scene.answers.at(-1)?.id, 5);
  t.same(scene.failures, []);
});

await t.test('a TLS session is resumed, and junk in place of TLS is a failure', async (t) => {
  const directory = makeDirectory();
  t.teardown(() => directory.remove());
  const authority = new Authority(directory, 'authority');
  const { certificate, privateKey } = authority.issue('dns', 'DNS:localhost');
  const names: unknown[] = [];
  const resumed: boolean[] = [];
  const tls = createTlsServer({ cert: certificate, key: privateKey }, (socket) => {
    socket.on('error', () => undefined);
    t.teardown(() => socket.destroy());
    names.push(socket.servername);
    resumed.push(socket.isSessionReused());
    onFrames(socket, (query) => socket.write(frame(reply(query))));
  });
  const scene = new Scene(t, { isManual: true, authorities: [authority.certificate] });
  const server = `tls://localhost:${await listen(t, tls)}`;
  for (let id = 1; id < 3; id++) {
    scene.ask(server, 'tls', id);
    await scene.until(() => scene.answers.length === id);
    await scene.pass(STREAM_IDLE);
  }
  t.same(names, ['localhost', 'localhost']);
  t.same(resumed, [false, true]);
  t.same(scene.failures, []);

  const junk = await tcpServer(t, () => undefined, { greeting: 'SSH-2.0-OpenSSH\r\n'.repeat(99) });
  const notTls = `tls://${junk.id}`;
  scene.ask(notTls, 'tls', 1);
  await scene.until(() => scene.failures.length > 0);
  t.same(scene.failures.splice(0), [{ upstream: notTls, transport: 'tls' }]);

  const mute = `tls://${(await tcpServer(t, () => undefined)).id}`;
  scene.ask(mute, 'tls', 1);
  await scene.pass(STREAM_PATIENCE);
  t.same(scene.failures.splice(0), [{ upstream: mute, transport: 'tls' }]);
});

await t.test('a name that does not resolve is a failure', async (t) => {
  const scene = new Scene(t);
  scene.ask('tls://nobody.invalid', 'tls', 1);
  scene.ask('tls://nobody.invalid:8853', 'tls', 1);
  await scene.until(() => scene.failures.length === 2);
  t.match(
    scene.failures.map(({ id }) => id),
    [undefined, undefined],
  );
});

await t.test('nothing is told after stop', async (t) => {
  const scene = new Scene(t, { isManual: true });
  const server = await tcpServer(t, (query, socket) => socket.write(frame(reply(query))));
  const nobody = `127.0.0.1:${await freePort()}`;
  scene.ask(server.id, 'tcp', 1);
  await scene.until(() => server.connections.length === 1);
  scene.answers.length = 0;
  scene.ask(server.id, 'tcp', 2);
  scene.ask(nobody, 'tcp', 3);
  scene.ask(nobody, 'udp', 4);
  scene.ask('tls://nobody.invalid', 'tls', 5);
  scene.ask('tls://nobody.invalid', 'udp', 6);
  scene.stop();
  scene.stop();
  scene.ask(server.id, 'tcp', 7);
  await scene.until(() => server.connections[0]?.closed === true);
  await scene.pass(STREAM_IDLE);
  t.same([...scene.answers, ...scene.failures], []);
  t.equal(server.connections.length, 1);
});

function frame(message: Uint8Array): Uint8Array {
  return Buffer.concat([Uint8Array.of(message.length >> 8, message.length & 0xff), message]);
}

interface TcpServer {
  /** Of the upstream. */
  readonly id: string;
  /** All that there were. */
  readonly connections: readonly Socket[];
}

async function tcpServer(
  t: Test,
  onQuery: (query: Uint8Array, socket: Socket) => void,
  options: { readonly isDeaf?: boolean; readonly greeting?: string } = {},
): Promise<TcpServer> {
  const connections: Socket[] = [];
  const isDeaf = options.isDeaf === true;
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: isDeaf }, (socket) => {
    connections.push(socket);
    t.teardown(() => socket.destroy());
    socket.on('error', () => undefined);
    socket.on('end', () => socket.end());
    if (options.greeting !== undefined) socket.write(options.greeting);
    if (!isDeaf) onFrames(socket, (query) => onQuery(query, socket));
  });
  return { id: `127.0.0.1:${await listen(t, server)}`, connections };
}

function onFrames(socket: Socket, onQuery: (query: Uint8Array) => void): void {
  let bytes = Buffer.alloc(0);
  socket.on('data', (chunk: Buffer) => {
    bytes = Buffer.concat([bytes, chunk]);
    while (bytes.length >= 2 && bytes.length >= 2 + bytes.readUInt16BE(0)) {
      const end = 2 + bytes.readUInt16BE(0);
      onQuery(bytes.subarray(2, end));
      bytes = bytes.subarray(end);
    }
  });
}

async function listen(t: Test, server: ReturnType<typeof createServer>): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  return (server.address() as AddressInfo).port;
}
