import t from 'tap';
import { connected } from './bench.ts';

/** `SEED=7` runs one, `SEEDS=200` as many; each takes a quarter of a second. */
const { SEED, SEEDS } = process.env;
const FIRST = Number(SEED ?? 1);
const COUNT = SEED === undefined ? Number(SEEDS ?? 100) : 1;

await t.test('at 20 % loss each way there is one switch in ten minutes at most', async (t) => {
  let switches = 0;
  for (let seed = FIRST; seed < FIRST + COUNT; seed++) {
    const bench = connected({ seed, jitter: 30, controlling: seed % 2 === 0 ? 'left' : 'right' });
    for (const ways of Object.values(bench.ways)) {
      for (const way of Object.values(ways)) way.loss = 0.2;
    }
    // Packets in both directions, or in one only.
    if (seed % 3 !== 1) bench.left.startTraffic(100);
    if (seed % 3 !== 2) bench.right.startTraffic(100);
    bench.run(600_000);
    for (const side of [bench.left, bench.right]) {
      const { selections, failures } = side;
      switches += selections.length - 1;
      if (selections.length <= 2 && failures.length === 0) continue;
      t.fail(`SEED=${seed}: ${side.name} went ${selections.join(', ')}`, { failures });
    }
    if (bench.left.path !== bench.right.path) t.fail(`SEED=${seed}: the sides do not agree`);
  }
  t.comment(`${switches} switches in ${COUNT} runs`);
  t.pass();
});
