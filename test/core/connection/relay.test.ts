import t from 'tap';
import type { SocketAddress } from '../../../core/net/socket-address.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';
import { MINUTE, SECOND } from '../turn/turn-scene.ts';
import { configurationOf, RelayScene, Server } from './relay-scene.ts';

/** One relay: how it is found, doubted, lost and found again. */

const ADDRESS = '203.0.113.1:3478';
const RELAYED = '203.0.113.1:50000';
const TURN = `turn:${ADDRESS}?transport=udp`;
const STUN = `stun:${ADDRESS}`;
const MOVED = '203.0.113.77:4711' as SocketAddress;

function sceneOf(...urls: readonly string[]): { scene: RelayScene; server: Server } {
  const server = new Server(ADDRESS, RELAYED);
  const scene = new RelayScene([server]);
  scene.set(...urls);
  scene.run(SECOND);
  scene.takeEvents();
  scene.takeSent();
  return { scene, server };
}

await t.test('a doubted relay is asked once in 2 s, however many doubt it', async (t) => {
  const { scene } = sceneOf(TURN);
  for (let i = 0; i < 100; i++) {
    scene.relays.handleDoubt(TURN, scene.now);
    scene.run(100);
  }
  t.same(scene.methods(), Array<string>(5).fill('refresh'));
  t.same(scene.takeEvents(), []);
});

await t.test('packets lost on the way to a doubted relay fail nothing', async (t) => {
  for (const losses of [1, 2, 3]) {
    const { scene, server } = sceneOf(TURN);
    server.losses = losses;
    scene.relays.handleDoubt(TURN, scene.now);
    scene.run(20 * SECOND);
    t.same(scene.takeEvents(), []);
    t.same(scene.relays.get(TURN)?.relayed, [RELAYED]);
  }
});

await t.test(
  'a STUN server that is doubted keeps what it told until it says otherwise',
  async (t) => {
    const { scene, server } = sceneOf(STUN);
    const relay = scene.relays.get(STUN);
    const before = relay?.mapped;
    t.not(before, undefined);
    scene.relays.handleDoubt(undefined, scene.now);
    t.equal(relay?.mapped, before);
    t.equal(relay?.state.type, 'ready');
    scene.run(SECOND);
    t.same(scene.methods(), ['binding']);
    t.same(scene.takeEvents(), [], 'the same is no news');
    server.mapped = MOVED;
    scene.run(2 * SECOND);
    scene.relays.handleDoubt(undefined, scene.now);
    scene.run(SECOND);
    t.same(scene.takeEvents(), [{ type: 'relay-changed', relay: STUN }]);
    t.equal(relay?.mapped, MOVED);
  },
);

await t.test('a change of the network right after a doubt is done 2 s after that', async (t) => {
  for (const url of [TURN, STUN]) {
    const { scene } = sceneOf(url);
    const method = url === TURN ? 'refresh' : 'binding';
    const start = scene.now;
    scene.relays.handleDoubt(url, scene.now);
    scene.run(500);
    scene.relays.handleNetworkChange(scene.now);
    scene.relays.handleNetworkChange(scene.now);
    scene.run(10 * SECOND);
    t.same(
      scene.takeSent().map(({ at, request }) => [at - start, request.method]),
      [
        [0, method],
        [2_000, method],
      ],
    );
  }
});

await t.test('a relay that refuses our login is not asked more often for doubts', async (t) => {
  const server = new Server(ADDRESS, RELAYED);
  const scene = new RelayScene([server]);
  scene.set(configurationOf(TURN, 'wrong'));
  for (let i = 0; i < 600; i++) {
    scene.relays.handleDoubt(TURN, scene.now);
    scene.run(SECOND);
  }
  const attempts = scene.methods().length / 2;
  t.ok(attempts >= 12 && attempts < 25, `${attempts} attempts in 10 min`);
  t.match(scene.takeEvents(), [{ type: 'relay-failed', why: 'wrong-credentials' }], 'told once');
  scene.relays.handleNetworkChange(scene.now);
  t.same(scene.run(100).methods(), ['allocate', 'allocate'], 'but for a change of the network');
});

await t.test('each cause of a failure is told once until the relay is ready again', async (t) => {
  const { scene, server } = sceneOf(TURN);
  const whys = () => scene.takeEvents().flatMap((event) => ('why' in event ? [event.why] : []));
  for (let round = 0; round < 2; round++) {
    server.isDown = true;
    scene.relays.handleDoubt(TURN, scene.now);
    scene.run(5 * MINUTE);
    t.same(whys(), ['no-response']);
    server.isDown = false;
    server.script = ({ hasIntegrity }) => (hasIntegrity ? { code: 508 } : undefined);
    scene.run(10 * MINUTE);
    t.same(whys(), ['out-of-capacity']);
    server.script = () => undefined;
    server.allocation = undefined;
    scene.run(2 * MINUTE);
    t.match(scene.takeEvents(), [{ type: 'relay-changed' }]);
  }
});

await t.test('a STUN server that does not answer is told once, and asked for ever', async (t) => {
  const server = new Server(ADDRESS, RELAYED);
  server.isDown = true;
  const scene = new RelayScene([server]);
  scene.set(STUN);
  scene.run(10 * MINUTE);
  t.match(scene.takeEvents(), [{ type: 'relay-failed', why: 'no-answer' }]);
  t.match(scene.relays.statuses(), [{ state: 'waiting', why: 'no-answer' }]);
  server.isDown = false;
  scene.run(2 * MINUTE);
  t.match(scene.takeEvents(), [{ type: 'relay-changed' }]);
});

