import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { Aedes } from 'aedes';
import t from 'tap';
import { ListeningChannel, bytes } from '../plugins/mqtt-scene.ts';

const blank = {
  brokers: [] as string[],
  clientId: 'c1',
  ca: undefined,
  certificate: undefined,
  privateKey: undefined,
  username: undefined,
  password: undefined,
  subscriptions: [],
  will: () => ({ topic: 'will', payload: bytes('gone'), retain: true, qos: 1 as const }),
  onEvent: () => undefined,
};

/** The broker that is embedded in the demo: MQTT 3.1.1 only. */

await t.test('the channel falls back to 3.1.1, and remembers it', async (t) => {
  const { url, sockets } = await broker(t);
  const device = new ListeningChannel().connect({ brokers: [url], subscriptions: ['t'] });
  t.teardown(() => device.channel.close(0));
  t.match(await device.event('connected'), { broker: url, protocol: '3.1.1' });
  device.publish('t', 'one');
  await device.message('t', 'one');
  const attempts = sockets.length;
  t.equal(attempts, 2, 'one for MQTT 5, one for 3.1.1');
  const from = device.events.length;
  sockets.at(-1)?.destroy();
  await device.event('disconnected', from);
  await device.event('connected', from);
  t.equal(sockets.length, attempts + 1, 'MQTT 5 is not tried again');
});

await t.test('what is retained waits for the broker, the newest of each topic', async (t) => {
  const { url } = await broker(t);
  const device = new ListeningChannel();
  t.teardown(() => device.channel.close(0));
  device.publish('t/a', 'old');
  device.publish('t/a', 'new');
  device.publish('t/b', 'other');
  device.channel.publish({ topic: 't/c', payload: bytes('x'), retain: false, qos: 1 });
  t.equal(device.channel.dropped, 1, 'what is not retained is of no use later');
  const seen = new ListeningChannel().connect({
    brokers: [url],
    clientId: 'c2',
    subscriptions: ['t/#'],
  });
  t.teardown(() => seen.channel.close(0));
  await seen.event('connected');
  device.connect({ brokers: [url] });
  await seen.message('t/a', 'new');
  await seen.message('t/b', 'other');
  t.equal(seen.events.filter(({ type }) => type === 'message').length, 2);
});

await t.test('a close waits for what is queued and sends no will', async (t) => {
  const { url } = await broker(t);
  const seen = new ListeningChannel().connect({
    brokers: [url],
    clientId: 'c2',
    subscriptions: ['#'],
  });
  t.teardown(() => seen.channel.close(0));
  await seen.event('connected');
  const device = new ListeningChannel().connect({ brokers: [url] });
  await device.event('connected');
  device.publish('goodbye', 'now');
  await device.channel.close(1000);
  await seen.message('goodbye', 'now');
  seen.publish('after', 'all');
  await seen.message('after', 'all');
  t.notOk(seen.events.some((event) => event.type === 'message' && event.topic === 'will'));
  t.ok(device.channel.connect({ ...blank, brokers: [url] }).ok, 'and it may connect again');
  await device.channel.close(0);
});

await t.test('a broker that is away is mentioned once, and found when it comes', async (t) => {
  const first = await broker(t);
  await first.stop();
  const device = new ListeningChannel({ firstRetry: 5, longestRetry: 10 });
  device.connect({ brokers: [first.url] });
  t.teardown(() => device.channel.close(0));
  await device.problem(/connection refused/);
  const second = await broker(t, first.port);
  await device.event('connected');
  const lines = device.log.lines.filter((line) => /connection refused/.test(line));
  t.equal(lines.length, 1);
  t.notMatch(lines[0], /127\.0\.0\.1|\d{4,5}/, 'without an address');
  t.equal(second.port, first.port);
});

await t.test('the next broker in the list has its turn', async (t) => {
  const away = await broker(t);
  await away.stop();
  const { url } = await broker(t);
  const device = new ListeningChannel().connect({ brokers: [away.url, url] });
  t.teardown(() => device.channel.close(0));
  t.match(await device.event('connected'), { broker: url });
});

await t.test('a refused subscription ends the connection: the channel would be deaf', async (t) => {
  const { url, aedes } = await broker(t);
  aedes.authorizeSubscribe = (_client, _subscription, done) => done(null, null);
  const device = new ListeningChannel().connect({ brokers: [url], subscriptions: ['t'] });
  t.teardown(() => device.channel.close(0));
  t.match(await device.event('disconnected'), { why: /access list/ });
});

await t.test('a broker cannot make us buffer what it likes', async (t) => {
  // CONNACK, then a PUBLISH that announces 256 MB.
  const connack = [0x20, 0x03, 0, 0, 0];
  const publish = [0x30, 0xff, 0xff, 0xff, 0x7f];
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.once('data', () => {
      socket.write(Uint8Array.from([...connack, ...publish]));
      const chunk = new Uint8Array(1 << 16);
      const pour = (): void => {
        while (!socket.destroyed && socket.write(chunk));
      };
      socket.on('drain', pour);
      pour();
    });
  });
  const port = await listen(server);
  t.teardown(() => server.close());
  const device = new ListeningChannel({ firstRetry: 100_000, longestRetry: 100_000 });
  device.connect({ brokers: [`mqtt://127.0.0.1:${port}`] });
  await device.problem(/message larger than/);
  await device.channel.close(0);
});

await t.test('options that cannot work are refused', async (t) => {
  const { channel } = new ListeningChannel();
  for (const brokers of [[], ['http://x'], ['nonsense'], ['mqtt://ok', 'ws://x'], ['mqtt://']]) {
    t.notOk(channel.connect({ ...blank, brokers }).ok, brokers.join());
  }
});

async function broker(t: { teardown(handler: () => unknown): void }, port = 0) {
  const aedes = await Aedes.createBroker();
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    aedes.handle(socket);
  });
  const bound = await listen(server, port);
  const stop = async (): Promise<void> => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
    await new Promise<void>((resolve) => aedes.close(resolve));
  };
  t.teardown(stop);
  return { url: `mqtt://127.0.0.1:${bound}`, port: bound, aedes, sockets, stop };
}

async function listen(server: Server, port = 0): Promise<number> {
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}
