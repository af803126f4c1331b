import t from 'tap';
import type { IpAddress } from '../../../core/net/ip-address.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';
import { crypto, SECOND } from '../turn/turn-scene.ts';
import { configurationOf, Server } from './relay-scene.ts';
import { RelayedWorld } from './relayed-world.ts';

/** Several relays: which one connections take, and what becomes of them when it goes. */

const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
t.comment(`SEED=${seed}`);

/** A server with the last byte of its address, and its latency. */
function serverOf(byte: number, latency: number): Server {
  const server = new Server(`203.0.113.${byte}:3478`, `203.0.113.${byte}:50000`);
  server.latency = latency;
  return server;
}

/** Two devices that are connected over one of two relays that are alike. */
function connected(): { world: RelayedWorld; used: Server; other: Server } {
  const servers = [serverOf(1, 10), serverOf(2, 10)] as const;
  const world = new RelayedWorld(seed, servers);
  world.setRelays(...servers);
  world.run(SECOND);
  world.meet();
  world.run(3 * SECOND);
  const used = world.relay;
  if (used === undefined) throw new Error(`not connected, SEED=${seed}`);
  world.left.events.length = 0;
  return { world, used, other: servers[0] === used ? servers[1] : servers[0] };
}

/** Whether data came both ways in the last second. */
function flows({ left, right, now }: RelayedWorld): boolean {
  return [left, right].every(({ receivedAt }) => (receivedAt.at(-1) ?? 0) > now - SECOND);
}

await t.test('of several relays the near ones are taken, each by some', async (t) => {
  const used = new Set<string | undefined>();
  for (let i = 0; i < 20; i++) {
    const servers = [serverOf(1, 10), serverOf(2, 10), serverOf(3, 150)];
    const world = new RelayedWorld(seed + 2 * i, servers);
    world.setRelays(...servers);
    world.run(2 * SECOND);
    world.meet();
    world.run(3 * SECOND);
    used.add(world.relay?.address);
  }
  t.equal(used.size, 2);
  t.notOk(used.has(undefined) || used.has('203.0.113.3:3478'), 'the far one, or none');
});

await t.test('a connection has one relay, and tells the peer of no other', async (t) => {
  const { world, used } = connected();
  world.left.connections.handleNetworkChange(world.now);
  world.run(5 * SECOND);
  for (const { candidates } of world.left.take('candidates')) {
    const relayed = candidates.filter(({ type }) => type === 'relay').map(({ address }) => address);
    t.same(relayed, used.relayed);
  }
});

await t.test('a connection moves when its relay dies', async (t) => {
  const { world, used, other } = connected();
  used.isDown = true;
  world.run(30 * SECOND);
  t.equal(world.relay, other, `SEED=${seed}`);
  t.ok(flows(world));
  const { events } = world.left;
  t.equal(events.filter(({ event }) => event.type === 'relay-failed').length, 1);
  t.notOk(events.some(({ event }) => event.type === 'no-relays'));
});

await t.test('a connection moves when its relay is configured no more', async (t) => {
  const { world, used, other } = connected();
  world.setRelays(other);
  world.run(5 * SECOND);
  t.equal(world.relay, other, `SEED=${seed}`);
  t.ok(flows(world));
  t.equal(used.allocation, undefined, 'given back');
});

await t.test('that no relay is left is told once, and one that comes back is used', async (t) => {
  const { world, used, other } = connected();
  used.isDown = true;
  other.isDown = true;
  world.run(120 * SECOND);
  t.equal(world.left.take('no-relays').length, 1);
  t.notOk(flows(world));
  other.isDown = false;
  world.run(120 * SECOND);
  t.equal(world.relay, other, `SEED=${seed}`);
  t.ok(flows(world));
});

await t.test('that a STUN server is gone is not that no relay is left', async (t) => {
  const server = serverOf(1, 10);
  const world = new RelayedWorld(seed, [server]);
  world.left.connections.setRelays([configurationOf(`stun:${server.address}`)], world.now);
  world.run(SECOND);
  t.equal(world.left.take('relay-ready').length, 1);
  world.left.connections.setRelays([], world.now);
  world.run(SECOND);
  t.same(world.left.take('no-relays'), []);
});

await t.test('channel data of a relay that was just removed change nothing', async (t) => {
  const { world, used, other } = connected();
  world.setRelays(other);
  world.run(5 * SECOND);
  const before = JSON.stringify(world.left.connections.status(0));
  const payload = Uint8Array.of(0x40, 0, 0, 4, 4, 0, 0, 0);
  const datagram = { payload, from: used.address, path: { fd: 1, remote: used.address } };
  const left = world.left.connections.handleDatagram(datagram, world.now);
  t.equal(left?.payload, payload, 'for WireGuard, to which they are of no type');
  t.equal(JSON.stringify(world.left.connections.status(0)), before);
  t.equal(world.left.connections.pollTransmit(), undefined);
});

await t.test(
  'a relay that comes or goes is told to ten peers at once, to others soon',
  async (t) => {
    const server = serverOf(1, 10);
    const world = new RelayedWorld(seed, [server]);
    const { left } = world;
    const random = new SeededRandom(seed + 1_000);
    for (let i = 1; i <= 300; i++) {
      const key = new Uint8Array(32);
      random.fill(key);
      left.connections.setPeer(i, crypto.x25519.publicKey(key), world.now);
    }
    world.run(3 * SECOND);
    t.equal(new Set(left.take('candidates').map(({ peer }) => peer)).size, 300);
    world.setRelays(server);
    world.run(3 * SECOND);
    const told = left.take('candidates');
    t.equal(told.length, 300, 'each of them once');
    t.ok(told.every(({ candidates }) => candidates.some(({ type }) => type === 'relay')));
    const first = told[0]!.at;
    t.equal(told.filter(({ at }) => at === first).length, 10);
    t.ok(told.at(-1)!.at - first <= 2 * SECOND);
    // The same once more is no news.
    left.connections.setStreams(undefined, undefined, world.now);
    left.connections.setLocal({ addresses: ['192.0.2.1' as IpAddress], port: 1000 }, world.now);
    world.run(3 * SECOND);
    t.same(left.take('candidates'), []);
  },
);
