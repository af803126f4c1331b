import t from 'tap';
import type { Event } from '../../core/engine/event.ts';
import { KEPT_CANDIDATES } from '../../core/engine/kept-candidates.ts';
import { socketAddress, socketAddressIp } from '../../core/net/socket-address.ts';
import { instantAt, type Millis } from '../../core/sansio/instant.ts';
import { Arenas } from './arenas.ts';
import { Broker } from './broker.ts';
import { Device } from './device.ts';
import type { Packet } from './network.ts';
import type { NatKind } from './nat.ts';
import { replayCalls, type Call } from './recording.ts';
import { makeScenario, type Scenario, type TimedUpset } from './scenario.ts';
import { SeededRandom } from './seeded-random.ts';
import { Stage } from './stage.ts';
import { World } from './world.ts';

const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
t.comment(`SEED=${SEED}`);
// Thousands of virtual seconds: a slow machine shall not fail them.
t.setTimeout(600_000);

const SECOND: Millis = 1_000;
const MINUTE: Millis = 60 * SECOND;

/** Of packets while recovery is measured. */
const INTERVAL: Millis = 50;

const arenas = new Arenas();

/** Both behind a NAT of this kind with one relay, 20 ms from each other and from it; nothing gets lost. */
function calm(nat: NatKind, changes: Partial<Scenario> = {}): Scenario {
  const side = { nat, isBehindCarrier: false, ipv6: 'none', startsAt: 0 } as const;
  return {
    seed: SEED,
    a: side,
    b: side,
    isSameCarrier: false,
    loss: 0,
    bursts: undefined,
    relays: ['runs'],
    hasStreams: false,
    upsets: [],
    ...changes,
  };
}

function staged<T>(scenario: Scenario, action: (stage: Stage) => T): T {
  const stage = new Stage(scenario, arenas);
  try {
    return action(stage);
  } finally {
    stage.dispose();
  }
}

/** Has both sides send a packet each `interval`, from now on. */
function talk({ world, sides }: Stage, interval: Millis = INTERVAL): void {
  let number = 0;
  const next = (): void => {
    sides.a.device.send(sides.b.device, ++number);
    sides.b.device.send(sides.a.device, number);
    world.timeline.in(interval, next);
  };
  next();
}

/** Lets time pass; returns the longest time in it without a packet, at the side where that was longer. */
function longestGap({ world, sides }: Stage, forMs: Millis): Millis {
  const devices = [sides.a.device, sides.b.device];
  const last = devices.map(({ received }) => ({ count: received.length, at: world.now }));
  let longest = 0;
  for (let passed = 0; passed < forMs; passed += INTERVAL) {
    world.run(INTERVAL);
    devices.forEach(({ received }, i) => {
      longest = Math.max(longest, world.now - last[i]!.at);
      if (received.length > last[i]!.count) last[i] = { count: received.length, at: world.now };
    });
  }
  return longest;
}

/** Has a daemon stop as it does: it says goodbye, and is gone. */
function stop(device: Device, reason: 'leaving' | 'restarting'): void {
  device.site.input({ type: 'stop', reason });
  device.host.timeline.run(0);
  device.restart(60 * MINUTE);
}

function kindsOf({ sides: { a, b } }: Stage): readonly unknown[] {
  return [a.device.path(b.device)?.kind, b.device.path(a.device)?.kind];
}

function eventsOf(device: Device, ...types: readonly Event['type'][]): readonly Event[] {
  return device.site.events.filter(({ type }) => types.includes(type));
}

for (const { nat, kind, most } of [
  { nat: 'portRestrictedCone', kind: 'direct', most: 500 },
  { nat: 'symmetric', kind: 'relayed', most: 800 },
] as const) {
  await t.test(
    `from the start of two routers to the first reply: ${kind} < ${most} ms`,
    async (t) => {
      staged(calm(nat), (stage) => {
        const { world, sides } = stage;
        const [a, b] = [sides.a.device, sides.b.device];
        world.run(0);
        a.send(b, 1);
        t.ok(world.runUntil(() => b.received.length > 0, 10 * SECOND));
        b.send(a, 2);
        t.ok(world.runUntil(() => a.received.length > 0, 10 * SECOND));
        t.ok(world.now < most, `${world.now.toFixed(0)} ms`);
        t.comment(`${kind}: ${world.now.toFixed(0)} ms, broker and relay at 20 ms and more`);
        t.equal(a.path(b)?.kind, kind);
      });
    },
  );
}

