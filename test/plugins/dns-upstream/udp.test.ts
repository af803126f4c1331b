import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import t, { type Test } from 'tap';
import { MOST_SOCKETS, UDP_IDLE } from '../../../plugins/dns-upstream/udp-sockets.ts';
import { question, reply } from '../../core/dns/messages.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';
import { Scene } from './scene.ts';
import { freePort } from './servers.ts';

await t.test('an answer comes back with its server, port and id', async (t) => {
  const scene = new Scene(t);
  for (const ip of ['127.0.0.1', '::1']) {
    const server = await udpServer(t, ip, (query, from, socket) => {
      socket.send(reply(query), from.port, from.address);
    });
    scene.ask(server, 'udp', 77, 63);
    await scene.until(() => scene.answers.length === 1);
    const [answer] = scene.answers.splice(0);
    t.match(answer, { upstream: server, transport: 'udp', port: 63, id: 77 });
  }
  t.same(scene.failures, []);
});

await t.test('each port number is a socket of its own, and stays while it is used', async (t) => {
  const scene = new Scene(t, { isManual: true });
  const seen: number[] = [];
  const server = await udpServer(t, '127.0.0.1', (_, from) => seen.push(from.port));
  const ask = async (...ports: readonly number[]): Promise<readonly number[]> => {
    for (const port of ports) scene.ask(server, 'udp', 1, port);
    await scene.until(() => seen.length === ports.length);
    return seen.splice(0).toSorted((a, b) => a - b);
  };
  const [first, second] = [await ask(0, 1, 2), await ask(0, 1, 2)];
  t.same(first, second);
  t.equal(new Set(first).size, 3);
  await scene.pass(UDP_IDLE - 1);
  const [kept] = await ask(1);
  t.ok(first.includes(kept ?? 0));
  await scene.pass(UDP_IDLE - 1);
  t.same(await ask(1), [kept], 'one that is used stays');
  await scene.pass(UDP_IDLE);
  const later = await ask(0, 1, 2);
  t.notSame(later, first, 'those that were idle have other ports');
});

await t.test('a server that does not run has failed at once', async (t) => {
  const scene = new Scene(t);
  const server = `127.0.0.1:${await freePort()}`;
  for (let port = 0; port < 3; port++) scene.ask(server, 'udp', port, port);
  await scene.until(() => scene.failures.length === 3);
  const failure = { upstream: server, transport: 'udp' };
  t.same(scene.failures, [failure, failure, failure]);
  scene.ask(server, 'udp', 9, 0);
  await scene.until(() => scene.failures.length === 4);
});

await t.test('a transport that the server does not have fails for this query alone', async (t) => {
  const scene = new Scene(t);
  scene.ask('192.0.2.1:53', 'tls', 5);
  scene.ask('tls://dns.example', 'udp', 6);
  await scene.until(() => scene.failures.length === 2);
  t.same(scene.failures, [
    { upstream: '192.0.2.1:53', transport: 'tls', id: 5 },
    { upstream: 'tls://dns.example:853', transport: 'udp', id: 6 },
  ]);
});

await t.test('datagrams of others do not arrive, and find no port open', async (t) => {
  const scene = new Scene(t);
  let asked: RemoteInfo | undefined;
  const server = await udpServer(t, '127.0.0.1', (_, from) => (asked = from));
  scene.ask(server, 'udp', 5, 7);
  await scene.until(() => asked !== undefined);
  const forged = reply(question('a.test', 'A', { id: 5 }));
  for (const ip of ['127.0.0.1', '127.0.0.2']) {
    const forger = createSocket('udp4');
    t.teardown(() => forger.close());
    forger.bind(0, ip);
    await once(forger, 'listening');
    forger.connect(asked?.port ?? 0, '127.0.0.1');
    await once(forger, 'connect');
    const refused = once(forger, 'error');
    forger.send(forged);
    t.match(await refused, [{ code: 'ECONNREFUSED' }]);
  }
  await scene.settle();
  t.same(scene.answers, []);
  t.same(scene.failures, []);
});

await t.test('10,000 messages of a hostile server change nothing', async (t) => {
  const seed = Number(process.env['SEED'] ?? Date.now() % 1e6);
  t.comment(`SEED=${seed}`);
  const random = new SeededRandom(seed);
  const scene = new Scene(t);
  let client: RemoteInfo | undefined;
  let socket: Socket | undefined;
  const server = await udpServer(t, '127.0.0.1', (_, from, own) => {
    client = from;
    socket = own;
  });
  scene.ask(server, 'udp', 5, 7);
  await scene.until(() => client !== undefined);
  for (let sent = 0; sent < 10_000; sent++) {
    const bytes = new Uint8Array(Math.floor(random.fraction() ** 3 * 1_500));
    random.fill(bytes);
    socket?.send(bytes, client?.port, client?.address);
    if (sent % 100 === 0) await scene.settle();
  }
  await scene.settle();
  const wellFormed = { upstream: server, transport: 'udp', port: 7 };
  const passedOn = scene.answers.splice(0);
  t.ok(passedOn.every(({ bytes, upstream }) => bytes.length >= 12 && upstream === server));
  t.same(scene.failures, []);
  socket?.send(reply(question('a.test', 'A', { id: 5 })), client?.port, client?.address);
  await scene.until(() => scene.answers.length > 0);
  t.match(scene.answers, [{ ...wellFormed, id: 5 }]);
});

await t.test('sockets are limited, and none is left in the end', async (t) => {
  const before = openUdpSockets();
  const scene = new Scene(t);
  let count = 0;
  const servers: string[] = [];
  for (let i = 0; i < 6; i++) servers.push(await udpServer(t, '127.0.0.1', () => count++));
  for (const server of servers) {
    for (let port = 0; port < 64; port++) scene.ask(server, 'udp', port, port);
    await scene.settle();
  }
  await scene.until(() => count === 6 * 64);
  t.equal(openUdpSockets() - before, MOST_SOCKETS + servers.length);
  scene.stop();
  scene.ask(servers[0] ?? '', 'udp', 1);
  await scene.settle();
  t.equal(openUdpSockets() - before, servers.length);
  t.same(scene.failures, []);
});

/** Returns where it listens. */
async function udpServer(
  t: Test,
  ip: string,
  onQuery: (query: Uint8Array, from: RemoteInfo, socket: Socket) => void,
): Promise<string> {
  const socket = createSocket(ip.includes(':') ? 'udp6' : 'udp4');
  t.teardown(() => socket.close());
  socket.on('message', (query, from) => onQuery(query, from, socket));
  socket.bind(0, ip);
  await once(socket, 'listening');
  const { port } = socket.address();
  return ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`;
}

/** Of this process. */
function openUdpSockets(): number {
  const udp = ['udp', 'udp6'].flatMap((file) =>
    readFileSync(`/proc/net/${file}`, 'utf8').split('\n').slice(1),
  );
  const inodes = new Set(udp.map((line) => `socket:[${line.trim().split(/\s+/)[9]}]`));
  const links = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return ''; // the descriptor of the listing itself
    }
  });
  return links.filter((link) => inodes.has(link)).length;
}
