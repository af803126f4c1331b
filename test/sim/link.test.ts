import t from 'tap';
import { Direction, PERFECT, type Quality } from './link.ts';
import { SeededRandom } from './seeded-random.ts';

const COUNT = 20_000;

await t.test('a perfect link delivers everything once and at once', async (t) => {
  const { arrivals, lost } = carry({});
  t.equal(arrivals.length, COUNT);
  t.equal(lost, 0);
  t.ok(arrivals.every(({ sent, at }) => sent === at));
});

await t.test('loss and duplication happen as often as said', async (t) => {
  const { lost } = carry({ loss: 0.2 });
  t.ok(Math.abs(lost / COUNT - 0.2) < 0.02, String(lost));
  const { arrivals } = carry({ duplication: 0.1 });
  t.ok(Math.abs(arrivals.length / COUNT - 1.1) < 0.02, String(arrivals.length));
});

await t.test('bursts lose what the Gilbert-Elliott model says, in rows', async (t) => {
  const bursts = { goodToBad: 0.01, badToGood: 0.1, lossWhenBad: 1 };
  const { lost, arrivals } = carry({ bursts });
  t.ok(Math.abs(lost / COUNT - 0.01 / 0.11) < 0.02, String(lost));
  const gaps = arrivals.filter(({ sent }, i) => i > 0 && sent - arrivals[i - 1]!.sent > 1).length;
  const meanBurst = lost / gaps;
  t.ok(meanBurst > 7 && meanBurst < 13, `mean burst ${meanBurst}`);
});

await t.test('jitter does not reorder, reordering does', async (t) => {
  const isInOrder = ({ arrivals }: ReturnType<typeof carry>) =>
    arrivals.every(({ at }, i) => i === 0 || at >= arrivals[i - 1]!.at);
  t.ok(isInOrder(carry({ latency: 20, jitter: 10 })));
  t.notOk(isInOrder(carry({ latency: 20, reordering: 0.1 })));
});

await t.test('what is larger than the MTU is dropped', async (t) => {
  const direction = new Direction({ ...PERFECT, mtu: 1280 }, new SeededRandom(1));
  t.equal(direction.carry(1280, 0), 1);
  t.equal(direction.carry(1281, 0), 0);
  t.equal(direction.lost, 1);
});

await t.test('a rate makes packets wait, and a full queue drops them', async (t) => {
  const direction = new Direction({ ...PERFECT, rate: 10 }, new SeededRandom(1));
  t.equal(direction.carry(1000, 0), 1);
  t.equal(direction.delays[0], 100);
  direction.carry(1000, 0);
  t.equal(direction.delays[0], 200);
  for (let i = 0; i < 10; i++) direction.carry(1000, 0);
  t.equal(direction.carry(1000, 0), 0);
});

await t.test('a link that is down loses all and comes back as it was', async (t) => {
  const direction = new Direction({ ...PERFECT, latency: 5 }, new SeededRandom(1));
  direction.isDown = true;
  t.equal(direction.carry(100, 0), 0);
  direction.isDown = false;
  t.equal(direction.carry(100, 0), 1);
  t.equal(direction.delays[0], 5);
});

/** Sends one packet a millisecond. */
function carry(quality: Partial<Quality>) {
  const direction = new Direction({ ...PERFECT, ...quality }, new SeededRandom(7));
  const arrivals: { sent: number; at: number }[] = [];
  for (let sent = 0; sent < COUNT; sent++) {
    const copies = direction.carry(100, sent);
    for (let i = 0; i < copies; i++) arrivals.push({ sent, at: sent + direction.delays[i]! });
  }
  return { arrivals, lost: direction.lost };
}
