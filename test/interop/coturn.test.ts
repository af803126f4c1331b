import { createSocket } from 'node:dgram';
import { existsSync } from 'node:fs';
import { setTimeout as wait } from 'node:timers/promises';
import t from 'tap';
import type { SocketAddress } from '../../core/net/socket-address.ts';
import { instantAt } from '../../core/sansio/instant.ts';
import { BindingClient } from '../../core/stun/binding.ts';
import { createNobleCrypto } from '../../plugins/crypto-noble/index.ts';
import { nodeRandom } from '../../plugins/platform-node/index.ts';
import { Coturn, TURNSERVER } from './coturn.ts';
import { openLine, TurnClient, type Carrier, type Line } from './turn-client.ts';

/** Allocations at a real TURN server, over each transport. */

const present = existsSync(TURNSERVER) ? {} : { skip: 'coturn is not installed' };
const CARRIERS: readonly Carrier[] = ['udp', 'tcp', 'tls'];
const ALICE = { type: 'long-term', username: 'alice', password: 'secret' } as const;
const USER = '--user=alice:secret';
const crypto = createNobleCrypto();

await t.test('a relay with both families gives an address of each', present, async (t) => {
  const server = await start(t, [USER, '--relay-ip=::1']);
  const client = await open(t, server, 'udp');
  const { relayed } = await client.event('allocated');
  t.match(relayed, [/^127\.0\.0\.1:/, /^\[::1\]:/]);
});

for (const carrier of CARRIERS) {
  await t.test(
    `over ${carrier}: data pass both ways between two allocations, and a plain socket`,
    present,
    async (t) => {
      const server = await start(t, [USER]);
      const [left, right] = [await open(t, server, carrier), await open(t, server, carrier)];
      const [from] = (await left.event('allocated')).relayed;
      const [to] = (await right.event('allocated')).relayed;
      t.match(from, /^127\.0\.0\.1:/);
      t.ok(left.allocation.rtt! < 1000);
      await bind(left, to!);
      await bind(right, from!);
      left.send(to!, 'hello');
      await right.receives(`${from} hello`);
      right.send(from!, 'and back');
      await left.receives(`${to} and back`);

      const plain = createSocket('udp4');
      t.teardown(() => plain.close());
      await new Promise<void>((resolve) => plain.bind(0, '127.0.0.1', resolve));
      const address = `127.0.0.1:${plain.address().port}` as SocketAddress;
      const arrived = new Promise<string>((resolve) =>
        plain.once('message', (message, { port }) => {
          plain.send(`echo ${message.toString()}`, port, '127.0.0.1');
          resolve(`${message.toString()} from ${port}`);
        }),
      );
      await bind(left, address);
      left.send(address, 'odd');
      t.equal(await arrived, `odd from ${from!.split(':')[1]}`);
      await left.receives(`${address} echo odd`);
    },
  );

  await t.test(`over ${carrier}: the allocation outlives its lifetime`, present, async (t) => {
    const server = await start(t, [USER, '--max-allocate-lifetime=3']);
    const client = await open(t, server, carrier);
    const [relayed] = (await client.event('allocated')).relayed;
    await wait(5_000);
    t.equal(client.allocation.state, 'allocated');
    t.equal(client.events.length, 1);
    const other = await open(t, server, carrier);
    const [peer] = (await other.event('allocated')).relayed;
    await bind(other, relayed!);
    await bind(client, peer!);
    other.send(relayed!, 'still there?');
    await client.receives(`${peer} still there?`);
  });

  await t.test(`over ${carrier}: wrong credentials are told as such`, present, async (t) => {
    const server = await start(t, [USER]);
    for (const wrong of [{ password: 'guessed' }, { username: 'mallory' }]) {
      const client = await open(t, server, carrier, { ...ALICE, ...wrong });
      t.match(await client.event('failed'), { why: 'wrong-credentials', code: 401 });
    }
  });

  await t.test(`over ${carrier}: a nonce that went stale is replaced`, present, async (t) => {
    const server = await start(t, [USER, '--stale-nonce=1']);
    const client = await open(t, server, carrier);
    await client.event('allocated');
    for (let i = 0; i < 2; i++) {
      await wait(2_100);
      const before = client.sent;
      client.do((allocation, now) => allocation.refresh(now));
      await wait(600);
      t.equal(client.sent - before, 2, 'refused with 438, and sent again');
    }
    t.equal(client.allocation.state, 'allocated');
  });

  await t.test(`over ${carrier}: a quota that is used up is told as such`, present, async (t) => {
    const server = await start(t, [USER, '--user-quota=1']);
    const first = await open(t, server, carrier);
    await first.event('allocated');
    const second = await open(t, server, carrier);
    t.match(await second.event('failed'), { why: 'quota-reached', code: 486 });
    t.equal(first.allocation.state, 'allocated');
  });

  await t.test(
    `over ${carrier}: credentials minted from a shared secret are taken`,
    present,
    async (t) => {
      const server = await start(t, ['--use-auth-secret', '--static-auth-secret=north']);
      const shared = { type: 'shared-secret', id: 'router-1' } as const;
      const right = await open(t, server, carrier, { ...shared, secret: 'north' });
      await right.event('allocated');
      const wrong = await open(t, server, carrier, { ...shared, secret: 'south' });
      t.match(await wrong.event('failed'), { why: 'wrong-credentials' });
    },
  );

  await t.test(
    `over ${carrier}: a peer that the relay forbids is refused, and no other`,
    present,
    async (t) => {
      const server = await start(t, [USER, '--denied-peer-ip=127.0.0.77']);
      const client = await open(t, server, carrier);
      await client.event('allocated');
      const denied = '127.0.0.77:9' as SocketAddress;
      const other = '127.0.0.78:9' as SocketAddress;
      client.send(denied, 'x');
      client.send(other, 'x');
      t.match(await client.event('channel-refused'), { peer: denied });
      t.match(await client.event('channel-bound'), { peer: other });
      t.equal(client.allocation.state, 'allocated');
    },
  );
}

