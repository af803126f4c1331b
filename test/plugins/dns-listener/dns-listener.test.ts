import { execFile } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import { encodeQuery } from '../../../core/dns/answer.ts';
import type { DomainName } from '../../../core/dns/name.ts';
import type { SocketAddress } from '../../../core/net/socket-address.ts';
import type { DnsListener, DnsQuery } from '../../../core/plugin/dns-listener.ts';
import type { PluginHost } from '../../../core/plugin/plugin.ts';
import { nullLog } from '../../../core/sansio/log.ts';
import { createDnsListener } from '../../../plugins/dns-listener/index.ts';
import {
  IDLE_TIMEOUT,
  MOST_OPEN_QUERIES,
  MOST_STREAMS_OF_CLIENT,
} from '../../../plugins/dns-listener/tcp.ts';

const host = { log: nullLog } as PluginHost;

await t.test('answers come from the address that was asked', async (t) => {
  const { api, port } = await listening(t, (query) => api.respond(query.client, answer(query)));
  for (const address of ['127.0.0.1', '127.0.0.2', '::1']) {
    t.strictSame(await askUdp(address, port, query(7)), {
      bytes: markedAnswer(query(7)),
      from: address,
    });
    t.strictSame(await askTcp(address, port, [query(9)]), [markedAnswer(query(9))]);
  }
});

await t.test('a query says who asked and where', async (t) => {
  const seen: DnsQuery[] = [];
  const { api, port } = await listening(t, (query) => {
    seen.push({ ...query, bytes: query.bytes.slice() });
    api.respond(query.client, answer(query));
  });
  await askUdp('::1', port, query(1));
  await askTcp('127.0.0.2', port, [query(2)]);
  t.match(seen, [
    { client: { transport: 'udp' }, local: `[::1]:${port}`, remote: /^\[::1\]:\d+$/ },
    { client: { transport: 'tcp' }, local: `127.0.0.2:${port}`, remote: /^127\.0\.0\.1:\d+$/ },
  ]);
  t.same(seen[0]?.bytes, query(1));
  t.not(seen[0]?.client.source, seen[1]?.client.source);
});

await t.test('it listens at the addresses that an interface has', async (t) => {
  const { api, port } = await listening(t, (query) => api.respond(query.client, answer(query)));
  t.strictSame(
    await api.listen({ port, interfaces: ['lo', 'no-such-interface'], addresses: [] }),
    [],
  );
  await askUdp('127.0.0.1', port, query(1));
  await askUdp('::1', port, query(1));
  await t.rejects(
    askTcp('127.0.0.2', port, [query(1)]),
    { code: 'ECONNREFUSED' },
    'no longer wanted',
  );
});

await t.test('what is open and still wanted stays open', async (t) => {
  const { api, port } = await listening(t, (query) => api.respond(query.client, answer(query)));
  const kept = await dial('127.0.0.1', port);
  const lost = await dial('127.0.0.2', port);
  const gone = once(lost, 'close');
  const addresses = [`127.0.0.1:${port}`, `127.0.0.3:${port}`] as SocketAddress[];
  t.strictSame(await api.listen({ port, interfaces: [], addresses }), []);
  await gone;
  kept.write(framed(query(3)));
  t.strictSame(await messages(kept, 1), [markedAnswer(query(3))]);
  await askUdp('127.0.0.3', port, query(1));
  kept.destroy();
});

