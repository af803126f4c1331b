import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { createServer } from 'node:net';
import t, { type Test } from 'tap';
import type { Native } from '../../../core/plugin/native.ts';
import type { DialTarget, StreamEvent } from '../../../core/plugin/streams.ts';
import { nullLog, type Log } from '../../../core/sansio/log.ts';
import { buildNative } from '../../../openwrt/build/native.mjs';
import { ed25519 } from '../../../plugins/crypto-node/curve25519.ts';
import { loadNative } from '../../../plugins/platform-node/index.ts';
import {
  createDeviceCertificate,
  isOfDevice,
} from '../../../plugins/transport-stream/certificate.ts';
import { MOST_ACCEPTED, MOST_UNIDENTIFIED } from '../../../plugins/transport-stream/listener.ts';
import { classify } from '../../../plugins/transport-stream/sniff.ts';
import { StreamTransport } from '../../../plugins/transport-stream/stream-transport.ts';
import type { RudeStream } from '../../contract/transport.ts';
import { address, listening, Loopback } from './loopback.ts';

const loaded = loadNative(await buildNative());
if ('skip' in loaded) throw new Error(loaded.skip);
const native = loaded;

const DEVICE_KEY = Uint8Array.from({ length: 32 }, (_, i) => i);
const ANY = { type: 'any' } as const;

await t.test('the certificate is what RFC 5280 and RFC 8410 want, for all time', async (t) => {
  const { certificate, privateKey } = createDeviceCertificate(DEVICE_KEY);
  const read = new X509Certificate(certificate);
  t.equal(read.subject, 'CN=culvert');
  t.equal(read.issuer, 'CN=culvert');
  t.equal(read.subjectAltName, 'DNS:culvert');
  t.equal(read.validFrom, 'Jan  1 00:00:00 1970 GMT');
  t.equal(read.validTo, 'Dec 31 23:59:59 9999 GMT');
  t.ok(read.verify(read.publicKey));
  t.ok(isOfDevice(read, ed25519.publicKey(DEVICE_KEY)));
  t.notOk(isOfDevice(read, ed25519.publicKey(DEVICE_KEY.slice().fill(1))));
  t.notOk(isOfDevice(read, new Uint8Array(0)));
  t.notOk(isOfDevice(undefined, new Uint8Array(0)));
  t.same(createDeviceCertificate(DEVICE_KEY), { certificate, privateKey });
  const openssl = (...parameters: string[]): string =>
    execFileSync('openssl', parameters, { input: certificate, encoding: 'utf8' });
  const text = openssl('x509', '-noout', '-text');
  t.match(text, /Version: 3 \(0x2\)/);
  t.match(text, /Public Key Algorithm: ED25519/);
  t.match(openssl('asn1parse', '-i'), /GENERALIZEDTIME +:99991231235959Z/);
});

await t.test(
  "another key's certificate that names the device's key is not the device's",
  async (t) => {
    // Without the self-signature only TLS would stand between a copied key and trust.
    const { certificate } = createDeviceCertificate(DEVICE_KEY);
    const der = new X509Certificate(certificate).raw;
    der[der.length - 1]! ^= 1;
    t.notOk(isOfDevice(new X509Certificate(der), ed25519.publicKey(DEVICE_KEY)));
  },
);

await t.test('the first bytes tell the protocols apart', async (t) => {
  const of = (text: string) => classify(Buffer.from(text, 'latin1'));
  t.equal(of('\u0016'), undefined);
  t.equal(of('\u0016\u0003'), 'tls');
  t.equal(of('\u0016\u0002'), 'bytes');
  for (const part of ['G', 'GE', 'GET']) t.equal(of(part), undefined);
  t.equal(of('GET '), 'http');
  t.equal(of('GETS'), 'bytes');
  t.equal(of('\u0000'), 'bytes');
  t.equal(of('\u0000\u0014GET '), 'bytes');
});

await t.test('the protocols are told apart however the first bytes are cut', async (t) => {
  const world = new Loopback(t);
  const { events, arrived, at } = await listener(t, world);
  const stream = await world.connectRudely(at);
  // The length of a frame of RFC 4571 that begins as a TLS record does.
  for (const byte of [0x16, 0x04, 0xff]) {
    stream.write(Uint8Array.of(byte));
    await world.pass(10);
  }
  await world.until(() => arrived.length === 3);
  t.same(arrived, [0x16, 0x04, 0xff]);
  t.match(events, [{ type: 'accepted', protocol: 'tcp', stream: 1 }]);
});

