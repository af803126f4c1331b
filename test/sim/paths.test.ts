import t from 'tap';
import type { Millis } from '../../core/sansio/instant.ts';
import { Arenas } from './arenas.ts';
import { directPathPossible, relayPossible } from './oracle.ts';
import { endOfUpsets, formatScenario, makeScenario, type Scenario } from './scenario.ts';
import { Stage } from './stage.ts';

/**
 * Two engines through whatever a seed makes of the Internet. `SEED=123 npx tap test/sim/paths.test.ts`
 * plays one again, `SEEDS=5000` more of them.
 */
const FIRST = Number(process.env['SEED'] ?? 2);
const COUNT = process.env['SEED'] === undefined ? Number(process.env['SEEDS'] ?? 8) : 1;

/** After the last upset: longer than the longest pause between attempts, and than ICE then takes. */
const SETTLING: Millis = 90_000;
const WATCHED: Millis = 10_000;
const INTERVAL: Millis = 1_000;

const arenas = new Arenas();

await t.test(
  'packets take the best path that there can be, whatever happened before',
  async (t) => {
    for (let seed = FIRST; seed < FIRST + COUNT; seed++) {
      const scenario = makeScenario(seed);
      const { expected, kinds, arrived } = play(scenario);
      const line = formatScenario(scenario);
      t.same(kinds, [expected, expected], line);
      const isLossy = scenario.loss > 0 || scenario.bursts !== undefined;
      const fewest = expected === 'none' ? 0 : (WATCHED / INTERVAL) * (isLossy ? 0.4 : 0.9);
      t.ok(Math.min(...arrived) >= fewest, `${arrived.join(' and ')} arrived, ${line}`);
    }
  },
);

/** Plays a story to its end; returns what the oracle expects and what came of it at both sides. */
function play(scenario: Scenario) {
  const stage = new Stage(scenario, arenas);
  const { world, relays, sides } = stage;
  const [a, b] = [sides.a, sides.b];
  let number = 0;
  const talk = (): void => {
    a.device.send(b.device, ++number);
    b.device.send(a.device, number);
    world.timeline.in(INTERVAL, talk);
  };
  talk();
  world.run(endOfUpsets(scenario) + SETTLING);
  const before = [a, b].map(({ device }) => device.received.length);
  world.run(WATCHED);
  const arrived = [a, b].map(({ device }, i) => device.received.length - before[i]!);
  const kinds = [a.device.path(b.device), b.device.path(a.device)].map((p) => p?.kind ?? 'none');
  const running = relays.map(({ host, server }) => ({ host, isRunning: server.isRunning }));
  const isRelayed = relayPossible(world, a.host, b.host, running, { overTcp: false });
  const expected = directPathPossible(a.host, b.host) ? 'direct' : isRelayed ? 'relayed' : 'none';
  stage.dispose();
  return { expected, kinds, arrived };
}