const RECOVERIES: readonly {
  readonly what: string;
  readonly scenario: Scenario;
  readonly upset: TimedUpset['upset'];
  readonly most: Millis;
}[] = [
  {
    what: 'losing the direct path beside a warm relay: traffic again in < 3 s',
    scenario: calm('portRestrictedCone'),
    upset: { type: 'block-direct', for: 30 * SECOND },
    most: 3 * SECOND,
  },
  {
    what: 'losing a WAN and getting another, behind a NAT: < 5 s',
    scenario: calm('portRestrictedCone'),
    upset: { type: 'readdress', side: 'a' },
    most: 5 * SECOND,
  },
  {
    what: 'losing a WAN and getting another, on the router itself: < 5 s',
    scenario: calm('none'),
    upset: { type: 'readdress', side: 'b' },
    most: 5 * SECOND,
  },
  {
    what: 'losing a WAN and getting another, relayed: < 5 s',
    scenario: calm('symmetric'),
    upset: { type: 'readdress', side: 'a' },
    most: 5 * SECOND,
  },
  {
    what: 'an outage of 3 s: traffic again < 3 s after its end',
    scenario: calm('portRestrictedCone'),
    upset: { type: 'outage', side: 'a', for: 3 * SECOND },
    most: 6 * SECOND,
  },
  {
    what: 'a NAT that forgets its mappings: < 5 s',
    scenario: calm('portRestrictedCone'),
    upset: { type: 'rebind', side: 'a' },
    most: 5 * SECOND,
  },
];

for (const { what, scenario, upset, most } of RECOVERIES) {
  await t.test(what, async (t) => {
    staged({ ...scenario, upsets: [{ at: 20 * SECOND, upset }] }, (stage) => {
      talk(stage);
      stage.world.run(20 * SECOND - INTERVAL);
      const gap = longestGap(stage, 30 * SECOND);
      t.ok(gap < most, `${gap} ms`);
      t.comment(`${gap} ms`);
    });
  });
}

for (const isCounted of [true, false]) {
  const clock = isCounted ? 'a clock that counts it' : 'a clock that stands still meanwhile';
  await t.test(
    `an hour of suspend of one machine, with ${clock}: traffic < 15 s later`,
    async (t) => {
      const upset = { type: 'sleep', side: 'a', for: 60 * MINUTE, isCounted } as const;
      const upsets = [{ at: 20 * SECOND, upset }];
      staged(calm('portRestrictedCone', { upsets }), (stage) => {
        const { world, sides } = stage;
        talk(stage, SECOND);
        world.run(20 * SECOND + 60 * MINUTE);
        const before = [sides.a.device, sides.b.device].map(({ received }) => received.length);
        const isBack = world.runUntil(
          () => [sides.a.device, sides.b.device].every((d, i) => d.received.length > before[i]!),
          MINUTE,
        );
        const took = world.now - 20 * SECOND - 60 * MINUTE;
        t.ok(isBack && took < 15 * SECOND, `${took} ms`);
        t.comment(`${took.toFixed(0)} ms`);
      });
    },
  );
}

await t.test('at 20 % loss a path moves at most once in 10 minutes', async (t) => {
  const SEEDS = 8;
  for (let seed = SEED; seed < SEED + SEEDS; seed++) {
    const scenario = { ...makeScenario(seed), loss: 0.2, upsets: [], bursts: undefined };
    staged(scenario, (stage) => {
      const { world, sides } = stage;
      const devices = [sides.a.device, sides.b.device];
      talk(stage, SECOND);
      world.run(MINUTE);
      const before = devices.map(({ site }) => site.events.length);
      world.run(10 * MINUTE);
      const events = devices.map(({ site }, i) => site.events.slice(before[i]));
      const moves = events.map((list) => list.filter(({ type }) => type === 'path-selected'));
      const most = Math.max(...moves.map(({ length }) => length));
      t.ok(most <= 1, `SEED=${seed}: ${most} times`);
    });
  }
});

