import type { Test } from 'tap';
import type { StreamProtocol } from '../../core/ice/candidate.ts';
import type { SocketAddress } from '../../core/net/socket-address.ts';
import {
  DIAL_TIMEOUT,
  SEND_QUEUE,
  type DialTarget,
  type StreamEvent,
  type StreamId,
  type Streams,
} from '../../core/plugin/streams.ts';
import { createNodeCrypto } from '../../plugins/crypto-node/index.ts';
import { createNobleCrypto } from '../../plugins/crypto-noble/index.ts';
import { SeededRandom } from '../sim/seeded-random.ts';

/*
 * What every stream transport must do, a third party's too. A transport is one folder under plugins/: its
 * index.ts exports a factory of a PluginDefinition<Streams>, and its test calls `streamTransportContract`
 * with a world in which two of them meet. See example-transport.ts for a whole one.
 */

/** Where the transports of a test meet. */
export interface StreamsWorld {
  /** Which protocols the transports dial and accept. */
  readonly protocols: readonly StreamProtocol[];
  create(): Streams;
  /** Ends a transport as stopping its plugin does. */
  stop(streams: Streams): void;
  /** A port on which nobody listens, and the address at which a listener on it is found. */
  freePort(): Promise<{ readonly port: number; readonly address: SocketAddress }>;
  /** Lets things happen until the condition holds. */
  until(condition: () => boolean): Promise<void>;
  /** Lets time pass, as far as the transports know. */
  pass(ms: number): Promise<void>;
  /** Where something listens that never says a word; none where a stream is up without a word. */
  listenSilently(protocol: StreamProtocol): Promise<SocketAddress | undefined>;
  /** Connects to a listener without keeping to any protocol; absent where that cannot be. */
  connectRudely?(address: SocketAddress): Promise<RudeStream>;
}

export interface RudeStream {
  write(bytes: Uint8Array): void;
  /** Ends its side only. */
  end(): void;
  /** Vanishes with a reset. */
  reset(): void;
  readonly isClosed: boolean;
}

const crypto = createNodeCrypto(createNobleCrypto());
const DEVICE_KEY = new Uint8Array(32).fill(7);
const DEVICE_PUBLIC_KEY = crypto.ed25519.publicKey(DEVICE_KEY);

export async function streamTransportContract(
  t: Test,
  makeWorld: (t: Test) => Promise<StreamsWorld>,
): Promise<void> {
  const { protocols } = await makeWorld(t);
  for (const protocol of protocols) {
    await t.test(protocol, async (t) => {
      await protocolContract(t, () => makeWorld(t), protocol);
      if (protocol === 'tls' || protocol === 'wss') {
        await trustContract(t, () => makeWorld(t), protocol);
      }
    });
  }
  await listenContract(t, makeWorld, protocols[0] ?? 'tcp');
  if ((await makeWorld(t)).connectRudely !== undefined) await rudeContract(t, makeWorld);
}

