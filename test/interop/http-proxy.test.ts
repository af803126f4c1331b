import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { socketAddressPort, type SocketAddress } from '../../core/net/socket-address.ts';
import type { DialTarget, StreamEvent } from '../../core/plugin/streams.ts';
import { nullLog } from '../../core/sansio/log.ts';
import { ed25519 } from '../../plugins/crypto-node/curve25519.ts';
import { StreamTransport } from '../../plugins/transport-stream/stream-transport.ts';
import { Loopback } from '../plugins/transport-stream/loopback.ts';

/* Streams through tinyproxy, an HTTP proxy that knows CONNECT (RFC 9110 §9.3.6). */

const TINYPROXY = '/usr/bin/tinyproxy';
const DEVICE_KEY = new Uint8Array(32).fill(3);
const PINNED = { type: 'pinned', deviceKey: ed25519.publicKey(DEVICE_KEY) } as const;

await t.test('every protocol passes a proxy, both ways', async (t) => {
  const world = new Loopback(t);
  const port = await startProxy(t, world);
  const { events, arrived, streams, at } = await listener(t, world);
  for (const [i, protocol] of (['tcp', 'tls', 'ws', 'wss'] as const).entries()) {
    const a = transport(t);
    a.dial({ protocol, address: at, trust: PINNED, proxy: `http://127.0.0.1:${port}` });
    await world.until(() => a.events.length > 0);
    t.match(a.events, [{ type: 'opened' }], protocol);
    const message = new Uint8Array(200_000).fill(i + 1);
    t.ok(a.streams.send(2, message));
    await world.until(() => arrived.get(2 * i + 1) === message.length);
    const accepted = events.filter(({ type }) => type === 'accepted');
    t.match(accepted[i], { protocol });
    t.ok(streams.send(2 * i + 1, message));
    await world.until(() => a.arrived.get(2) === message.length);
  }
});

await t.test('a login is sent where the URL has one', async (t) => {
  const world = new Loopback(t);
  const port = await startProxy(t, world, 'BasicAuth culvert pass-word');
  const { at } = await listener(t, world);
  const dialled = async (login: string): Promise<StreamEvent[]> => {
    const a = transport(t);
    const proxy = `http://${login}127.0.0.1:${port}/`;
    a.dial({ protocol: 'wss', address: at, trust: PINNED, proxy });
    await world.until(() => a.events.length > 0);
    return a.events;
  };
  t.match(await dialled('culvert:p%61ss-word@'), [{ type: 'opened' }]);
  t.match(await dialled(''), [{ type: 'closed', why: /wants a login: set streams.proxy/ }]);
  t.match(await dialled('culvert:no@'), [{ type: 'closed', why: /refuses our login/ }]);
});

await t.test('what a proxy refuses is told with the cure', async (t) => {
  const world = new Loopback(t);
  const only443 = await startProxy(t, world, 'ConnectPort 443');
  const open = await startProxy(t, world);
  const { at } = await listener(t, world);
  const { address: nobody, port: noProxy } = await world.freePort();
  for (const [proxy, address, why] of [
    [only443, at, /the proxy forbids this destination: .*port 443/],
    [open, nobody, /the proxy does not reach the other side/],
    [noProxy, at, /connection refused/],
    [socketAddressPort(at), at, /the proxy closed without an answer|does not know CONNECT/],
  ] as const) {
    const a = transport(t);
    a.dial({ protocol: 'tcp', address, trust: PINNED, proxy: `http://localhost:${proxy}` });
    await world.pass(4900);
    await world.until(() => a.events.length > 0 || proxy === socketAddressPort(at));
    // Our own listener takes CONNECT for somebody's bytes and says nothing.
    if (a.events.length === 0) {
      await world.pass(200);
      await world.until(() => a.events.length > 0);
      t.match(a.events, [
        { type: 'closed', why: /the proxy does not (reach the other side in time|answer)/ },
      ]);
    } else t.match(a.events, [{ type: 'closed', why }]);
  }
});

await t.test('the proxy resolves the host that a target names', async (t) => {
  const world = new Loopback(t);
  const port = await startProxy(t, world);
  const { at } = await listener(t, world);
  const a = transport(t);
  // An address that leads nowhere: the name alone counts.
  const address = `192.0.2.1:${socketAddressPort(at)}` as SocketAddress;
  const proxy = `http://127.0.0.1:${port}`;
  a.dial({ protocol: 'wss', address, host: 'localhost', trust: PINNED, proxy });
  await world.until(() => a.events.length > 0);
  t.match(a.events, [{ type: 'opened' }]);
});

/** Starts a proxy of our own on the loopback interface; returns its port. */
async function startProxy(t: Test, world: Loopback, ...lines: readonly string[]): Promise<number> {
  const { port } = await world.freePort();
  const directory = mkdtempSync(join(tmpdir(), 'culvert-tinyproxy-'));
  const configuration = join(directory, 'tinyproxy.conf');
  const common = [`Port ${port}`, 'Listen 127.0.0.1', 'Timeout 600', 'MaxClients 20'];
  writeFileSync(configuration, [...common, ...lines, ''].join('\n'));
  const child = spawn(TINYPROXY, ['-d', '-c', configuration], { stdio: 'ignore' });
  t.teardown(async () => {
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill();
    await ended;
    rmSync(directory, { recursive: true, force: true });
  });
  // Nothing tells when it listens.
  for (let tries = 0; !(await answers(port)); tries++) {
    if (tries > 200 || child.exitCode !== null) throw new Error('no tinyproxy');
    await wait(20);
  }
  return port;
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

function transport(t: Test) {
  const streams = new StreamTransport(undefined, nullLog);
  t.teardown(() => streams.stop());
  const events: StreamEvent[] = [];
  const arrived = new Map<number, number>();
  streams.listenTo((event) => {
    if (event.type !== 'data') events.push(event);
    else arrived.set(event.stream, (arrived.get(event.stream) ?? 0) + event.bytes.length);
  });
  return { streams, events, arrived, dial: (target: DialTarget) => streams.dial(2, target) };
}

async function listener(t: Test, world: Loopback) {
  const made = transport(t);
  const { port, address: at } = await world.freePort();
  await made.streams.listen({ port, deviceKey: DEVICE_KEY });
  return { ...made, at };
}