await t.test('with the broker dead two routers find each other where they were', async (t) => {
  staged(calm('portRestrictedCone'), (stage) => {
    const { world, sides, broker } = stage;
    const [a, b] = [sides.a.device, sides.b.device];
    talk(stage, SECOND);
    world.run(90 * SECOND);
    broker.stop();
    a.restart(SECOND);
    b.restart(SECOND);
    world.run(SECOND);
    const before = [a.received.length, b.received.length];
    const isBack = (): boolean => a.received.length > before[0]! && b.received.length > before[1]!;
    t.ok(world.runUntil(isBack, 10 * SECOND), KEPT_CANDIDATES);
    t.comment(`${(world.now - 91 * SECOND).toFixed(0)} ms`);
    t.same(kindsOf(stage), ['direct', 'direct']);
  });
});

await t.test(
  'a goodbye: the other side acts in < 200 ms, and nothing fails afterwards',
  async (t) => {
    for (const nat of ['portRestrictedCone', 'symmetric'] as const) {
      staged(calm(nat), ({ world, sides }) => {
        const [a, b] = [sides.a.device, sides.b.device];
        world.run(10 * SECOND);
        a.site.input({ type: 'stop', reason: 'leaving' });
        const hasLeft = (): boolean => eventsOf(b, 'peer-left').length > 0;
        t.ok(world.runUntil(hasLeft, 200), nat);
        t.same(eventsOf(b, 'peer-left'), [{ type: 'peer-left', peer: 'a', reason: 'leaving' }]);
        t.equal(b.path(a)?.kind, undefined);
        world.run(2 * MINUTE);
        t.same(eventsOf(b, 'peer-failed', 'connection-failed'), [], nat);
      });
    }
  },
);

await t.test('a goodbye that comes twice, and more often, is one', async (t) => {
  staged(calm('portRestrictedCone'), ({ world, sides }) => {
    const [a, b] = [sides.a.device, sides.b.device];
    world.run(10 * SECOND);
    const packets: Packet[] = [];
    const receive = b.host.receive.bind(b.host);
    b.host.receive = (packet) => {
      packets.push({ ...packet, payload: packet.payload.slice() });
      receive(packet);
    };
    stop(a, 'restarting');
    world.run(100);
    for (const packet of [...packets, ...packets]) b.host.receive(packet);
    world.run(SECOND);
    t.same(eventsOf(b, 'peer-left'), [{ type: 'peer-left', peer: 'a', reason: 'restarting' }]);
  });
});

await t.test('a goodbye that is lost is made up for by the timeouts', async (t) => {
  staged(calm('portRestrictedCone'), (stage) => {
    const { world, sides } = stage;
    const [a, b] = [sides.a.device, sides.b.device];
    talk(stage, SECOND);
    world.run(10 * SECOND);
    a.host.link.isDown = true;
    stop(a, 'leaving');
    world.run(100);
    a.host.link.isDown = false;
    world.run(30 * SECOND);
    t.same(eventsOf(b, 'peer-left'), []);
    t.match(eventsOf(b, 'path-lost')[0], { peer: 'a', why: 'silence' });
  });
});

await t.test('a stop with 50 peers: every goodbye leaves in the same instant', async (t) => {
  const PEERS = 50;
  const world = new World(SEED);
  const broker = new Broker(world.timeline, world.random);
  // Not used again: of memory that is never touched there is none.
  const own = new Arenas();
  const devices = Array.from({ length: PEERS + 1 }, (_, i) => {
    const host = world.host(`r${i}`);
    const address = `10.0.0.${i + 1}`;
    return new Device({ name: `r${i}`, host, address, seed: SEED + i, broker, arenas: own });
  });
  const [hub, ...spokes] = devices as [Device, ...Device[]];
  const peer = ({ name, publicKey, address }: Device) => ({
    id: name,
    kind: 'culvert',
    publicKey,
    allowedIps: [`${address}/32`],
  });
  const document = ({ address }: Device, peers: readonly Device[]) => ({
    interface: { addresses: [`${address}/24`] },
    peers: peers.map(peer),
  });
  hub.configure(document(hub, spokes));
  for (const spoke of spokes) spoke.configure(document(spoke, [hub]));
  world.run(15 * SECOND);
  t.ok(spokes.every((spoke) => hub.path(spoke)?.kind === 'direct'));
  const sent: Packet[] = [];
  world.internet.block((packet) => {
    if (hub.host.addresses.includes(socketAddressIp(packet.from))) sent.push(packet);
    return false;
  });
  const { now } = world;
  hub.site.input({ type: 'stop', reason: 'leaving' });
  world.run(0);
  t.equal(world.now, now);
  t.equal(new Set(sent.map(({ to }) => to)).size, PEERS, 'one to each, and time stood still');
  world.run(200);
  t.ok(spokes.every((spoke) => eventsOf(spoke, 'peer-left').length === 1));
});

