import t from 'tap';
import { chooseRelay } from '../../../core/turn/relay-choice.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';

const cases: readonly (readonly [string, readonly (number | undefined)[], readonly number[]])[] = [
  ['none', [], []],
  ['none that was measured', [undefined, undefined], []],
  ['one, however slow', [900], [900]],
  ['of two, both when the slower needs 1.5 times as long', [20, 30], [20, 30]],
  ['of two, the quicker when the other needs longer', [20, 30.1], [20]],
  ['those that were not measured do not count', [undefined, 20, 31, undefined], [20]],
  ['of three, the far one is out', [10, 12, 200], [10, 12]],
  ['of many, the far ones are out', [10, 11, 12, 13, 14, 90, 300], [10, 11, 12, 13, 14]],
  ['of equal ones, a few milliseconds do not count', [10, 10, 10, 16, 17], [10, 10, 10, 16]],
  ['of an even number, the middle is between two', [10, 20, 30, 40], [10, 20, 30, 40]],
];

for (const [title, rtts, expected] of cases) {
  await t.test(`a relay is chosen among the quick ones: ${title}`, async (t) => {
    const random = new SeededRandom(1);
    const relays = rtts.map((rtt) => ({ rtt }));
    const counts = new Map<(typeof relays)[number], number>();
    for (let i = 0; i < 1000; i++) {
      const chosen = chooseRelay(relays, random);
      if (chosen !== undefined) counts.set(chosen, (counts.get(chosen) ?? 0) + 1);
    }
    t.same(
      [...counts.keys()].map(({ rtt }) => rtt).sort((a = 0, b = 0) => a - b),
      expected,
    );
    const fair = 1000 / expected.length;
    for (const count of counts.values()) {
      t.ok(Math.abs(count - fair) < 0.3 * fair, 'each as often as another');
    }
  });
}