await t.test('it says of each address why it is not open, and opens the others', async (t) => {
  const { api, port } = await listening(t, (query) => api.respond(query.client, answer(query)));
  const addresses = ['127.0.0.4', '127.0.0.5', '127.0.0.6', '192.0.2.1'].map(
    (ip) => `${ip}:${port}` as SocketAddress,
  );
  const udp = createSocket({ type: 'udp4', reuseAddr: true });
  await new Promise<void>((resolve) => udp.bind(port, '127.0.0.4', resolve));
  const tcp = createServer().listen(port, '127.0.0.5');
  await once(tcp, 'listening');
  const wanted = { port, interfaces: [], addresses };
  t.strictSame(await api.listen(wanted), [
    { address: `127.0.0.4:${port}`, why: 'port-taken' },
    { address: `127.0.0.5:${port}`, why: 'port-taken' },
    { address: `192.0.2.1:${port}`, why: 'refused' },
  ]);
  await askUdp('127.0.0.6', port, query(1));

  udp.close();
  tcp.close();
  await once(tcp, 'close');
  t.match(await api.listen(wanted), { length: 1 }, 'and tries again when it is asked again');
  await askUdp('127.0.0.4', port, query(1));
  await askTcp('127.0.0.5', port, [query(1)]);
});

await t.test('the last of several calls decides', async (t) => {
  const { api, port } = await listening(t, (query) => api.respond(query.client, answer(query)));
  const at = (ip: string) => ({
    port,
    interfaces: [],
    addresses: [`${ip}:${port}` as SocketAddress],
  });
  await Promise.all([
    api.listen(at('127.0.0.7')),
    api.listen(at('127.0.0.8')),
    api.listen(at('127.0.0.9')),
  ]);
  await askTcp('127.0.0.9', port, [query(1)]);
  for (const ip of ['127.0.0.1', '127.0.0.7', '127.0.0.8']) {
    await t.rejects(askTcp(ip, port, [query(1)]), { code: 'ECONNREFUSED' });
  }
});

await t.test('a restart gets the same port at once', async (t) => {
  const first = await listening(t, (query) => first.api.respond(query.client, answer(query)));
  const stream = await dial('127.0.0.1', first.port);
  stream.on('error', () => undefined);
  await first.stop();
  const second = open(t);
  const addresses = [`127.0.0.1:${first.port}` as SocketAddress];
  t.strictSame(await second.api.listen({ port: first.port, interfaces: [], addresses }), []);
});

await t.test('[RFC 7766 §6.2.1.1] queries are pipelined and answered in any order', async (t) => {
  const waiting: DnsQuery[] = [];
  const { api, port } = await listening(t, (query) => {
    waiting.push({ ...query, bytes: query.bytes.slice() });
    if (waiting.length < 3) return;
    for (const one of waiting.reverse()) api.respond(one.client, answer(one));
  });
  t.strictSame(
    await askTcp('127.0.0.1', port, [query(1), query(2), query(3)]),
    [query(3), query(2), query(1)].map(markedAnswer),
  );
});