await t.test('IPv6 is served on the same port, and IPv4 is IPv4', async (t) => {
  const world = new Loopback(t);
  const { events, at } = await listener(t, world);
  const port = Number(at.split(':').at(-1));
  const a = transport(t);
  const six = address('::1', port);
  for (const [stream, to] of [
    [2, at],
    [4, six],
  ] as const) {
    a.streams.dial(stream, { protocol: 'wss', address: to, trust: ANY });
  }
  await world.until(() => events.length === 2);
  const locals = events.map((event) => event.type === 'accepted' && event.local);
  t.same(new Set(locals), new Set([at, six]));
});

await t.test(`of strangers that say nothing ${MOST_UNIDENTIFIED} are kept`, async (t) => {
  const world = new Loopback(t);
  const { at } = await listener(t, world);
  const strangers: RudeStream[] = [];
  for (let i = 0; i < MOST_UNIDENTIFIED + 10; i++) strangers.push(await world.connectRudely(at));
  await world.until(() => strangers.filter(({ isClosed }) => isClosed).length === 10);
  t.ok(
    strangers.slice(-10).every(({ isClosed }) => isClosed),
    'the newest are refused',
  );
  strangers[0]?.reset();
  await world.until(() => strangers[0]?.isClosed === true);
  await world.pass(100);
  const a = transport(t);
  a.streams.dial(2, { protocol: 'wss', address: at, trust: ANY });
  await world.until(() => a.events.length > 0);
  t.match(a.events, [{ type: 'opened' }]);
});

await t.test(`at most ${MOST_ACCEPTED} streams are accepted`, async (t) => {
  const world = new Loopback(t);
  const { streams, events, at } = await listener(t, world);
  for (let i = 0; i < MOST_ACCEPTED; i++) {
    const stream = await world.connectRudely(at);
    stream.write(Uint8Array.of(0xff));
    if (i % 32 === 31) await world.until(() => events.length === i + 1);
  }
  const tooMany = await world.connectRudely(at);
  await world.until(() => tooMany.isClosed);
  t.equal(events.length, MOST_ACCEPTED);
  streams.close(1);
  await world.pass(1000);
  const next = await world.connectRudely(at);
  next.write(Uint8Array.of(0xff));
  await world.until(() => events.length === MOST_ACCEPTED + 1);
});

await t.test('a listener with another device key shows another certificate', async (t) => {
  const world = new Loopback(t);
  const { streams, at } = await listener(t, world);
  const port = Number(at.split(':').at(-1));
  const deviceKey = new Uint8Array(32).fill(9);
  t.ok((await streams.listen({ port, deviceKey })).ok);
  const a = transport(t);
  const trust = { type: 'pinned', deviceKey: ed25519.publicKey(deviceKey) } as const;
  a.streams.dial(2, { protocol: 'tls', address: at, trust });
  await world.until(() => a.events.length > 0);
  t.match(a.events, [{ type: 'opened' }]);
});

await t.test('a port below 1024 that is not ours to take, and none of ours', async (t) => {
  const world = new Loopback(t);
  const { port } = await world.freePort();
  const other = await listening(createServer(), port);
  t.teardown(() => other.close());
  const { streams } = transport(t);
  t.same(await streams.listen({ port, deviceKey: DEVICE_KEY }), { ok: false, why: 'port-taken' });
});

await t.test('a stopped transport lets a listener that was starting go', async (t) => {
  const world = new Loopback(t);
  const { port, address: at } = await world.freePort();
  const { streams } = transport(t);
  const starting = streams.listen({ port, deviceKey: DEVICE_KEY });
  streams.stop();
  await starting;
  const a = transport(t);
  a.streams.dial(2, { protocol: 'tcp', address: at, trust: ANY });
  await world.until(() => a.events.length > 0);
  t.match(a.events, [{ type: 'closed', why: /nothing listens/ }]);
});

await t.test('a mark is on the socket before the first packet', async (t) => {
  const world = new Loopback(t);
  const { at } = await listener(t, world);
  const calls: string[] = [];
  const watched: Native = {
    ...native,
    setOption: (fd, level, name, value) => {
      calls.push(`${level} ${name} ${value}`);
      return native.setOption(fd, level, name, value);
    },
  };
  for (const [ip, protocol] of [
    ['127.0.0.1', 'tcp'],
    ['::1', 'wss'],
  ] as const) {
    const a = transport(t, watched);
    const to = address(ip, Number(at.split(':').at(-1)));
    a.streams.dial(2, { protocol, address: to, trust: ANY, mark: 0x42 });
    await world.until(() => a.events.length > 0);
    t.match(a.events, [{ type: 'opened' }]);
    t.ok(a.streams.send(2, Uint8Array.of(1, 2, 3)));
  }
  // SO_MARK, then TCP_NOTSENT_LOWAT of the one that is up.
  const each = ['1 36 66', '6 25 65536'];
  t.same(calls, [...each, ...each]);
});