async function protocolContract(
  t: Test,
  makeWorld: () => Promise<StreamsWorld>,
  protocol: StreamProtocol,
): Promise<void> {
  await t.test('a stream is opened, accepted, and carries bytes both ways', async (t) => {
    const { a, b, out, into } = await connected(t, makeWorld, protocol);
    t.match(a.told(out)[0], { type: 'opened', local: String });
    const [accepted] = b.told(into);
    t.match(accepted, { type: 'accepted', protocol, local: String, remote: String });
    t.equal(into % 2, 1);
    const [opened] = a.told(out);
    if (accepted?.type === 'accepted' && opened?.type === 'opened') {
      t.equal(accepted.remote, opened.local);
    }
  });

  await t.test('bytes arrive whole and in order, in pieces of any size, both ways', async (t) => {
    const { world, a, b, out, into } = await connected(t, makeWorld, protocol);
    const random = seeded(t);
    const [there, back] = [numbered(2_000_000), numbered(1_500_000).reverse()];
    const [before, beforeBack] = [b.bytes(into).length, a.bytes(out).length];
    await Promise.all([pump(world, a, out, there, random), pump(world, b, into, back, random)]);
    await world.until(() => b.count(into) === before + there.length);
    await world.until(() => a.count(out) === beforeBack + back.length);
    t.ok(Buffer.from(there).equals(b.bytes(into).subarray(before)));
    t.ok(Buffer.from(back).equals(a.bytes(out).subarray(beforeBack)));
    t.equal(a.streams.waiting, 0);
  });

  await t.test('a chunk of 64 KB is taken and arrives', async (t) => {
    const { world, a, b, out, into } = await connected(t, makeWorld, protocol);
    const before = b.count(into);
    const chunk = numbered(64 << 10);
    t.ok(a.streams.send(out, chunk));
    // The bytes were copied: the caller uses its buffer again.
    chunk.fill(0);
    await world.until(() => b.count(into) === before + chunk.length);
    t.ok(
      b
        .bytes(into)
        .subarray(before)
        .equals(Buffer.from(numbered(64 << 10))),
    );
  });

  await t.test(
    'what is sent too fast is refused whole, until the stream is writable',
    async (t) => {
      const { world, a, b, out, into } = await connected(t, makeWorld, protocol);
      const before = b.count(into);
      let taken = 0;
      for (const piece = numbered(1400); a.streams.send(out, piece); taken += piece.length);
      // The kernel may have taken some at once.
      const { waiting } = a.streams;
      t.ok(waiting > SEND_QUEUE && waiting <= SEND_QUEUE + 1400, `${waiting} bytes`);
      t.ok(waiting <= taken);
      t.notOk(a.streams.send(out, numbered(1)));
      const isWritable = (): boolean => a.told(out).some(({ type }) => type === 'writable');
      t.notOk(isWritable());
      await world.until(isWritable);
      t.ok(a.streams.waiting < SEND_QUEUE);
      t.ok(a.streams.send(out, numbered(77)));
      await world.until(() => b.count(into) === before + taken + 77);
      t.equal(a.told(out).filter(({ type }) => type === 'writable').length, 1);
    },
  );

  await t.test('who closes hears no more; the other side hears it once', async (t) => {
    const { world, a, b, out, into } = await connected(t, makeWorld, protocol);
    b.streams.send(into, numbered(10));
    const heard = a.told(out).length;
    a.streams.close(out);
    a.streams.close(out);
    t.notOk(a.streams.send(out, numbered(1)));
    await world.until(() => b.closed(into) !== undefined);
    b.streams.close(into);
    t.notOk(b.streams.send(into, numbered(1)));
    await world.pass(2 * DIAL_TIMEOUT);
    t.equal(a.told(out).length, heard);
    t.equal(b.told(into).filter(({ type }) => type === 'closed').length, 1);
  });

  await t.test('what was sent before the close arrives', async (t) => {
    const { world, a, b, out, into } = await connected(t, makeWorld, protocol);
    const before = b.count(into);
    a.streams.send(out, numbered(100_000));
    a.streams.close(out);
    await world.until(() => b.closed(into) !== undefined);
    t.equal(b.count(into), before + 100_000);
    await world.until(() => a.streams.waiting === 0);
  });

  await t.test('when a transport stops, the other side hears it', async (t) => {
    const { world, a, b, out, into } = await connected(t, makeWorld, protocol);
    const heard = a.told(out).length;
    world.stop(a.streams);
    await world.until(() => b.closed(into) !== undefined);
    t.equal(a.told(out).length, heard);
  });

  await t.test('where nobody listens the dial is closed with a reason, later', async (t) => {
    const world = await makeWorld();
    const a = new End(world, t);
    const { address } = await world.freePort();
    a.dial(2, { protocol, address });
    t.same(a.events, []);
    await world.until(() => a.closed(2) !== undefined);
    t.not(a.closed(2), '');
    t.equal(a.told(2).length, 1);
    // The number is free again.
    a.dial(2, { protocol, address });
    await world.until(() => a.told(2).length === 2);
  });

  await t.test('a dial that is closed is never heard of again', async (t) => {
    const world = await makeWorld();
    const a = new End(world, t);
    const { address } = await world.freePort();
    a.dial(2, { protocol, address });
    a.streams.close(2);
    a.dial(4, { protocol, address });
    await world.until(() => a.closed(4) !== undefined);
    await world.pass(2 * DIAL_TIMEOUT);
    t.same(a.told(2), []);
  });

  await t.test('a dial to somebody who says nothing ends with the time', async (t) => {
    const world = await makeWorld();
    const address = await world.listenSilently(protocol);
    if (address === undefined) return;
    const a = new End(world, t);
    a.dial(2, { protocol, address });
    await world.pass(DIAL_TIMEOUT - 100);
    t.same(a.events, []);
    await world.pass(200);
    await world.until(() => a.closed(2) !== undefined);
    t.equal(a.told(2).length, 1);
  });

  await t.test('too many dials are closed, each of them once', async (t) => {
    const world = await makeWorld();
    const address = await world.listenSilently(protocol);
    if (address === undefined) return;
    const a = new End(world, t);
    const ids = Array.from({ length: 1000 }, (_, i) => 2 * i);
    for (const id of ids) a.dial(id, { protocol, address });
    t.same(a.events, []);
    await world.until(() => ids.some((id) => a.closed(id) !== undefined));
    await world.pass(DIAL_TIMEOUT + 100);
    await world.until(() => ids.every((id) => a.closed(id) !== undefined));
    t.equal(a.events.length, ids.length);
  });
}

