import fc from 'fast-check';
import t from 'tap';
import { Backoff } from '../../../core/sansio/backoff.ts';
import { BoundedQueue } from '../../../core/sansio/bounded-queue.ts';
import { ExpiringMap } from '../../../core/sansio/expiring-map.ts';
import { instantAt } from '../../../core/sansio/instant.ts';
import { TimerTable } from '../../../core/sansio/timer-table.ts';

const retransmission = { firstInterval: 1000, multiplier: 1.5, maximumElapsed: 8000 };

await t.test('backoff: 1 s, x1.5, 8 s triggers at 1, 2.5, 4.75 and 8.125 s', async (t) => {
  const backoff = new Backoff(instantAt(0), retransmission);
  const triggers: number[] = [];
  const intervals: number[] = [];
  for (let i = 0; i < 4; i++) {
    triggers.push(backoff.nextTrigger());
    intervals.push(backoff.interval());
    backoff.handleTimeout(backoff.nextTrigger());
  }
  t.same(triggers, [1000, 2500, 4750, 8125]);
  t.same(intervals, [1000, 1500, 2250, 3375]);
});

await t.test('backoff: is expired from 8 s on, measured from its start', async (t) => {
  const backoff = new Backoff(instantAt(500), retransmission);
  t.equal(backoff.isExpired(instantAt(500)), false);
  t.equal(backoff.isExpired(instantAt(8499.9)), false);
  t.equal(backoff.isExpired(instantAt(8500)), true);
  t.equal(backoff.isExpired(instantAt(99_999)), true);
});

await t.test('backoff: an early or repeated call changes nothing', async (t) => {
  const backoff = new Backoff(instantAt(0), retransmission);
  backoff.handleTimeout(instantAt(999.9));
  t.equal(backoff.nextTrigger(), 1000);
  backoff.handleTimeout(instantAt(1000));
  backoff.handleTimeout(instantAt(1000));
  t.equal(backoff.nextTrigger(), 2500);
});

await t.test('backoff: a late call steps once and does not drift', async (t) => {
  const backoff = new Backoff(instantAt(0), retransmission);
  backoff.handleTimeout(instantAt(1400));
  t.equal(backoff.nextTrigger(), 2500);
  backoff.handleTimeout(instantAt(60_000));
  t.equal(backoff.nextTrigger(), 4750);
  backoff.handleTimeout(instantAt(60_000));
  t.equal(backoff.nextTrigger(), 8125);
});

await t.test('timer table: names the earliest timer, the first in the list on a tie', async (t) => {
  const timers = new TimerTable(['rekey', 'keepalive', 'expire'] as const);
  t.equal(timers.next(), undefined);
  timers.set('expire', instantAt(5));
  timers.set('keepalive', instantAt(5));
  t.same(timers.next(), { at: 5, reason: 'keepalive' });
  timers.set('rekey', instantAt(7));
  timers.clear('keepalive');
  t.same(timers.next(), { at: 5, reason: 'expire' });
  t.equal(timers.at('rekey'), 7);
  t.equal(timers.at('keepalive'), undefined);
  t.equal(timers.isDue('rekey', instantAt(6.9)), false);
  t.equal(timers.isDue('rekey', instantAt(7)), true);
  t.equal(timers.isDue('keepalive', instantAt(7)), false);
});

await t.test('bounded queue: says what it dropped, and counts', async (t) => {
  const oldest = new BoundedQueue<number>(2, 'oldest');
  t.same(
    [1, 2, 3].map((n) => oldest.push(n)),
    [undefined, undefined, 1],
  );
  t.same([oldest.length, oldest.dropped], [2, 1]);
  t.same([oldest.shift(), oldest.shift(), oldest.shift()], [2, 3, undefined]);

  const newest = new BoundedQueue<number>(2, 'newest');
  t.same(
    [1, 2, 3].map((n) => newest.push(n)),
    [undefined, undefined, 3],
  );
  t.same([newest.shift(), newest.shift(), newest.shift()], [1, 2, undefined]);
  newest.push(4);
  newest.clear();
  t.equal(newest.shift(), undefined);
  t.throws(() => new BoundedQueue(0, 'oldest'), { name: 'BugError' });
});