await t.test('a name is looked up again after its address has failed', async (t) => {
  for (const scheme of ['stun', 'turn'] as const) {
    const [old, next] = [new Server(ADDRESS, RELAYED), new Server('203.0.113.2:3478', RELAYED)];
    const scene = new RelayScene([old, next]);
    scene.names.set('relay.test', ['203.0.113.1']);
    const url = scheme === 'stun' ? 'stun:relay.test:3478' : 'turn:relay.test:3478?transport=udp';
    scene.set(url);
    scene.run(SECOND);
    t.equal(scene.relays.get(url)?.state.type, 'ready');
    old.isDown = true;
    scene.names.set('relay.test', ['203.0.113.2']);
    scene.run(MINUTE + 15 * SECOND);
    t.equal(scene.relays.get(url)?.address, next.address, scheme);
    t.equal(scene.relays.get(url)?.state.type, 'ready');
  }
});

await t.test('a relay over a stream is dialled again when it closes', async (t) => {
  const url = `turn:${ADDRESS}?transport=tcp`;
  const { scene, server } = sceneOf(url);
  const stream = scene.relays.get(url)!.stream!;
  t.equal(scene.relays.at(server.address), undefined, 'nothing of it comes over UDP');
  server.allocation = undefined;
  scene.relays.of(stream)?.handleClosed('reset', scene.now);
  scene.run(5 * SECOND);
  t.match(scene.takeEvents(), [
    { type: 'relay-failed', why: 'not-reachable', detail: 'reset' },
    { type: 'dial' },
    { type: 'relay-changed' },
  ]);
  t.equal(scene.relays.of(stream), undefined);
});

await t.test('a STUN server and a relay at one address both work', async (t) => {
  for (const order of [
    [STUN, TURN],
    [TURN, STUN],
  ]) {
    const { scene } = sceneOf(...order);
    scene.run(5 * MINUTE);
    t.match(scene.relays.statuses(), [{ state: 'ready' }, { state: 'ready' }]);
    const channel = scene.relays.get(TURN)?.channelTo('192.0.2.7:1' as SocketAddress, scene.now);
    scene.run(SECOND);
    const at = scene.relays.at(ADDRESS as SocketAddress);
    t.equal(at?.peerOf(channel ?? 0), '192.0.2.7:1', 'channels are the relay’s');
    t.same(scene.takeEvents(), []);
  }
});

await t.test('messages of a relay that was just removed are nobody’s', async (t) => {
  const { scene, server } = sceneOf(TURN);
  t.same(scene.set(), [TURN]);
  t.same(
    scene
      .run(SECOND)
      .takeSent()
      .map(({ request }) => request.attributes.lifetime),
    [0],
  );
  t.equal(scene.relays.at(server.address), undefined);
  t.equal(scene.relays.pollTimeout(), undefined);
  t.same(scene.takeEvents(), []);
});

await t.test('what is queued is due, and asking changes nothing', async (t) => {
  const { scene } = sceneOf(TURN);
  scene.relays.handleDoubt(TURN, scene.now);
  for (let i = 0; i < 2; i++) {
    t.same(scene.relays.pollTimeout(), { at: scene.now, reason: 'queued' });
  }
  scene.settle();
  t.ok(scene.relays.pollTimeout()!.at > scene.now);
});

await t.test('whatever happens, the next deadline is in the future', async (t) => {
  const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
  const random = new SeededRandom(seed);
  t.comment(`SEED=${seed}`);
  for (let round = 0; round < 20; round++) {
    const servers = [1, 2].map((i) => new Server(`203.0.113.${i}:3478`, `203.0.113.${i}:50000`));
    const scene = new RelayScene(servers, seed + round);
    scene.names.set('relay.test', ['203.0.113.2', '203.0.113.9']);
    const urls = [TURN, STUN, 'turn:relay.test:3478?transport=tcp', 'stun:relay.test:3478'];
    scene.set(...urls);
    for (let step = 0; step < 60; step++) {
      const server = servers[random.next() % 2]!;
      const act = random.next() % 8;
      if (act === 0) server.isDown = !server.isDown;
      if (act === 1) server.losses = random.next() % 5;
      if (act === 2) server.allocation = undefined;
      if (act === 3) scene.relays.handleDoubt(urls[random.next() % 4], scene.now);
      if (act === 4) scene.relays.handleNetworkChange(scene.now);
      if (act === 5) scene.set(...urls.filter(() => random.fraction() < 0.8));
      if (act === 6) scene.opens = random.fraction() < 0.8;
      if (act === 7) scene.sleep(0);
      // Throws for a deadline in the past, for one that stays due, and where polls differ.
      scene.run(random.fraction() < 0.2 ? random.fraction() * MINUTE : random.fraction() * SECOND);
    }
    for (const server of servers) {
      server.isDown = false;
      server.losses = 0;
    }
    scene.opens = true;
    scene.set(...urls);
    scene.run(10 * MINUTE);
    const states = scene.relays.statuses().map(({ state }) => state);
    if (states.some((state) => state !== 'ready')) t.fail(`SEED=${seed} ${states.join()}`);
  }
  t.pass();
});