async function trustContract(
  t: Test,
  makeWorld: () => Promise<StreamsWorld>,
  protocol: StreamProtocol,
): Promise<void> {
  const attempt = async (t: Test, trust: DialTarget['trust']): Promise<End> => {
    const world = await makeWorld();
    const [a, b] = [new End(world, t), new End(world, t)];
    const { port, address } = await world.freePort();
    await b.streams.listen({ port, deviceKey: DEVICE_KEY });
    a.dial(2, { protocol, address, trust });
    await world.until(() => a.told(2).length > 0);
    return a;
  };

  await t.test('a pinned device key opens to that device and to no other', async (t) => {
    const right = await attempt(t, { type: 'pinned', deviceKey: DEVICE_PUBLIC_KEY });
    t.match(right.told(2), [{ type: 'opened' }]);
    for (const at of [0, 31]) {
      const deviceKey = DEVICE_PUBLIC_KEY.slice();
      deviceKey[at]! ^= 1;
      const wrong = await attempt(t, { type: 'pinned', deviceKey });
      t.match(wrong.told(2), [{ type: 'closed', why: /certificate/ }]);
    }
  });

  await t.test('the authorities do not vouch for a device', async (t) => {
    const a = await attempt(t, { type: 'authorities' });
    t.match(a.told(2), [{ type: 'closed', why: /certificate/ }]);
  });

  await t.test('where anybody will do, a device will', async (t) => {
    const a = await attempt(t, { type: 'any' });
    t.match(a.told(2), [{ type: 'opened' }]);
  });
}

async function listenContract(
  t: Test,
  makeWorld: (t: Test) => Promise<StreamsWorld>,
  protocol: StreamProtocol,
): Promise<void> {
  const deviceKey = DEVICE_KEY;

  await t.test('a taken port is refused and the old listener stays', async (t) => {
    const world = await makeWorld(t);
    const [a, b, c] = [new End(world, t), new End(world, t), new End(world, t)];
    const [first, second] = [await world.freePort(), await world.freePort()];
    t.ok((await a.streams.listen({ port: first.port, deviceKey })).ok);
    t.ok((await b.streams.listen({ port: second.port, deviceKey })).ok);
    const refused = await b.streams.listen({ port: first.port, deviceKey });
    t.same(refused, { ok: false, why: 'port-taken' });
    c.dial(2, { protocol, address: second.address });
    await world.until(() => c.told(2).length > 0);
    t.match(c.told(2), [{ type: 'opened' }]);
  });

  await t.test('listening moves, and what was accepted stays', async (t) => {
    const { world, a, b, out, into, at } = await connected(t, () => makeWorld(t), protocol);
    const { port, address } = await world.freePort();
    t.ok((await b.streams.listen({ port, deviceKey })).ok);
    t.ok((await b.streams.listen({ port, deviceKey })).ok, 'to where it is, too');
    a.dial(4, { protocol, address: at });
    a.dial(6, { protocol, address });
    await world.until(() => a.told(4).length > 0 && a.told(6).length > 0);
    t.match(a.told(4), [{ type: 'closed' }]);
    t.match(a.told(6), [{ type: 'opened' }]);
    const before = b.count(into);
    a.streams.send(out, numbered(9));
    await world.until(() => b.count(into) === before + 9);
  });

  await t.test('listening stops, and the port is free for others', async (t) => {
    const { world, a, b, at, port } = await connected(t, () => makeWorld(t), protocol);
    t.ok((await b.streams.listen(undefined)).ok);
    a.dial(4, { protocol, address: at });
    await world.until(() => a.told(4).length > 0);
    t.match(a.told(4), [{ type: 'closed' }]);
    const c = new End(world, t);
    t.ok((await c.streams.listen({ port, deviceKey })).ok);
  });

  await t.test('of calls that follow each other the last one counts', async (t) => {
    const world = await makeWorld(t);
    const [a, b] = [new End(world, t), new End(world, t)];
    const [first, second] = [await world.freePort(), await world.freePort()];
    await Promise.all([
      b.streams.listen({ port: first.port, deviceKey }),
      b.streams.listen(undefined),
      b.streams.listen({ port: second.port, deviceKey }),
    ]);
    a.dial(2, { protocol, address: first.address });
    a.dial(4, { protocol, address: second.address });
    await world.until(() => a.told(2).length > 0 && a.told(4).length > 0);
    t.match(a.told(2), [{ type: 'closed' }]);
    t.match(a.told(4), [{ type: 'opened' }]);
  });
}