await t.test('a plain STUN request tells our address', present, async (t) => {
  const server = await start(t, [USER]);
  const socket = createSocket('udp4');
  t.teardown(() => socket.close());
  await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve));
  const now = instantAt(0);
  const client = new BindingClient({ software: 'culvert', random: nodeRandom, crypto }, now);
  const answered = new Promise<Uint8Array>((resolve) => socket.once('message', resolve));
  socket.send(client.pollTransmit()!, server.port, server.address);
  client.handleMessage(await answered, now);
  const address = `127.0.0.1:${socket.address().port}`;
  t.same(client.pollEvent(), { type: 'mapped', address });
});

await t.test(
  'a server that was restarted gives another allocation, with the channels of the one before',
  present,
  async (t) => {
    const server = await start(t, [USER]);
    const client = await open(t, server, 'udp');
    await client.event('allocated');
    const peer = '127.0.0.78:9' as SocketAddress;
    await bind(client, peer);
    await server.stop();
    await server.start();
    const from = client.events.length;
    client.do((allocation, now) => allocation.refresh(now));
    await client.event('allocated', from);
    t.match(await client.event('channel-bound', from), { peer, channel: 0x4000 });
  },
);

await t.test('an Allocate whose answer was lost is answered again', present, async (t) => {
  const server = await start(t, [USER]);
  const line = await openLine('udp', server);
  let answers = 0;
  const lossy: Line = {
    ...line,
    // The first is the challenge, the second the allocation.
    onMessage: (handle) => line.onMessage((message) => ++answers !== 2 && handle(message)),
  };
  const client = new TurnClient(lossy, ALICE);
  t.teardown(() => client.close());
  await client.event('allocated');
  t.equal(client.sent, 3);
});

// Over a stream coturn closes the connection with the allocation.
await t.test(
  'a second allocation on the same socket takes the place of the first',
  present,
  async (t) => {
    const server = await start(t, [USER]);
    const line = await openLine('udp', server);
    const first = new TurnClient(line, ALICE);
    const [before] = (await first.event('allocated')).relayed;
    first.stop();
    const second = new TurnClient(line, ALICE);
    t.teardown(() => second.close());
    const [relayed] = (await second.event('allocated')).relayed;
    t.match(relayed, /^127\.0\.0\.1:/);
    t.not(relayed, before);
  },
);

await t.test('an allocation that is closed leaves the quota soon', present, async (t) => {
  const server = await start(t, [USER, '--user-quota=1']);
  const first = await open(t, server, 'udp');
  await first.event('allocated');
  first.close();
  // It takes a second to let go.
  await wait(1_500);
  const second = await open(t, server, 'udp');
  await second.event('allocated');
});

await t.test('a server that points elsewhere (300) refuses', present, async (t) => {
  const server = await start(t, [USER, '--alternate-server=127.0.0.1:9']);
  const client = await open(t, server, 'udp');
  t.match(await client.event('failed'), { why: 'refused', code: 300 });
});

interface Teardown {
  teardown(undo: () => unknown): void;
}

async function start(t: Teardown, options: readonly string[]): Promise<Coturn> {
  const server = await Coturn.start({ options });
  t.teardown(() => server.remove());
  return server;
}

async function open(
  t: Teardown,
  server: Coturn,
  carrier: Carrier,
  credentials: ConstructorParameters<typeof TurnClient>[1] = ALICE,
): Promise<TurnClient> {
  const client = new TurnClient(await openLine(carrier, server), credentials);
  t.teardown(() => client.close());
  return client;
}

async function bind(client: TurnClient, peer: SocketAddress): Promise<void> {
  const from = client.events.length;
  client.do((allocation, now) => void allocation.channelTo(peer, now));
  await client.event('channel-bound', from);
}
