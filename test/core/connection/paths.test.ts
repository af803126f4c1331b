import t from 'tap';
import { IDLE_AFTER, SESSION_TIMEOUT } from '../../../core/connection/connection.ts';
import { ICE_TIMEOUT } from '../../../core/ice/agent.ts';
import { Bench, connected, type PathName, type Side } from './bench.ts';

await t.test('a dead path is found before a session is given up, and before idling', async (t) => {
  t.ok(ICE_TIMEOUT < SESSION_TIMEOUT);
  t.ok(IDLE_AFTER > ICE_TIMEOUT);
});

/** Both sides, or one, send a packet each 50 ms. */
function startTraffic(bench: Bench, ...sides: readonly ('left' | 'right')[]): void {
  for (const name of sides) bench[name].startTraffic(50);
}

/** When the side took the path last, counted from `since`. */
function movedAfter(side: Side, since: number, path: PathName): number {
  const last = side.eventsOf('path-selected').at(-1);
  return side.path === path && last !== undefined ? last.at - since : Infinity;
}

/** Data that came in the last `ms`, and on which paths. */
function arrivals(side: Side, ms: number): { count: number; paths: string } {
  const late = side.received.filter(({ at }) => at > side.bench.now - ms);
  return { count: late.length, paths: [...new Set(late.map(({ path }) => path))].join() };
}

await t.test('choice', async (t) => {
  for (const controlling of ['left', 'right'] as const) {
    await t.test(`direct before relayed before stream; ${controlling} controls`, async (t) => {
      const all = ['direct', 'relayed', 'stream'] as const;
      const bench = new Bench({ paths: all, controlling });
      bench.block('direct');
      bench.block('relayed');
      bench.introduce();
      bench.run(2000);
      t.same([bench.left.path, bench.right.path], ['stream', 'stream']);
      bench.unblock('relayed');
      bench.run(3000);
      t.same([bench.left.path, bench.right.path], ['relayed', 'relayed']);
      bench.unblock('direct');
      bench.run(3000);
      t.same([bench.left.path, bench.right.path], ['direct', 'direct']);
      t.match(bench[controlling].selections, [
        /stream: first/,
        /relayed: better/,
        /direct: better/,
      ]);
      t.same(bench.left.failures, []);
    });
  }

  await t.test('a better pair is nominated in the call in which it validates', async (t) => {
    const bench = new Bench();
    bench.block('direct');
    bench.introduce();
    bench.run(1000);
    t.equal(bench.left.path, 'relayed');
    bench.unblock('direct');
    bench.run(3000);
    const { at } = bench.left.eventsOf('path-selected').at(-1)!;
    const nominating = bench.left.sent.filter(
      (sent) => sent.at === at && sent.message.type === 'stun' && sent.to === '198.51.100.1:2000',
    );
    t.ok(nominating.length > 0);
    t.equal(movedAfter(bench.right, at, 'direct'), 10);
  });

  await t.test('a selection is not repeated when nothing changes', async (t) => {
    const bench = connected();
    startTraffic(bench, 'left', 'right');
    bench.run(300_000);
    t.same(bench.left.selections.length, 1);
    t.same(bench.right.selections.length, 1);
  });
});

await t.test('the spare', async (t) => {
  await t.test('a relayed pair is kept warm beside a direct one', async (t) => {
    const bench = connected();
    startTraffic(bench, 'left', 'right');
    for (let i = 0; i < 20; i++) {
      bench.run(3000);
      for (const side of [bench.left, bench.right]) {
        const [spare] = side.connection.alternatives();
        t.ok(side.now - (spare?.answeredAt ?? -Infinity) <= 5000 + 60);
      }
    }
  });

  await t.test('one that does not answer for 20 s is none, until it answers again', async (t) => {
    const bench = connected();
    startTraffic(bench, 'left', 'right');
    bench.block('relayed');
    bench.run(26_000);
    t.same(bench.left.connection.alternatives(), []);
    t.same(bench.right.connection.alternatives(), []);
    bench.unblock('relayed');
    bench.run(10_000);
    t.equal(bench.left.connection.alternatives().length, 1);
    t.equal(bench.right.connection.alternatives().length, 1);
  });
});

