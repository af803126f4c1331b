import { createHash } from 'node:crypto';
import { createServer, type Socket } from 'node:net';
import t from 'tap';
import { DIAL_TIMEOUT, type DialTarget, type StreamEvent } from '../../../core/plugin/streams.ts';
import { nullLog } from '../../../core/sansio/log.ts';
import { StreamTransport } from '../../../plugins/transport-stream/stream-transport.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';
import { address, listening, Loopback } from './loopback.ts';

/** What servers say that do not mean well, and how they leave. */
const ANSWERS = [
  '',
  '\u0016',
  '\u0016\u0003\u0003\u0000\u0004\u000e\u0000\u0000\u0000',
  '\u0015\u0003\u0003\u0000\u0002\u0002\u0028',
  'HTTP/1.1 101 Switching Protocols\r\n\r\n',
  'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: no\r\n\r\n',
  'HTTP/1.1 200 OK\r\n\r\n',
  'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n\u0016\u0003\u0003\u0000\u0001',
  'HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\n\r\n',
  'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="x"\r\n\r\n',
  'HTTP/1.1 099 What\r\n\r\n',
  `HTTP/1.1 200 OK\r\n${'X: '.padEnd(70_000, 'x')}`,
];
const RFC_6455_GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const LEAVES = ['stay', 'end', 'reset', 'destroy'] as const;

await t.test('whatever a server or proxy does, a dial is told once', async (t) => {
  const seed = Number(process.env['SEED'] ?? Date.now() % 1e6);
  t.comment(`SEED=${seed}`);
  const random = new SeededRandom(seed);
  const world = new Loopback(t);
  let behave: (socket: Socket) => void = () => undefined;
  const server = await listening(
    createServer((socket) => {
      socket.on('error', () => undefined);
      t.teardown(() => socket.destroy());
      behave(socket);
    }),
  );
  t.teardown(() => server.close());
  const at = address('127.0.0.1', (server.address() as { port: number }).port);
  const streams = new StreamTransport(undefined, nullLog);
  t.teardown(() => streams.stop());
  const events: StreamEvent[] = [];
  streams.listenTo((event) => events.push(event));
  for (const [i, { protocol, proxy, answer, leave }] of cases(at).entries()) {
    const stream = 2 * i;
    const isAtOnce = random.fraction() < 0.3;
    behave = (socket) => {
      const act = (): void => {
        socket.write(answer, 'latin1');
        if (leave === 'end') socket.end();
        if (leave === 'reset') socket.resetAndDestroy();
        if (leave === 'destroy') socket.destroySoon();
      };
      if (isAtOnce) act();
      else socket.once('data', act);
    };
    const trust = { type: 'pinned', deviceKey: new Uint8Array(32) } as const;
    const target: DialTarget = { protocol, address: at, trust };
    events.length = 0;
    streams.dial(stream, proxy === undefined ? target : { ...target, proxy });
    const turns = Math.floor(random.fraction() * 8);
    for (let turn = 0; turn < turns; turn++) await world.pass(0);
    const isGivenUp = random.fraction() < 0.2;
    const before = events.length;
    if (isGivenUp) streams.close(stream);
    await world.pass(DIAL_TIMEOUT + 1);
    const told = events.map(({ type }) => type).filter((type) => type !== 'data');
    // A proxy that says yes, whatever it does then, has opened plain TCP.
    const mayOpen = protocol === 'tcp' && answer.includes(' 200 ');
    const isRight = isGivenUp
      ? events.length === before
      : told.join() === 'closed' || (mayOpen && /^opened(,closed)?$/.test(told.join()));
    if (!isRight) t.fail(JSON.stringify({ protocol, proxy, answer, leave, isAtOnce, told }));
    streams.close(stream);
  }
  await world.pass(DIAL_TIMEOUT);
  t.equal(streams.waiting, 0);
});

await t.test('a stream that ends with the bytes that open it is closed', async (t) => {
  const world = new Loopback(t);
  const streams = new StreamTransport(undefined, nullLog);
  t.teardown(() => streams.stop());
  const events: StreamEvent[] = [];
  streams.listenTo((event) => events.push(event));
  // Frames of RFC 6455 §5.2: one that is forbidden, one that closes; and bytes before the end of TCP.
  const endings = [
    [0xff, 0xff],
    [0x88, 0x00],
    [0x82, 0x01, 0x07],
  ];
  for (const [i, ending] of endings.entries()) {
    const server = await listening(
      createServer((socket) => {
        socket.on('error', () => undefined);
        socket.once('data', (request) => {
          const key = /Sec-WebSocket-Key: (.*)\r/i.exec(request.toString())?.[1] ?? '';
          const accept = createHash('sha1').update(`${key}${RFC_6455_GUID}`).digest('base64');
          const head = `HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`;
          socket.end(Buffer.concat([Buffer.from(head), Uint8Array.from(ending)]));
        });
      }),
    );
    t.teardown(() => server.close());
    const at = address('127.0.0.1', (server.address() as { port: number }).port);
    events.length = 0;
    const stream = 2 * i;
    streams.dial(stream, { protocol: 'ws', address: at, trust: { type: 'any' } });
    await world.until(() => events.some(({ type }) => type === 'closed'));
    t.match(events.map(({ type }) => type).join(), /^(opened,)?(data,)?closed$/);
    t.notOk(streams.send(stream, Uint8Array.of(1)));
  }
  t.equal(streams.waiting, 0);
});

function cases(at: string) {
  const layers = (['tcp', 'tls', 'ws', 'wss'] as const).flatMap((protocol) => [
    { protocol, proxy: undefined },
    { protocol, proxy: `http://a:b@${at}` },
  ]);
  return layers
    .filter(({ protocol, proxy }) => protocol !== 'tcp' || proxy !== undefined)
    .flatMap((layer) => ANSWERS.map((answer) => ({ ...layer, answer })))
    .flatMap((layer) => LEAVES.map((leave) => ({ ...layer, leave })));
}
