import type { Test } from 'tap';
import { parseIpAddress, type IpAddress } from '../../core/net/ip-address.ts';
import { socketAddress, type SocketAddress } from '../../core/net/socket-address.ts';
import type { Datagrams, Listening } from '../../core/plugin/datagrams.ts';
import { PlainArena, type Incoming, type Outgoing } from './plain-arena.ts';

/** Where the transports of a test live: one host with 127.0.0.0/8 and ::1. */
export interface DatagramsWorld {
  create(): Datagrams;
  /** Lets everything that was sent arrive and be reported. */
  settle(): Promise<void>;
}

const LOCALHOST = ip('127.0.0.1');
const LOCALHOST6 = ip('::1');

/** What every implementation of `Datagrams` must do. */
export async function datagramsContract(
  t: Test,
  makeWorld: () => Promise<DatagramsWorld>,
): Promise<void> {
  const pair = async (t: Test): Promise<{ world: DatagramsWorld; a: End; b: End }> => {
    const world = await makeWorld();
    const a = new End(world.create());
    const b = new End(world.create());
    t.teardown(() => [a, b].forEach(({ datagrams }) => datagrams.close()));
    return { world, a, b };
  };

  await t.test('port 0 gives one port for both families', async (t) => {
    const { a, b } = await pair(t);
    t.not(a.bound.port, 0);
    t.not(a.bound.port, b.bound.port);
    t.type(a.bound.ipv4, 'number');
    t.type(a.bound.ipv6, 'number');
    t.not(a.bound.ipv4, a.bound.ipv6);
  });

  await t.test('a datagram arrives whole, with both addresses and the traffic class', async (t) => {
    const { world, a, b } = await pair(t);
    for (const local of [LOCALHOST, LOCALHOST6]) {
      const payload = numbered(1200);
      t.equal(a.send([{ fd: a.fd(local), remote: b.at(local), payload, tos: 0x89 }]), 1);
      t.equal(a.arena.sendResult(0), 0);
      await world.settle();
      const [incoming, ...more] = b.take();
      t.same(more, []);
      t.equal(incoming?.remote, a.at(local));
      t.equal(incoming?.local, local);
      t.ok(incoming?.ifindex);
      t.equal(incoming?.tos, 0x89);
      t.same(incoming?.payloads, [payload]);
    }
  });

  await t.test('a train of 64 datagrams arrives as 64 datagrams in order', async (t) => {
    const { world, a, b } = await pair(t);
    for (const local of [LOCALHOST, LOCALHOST6]) {
      for (const last of [1, 999, 1000]) {
        const train = numbered(63 * 1000 + last);
        a.send([{ fd: a.fd(local), remote: b.at(local), payload: train, segment: 1000 }]);
        await world.settle();
        const payloads = b.take().flatMap(({ payloads }) => payloads);
        t.same(
          payloads.map(({ length }) => length),
          Array.from({ length: 64 }, (_, i) => (i < 63 ? 1000 : last)),
        );
        t.same(Buffer.concat(payloads), Buffer.from(train));
      }
    }
  });

  await t.test('a batch mixes families, lengths and trains', async (t) => {
    const { world, a, b } = await pair(t);
    const payloads = [numbered(0), numbered(1), numbered(3000), numbered(1400), numbered(9)];
    const sends = payloads.map((payload, i): Outgoing => {
      const local = i % 2 === 0 ? LOCALHOST : LOCALHOST6;
      return { fd: a.fd(local), remote: b.at(local), payload, segment: i === 2 ? 1400 : 0 };
    });
    t.equal(a.send(sends), payloads.length);
    await world.settle();
    const lengths = b.take().flatMap(({ payloads }) => payloads.map(({ length }) => length));
    t.same(lengths.sort(byNumber), [0, 1, 9, 200, 1400, 1400, 1400]);
  });

  await t.test('what is refused says so in its record and does not stop the others', async (t) => {
    const { world, a, b } = await pair(t);
    const fd = a.bound.ipv4;
    const remote = b.at(LOCALHOST);
    const tooLong = numbered(65_530);
    t.equal(
      a.send([
        { fd, remote, payload: numbered(1) },
        { fd, remote, payload: tooLong },
        { fd: undefined, remote, payload: numbered(2) },
        { fd, remote, payload: numbered(3) },
      ]),
      2,
    );
    t.same(
      [0, 1, 2, 3].map((i) => Math.sign(a.arena.sendResult(i))),
      [0, -1, -1, 0],
    );
    await world.settle();
    t.same(
      b.take().map(({ payloads }) => payloads[0]?.length),
      [1, 3],
    );
  });

  await t.test('a datagram is sent outside the batches on the socket of its family', async (t) => {
    const { world, a, b } = await pair(t);
    for (const local of [LOCALHOST, LOCALHOST6]) {
      a.datagrams.sendTo(b.at(local), numbered(77));
      a.datagrams.sendTo(b.at(local), new Uint8Array(70_000));
      await world.settle();
      const [incoming, ...more] = b.take();
      t.same(more, []);
      t.equal(incoming?.remote, a.at(local));
      t.same(incoming?.payloads, [numbered(77)]);
    }
  });

  await t.test('a local address pins the source', async (t) => {
    const { world, a, b } = await pair(t);
    const local = ip('127.0.0.9');
    a.send([{ fd: a.bound.ipv4, remote: b.at(ip('127.0.0.7')), payload: numbered(5), local }]);
    await world.settle();
    const [incoming] = b.take();
    t.equal(incoming?.remote, socketAddress(local, a.bound.port));
    t.equal(incoming?.local, '127.0.0.7', 'and the receiver is told its own');
  });

  await t.test('outside the batches as well', async (t) => {
    const { world, a, b } = await pair(t);
    const local = ip('127.0.0.9');
    a.datagrams.sendTo(b.at(ip('127.0.0.7')), numbered(5), { local });
    a.datagrams.sendTo(b.at(ip('127.0.0.7')), numbered(6));
    await world.settle();
    const [pinned, free] = b.take();
    t.equal(pinned?.remote, socketAddress(local, a.bound.port));
    t.not(free?.remote, pinned?.remote, 'it does not last');
  });

  await t.test(
    'a source that is gone is left out at once, and for the batches to come',
    async (t) => {
      const { world, a, b } = await pair(t);
      for (const [at, gone] of [
        [LOCALHOST, ip('198.51.100.1')],
        [LOCALHOST6, ip('2001:db8::1')],
      ] as const) {
        const common = { fd: a.fd(at), remote: b.at(at), local: gone };
        const train = { ...common, payload: numbered(3000), segment: 1000 };
        t.equal(a.send([{ ...common, payload: numbered(1) }, train]), 2);
        t.same(
          [0, 1].map((i) => a.arena.pathOfSend(i)),
          [0, 1].map(() => ({ fd: common.fd, remote: common.remote })),
        );
        a.datagrams.sendTo(b.at(at), numbered(2), { local: gone });
        await world.settle();
        const taken = b.take();
        t.same(
          taken.flatMap(({ payloads }) => payloads.map(({ length }) => length)),
          [1, 1000, 1000, 1000, 2],
        );
        t.ok(taken.every(({ remote }) => remote === a.at(at)));
      }
    },
  );

  await t.test('what does not fit one batch is reported until it is taken', async (t) => {
    const { world, a, b } = await pair(t);
    const remote = b.at(LOCALHOST);
    const count = b.arena.datagrams.most * 3 + 1;
    // Lengths that GRO cannot join.
    for (let i = 0; i < count; i++) a.datagrams.sendTo(remote, numbered(100 + i));
    await world.settle();
    const lengths = b.take().flatMap(({ payloads }) => payloads.map(({ length }) => length));
    t.same(
      lengths,
      Array.from({ length: count }, (_, i) => 100 + i),
    );
    t.ok(b.readable > 0);
    const before = b.readable;
    await world.settle();
    t.equal(b.readable, before, 'an empty socket is quiet');
    t.equal(b.datagrams.receive(b.fd(LOCALHOST) ?? -1), 0);
  });

  await t.test('a taken port is refused and the old sockets stay', async (t) => {
    const { world, a, b } = await pair(t);
    const refused = b.listen(a.bound.port);
    t.same(refused, { ok: false, why: 'port-taken' });
    a.datagrams.sendTo(b.at(LOCALHOST), numbered(8));
    await world.settle();
    t.equal(b.take().length, 1);
  });

  await t.test('a second call moves to the new port', async (t) => {
    const { world, a, b } = await pair(t);
    const old = { fd: a.bound.ipv4, at: a.at(LOCALHOST), port: a.bound.port };
    t.ok(a.listen(0).ok);
    t.not(a.bound.port, old.port);
    b.datagrams.sendTo(old.at, numbered(1));
    b.datagrams.sendTo(a.at(LOCALHOST), numbered(2));
    await world.settle();
    t.same(
      a.take().map(({ payloads }) => payloads[0]?.length),
      [2],
    );
    t.ok(b.listen(old.port).ok, 'the old port is free');
  });

  await t.test('listening on the same port again keeps the sockets', async (t) => {
    const { world, a, b } = await pair(t);
    const before = a.bound;
    t.ok(a.listen(before.port).ok);
    t.same(a.bound, before);
    b.datagrams.sendTo(a.at(LOCALHOST), numbered(4));
    await world.settle();
    t.equal(a.take().length, 1);
  });

  await t.test('a path of the old port does not reach the file that has its number', async (t) => {
    const { world, a, b } = await pair(t);
    const old = a.bound.ipv4;
    t.ok(a.listen(0).ok);
    // Whatever is opened next gets the number of the old socket.
    const other = new End(world.create());
    t.teardown(() => other.datagrams.close());
    const payload = numbered(6);
    t.equal(a.send([{ fd: old, remote: b.at(LOCALHOST), payload }]), 0);
    t.ok(a.arena.sendResult(0) < 0);
    await world.settle();
    t.same(b.take(), []);
  });

  await t.test('a closed transport neither sends nor receives, and closes twice', async (t) => {
    const { world, a, b } = await pair(t);
    const remote = a.at(LOCALHOST);
    const fd = a.bound.ipv4;
    a.datagrams.close();
    a.datagrams.close();
    b.datagrams.sendTo(remote, numbered(1));
    await world.settle();
    t.equal(a.datagrams.receive(fd ?? -1), 0);
    t.equal(a.send([{ fd, remote: b.at(LOCALHOST), payload: numbered(1) }]), 0);
    a.datagrams.sendTo(b.at(LOCALHOST), numbered(1));
    await world.settle();
    t.same(b.take(), []);
    t.ok(b.listen(Number(remote.split(':')[1])).ok, 'its port is free');
  });
}