await t.test('losing the direct path while packets flow', async (t) => {
  const blocked = ['both', 'left', 'right'] as const;
  const senders = [['left', 'right'], ['left'], ['right']] as const;
  for (const controlling of ['left', 'right'] as const) {
    for (const cut of blocked) {
      for (const from of senders) {
        // What nobody sends nobody misses.
        if (cut !== 'both' && !(from as readonly string[]).includes(cut)) continue;
        const title = `${from.join(' and ')} send, cut from ${cut}, ${controlling} controls`;
        await t.test(`both sides move within 2 s: ${title}`, async (t) => {
          const bench = connected({ controlling });
          startTraffic(bench, ...from);
          bench.run(20_013);
          bench.block('direct', cut);
          const cutAt = bench.now;
          bench.run(4000);
          t.ok(
            movedAfter(bench.left, cutAt, 'relayed') < 2000,
            `left ${movedAfter(bench.left, cutAt, 'relayed')}`,
          );
          t.ok(
            movedAfter(bench.right, cutAt, 'relayed') < 2000,
            `right ${movedAfter(bench.right, cutAt, 'relayed')}`,
          );
          bench.run(1000);
          for (const name of from) {
            t.match(arrivals(bench[name].other, 1000), { paths: 'relayed', count: 20 });
          }
          t.same([...bench.left.failures, ...bench.right.failures], []);
        });
      }
    }
  }

  for (const controlling of ['left', 'right'] as const) {
    await t.test(
      `when it works again they return within 30 s; ${controlling} controls`,
      async (t) => {
        const bench = connected({ controlling });
        startTraffic(bench, 'left', 'right');
        bench.run(10_000);
        bench.block('direct');
        bench.run(100_000);
        t.same([bench.left.path, bench.right.path], ['relayed', 'relayed']);
        bench.unblock('direct');
        bench.run(30_100);
        t.same([bench.left.path, bench.right.path], ['direct', 'direct']);
        t.equal(bench.left.selections.length, 3);
        bench.run(120_000);
        t.equal(bench.left.selections.length, 3);
        t.equal(bench.right.selections.length, 3);
      },
    );
  }

  await t.test('a path that comes and goes is returned to once in 30 s at most', async (t) => {
    const bench = connected();
    startTraffic(bench, 'left', 'right');
    for (let i = 0; i < 30; i++) {
      bench.run(5000);
      bench.block('direct');
      bench.run(5000);
      bench.unblock('direct');
    }
    t.ok(bench.left.selections.length <= 1 + 2 * 10 + 1, `${bench.left.selections.length}`);
    const returns = bench.left.eventsOf('path-selected').filter(({ why }) => why === 'better');
    returns.forEach(({ at }, i) => i > 0 && t.ok(at - returns[i - 1]!.at >= 30_000));
  });
});

await t.test('all paths cut', async (t) => {
  await t.test(
    'for 3 s: no switch, no failure, and packets go on over the same pair',
    async (t) => {
      for (const cutAfter of [0, 17, 49, 333]) {
        const bench = connected();
        startTraffic(bench, 'left', 'right');
        bench.run(20_000 + cutAfter);
        bench.block('direct');
        bench.block('relayed');
        bench.run(3000);
        bench.unblock('direct');
        bench.unblock('relayed');
        bench.run(5000);
        for (const side of [bench.left, bench.right]) {
          t.equal(side.selections.length, 1);
          t.same(side.failures, []);
          t.same(arrivals(side, 1000), { count: 20, paths: 'direct' });
        }
      }
    },
  );

  await t.test(
    'for longer than ICE_TIMEOUT: failed once, cleaned up, and tried for ever',
    async (t) => {
      const bench = connected();
      startTraffic(bench, 'left', 'right');
      bench.run(10_000);
      bench.left.stopTraffic();
      bench.right.stopTraffic();
      bench.run(1000);
      bench.left.sendPacket();
      bench.right.sendPacket();
      bench.block('direct');
      bench.block('relayed');
      bench.run(200);
      bench.left.sendPacket();
      bench.right.sendPacket();
      const cutAt = bench.now;
      bench.run(ICE_TIMEOUT + 10);
      for (const side of [bench.left, bench.right]) {
        t.match(side.failures, [{ why: 'path-lost' }]);
        t.equal(side.eventsOf('path-lost').length, 1);
        t.ok(side.failures[0]!.at - cutAt <= ICE_TIMEOUT);
        t.equal(side.connection.selected, undefined);
        t.equal(side.connection.state === 'failed' || side.connection.state === 'connecting', true);
      }
      bench.run(600_000);
      const attempts = bench.left.failures.length;
      t.ok(attempts > 8, `${attempts} attempts`);
      bench.unblock('direct');
      bench.run(61_000);
      t.same([bench.left.path, bench.right.path], ['direct', 'direct']);
    },
  );
});