await t.test('a query may come in any pieces', async (t) => {
  const { api, port } = await listening(t, (query) => api.respond(query.client, answer(query)));
  const socket = await dial('127.0.0.1', port);
  const bytes = Buffer.concat([framed(query(1)), framed(query(2))]);
  for (const byte of bytes) {
    socket.write(Uint8Array.of(byte));
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.strictSame(await messages(socket, 2), [markedAnswer(query(1)), markedAnswer(query(2))]);
  socket.destroy();
});

await t.test('who closes its side after asking still gets the answer', async (t) => {
  const { api, port } = await listening(t, (query) => {
    const kept = { ...query, bytes: query.bytes.slice() };
    setTimeout(() => api.respond(kept.client, answer(kept)), 50);
  });
  const socket = await dial('127.0.0.1', port);
  socket.end(Buffer.concat([framed(query(1)), framed(query(2))]));
  const closed = once(socket, 'close');
  t.strictSame(await messages(socket, 2), [markedAnswer(query(1)), markedAnswer(query(2))]);
  await closed;
});

await t.test('no more queries are read of a stream than it may have open', async (t) => {
  const open: DnsQuery[] = [];
  const { api, port } = await listening(t, (query) => {
    open.push({ ...query, bytes: query.bytes.slice() });
  });
  const socket = await dial('127.0.0.1', port);
  const queries = Array.from({ length: 100 }, (_, id) => query(id));
  socket.write(Buffer.concat(queries.map(framed)));
  const answers = messages(socket, 100);
  let answered = 0;
  while (answered < 100) {
    await new Promise((resolve) => setTimeout(resolve, 1));
    t.ok(open.length <= MOST_OPEN_QUERIES, `${open.length} open`);
    const one = open.shift();
    if (one === undefined) continue;
    api.respond(one.client, answer(one));
    answered++;
  }
  t.strictSame(await answers, queries.map(markedAnswer));
  socket.destroy();
});

await t.test('answers of 64 KB get through to who reads them', async (t) => {
  const large = new Uint8Array(65_535).fill(7);
  const { api, port } = await listening(t, ({ client }) => api.respond(client, large));
  const socket = await dial('127.0.0.1', port);
  socket.write(Buffer.concat(Array.from({ length: 40 }, (_, id) => framed(query(id)))));
  const answers = await messages(socket, 40);
  t.ok(answers.every((bytes) => Buffer.compare(bytes, large) === 0));
  socket.destroy();
});

await t.test('who announces what is no query is closed', async (t) => {
  const { port } = await listening(t, () => t.fail('it was asked'));
  for (const length of [
    [0xff, 0xff],
    [0, 0],
    [0, 11],
  ]) {
    const socket = await dial('127.0.0.1', port);
    socket.on('error', () => undefined);
    const closed = once(socket.resume(), 'close');
    socket.write(Uint8Array.from(length));
    await closed;
  }
});

await t.test('one client has so many streams and no more, and others have theirs', async (t) => {
  const { api, port } = await listening(t, (query) => api.respond(query.client, answer(query)));
  const streams: Socket[] = [];
  for (let i = 0; i < MOST_STREAMS_OF_CLIENT; i++) {
    const socket = await dial('127.0.0.1', port);
    socket.write(framed(query(i)));
    await messages(socket, 1);
    streams.push(socket);
  }
  const refused = await dial('127.0.0.1', port);
  refused.on('error', () => undefined);
  await once(refused, 'close');
  t.strictSame(await askTcp('::1', port, [query(1)]), [markedAnswer(query(1))]);

  const [first] = streams;
  const closed = once(first!, 'close');
  first!.end();
  await closed;
  t.strictSame(await askTcp('127.0.0.1', port, [query(1)]), [markedAnswer(query(1))]);
  for (const socket of streams) socket.destroy();
});

await t.test('an answer to who is gone goes nowhere', async (t) => {
  const seen: DnsQuery[] = [];
  const { api, port } = await listening(t, (query) => void seen.push(query));
  const socket = await dial('127.0.0.1', port);
  socket.write(framed(query(1)));
  while (seen.length < 1) await new Promise((resolve) => setImmediate(resolve));
  socket.destroy();
  await new Promise((resolve) => setTimeout(resolve, 20));
  api.respond(seen[0]!.client, query(1));
  void askUdp('127.0.0.2', port, query(2)).catch(() => undefined);
  while (seen.length < 2) await new Promise((resolve) => setImmediate(resolve));
  await api.listen({ port, interfaces: [], addresses: [] });
  api.respond(seen[1]!.client, query(2));
  for (const transport of ['udp', 'tcp'] as const) {
    for (const source of ['', '0', '1 2', 'x y z']) api.respond({ source, transport }, query(3));
  }
});

await t.test('a stream without queries is closed, whatever bytes drip in', async (t) => {
  const { port } = await listening(t, () => undefined);
  const silent = await dial('127.0.0.1', port);
  const dripping = await dial('127.0.0.2', port);
  dripping.on('error', () => undefined);
  const began = performance.now();
  const timer = setInterval(() => dripping.write(Uint8Array.of(1)), 2_000);
  dripping.once('close', () => clearInterval(timer));
  await Promise.all([once(silent.resume(), 'close'), once(dripping.resume(), 'close')]);
  t.ok(performance.now() - began > IDLE_TIMEOUT - 500, 'not before its time');
});

await t.test('dig and kdig get along with it', async (t) => {
  const { api, port } = await listening(t, (query) => api.respond(query.client, answer(query)));
  const run = async (program: string, ...words: string[]) =>
    (await promisify(execFile)(program, words)).stdout;
  for (const transport of ['+notcp', '+tcp']) {
    const dug = await run('dig', '@::1', '-p', `${port}`, transport, '+tries=1', 'a.example');
    t.match(dug, /status: NOERROR/, `dig ${transport}`);
  }
  const names = ['a.example', 'b.example', 'c.example'];
  const asked = await run('kdig', '@127.0.0.1', '-p', `${port}`, '+tcp', '+keepopen', ...names);
  t.equal(asked.match(/status: NOERROR/g)?.length, 3, 'kdig, one stream for three');
});

function open(t: Test) {
  const plugin = createDnsListener().create(host);
  if ('skip' in plugin) throw new Error(plugin.skip);
  t.teardown(() => plugin.stop());
  return plugin;
}

/** A listener at two addresses of IPv4 and one of IPv6, at a port that was free. */
async function listening(t: Test, onQuery: (query: DnsQuery) => void) {
  const plugin = open(t);
  const api: DnsListener = plugin.api;
  api.listenTo(onQuery);
  const port = await freePort();
  const addresses = ['127.0.0.1', '127.0.0.2', '[::1]'].map(
    (ip) => `${ip}:${port}` as SocketAddress,
  );
  t.strictSame(await api.listen({ port, interfaces: [], addresses }), []);
  return { api, port, stop: () => plugin.stop() };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '::');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  return port;
}

