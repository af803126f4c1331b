import t, { type Test } from 'tap';
import type { Dependence } from './filter.ts';
import type { Host } from './host.ts';
import { NAT_KINDS, NAT_PRESETS, type NatBehaviour, type NatKind } from './nat.ts';
import type { Network } from './network.ts';
import { directPathPossible, relayPossible } from './oracle.ts';
import { addMirror, probe } from './prober.ts';
import { SeededRandom } from './seeded-random.ts';
import { World } from './world.ts';

const SEEDS = 3;
const RANDOM_WORLDS = 1_500;

await t.test('what the field knows of its boxes', async (t) => {
  const possible = (a: NatKind, b: NatKind) => {
    const world = new World(1);
    return directPathPossible(hostBehind(world, 'a', a), hostBehind(world, 'b', b));
  };
  t.ok(possible('portRestrictedCone', 'portRestrictedCone'));
  t.ok(possible('symmetric', 'restrictedCone'), 'the peer learns the port');
  t.notOk(possible('symmetric', 'portRestrictedCone'));
  t.notOk(possible('symmetric', 'symmetric'));
  t.ok(possible('symmetric', 'none'));
  t.notOk(possible('udpBlocked', 'none'));
});

await t.test('the oracle agrees with punching between all boxes of the field', async (t) => {
  for (const a of NAT_KINDS) {
    for (const b of NAT_KINDS) {
      for (let seed = 1; seed <= SEEDS; seed++) {
        const world = new World(seed);
        const mirror = addMirror(world);
        const hosts = [hostBehind(world, 'a', a), hostBehind(world, 'b', b)] as const;
        const expected = directPathPossible(...hosts);
        agree(t, expected, probe(world, ...hosts, mirror), `${a} ${b} seed=${seed}`);
      }
    }
  }
});

await t.test('and between all behaviours that RFC 4787 has names for', async (t) => {
  const dependences: readonly Dependence[] = [
    'endpoint-independent',
    'address-dependent',
    'address-and-port-dependent',
  ];
  const behaviours = dependences.flatMap((mapping) =>
    dependences.map((filtering) => ({ ...NAT_PRESETS.cgnat, mapping, filtering })),
  );
  for (const a of behaviours) {
    for (const b of behaviours) {
      const world = new World(1);
      const mirror = addMirror(world);
      const hosts = [hostBehind(world, 'a', a), hostBehind(world, 'b', b)] as const;
      const expected = directPathPossible(...hosts);
      agree(t, expected, probe(world, ...hosts, mirror), JSON.stringify([a, b]));
    }
  }
});

await t.test('and in worlds of any shape', async (t) => {
  const first = Number(process.env['SEED'] ?? 1);
  const count = process.env['SEED'] === undefined ? RANDOM_WORLDS : 1;
  let possible = 0;
  for (let seed = first; seed < first + count; seed++) {
    const { world, a, b, shape } = randomWorld(seed);
    const expected = directPathPossible(a, b);
    if (expected) possible++;
    agree(t, expected, probe(world, a, b, addMirror(world)), `SEED=${seed} ${shape}`);
  }
  t.comment(`possible in ${possible} of ${count}`);
});

await t.test(
  'a relay carries what it is reached by, over TCP too where that is offered',
  async (t) => {
    const world = new World(1);
    const relay = { host: world.host('relay'), isRunning: true };
    const a = hostBehind(world, 'a', 'symmetric');
    const b = hostBehind(world, 'b', 'udpBlocked');
    const c = hostBehind(world, 'c', 'portRestrictedCone');
    const possible = (x: Host, y: Host, overTcp: boolean) =>
      relayPossible(world, x, y, [relay], { overTcp });
    t.ok(possible(a, c, false));
    t.notOk(possible(a, b, false));
    t.ok(possible(a, b, true));
    relay.isRunning = false;
    t.notOk(possible(a, c, true));
  },
);

function agree(t: Test, expected: boolean, actual: boolean, what: string): void {
  // Thousands of assertions that hold are no use in the output.
  if (expected !== actual) t.equal(actual, expected, what);
}

function hostBehind(world: World, name: string, kind: NatKind | NatBehaviour): Host {
  const isPublic = kind === 'none';
  return world.host(name, isPublic ? world.internet : world.network({ behind: kind }).network);
}

/** Two hosts somewhere in a tree of up to four networks, on both families or one. */
function randomWorld(seed: number) {
  const random = new SeededRandom(seed);
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random.fraction() * from.length)]!;
  const world = new World(seed);
  const networks: Network[] = [world.internet];
  const shape: string[] = [];
  for (let i = 0; i < 4; i++) {
    const outside = pick(networks);
    const kind = pick(NAT_KINDS);
    const hairpinning = random.fraction() < 0.5;
    const behind = kind === 'none' ? kind : { ...NAT_PRESETS[kind], hairpinning };
    const isOpen = random.fraction() < 0.3;
    // Prefixes that are used twice, as in the field, but not where one is seen from the other.
    const isHidden = kind !== 'none' && outside === world.internet;
    const ipv4Prefix = `192.168.${isHidden ? pick([1, 2]) : 10 + i}.`;
    networks.push(world.network({ behind, outside, isOpen, ipv4Prefix }).network);
    const flags = `${hairpinning ? ' hairpin' : ''}${isOpen ? ' open' : ''}`;
    shape.push(`${i + 1}:${kind}${flags} in ${networks.indexOf(outside)}`);
  }
  const place = (name: string): Host => {
    const network = pick(networks);
    const families = pick([[4], [4], [4, 6], [6]] as const);
    shape.push(`${name} in ${networks.indexOf(network)} with ${families.join('+')}`);
    return world.host(name, network, { families });
  };
  return { world, a: place('a'), b: place('b'), shape: shape.join(', ') };
}