await t.test('a run of an engine, with all that happens to its paths, replays alike', async (t) => {
  const upsets: readonly TimedUpset[] = [
    { at: 10 * SECOND, upset: { type: 'block-direct', for: 10 * SECOND } },
    { at: 25 * SECOND, upset: { type: 'rebind', side: 'a' } },
    { at: 30 * SECOND, upset: { type: 'partition', side: 'a', for: 5 * SECOND } },
    { at: 40 * SECOND, upset: { type: 'relay-reboot', relay: 0 } },
    { at: 45 * SECOND, upset: { type: 'outage', side: 'b', for: 15 * SECOND } },
  ];
  const scenario = calm('portRestrictedCone', { upsets, loss: 0.05, hasStreams: true });
  const calls: Call[] = [];
  const stage = new Stage(scenario, new Arenas(), calls);
  talk(stage, SECOND);
  stage.world.run(90 * SECOND);
  t.ok(calls.length > 1_000, `${calls.length} calls`);
  const [twin, other] = [scenario, { ...scenario, seed: SEED + 1 }].map((again) =>
    new Stage(again, new Arenas()).sides.a.device.twin(),
  );
  t.equal(replayCalls(twin!, calls), undefined);
  t.not(replayCalls(other!, calls), undefined, 'of another seed it does not');
});

await t.test('with each datagram sent twice the path in the end is the same', async (t) => {
  for (let seed = SEED; seed < SEED + 30; seed++) {
    const scenario = { ...makeScenario(seed), loss: 0, upsets: [], bursts: undefined };
    const [once, twice] = [0, 1].map((duplication) =>
      staged(scenario, (stage) => {
        for (const { host } of Object.values(stage.sides)) host.link.quality = { duplication };
        talk(stage, SECOND);
        stage.world.run(40 * SECOND);
        return kindsOf(stage);
      }),
    );
    t.same(twice, once, `SEED=${seed}`);
  }
});

await t.test('10,000 random, mutated and replayed datagrams change nothing', async (t) => {
  staged(calm('portRestrictedCone'), (stage) => {
    const { world, sides } = stage;
    const { device, host } = sides.b;
    const packets: Packet[] = [];
    const receive = host.receive.bind(host);
    host.receive = (packet) => {
      packets.push({ ...packet, payload: packet.payload.slice() });
      receive(packet);
    };
    talk(stage, SECOND);
    world.run(30 * SECOND);
    host.receive = receive;
    const random = new SeededRandom(SEED);
    const pick = (below: number): number => Math.floor(random.fraction() * below);
    const before = stateOf(device);
    const events = device.site.events.length;
    const memory = process.memoryUsage().heapUsed;
    for (let i = 0; i < 10_000; i++) {
      const packet = packets[pick(packets.length)]!;
      const payload = packet.payload.slice();
      const kind = pick(3);
      if (kind === 0) random.fill(payload);
      if (kind === 1) payload[pick(payload.length)]! ^= 1 << pick(8);
      // Only what is not authentic comes from elsewhere.
      const stranger = socketAddress(socketAddressIp(packet.from), 1 + pick(65_535));
      const from = kind < 2 && pick(2) === 0 ? stranger : packet.from;
      host.receive({ ...packet, from, payload });
      // Replayed checks are answered: not all within one instant.
      if (i % 100 === 99) world.run(1);
    }
    t.same(stateOf(device), before);
    t.equal(device.site.events.length, events);
    const grown = process.memoryUsage().heapUsed - memory;
    t.ok(grown < 64 << 20, `${grown >> 10} KB`);
    const { length } = device.received;
    world.run(5 * SECOND);
    t.ok(device.received.length >= length + 4, 'and packets go on');
  });
});

/** What its status says but for counters and measurements. */
function stateOf(device: Device): unknown {
  const status = device.site.engine.status();
  const peers = status.peers.map(({ rxBytes: _rx, txBytes: _tx, path, ...peer }) => ({
    ...peer,
    path: path && { state: path.state, kind: path.kind, local: path.local, remote: path.remote },
  }));
  const relays = status.relays.map(({ rttMs: _rtt, ...relay }) => relay);
  return { ...status, drops: undefined, peers, relays, at: instantAt(0) };
}
