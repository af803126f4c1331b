import { once } from 'node:events';
import {
  constants,
  createSecureServer,
  type Http2SecureServer,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import { createServer as createHttpsServer } from 'node:https';
import type { AddressInfo, Server, Socket } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';
import t, { type Test } from 'tap';
import { EXCHANGE_PATIENCE } from '../../../core/dns/forwarder.ts';
import { STREAM_IDLE, STREAM_PATIENCE } from '../../../plugins/dns-upstream/query-stream.ts';
import { question, reply } from '../../core/dns/messages.ts';
import { Authority, makeDirectory } from '../../interop/mosquitto-broker.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';
import { Scene } from './scene.ts';
import { freePort } from './servers.ts';

const directory = makeDirectory();
t.teardown(() => directory.remove());
const authority = new Authority(directory, 'authority');
const issued = authority.issue('dns', 'DNS:localhost,IP:127.0.0.1');
const identity = { cert: issued.certificate, key: issued.privateKey };
const authorities = [authority.certificate];

/** Node.js keeps the sockets of sessions from being destroyed. */
const sockets = new Map<ServerHttp2Session, Socket>();

await t.test('a query is a request whose message has id 0', async (t) => {
  const scene = new Scene(t, { isManual: true, authorities });
  const server = await h2Server(t, ({ stream, query }) => answer(stream, reply(query)));
  for (const id of [0xffff, 1, 2]) scene.ask(`${server.origin}/ask?a=1`, 'https', id);
  await scene.until(() => scene.answers.length === 3);
  t.same(scene.answeredIds, [1, 2, 0xffff]);
  t.match(scene.answers[0], { upstream: `${server.origin}/ask?a=1`, transport: 'https', port: 0 });
  for (const { query, headers } of server.requests) {
    t.same(query, question('a.test', 'A', { id: 0 }));
    t.match(headers, {
      ':method': 'POST',
      ':scheme': 'https',
      ':path': '/ask?a=1',
      ':authority': server.origin.slice('https://'.length),
      'content-type': 'application/dns-message',
      accept: 'application/dns-message',
      'content-length': String(query.length),
    });
  }
  t.equal(server.sessions.length, 1);
  await scene.pass(STREAM_IDLE);
  await scene.until(() => server.sessions[0]?.destroyed === true);
});

await t.test('an answer that is none fails for its query alone', async (t) => {
  const scene = new Scene(t, { isManual: true, authorities });
  const dns = { ':status': 200, 'content-type': 'application/dns-message' };
  const behaviours: readonly ((request: Request) => void)[] = [
    ({ stream, query }) => answer(stream, reply(query), { ...dns, ':status': 500 }),
    ({ stream, query }) => answer(stream, reply(query), { ...dns, ':status': 302, location: '/' }),
    ({ stream, query }) => answer(stream, reply(query), { ...dns, 'content-type': 'text/html' }),
    ({ stream, query }) => answer(stream, reply(query), { ':status': 200 }),
    ({ stream, query }) => answer(stream, reply(query).subarray(0, 11)),
    ({ stream }) => answer(stream, new Uint8Array()),
    ({ stream }) => answer(stream, new Uint8Array(65_536)),
    ({ stream }) => answer(stream, new Uint8Array(4 << 20)),
    ({ stream }) => stream.respond({ ...dns }, { endStream: true }),
    ({ stream }) => stream.close(constants.NGHTTP2_REFUSED_STREAM),
    ({ stream }) => stream.close(constants.NGHTTP2_NO_ERROR),
    ({ stream, query }) => reset(stream, reply(query)),
  ];
  const server = await h2Server(t, (request) => {
    const number = server.requests.length - 1;
    (behaviours[number] ?? (({ stream, query }) => answer(stream, reply(query))))(request);
  });
  for (const [id, behaviour] of behaviours.entries()) {
    scene.ask(`${server.origin}/`, 'https', id);
    await scene.until(() => scene.failures.length + scene.answers.length > 0);
    const failure = { upstream: `${server.origin}/`, transport: 'https', id };
    t.same(scene.failures.splice(0), [failure], String(behaviour));
  }
  t.same(scene.answers, []);
  scene.ask(`${server.origin}/`, 'https', 99);
  await scene.until(() => scene.answers.length === 1);
  t.equal(server.sessions.length, 1);
});

await t.test('the longest message is answered, also in small pieces', async (t) => {
  const scene = new Scene(t, { isManual: true, authorities });
  const server = await h2Server(t, ({ stream, query }) => {
    const longest = new Uint8Array(65_535);
    longest.set(reply(query));
    stream.respond({ ':status': 200, 'content-type': 'Application/DNS-Message; a=b' });
    for (let at = 0; at < longest.length; at += 1_000)
      stream.write(longest.subarray(at, at + 1_000));
    stream.end();
  });
  scene.ask(server.origin, 'https', 3);
  await scene.until(() => scene.answers.length + scene.failures.length > 0);
  t.same(scene.failures, []);
  t.match(scene.answers, [{ id: 3, bytes: { length: 65_535 } }]);
});

await t.test('a session that the server ends is replaced by another', async (t) => {
  const scene = new Scene(t, { isManual: true, authorities });
  const ends: Record<string, (session: ServerHttp2Session) => void> = {
    goaway: (session) => session.goaway(),
    'goaway with an error': (session) => session.goaway(constants.NGHTTP2_ENHANCE_YOUR_CALM),
    'graceful close': (session) => session.close(),
    'TCP breaks': (session) => sockets.get(session)?.destroy(),
  };
  for (const [name, end] of Object.entries(ends)) {
    // The first session ends with its fourth request, which stays open with the second and third.
    const server = await h2Server(t, ({ stream, query }) => {
      const count = server.requests.length;
      if (count === 1 || server.sessions.length > 1) answer(stream, reply(query));
      else if (count === 4 && stream.session !== undefined)
        end(stream.session as ServerHttp2Session);
    });
    scene.ask(server.origin, 'https', 1);
    await scene.until(() => scene.answers.length === 1);
    for (const id of [2, 3, 4]) scene.ask(server.origin, 'https', id);
    await scene.until(() => scene.answers.length + scene.failures.length >= 4);
    t.same(scene.answeredIds, [1, 2, 3, 4], name);
    t.same(scene.failures.splice(0), []);
    t.equal(server.sessions.length, 2, name);
    scene.answers.length = 0;
  }
});

await t.test('a server that ends sessions before it answers has failed', async (t) => {
  const scene = new Scene(t, { isManual: true, authorities });
  const server = await h2Server(t, ({ stream }) => stream.session?.destroy());
  const failure = { upstream: `${server.origin}/dns-query`, transport: 'https' };
  for (const id of [1, 2]) scene.ask(server.origin, 'https', id);
  await scene.until(() => scene.failures.length > 0);
  await scene.settle();
  t.same(scene.failures.splice(0), [failure]);
  t.equal(server.sessions.length, 1);
});

await t.test('a silent server fails; a request that it forgets is given up', async (t) => {
  const scene = new Scene(t, { isManual: true, authorities });
  const server = await h2Server(t, ({ stream, query }) => {
    if (server.requests.length > 1) answer(stream, reply(query));
  });
  const failure = { upstream: `${server.origin}/dns-query`, transport: 'https' };
  scene.ask(server.origin, 'https', 1);
  await scene.until(() => server.requests.length === 1);
  await scene.pass(STREAM_PATIENCE / 2);
  scene.ask(server.origin, 'https', 2);
  await scene.until(() => scene.answers.length === 1);
  await scene.pass(EXCHANGE_PATIENCE);
  t.same(scene.failures, []);
  await scene.until(() => server.requests[0]?.stream.closed === true);
  t.equal(server.sessions.length, 1);

  const silent = await h2Server(t, () => undefined);
  scene.ask(silent.origin, 'https', 1);
  await scene.until(() => silent.requests.length === 1);
  await scene.pass(STREAM_PATIENCE);
  t.same(scene.failures, [{ ...failure, upstream: `${silent.origin}/dns-query` }]);
  await scene.until(() => silent.sessions[0]?.destroyed === true);
});

await t.test('a server that does not run or does not speak HTTP/2 has failed', async (t) => {
  const scene = new Scene(t, { isManual: true, authorities });
  const h2 = { ...identity, ALPNProtocols: ['h2'] };
  const ports = [
    await freePort(),
    await listen(
      t,
      createHttpsServer(identity, (_, response) => void response.end()),
    ),
    await listen(t, createHttpsServer({ ...identity, ALPNProtocols: [] })),
    await listen(
      t,
      createTlsServer(h2, (socket) => socket.end()),
    ),
    await listen(
      t,
      createTlsServer(h2, (socket) => socket.destroy()),
    ),
    await listen(
      t,
      createTlsServer(h2, (socket) => socket.end('HTTP/1.1 200 OK\r\n\r\n')),
    ),
    await listen(
      t,
      createTlsServer(h2, (socket) => void socket.write(Buffer.alloc(99_999, 1))),
    ),
  ];
  for (const port of ports) {
    const origin = `https://localhost:${port}`;
    for (const id of [1, 2]) scene.ask(origin, 'https', id);
    await scene.until(() => scene.failures.length > 0);
    await scene.settle();
    t.same(scene.failures.splice(0), [{ upstream: `${origin}/dns-query`, transport: 'https' }]);
  }
});

await t.test('more requests than the server takes at a time wait their turn', async (t) => {
  const scene = new Scene(t, { isManual: true, authorities });
  let open = 0;
  let most = 0;
  const server = await h2Server(
    t,
    ({ stream, query }) => {
      most = Math.max(most, ++open);
      setImmediate(() => {
        open--;
        answer(stream, reply(query));
      });
    },
    { settings: { maxConcurrentStreams: 100 } },
  );
  const ids = Array.from({ length: 700 }, (_, i) => i);
  for (const id of ids) scene.ask(server.origin, 'https', id);
  await scene.until(() => scene.answers.length + scene.failures.length >= ids.length);
  t.same(scene.answeredIds, ids);
  t.same(scene.failures, []);
  t.ok(most <= 100, `${most} at a time`);
  t.equal(server.sessions.length, 1);
});

await t.test('10,000 answers of a hostile server change nothing', async (t) => {
  const seed = Number(process.env['SEED'] ?? Date.now() % 1e6);
  t.comment(`SEED=${seed}`);
  const random = new SeededRandom(seed);
  const scene = new Scene(t, { isManual: true, authorities });
  const server = await h2Server(t, ({ stream }) => {
    const junk = new Uint8Array(Math.floor(random.fraction() ** 3 * 1_000));
    random.fill(junk);
    const status = random.fraction() < 0.9 ? 200 : 100 + Math.floor(random.fraction() * 500);
    const isDns = random.fraction() < 0.9;
    const type = isDns ? 'application/dns-message' : 'text/plain';
    if (random.fraction() < 0.05) return reset(stream, junk);
    try {
      answer(stream, junk, { ':status': status, 'content-type': type });
    } catch {
      stream.close(); // not a status that Node.js sends
    }
  });
  for (let round = 0; round < 20; round++) {
    for (let id = 0; id < 500; id++) scene.ask(server.origin, 'https', id);
    await scene.until(() => scene.answers.length + scene.failures.length >= 500);
    const told = [...scene.answers.splice(0), ...scene.failures.splice(0)];
    t.equal(new Set(told.map(({ id }) => id)).size, 500, 'each is told once');
  }
});

interface Request {
  readonly stream: ServerHttp2Stream;
  readonly headers: IncomingHttpHeaders;
  readonly query: Uint8Array;
}

interface H2Server {
  readonly origin: string;
  /** All that there were. */
  readonly requests: readonly Request[];
  readonly sessions: readonly ServerHttp2Session[];
}

async function h2Server(
  t: Test,
  onRequest: (request: Request) => void,
  options: { readonly settings?: { readonly maxConcurrentStreams: number } } = {},
): Promise<H2Server> {
  const requests: Request[] = [];
  const sessions: ServerHttp2Session[] = [];
  const server: Http2SecureServer = createSecureServer({ ...identity, ...options });
  let latest: Socket | undefined;
  server.prependListener('secureConnection', (socket) => (latest = socket));
  server.on('session', (session) => {
    sessions.push(session);
    if (latest !== undefined) sockets.set(session, latest);
    session.on('error', () => undefined);
    t.teardown(() => session.destroy());
  });
  server.on('stream', (stream, headers) => {
    stream.on('error', () => undefined);
    const chunks: Buffer[] = [];
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('end', () => {
      const request = { stream, headers, query: Uint8Array.from(Buffer.concat(chunks)) };
      requests.push(request);
      onRequest(request);
    });
  });
  return { origin: `https://localhost:${await listen(t, server)}`, requests, sessions };
}

function answer(
  stream: ServerHttp2Stream,
  message: Uint8Array,
  headers: Readonly<Record<string, string | number>> = {
    ':status': 200,
    'content-type': 'application/dns-message',
  },
): void {
  if (stream.destroyed) return;
  stream.respond({ ...headers });
  stream.end(message);
}

/** Sends the message but for the end of the stream. */
function reset(stream: ServerHttp2Stream, message: Uint8Array): void {
  stream.respond({ ':status': 200, 'content-type': 'application/dns-message' });
  stream.write(message, () => stream.destroy(new Error('reset')));
}

async function listen(t: Test, server: Server): Promise<number> {
  server.on('connection', (socket: Socket) => {
    socket.on('error', () => undefined);
    t.teardown(() => socket.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  return (server.address() as AddressInfo).port;
}