/** A transport that listens, with its arena. */
class End {
  readonly arena = new PlainArena();
  readonly datagrams: Datagrams;
  bound: Listening = { port: 0, ipv4: undefined, ipv6: undefined };
  readable = 0;
  #taken: Incoming[] = [];

  constructor(datagrams: Datagrams) {
    this.datagrams = datagrams;
    const outcome = this.listen(0);
    if (!outcome.ok) throw new Error(outcome.why);
  }

  listen(port: number): ReturnType<Datagrams['listen']> {
    const outcome = this.datagrams.listen(port, { mark: undefined }, this.arena, (fd) => {
      this.readable++;
      const count = this.datagrams.receive(fd);
      this.#taken.push(...this.arena.takeDatagrams(count));
    });
    if (outcome.ok) this.bound = outcome.value;
    return outcome;
  }

  fd(local: IpAddress): number | undefined {
    return local.includes(':') ? this.bound.ipv6 : this.bound.ipv4;
  }

  at(local: IpAddress): SocketAddress {
    return socketAddress(local, this.bound.port);
  }

  send(all: readonly Outgoing[]): number {
    return this.datagrams.send(this.arena.putSends(all));
  }

  /** What arrived since the last call. */
  take(): Incoming[] {
    return this.#taken.splice(0);
  }
}

function ip(text: string): IpAddress {
  const parsed = parseIpAddress(text);
  if (!parsed.ok) throw new Error(parsed.why);
  return parsed.value;
}

function numbered(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 7 + (i >> 8)) & 0xff);
}

function byNumber(a: number, b: number): number {
  return a - b;
}