/** What strangers do to a listener. */
async function rudeContract(t: Test, makeWorld: (t: Test) => Promise<StreamsWorld>): Promise<void> {
  const met = async (t: Test) => {
    const world = await makeWorld(t);
    const b = new End(world, t);
    const { port, address } = await world.freePort();
    await b.streams.listen({ port, deviceKey: DEVICE_KEY });
    const connect = async (): Promise<RudeStream> => {
      const stream = await world.connectRudely?.(address);
      if (stream === undefined) throw new Error('this world knows no rudeness');
      return stream;
    };
    return { world, b, address, connect };
  };

  await t.test('bytes that belong to no protocol are handed on as they are', async (t) => {
    const random = seeded(t);
    const { world, b, connect } = await met(t);
    for (let i = 0; i < 20; i++) {
      const junk = new Uint8Array(1 + below(random, 3000));
      random.fill(junk);
      // Neither TLS nor HTTP.
      junk[0] = 0x80 | i;
      const stream = await connect();
      stream.write(junk);
      const id = 2 * i + 1;
      await world.until(() => b.count(id) === junk.length);
      t.match(b.told(id)[0], { type: 'accepted', protocol: 'tcp' });
      t.ok(b.bytes(id).equals(Buffer.from(junk)));
    }
  });

  await t.test('who shows no protocol is closed with the time, and never heard of', async (t) => {
    const { world, b, connect } = await met(t);
    const silent = await connect();
    const slow = await Promise.all(
      ['G', 'GET', '\u0016', '\u0016\u0003\u0001'].map(async (first) => {
        const stream = await connect();
        stream.write(Buffer.from(first, 'latin1'));
        return stream;
      }),
    );
    await world.pass(DIAL_TIMEOUT - 100);
    t.ok([silent, ...slow].every(({ isClosed }) => !isClosed));
    await world.pass(200);
    await world.until(() => [silent, ...slow].every(({ isClosed }) => isClosed));
    t.same(b.events, []);
  });

  await t.test(
    'junk behind the first bytes of a protocol is closed, and never heard of',
    async (t) => {
      const random = seeded(t);
      const { world, b, connect } = await met(t);
      for (const first of [
        '\u0016\u0003',
        'GET ',
        'GET / HTTP/1.1\r\n\r\n',
        'GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n',
      ]) {
        const junk = new Uint8Array(20_000);
        random.fill(junk);
        const stream = await connect();
        stream.write(Buffer.concat([Buffer.from(first, 'latin1'), junk]));
        await world.until(() => stream.isClosed);
      }
      t.same(b.events, []);
    },
  );

  await t.test('who goes in the middle of a handshake leaves nothing behind', async (t) => {
    const { world, b, connect, address } = await met(t);
    for (const first of ['', 'G', '\u0016\u0003\u0001', 'GET / HTTP/1.1\r\n']) {
      for (const leave of ['end', 'reset'] as const) {
        const stream = await connect();
        stream.write(Buffer.from(first, 'latin1'));
        stream[leave]();
        await world.until(() => stream.isClosed);
      }
    }
    t.same(b.events, []);
    const a = new End(world, t);
    a.dial(2, { protocol: 'tcp', address });
    await world.until(() => a.told(2).length > 0);
    t.match(a.told(2), [{ type: 'opened' }]);
  });

  await t.test('a stream that is half closed or vanishes is closed', async (t) => {
    const { world, b, connect } = await met(t);
    for (const [i, leave] of (['end', 'reset'] as const).entries()) {
      const stream = await connect();
      stream.write(numbered(3).fill(0xee));
      const id = 2 * i + 1;
      await world.until(() => b.count(id) === 3);
      stream[leave]();
      await world.until(() => b.closed(id) !== undefined);
      await world.until(() => stream.isClosed);
    }
  });
}