function query(id: number): Uint8Array {
  return encodeQuery({ name: 'crm.corp.example' as DomainName, type: 1 }, id);
}

/** The query itself, as a response. */
function answer({ bytes }: DnsQuery): Uint8Array {
  return markedAnswer(bytes);
}

function markedAnswer(bytes: Uint8Array): Uint8Array {
  const copy = Uint8Array.from(bytes);
  copy[2] = (copy[2] ?? 0) | 0x80;
  return copy;
}

function framed(bytes: Uint8Array): Uint8Array {
  return Uint8Array.of(bytes.length >> 8, bytes.length & 0xff, ...bytes);
}

async function askUdp(address: string, port: number, bytes: Uint8Array) {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
  try {
    socket.send(bytes, port, address);
    const [message, from] = await once(socket, 'message', { signal: AbortSignal.timeout(3_000) });
    return { bytes: Uint8Array.from(message as Uint8Array), from: from.address as string };
  } finally {
    socket.close();
  }
}

async function askTcp(address: string, port: number, queries: readonly Uint8Array[]) {
  const socket = await dial(address, port);
  socket.write(Buffer.concat(queries.map(framed)));
  const answers = await messages(socket, queries.length);
  socket.destroy();
  return answers;
}

async function dial(address: string, port: number): Promise<Socket> {
  const socket = connect({ host: address, port });
  await once(socket, 'connect');
  return socket;
}

/** The next so many messages of a stream. */
async function messages(socket: Socket, count: number): Promise<readonly Uint8Array[]> {
  const found: Uint8Array[] = [];
  let bytes = Buffer.alloc(0);
  return new Promise((resolve, reject) => {
    socket.once('close', () => reject(new Error(`closed after ${found.length} answers`)));
    const onData = (chunk: Buffer): void => {
      bytes = Buffer.concat([bytes, chunk]);
      while (bytes.length >= 2 && bytes.length >= 2 + bytes.readUInt16BE()) {
        const end = 2 + bytes.readUInt16BE();
        found.push(Uint8Array.from(bytes.subarray(2, end)));
        bytes = bytes.subarray(end);
      }
      if (found.length < count) return;
      socket.off('data', onData);
      resolve(found);
    };
    socket.on('data', onData);
  });
}
