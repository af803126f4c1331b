import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { Aedes } from 'aedes';
import t, { type Test } from 'tap';
import { ListeningChannel } from './mqtt-scene.ts';

/** Nothing of the backoff is left to chance: a wait that is not skipped is longer than the test. */
const NEVER = { firstRetry: 600_000, longestRetry: 600_000, random: () => 1 };
/** Milliseconds. */
const LEFT_WITHIN = 3_000;

await t.test('a broker that silently vanished is left within 3 s', async (t) => {
  const { url, freeze } = await broker(t);
  const device = await connected(t, url);
  freeze();
  const from = device.events.length;
  const began = performance.now();
  device.channel.checkConnection();
  t.match(await device.event('disconnected', from), { why: 'the broker fell silent' });
  await device.event('connected', from);
  const took = performance.now() - began;
  t.ok(took < LEFT_WITHIN, `${took.toFixed(0)} ms, without a wait before the next attempt`);
});

await t.test('a broker that answers is kept', async (t) => {
  const { url, sockets } = await broker(t);
  const device = await connected(t, url);
  const attempts = sockets.length;
  device.channel.checkConnection();
  device.channel.checkConnection();
  await new Promise((resolve) => setTimeout(resolve, 2_500));
  device.publish('t', 'one');
  await device.message('t', 'one');
  t.equal(sockets.length, attempts);
  t.notOk(device.events.some(({ type }) => type === 'disconnected'));
});

await t.test('what hangs in an attempt is begun anew', async (t) => {
  const { url, freeze, line } = await broker(t);
  freeze('all');
  const arrival = once(line, 'connection');
  const device = new ListeningChannel(NEVER).connect({ brokers: [url] });
  t.teardown(() => device.channel.close(0));
  await arrival;
  freeze('none');
  device.channel.checkConnection();
  const began = performance.now();
  await device.event('connected');
  const took = performance.now() - began;
  t.ok(took > 1_000 && took < LEFT_WITHIN, `${took.toFixed(0)} ms`);
});

await t.test('a wait for the next attempt is over when the network changes', async (t) => {
  const { url, close, open } = await broker(t);
  await close();
  const device = new ListeningChannel(NEVER).connect({ brokers: [url], subscriptions: ['t'] });
  t.teardown(() => device.channel.close(0));
  await device.problem(/connection refused/);
  await open();
  device.channel.checkConnection();
  t.match(await device.event('connected'), { broker: url });
});

await t.test('a channel that was never connected, or was closed, stays so', async (t) => {
  const { url } = await broker(t);
  const device = new ListeningChannel(NEVER);
  device.channel.checkConnection();
  device.connect({ brokers: [url] });
  await device.event('connected');
  await device.channel.close(0);
  const attempts = device.attempts;
  device.channel.checkConnection();
  await new Promise((resolve) => setTimeout(resolve, 100));
  t.equal(device.attempts, attempts);
});

async function connected(t: Test, url: string): Promise<ListeningChannel> {
  const device = new ListeningChannel({ ...NEVER, protocol: '3.1.1' });
  t.teardown(() => device.channel.close(0));
  device.connect({ brokers: [url], subscriptions: ['t'] });
  await device.event('connected');
  return device;
}

/** A broker behind a line that can fall silent: bytes are taken and go nowhere. */
async function broker(t: Test) {
  const aedes = await Aedes.createBroker();
  const inner = createServer((socket) => aedes.handle(socket));
  await new Promise<void>((resolve) => inner.listen(0, '127.0.0.1', resolve));
  const sockets: Socket[] = [];
  let isFrozen = false;
  const line = createServer((near) => {
    sockets.push(near);
    near.on('error', () => undefined);
    if (isFrozen) {
      near.resume();
      return;
    }
    const far = connect((inner.address() as AddressInfo).port, '127.0.0.1');
    far.on('error', () => undefined);
    far.on('close', () => near.destroy());
    near.on('close', () => far.destroy());
    near.pipe(far).pipe(near);
  });
  const listen = (port: number): Promise<void> =>
    new Promise((resolve) => line.listen(port, '127.0.0.1', resolve));
  const close = (): Promise<void> => new Promise((resolve) => line.close(() => resolve()));
  await listen(0);
  const { port } = line.address() as AddressInfo;
  t.teardown(async () => {
    for (const socket of sockets) socket.destroy();
    if (line.listening) await close();
    await new Promise<void>((resolve) => aedes.close(resolve));
    await new Promise((resolve) => inner.close(resolve));
  });
  return {
    url: `mqtt://127.0.0.1:${port}`,
    line,
    sockets,
    close,
    open: () => listen(port),
    /** Silences the connections that are there; `all`: and those to come, until `none`. */
    freeze: (which: 'present' | 'all' | 'none' = 'present'): void => {
      isFrozen = which === 'all';
      for (const socket of sockets) {
        socket.unpipe();
        socket.removeAllListeners('data');
        socket.pause();
      }
    },
  };
}