/** A transport, and what it told. */
class End {
  readonly streams: Streams;
  readonly events: StreamEvent[] = [];
  readonly #received = new Map<StreamId, Buffer[]>();

  constructor(world: StreamsWorld, t: Test) {
    this.streams = world.create();
    t.teardown(() => world.stop(this.streams));
    this.streams.listenTo((event) => {
      if (event.type === 'data') this.#keep(event.stream, event.bytes);
      else this.events.push(event);
    });
  }

  dial(
    stream: StreamId,
    target: Pick<DialTarget, 'protocol' | 'address'> & Partial<DialTarget>,
  ): void {
    this.streams.dial(stream, { trust: { type: 'any' }, ...target });
  }

  /** What was told of a stream, but for its bytes. */
  told(stream: StreamId): StreamEvent[] {
    return this.events.filter((event) => event.stream === stream);
  }

  closed(stream: StreamId): string | undefined {
    const event = this.told(stream).find(({ type }) => type === 'closed');
    return event?.type === 'closed' ? event.why : undefined;
  }

  bytes(stream: StreamId): Buffer {
    return Buffer.concat(this.#received.get(stream) ?? []);
  }

  count(stream: StreamId): number {
    return (this.#received.get(stream) ?? []).reduce((sum, { length }) => sum + length, 0);
  }

  #keep(stream: StreamId, bytes: Uint8Array): void {
    const chunks = this.#received.get(stream) ?? [];
    chunks.push(Buffer.from(bytes));
    this.#received.set(stream, chunks);
    // They were lent: whoever keeps them finds them changed.
    bytes.fill(0);
  }
}

interface Connected {
  readonly world: StreamsWorld;
  readonly a: End;
  readonly b: End;
  /** The stream as `a` dialled it, and as `b` accepted it. */
  readonly out: StreamId;
  readonly into: StreamId;
  readonly port: number;
  readonly at: SocketAddress;
}

/** Opens a stream; both sides have sent three bytes. */
async function connected(
  t: Test,
  makeWorld: () => Promise<StreamsWorld>,
  protocol: StreamProtocol,
): Promise<Connected> {
  const world = await makeWorld();
  const [a, b] = [new End(world, t), new End(world, t)];
  const { port, address } = await world.freePort();
  const listening = await b.streams.listen({ port, deviceKey: DEVICE_KEY });
  if (!listening.ok) throw new Error(listening.why);
  const out = 2;
  a.dial(out, { protocol, address });
  if (a.events.length > 0) throw new Error('an event from within dial()');
  await world.until(() => a.told(out).length > 0);
  a.streams.send(out, Uint8Array.of(0, 1, 2));
  await world.until(() => b.events.length > 0);
  const into = b.events[0]?.stream ?? NaN;
  await world.until(() => b.count(into) === 3);
  b.streams.send(into, Uint8Array.of(3, 4, 5));
  await world.until(() => a.count(out) === 3);
  return { world, a, b, out, into, port, at: address };
}

/** Sends all bytes in pieces of random size, as fast as the stream takes them. */
async function pump(
  world: StreamsWorld,
  end: End,
  stream: StreamId,
  bytes: Uint8Array,
  random: SeededRandom,
): Promise<void> {
  for (let at = 0; at < bytes.length;) {
    const size = 1 + below(random, below(random, 10) === 0 ? 65_536 : 2000);
    const piece = bytes.subarray(at, at + size);
    const writable = (): number =>
      end.told(stream).filter(({ type }) => type === 'writable').length;
    const before = writable();
    if (end.streams.send(stream, piece)) at += piece.length;
    else await world.until(() => writable() > before);
  }
}

function numbered(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 7 + (i >> 8) + (i >> 16)) & 0xff);
}

/** `SEED=…` in the environment repeats a run. */
function seeded(t: Test): SeededRandom {
  const seed = Number(process.env['SEED'] ?? Date.now() % 1e6);
  t.comment(`SEED=${seed}`);
  return new SeededRandom(seed);
}

function below(random: SeededRandom, end: number): number {
  return Math.floor(random.fraction() * end);
}