await t.test('bounded queue: behaves as a plain array with a limit', async (t) => {
  const operation = fc.oneof(
    { weight: 3, arbitrary: fc.nat(1000) },
    { weight: 2, arbitrary: fc.constant('shift' as const) },
    { weight: 1, arbitrary: fc.constant('drain' as const) },
  );
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 100 }),
      fc.constantFrom('oldest' as const, 'newest' as const),
      fc.array(operation, { maxLength: 400 }),
      (limit, drop, operations) => {
        const queue = new BoundedQueue<number>(limit, drop);
        const model: number[] = [];
        for (const step of operations) {
          if (step === 'shift') strictly(queue.shift(), model.shift());
          else if (step === 'drain')
            while (model.length > 0) strictly(queue.shift(), model.shift());
          else {
            const isFull = model.length === limit;
            const victim = isFull ? (drop === 'oldest' ? model.shift() : step) : undefined;
            if (!isFull || drop === 'oldest') model.push(step);
            strictly(queue.push(step), victim);
          }
          strictly(queue.length, model.length);
        }
      },
    ),
  );
  t.pass('no difference found');
});

await t.test('expiring map: hands out what expired, in that order', async (t) => {
  const map = new ExpiringMap<string, number>(10, 'session expires');
  t.equal(map.pollTimeout(), undefined);
  map.set('slow', 1, instantAt(0), 300);
  map.set('quick', 2, instantAt(0), 100);
  map.set('also quick', 3, instantAt(50), 50);
  t.same(map.pollTimeout(), { at: 100, reason: 'session expires' });
  t.same(map.handleTimeout(instantAt(99)), []);
  t.equal(map.get('quick'), 2);
  t.same(map.handleTimeout(instantAt(100)), [
    ['quick', 2],
    ['also quick', 3],
  ]);
  t.equal(map.get('quick'), undefined);
  map.set('slow', 4, instantAt(200), 300);
  t.same(map.pollTimeout(), { at: 500, reason: 'session expires' }, 'a refresh moves the expiry');
  t.equal(map.size, 1);
  t.equal(map.delete('slow'), true);
  t.equal(map.delete('slow'), false);
  t.equal(map.pollTimeout(), undefined);
});

await t.test('expiring map: a full one drops what would expire first, and says so', async (t) => {
  const map = new ExpiringMap<string, number>(2);
  map.set('a', 1, instantAt(0), 100);
  map.set('b', 2, instantAt(0), 50);
  t.equal(map.set('a', 3, instantAt(0), 100), undefined, 'replacing needs no room');
  t.same(map.set('c', 4, instantAt(0), 10), ['b', 2]);
  t.same(
    [...map.entries()],
    [
      ['a', 3],
      ['c', 4],
    ],
  );
});

await t.test('expiring map: behaves as a sorted list', async (t) => {
  const step = fc.record({
    key: fc.nat(30),
    ttl: fc.nat(40),
    advance: fc.nat(5),
    what: fc.constantFrom('set', 'set', 'set', 'delete', 'expire'),
  });
  const limit = 20;
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
      const map = new ExpiringMap<number, number>(limit);
      let model: { key: number; value: number; at: number }[] = [];
      let now = 0;
      for (const [value, { key, ttl, advance, what }] of steps.entries()) {
        now += advance;
        if (what === 'expire') {
          const due = model.filter((e) => e.at <= now);
          model = model.filter((e) => e.at > now);
          strictly(
            JSON.stringify(map.handleTimeout(instantAt(now))),
            JSON.stringify(due.map((e) => [e.key, e.value])),
          );
        } else {
          const isKnown = model.some((e) => e.key === key);
          model = model.filter((e) => e.key !== key);
          if (what === 'delete') strictly(map.delete(key), isKnown);
          else {
            const victim = model.length === limit ? model.shift() : undefined;
            strictly(map.set(key, value, instantAt(now), ttl)?.[0], victim?.key);
            model.push({ key, value, at: now + ttl });
            model.sort((a, b) => a.at - b.at);
          }
        }
        strictly(map.size, model.length);
        strictly(map.pollTimeout()?.at, model[0]?.at);
        for (const entry of model) strictly(map.get(entry.key), entry.value);
      }
    }),
  );
  t.pass('no difference found');
});

/** An assertion that leaves no line behind when it holds. */
function strictly(actual: unknown, expected: unknown): void {
  if (!Object.is(actual, expected)) throw new Error(`${String(actual)} is not ${String(expected)}`);
}
