import t from 'tap';
import { endOfUpsets, formatScenario, makeScenario } from './scenario.ts';

const SEEDS = Array.from({ length: 2_000 }, (_, i) => i);

await t.test('a seed makes the same story each time, and another seed another', async (t) => {
  for (const seed of [1, 2, 3]) t.same(makeScenario(seed), makeScenario(seed));
  const stories = new Set(SEEDS.map((seed) => formatScenario(makeScenario(seed))));
  t.equal(stories.size, SEEDS.length);
});

await t.test('a story is one line that begins with its seed', async (t) => {
  const line = formatScenario(makeScenario(17));
  t.match(line, /^SEED=17 a /);
  t.notMatch(line, /\n/);
});

await t.test('all that may go wrong does, in some story, one after the other', async (t) => {
  const scenarios = SEEDS.map(makeScenario);
  const types = new Set(scenarios.flatMap(({ upsets }) => upsets.map(({ upset }) => upset.type)));
  t.same([...types].sort(), [
    'block-direct',
    'outage',
    'partition',
    'readdress',
    'rebind',
    'relay-reboot',
    'relay-stop',
    'restart',
    'sleep',
  ]);
  for (const scenario of scenarios) {
    let over = 0;
    for (const { at, upset } of scenario.upsets) {
      if (at < over) t.fail(formatScenario(scenario));
      over = at + ('for' in upset ? upset.for : 0);
    }
    if (endOfUpsets(scenario) < over) t.fail(formatScenario(scenario));
  }
});