await t.test(
  'a peer that does not read holds back little: the kernel takes less than 1 MB',
  async (t) => {
    const world = new Loopback(t);
    const deaf = await listening(
      createServer({ pauseOnConnect: true }, (socket) => t.teardown(() => socket.destroy())),
    );
    t.teardown(() => deaf.close());
    const at = address('127.0.0.1', (deaf.address() as { port: number }).port);
    const a = transport(t, native);
    a.streams.dial(2, { protocol: 'tcp', address: at, trust: ANY });
    await world.until(() => a.events.length > 0);
    let taken = 0;
    for (let turns = 0; turns < 200; turns++) {
      const piece = new Uint8Array(16_000);
      while (a.streams.send(2, piece)) taken += piece.length;
      await world.pass(0);
    }
    t.ok(taken - a.streams.waiting < 1 << 20, `${taken - a.streams.waiting} bytes`);
  },
);

await t.test('a socket that may not be marked is not used', async (t) => {
  const world = new Loopback(t);
  const closed: number[] = [];
  const forbidding: Native = {
    ...native,
    setOption: () => -1,
    close: (fd) => closed.push(native.close(fd)),
  };
  const a = transport(t, forbidding);
  a.streams.dial(2, { protocol: 'tcp', address: address('127.0.0.1', 1), trust: ANY, mark: 1 });
  t.same(a.events, []);
  await world.until(() => a.events.length > 0);
  t.match(a.events, [{ type: 'closed', why: /CAP_NET_ADMIN/ }]);
  t.same(closed, [0]);
});

await t.test('without a native file it says once that nothing is marked, and dials', async (t) => {
  const world = new Loopback(t);
  const { at } = await listener(t, world);
  const lines: string[] = [];
  const log: Log = { ...nullLog, debug: (line) => void lines.push(line) };
  const a = transport(t, undefined, log);
  for (const stream of [2, 4]) {
    a.streams.dial(stream, { protocol: 'wss', address: at, trust: ANY, mark: 1 });
  }
  await world.until(() => a.events.length === 2);
  t.match(a.events, [{ type: 'opened' }, { type: 'opened' }]);
  t.equal(lines.length, 1);
});

await t.test('reasons name the cure', async (t) => {
  const world = new Loopback(t);
  const { at } = await listener(t, world);
  const http = await listening(
    createServer((socket) => {
      socket.on('error', () => undefined);
      socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'));
    }),
  );
  t.teardown(() => http.close());
  const { port } = http.address() as { port: number };
  const cases: readonly (readonly [Partial<DialTarget>, RegExp])[] = [
    [
      { protocol: 'ws', address: address('127.0.0.1', port) },
      /HTTP 200.*is that the port of a peer/,
    ],
    [{ protocol: 'tls', address: address('127.0.0.1', port) }, /does not speak our TLS/],
    [{ protocol: 'tls', trust: { type: 'authorities' } }, /no authority that we know vouches/],
    [{ proxy: 'socks://127.0.0.1:1' }, /must be http:/],
    [{ proxy: 'http://%zz:%zz@127.0.0.1:1' }, /nothing listens/],
  ];
  for (const [i, [target, why]] of cases.entries()) {
    const a = transport(t);
    a.streams.dial(2, { protocol: 'tcp', address: at, trust: ANY, ...target });
    await world.until(() => a.events.length > 0);
    t.match(a.events, [{ type: 'closed', why }], `${i}`);
  }
});

await t.test('a message larger than any of ours ends a WebSocket at once', async (t) => {
  const world = new Loopback(t);
  const { events, arrived, at } = await listener(t, world);
  const stream = await world.connectRudely(at);
  const key = Buffer.alloc(16).toString('base64');
  stream.write(
    Buffer.from(
      `GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\n\r\n`,
    ),
  );
  await world.until(() => events.length === 1);
  // RFC 6455 §5.2: final, binary, masked with zeros, 3 bytes; then one of 1 MB.
  stream.write(Uint8Array.of(0x82, 0x83, 0, 0, 0, 0, 7, 8, 9));
  await world.until(() => arrived.length === 3);
  stream.write(Uint8Array.of(0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0));
  await world.until(() => stream.isClosed);
  t.match(events, [{ protocol: 'ws' }, { type: 'closed', why: /breaks the rules/ }]);
  t.same(arrived, [7, 8, 9]);
});

function transport(t: Test, ...[withNative, log]: [Native | undefined, Log?] | []) {
  const streams = new StreamTransport(withNative, log ?? nullLog);
  t.teardown(() => streams.stop());
  const events: StreamEvent[] = [];
  const arrived: number[] = [];
  streams.listenTo((event) => {
    if (event.type === 'data') arrived.push(...event.bytes);
    else events.push(event);
  });
  return { streams, events, arrived };
}

async function listener(t: Test, world: Loopback) {
  const made = transport(t);
  const { port, address: at } = await world.freePort();
  await made.streams.listen({ port, deviceKey: DEVICE_KEY });
  return { ...made, at };
}
