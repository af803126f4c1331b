import t from 'tap';
import { ICE_TIMEOUT } from '../../../core/ice/agent.ts';
import { decodeStun } from '../../../core/stun/message.ts';
import { derivePairSecrets } from '../../../core/connection/pair-secrets.ts';
import { Peer } from '../../../core/connection/peer.ts';
import {
  Bench,
  connected,
  crypto,
  KEYS,
  localCandidate,
  type Message,
  type Side,
} from './bench.ts';
import { SimulatedTunnel } from './tunnels.ts';

function isNomination(message: Message): boolean {
  if (message.type !== 'stun') return false;
  const decoded = decodeStun(message.payload);
  return decoded.ok && decoded.value.attributes.useCandidate === true;
}

function isCheck(message: Message): boolean {
  if (message.type !== 'stun') return false;
  const decoded = decodeStun(message.payload);
  return decoded.ok && decoded.value.class === 'request';
}

/** Checks that the side sent after `since`. */
function checksSince(side: Side, since: number): readonly number[] {
  return side.sent.filter(({ at, message }) => at >= since && isCheck(message)).map(({ at }) => at);
}

function cutAll(bench: Bench): void {
  bench.block('direct');
  bench.block('relayed');
  bench.block('stream');
}

function mend(bench: Bench): void {
  bench.unblock('direct');
  bench.unblock('relayed');
  bench.unblock('stream');
}

await t.test('idle', async (t) => {
  await t.test('after 20 s without packets; then checks come every 25 s', async (t) => {
    const bench = connected();
    bench.left.sendPacket();
    const sentAt = bench.now;
    bench.run(19_900);
    t.equal(bench.left.connection.state, 'connected');
    bench.run(200);
    t.equal(bench.left.connection.state, 'idle');
    t.equal(bench.right.connection.state, 'idle');
    const idleAt = sentAt + 20_000;
    bench.run(120_000);
    const own = checksSince(bench.left, idleAt + 100);
    const gaps = own.slice(1).map((at, i) => at - own[i]!);
    t.ok(own.length <= 4 * 4 + 4, `${own.length} checks in 120 s`);
    t.ok(Math.max(...gaps) <= 25_000);
    t.equal(bench.left.connection.state, 'idle', 'checks are no packets');
  });

  await t.test('a packet wakes both sides', async (t) => {
    const bench = connected();
    bench.run(60_000);
    bench.right.sendPacket();
    t.equal(bench.right.connection.state, 'connected');
    bench.run(20);
    t.equal(bench.left.connection.state, 'connected');
    t.equal(bench.left.received.length, 1);
  });

  for (const side of ['left', 'right'] as const) {
    await t.test(
      `a loss while idle is found within 3 s of the next packet of the ${side}`,
      async (t) => {
        const bench = connected();
        bench.run(60_000);
        bench.block('direct');
        bench.run(5000);
        t.equal(bench[side].path, 'direct');
        bench[side].startTraffic(50);
        bench.run(3000);
        t.same([bench.left.path, bench.right.path], ['relayed', 'relayed']);
      },
    );
  }

  await t.test(
    'a signal that says something else ends it, and the same one does not',
    async (t) => {
      const bench = connected();
      const { left, right } = bench;
      bench.run(60_000);
      left.connection.setRemoteCandidates([...right.candidates], left.now);
      left.settle();
      t.equal(left.connection.state, 'idle');
      const { candidate } = localCandidate('right', 'direct', '198.51.100.2:2000');
      for (const candidates of [[...right.candidates, candidate], right.candidates]) {
        left.connection.setRemoteCandidates(candidates, left.now);
        left.settle();
        t.equal(left.connection.state, 'connected');
        bench.run(60_000);
        t.equal(left.connection.state, 'idle');
      }
    },
  );

  for (const isIdle of [false, true]) {
    await t.test(
      `a new address of the peer is tried at once${isIdle ? ', while idle too' : ''}`,
      async (t) => {
        const bench = new Bench();
        const { left, right } = bench;
        // The address that the peer has at first is reached by the relay only.
        bench.block('direct');
        bench.introduce();
        bench.run(isIdle ? 60_000 : 10_000);
        t.equal(left.connection.state, isIdle ? 'idle' : 'connected');
        t.same([left.path, right.path], ['relayed', 'relayed']);
        const { candidate, base } = localCandidate('right', 'direct', '198.51.100.2:2000');
        bench.unblock('direct');
        right.sockets.set(base, candidate.address);
        right.connection.addLocalCandidate(candidate, base, right.now);
        right.settle();
        left.connection.setRemoteCandidates([...right.candidates, candidate], left.now);
        left.settle();
        bench.run(200);
        t.same([left.path, right.path], ['direct', 'direct']);
      },
    );
  }

  await t.test('only a connection with a path idles', async (t) => {
    const bench = new Bench();
    cutAll(bench);
    bench.introduce();
    for (let i = 0; i < 100; i++) {
      bench.run(1000);
      t.not(bench.left.connection.state, 'idle');
    }
  });
});

await t.test('attempts', async (t) => {
  for (const controlling of ['left', 'right'] as const) {
    await t.test(
      `the check of a pair that answered just after a failure is repeated; ${controlling} controls`,
      async (t) => {
        for (let seed = 1; seed <= 6; seed++) {
          const bench = new Bench({ seed, paths: ['direct'], controlling });
          const { left } = bench;
          bench.hasBroker = false;
          cutAll(bench);
          bench.introduce();
          while (left.connection.state !== 'failed') bench.run(10);
          mend(bench);
          const lost = new Set<number>();
          bench.fate = (from, message) => {
            const isFirst =
              isCheck(message) && from === left && left.connection.state === 'connecting';
            if (!isFirst || lost.size > 0) return 0;
            lost.add(bench.now);
            return undefined;
          };
          bench.run(60_000);
          t.same([left.path, bench.right.path], ['direct', 'direct'], `seed ${seed}`);
          t.equal(lost.size, 1);
        }
      },
    );
  }

  await t.test('one ends in time, however often the peer says that it restarted', async (t) => {
    const bench = new Bench();
    bench.hasBroker = false;
    cutAll(bench);
    bench.introduce();
    for (let second = 1; second <= 10; second++) {
      bench.run(1_000);
      if (second < 10) bench.left.connection.handlePeerRestart(bench.left.now);
      bench.left.settle();
    }
    t.same(bench.left.failures, []);
    bench.run(1_000);
    t.equal(bench.left.failures.length, 1);
  });

  await t.test('the controlled side does not wait longer for a nomination', async (t) => {
    const bench = new Bench({ paths: ['direct'], controlling: 'right' });
    bench.hasBroker = false;
    bench.fate = (_, message) => (isNomination(message) ? undefined : 0);
    bench.introduce();
    bench.run(ICE_TIMEOUT + 1_000);
    t.match(bench.left.failures, [{ why: 'no-answer' }]);
  });

  await t.test('full jitter, from 1 s doubling to 60 s, for ever', async (t) => {
    const waits: number[][] = [];
    for (let seed = 1; seed <= 60; seed++) {
      const bench = new Bench({ seed });
      bench.hasBroker = false;
      cutAll(bench);
      bench.introduce();
      bench.run(600_000);
      const { failures } = bench.left;
      const starts = bench.left.eventsOf('signal-due').map(({ at }) => at);
      failures.forEach(({ at, why }, i) => {
        t.equal(why, 'no-answer');
        const next = starts.find((start) => start > at);
        if (next !== undefined) (waits[i] ??= []).push(next - at);
      });
    }
    const limits = [1, 2, 4, 8, 16, 32, 60, 60].map((seconds) => seconds * 1000);
    limits.forEach((limit, i) => {
      const seen = waits[i] ?? [];
      t.ok(Math.max(...seen) <= limit, `${i}: at most ${limit}`);
      t.ok(Math.max(...seen) > limit * 0.8, `${i}: up to ${Math.max(...seen)}`);
      t.ok(Math.min(...seen) < limit * 0.3, `${i}: from ${Math.min(...seen)}`);
    });
  });

  await t.test('with a broker that works the time between attempts grows too', async (t) => {
    const bench = new Bench();
    cutAll(bench);
    bench.introduce();
    bench.run(1_200_000);
    t.ok(bench.left.failures.length < 80, `${bench.left.failures.length}`);
  });

  await t.test('a packet that waits starts one at once, one a second at most', async (t) => {
    const bench = new Bench();
    bench.hasBroker = false;
    const { left } = bench;
    cutAll(bench);
    bench.introduce();
    bench.run(200_000);
    while (left.connection.state !== 'failed') bench.run(100);
    const before = left.eventsOf('signal-due').length;
    left.startTraffic(100);
    bench.run(1200);
    t.equal(left.connection.state, 'connecting');
    t.equal(left.eventsOf('signal-due').length, before + 1);
    bench.run(60_000);
    const starts = left.eventsOf('signal-due').map(({ at }) => at);
    t.ok(starts.length - before <= 7);
    starts.slice(1).forEach((at, i) => t.ok(at - starts[i]! >= 1000));
    mend(bench);
    bench.run(12_000);
    t.equal(left.path, 'direct');
  });

  await t.test('without a word of the peer the failure says so', async (t) => {
    const bench = new Bench();
    bench.hasBroker = false;
    bench.left.sendPacket();
    bench.run(ICE_TIMEOUT);
    t.match(bench.left.failures, [{ why: 'no-candidates' }]);
  });
});

await t.test('sleep', async (t) => {
  for (const sleeper of ['left', 'right'] as const) {
    for (const isBusy of [true, false]) {
      const title = `an hour of sleep of the ${sleeper}, ${isBusy ? 'busy' : 'idle'}`;
      await t.test(`${title}: no burst, and it recovers`, async (t) => {
        const bench = connected();
        const side = bench[sleeper];
        side.startTraffic(50);
        side.other.startTraffic(50);
        bench.run(10_000);
        if (!isBusy) {
          side.stopTraffic();
          side.other.stopTraffic();
          bench.run(60_000);
        }
        side.isAsleep = true;
        bench.run(3_600_000);
        const wokenAt = bench.now;
        side.isAsleep = false;
        if (side.nextPacketAt < bench.now) side.nextPacketAt = bench.now;
        side.handleTimeout();
        t.ok(checksSince(side, wokenAt).length <= 6, `${checksSince(side, wokenAt).length} checks`);
        bench.run(3000);
        t.ok(checksSince(side, wokenAt).length < 70, `${checksSince(side, wokenAt).length}`);
        side.sendPacket();
        side.other.sendPacket();
        bench.run(12_000);
        t.same([bench.left.path, bench.right.path], ['direct', 'direct']);
        t.ok(side.received.some(({ at }) => at > wokenAt) || !isBusy);
      });
    }
  }

  await t.test('a machine that stands still for 12 s takes no path for lost', async (t) => {
    const bench = connected();
    bench.left.startTraffic(50);
    bench.run(10_000);
    bench.left.isAsleep = true;
    bench.run(12_000);
    bench.left.isAsleep = false;
    bench.left.nextPacketAt = bench.now;
    bench.left.handleTimeout();
    bench.run(5000);
    t.same(bench.left.failures, []);
    t.equal(bench.left.selections.length, 1);
  });
});

await t.test('goodbye', async (t) => {
  await t.test('the path is dropped at once, and no timer of the connection is left', async (t) => {
    const bench = connected();
    bench.left.startTraffic(50);
    bench.run(1013);
    const { left } = bench;
    left.stopTraffic();
    bench.right.isAsleep = true;
    left.connection.handleGoodbye('leaving', left.now);
    left.settle();
    t.equal(left.connection.selected, undefined);
    t.equal(left.connection.state, 'waiting');
    t.same(left.failures, []);
    t.equal(left.events.at(-1)?.event.type, 'path-lost');
    t.equal(left.connection.pollTimeout()?.reason, 'retry');
  });

  await t.test('a second one is harmless', async (t) => {
    const bench = connected();
    const { left } = bench;
    bench.right.isAsleep = true;
    left.connection.handleGoodbye('restarting', left.now);
    left.settle();
    const [count, due] = [left.events.length, left.connection.pollTimeout()];
    left.connection.handleGoodbye('restarting', left.now);
    left.settle();
    t.equal(left.events.length, count);
    t.same(left.connection.pollTimeout(), due);
  });

  for (const [reason, limit] of [
    ['restarting', 1000],
    ['leaving', 60_000],
    ['revoked', 60_000],
  ] as const) {
    await t.test(`after "${reason}" it is tried again within ${limit / 1000} s`, async (t) => {
      const waits: number[] = [];
      for (let seed = 1; seed <= 30; seed++) {
        const bench = connected({ seed });
        const { left } = bench;
        bench.right.isAsleep = true;
        left.connection.handleGoodbye(reason, left.now);
        left.settle();
        waits.push((left.connection.pollTimeout()?.at ?? Infinity) - left.now);
      }
      t.ok(Math.max(...waits) <= limit);
      t.ok(Math.max(...waits) > limit * 0.8);
    });
  }

  for (const controlling of ['left', 'right'] as const) {
    await t.test(
      `a check of the peer brings it back at once; ${controlling} controls`,
      async (t) => {
        const bench = connected({ controlling });
        const { left, right } = bench;
        bench.hasBroker = false;
        left.connection.handleGoodbye('leaving', left.now);
        left.settle();
        right.restart(['direct', 'relayed']);
        bench.run(5000);
        t.equal(left.path, undefined, 'nobody called');
        right.connection.setRemoteCandidates(left.candidates, right.now);
        right.settle();
        bench.run(500);
        t.same([left.path, right.path], ['direct', 'direct']);
        bench.run(2000);
        t.ok(left.eventsOf('handshake-due').length + right.eventsOf('handshake-due').length > 0);
        t.same(left.failures, []);
      },
    );
  }

  for (const reason of ['leaving', 'revoked'] as const) {
    await t.test(`after "${reason}" there is one attempt a minute at most`, async (t) => {
      for (let seed = 1; seed <= 10; seed++) {
        const bench = connected({ seed });
        const { left } = bench;
        bench.right.isAsleep = true;
        left.connection.handleGoodbye(reason, left.now);
        left.settle();
        const saidAt = bench.now;
        bench.run(1_800_000);
        const starts = left.eventsOf('signal-due').map(({ at }) => at);
        const attempts = starts.filter((at) => at > saidAt);
        t.ok(attempts.length >= 25, `${attempts.length} attempts`);
        attempts.slice(1).forEach((at, i) => t.ok(at - attempts[i]! >= 60_000));
      }
    });
  }

  await t.test('a packet that waits brings it back after a second', async (t) => {
    const bench = connected();
    const { left } = bench;
    left.connection.handleGoodbye('leaving', left.now);
    left.tunnel = new SimulatedTunnel();
    bench.right.restart(['direct']);
    const saidAt = bench.now;
    left.startTraffic(100);
    bench.run(2000);
    const [selected] = left.eventsOf('path-selected').slice(-1);
    t.ok((selected?.at ?? Infinity) <= saidAt + 1200);
  });
});

await t.test('a peer that restarts', async (t) => {
  for (const controlling of ['left', 'right'] as const) {
    for (const hasBroker of [true, false]) {
      const title = `${controlling} controls, broker ${hasBroker ? 'up' : 'down'}`;
      await t.test(`keeps its path with us, and a handshake is due: ${title}`, async (t) => {
        const bench = connected({ controlling });
        const { left, right } = bench;
        bench.hasBroker = hasBroker;
        bench.run(30_000);
        right.restart(['direct', 'relayed']);
        const restartedAt = bench.now;
        // It remembers where we were.
        right.connection.setRemoteCandidates(left.candidates, right.now);
        right.settle();
        if (hasBroker) left.connection.handlePeerRestart(left.now);
        left.settle();
        bench.run(1000);
        t.equal(left.selections.length, 1, 'we keep our state');
        t.same(left.failures, []);
        t.equal(right.path, 'direct');
        bench.run(200);
        const due = [...left.eventsOf('handshake-due'), ...right.eventsOf('handshake-due')];
        const dueAt = due.map(({ at }) => at).filter((at) => at >= restartedAt);
        t.ok(Math.min(...dueAt) - restartedAt <= (hasBroker ? 1000 : 1100));
        bench.run(2000);
        t.ok(right.tunnel.hasSession);
      });
    }
  }
});

await t.test('nomination', async (t) => {
  await t.test('a lost one is repeated until it is answered', async (t) => {
    const bench = new Bench({ paths: ['direct'] });
    let lost = 0;
    bench.fate = (_, message) => (isNomination(message) && ++lost <= 5 ? undefined : 0);
    bench.introduce();
    bench.run(1000);
    t.ok(lost > 5);
    t.equal(bench.right.path, 'direct');
  });

  await t.test('at 50 % loss of those checks it arrives within a second', async (t) => {
    for (let seed = 1; seed <= 100; seed++) {
      const bench = connected({ seed });
      bench.fate = (_, message) =>
        isNomination(message) && bench.random.fraction() < 0.5 ? undefined : 0;
      bench.left.startTraffic(50);
      bench.right.startTraffic(50);
      bench.run(1000);
      bench.block('direct');
      bench.run(5000);
      bench.unblock('direct');
      while (bench.left.path !== 'direct' && bench.now < 120_000) bench.run(20);
      bench.run(1000);
      if (bench.right.path !== 'direct') t.fail(`SEED=${seed}`);
    }
    t.pass();
  });

  await t.test('an answer to an earlier check is none to the nomination', async (t) => {
    const bench = connected();
    bench.block('direct');
    bench.left.startTraffic(50);
    bench.run(5000);
    t.equal(bench.left.path, 'relayed');
    bench.left.stopTraffic();
    bench.unblock('direct');
    let lost = 0;
    bench.fate = (_, message) => (isNomination(message) && ++lost <= 8 ? undefined : 0);
    while (bench.left.path !== 'direct' && bench.now < 120_000) bench.run(20);
    bench.run(1000);
    t.ok(lost > 8);
    t.equal(bench.right.path, 'direct');
  });
});

await t.test('streams', async (t) => {
  await t.test('are wanted only after 1 s without a UDP pair', async (t) => {
    const bench = new Bench({ paths: ['direct', 'relayed'] });
    cutAll(bench);
    bench.introduce();
    bench.run(999);
    t.same(bench.left.eventsOf('streams-wanted'), []);
    bench.run(1);
    t.match(bench.left.eventsOf('streams-wanted'), [{ wanted: true }]);
    t.same(connected().left.eventsOf('streams-wanted'), []);
  });

  await t.test('are given up when a UDP pair is selected', async (t) => {
    const bench = new Bench({ paths: ['direct', 'stream'] });
    bench.block('direct');
    bench.introduce();
    bench.run(2000);
    t.equal(bench.left.path, 'stream');
    t.match(bench.left.eventsOf('streams-wanted'), [{ wanted: true }]);
    bench.unblock('direct');
    bench.run(3000);
    t.equal(bench.left.path, 'direct');
    for (const side of [bench.left, bench.right]) {
      t.match(side.eventsOf('streams-wanted').at(-1), { wanted: false });
    }
  });

  for (const controlling of ['left', 'right'] as const) {
    await t.test(
      `one that packets come back to is not closed; ${controlling} controls`,
      async (t) => {
        const bench = new Bench({ paths: ['direct', 'stream'], controlling });
        const { left, right } = bench;
        // What has streams dialled, and closes them a while after they are wanted no more.
        const secrets = derivePairSecrets(KEYS.left, KEYS.right.publicKey, '', crypto);
        const peer = new Peer(0, secrets!, left.connection);
        let told = 0;
        const run = (ms: number) => {
          for (const end = bench.now + ms; bench.now < end;) {
            bench.run(10);
            const wanted = left.eventsOf('streams-wanted').slice(told);
            told += wanted.length;
            for (const event of wanted) peer.wantStreams(event.wanted, left.now);
            if (peer.endStreams(left.now)) t.fail('closed in use');
          }
        };
        bench.block('direct');
        bench.introduce();
        run(8_000);
        left.startTraffic(50);
        right.startTraffic(50);
        t.same([left.path, right.path], ['stream', 'stream']);
        bench.unblock('direct');
        while (left.path !== 'direct' || right.path !== 'direct') run(10);
        run(1_000);
        bench.block('direct');
        run(15_000);
        t.same([left.path, right.path], ['stream', 'stream']);
        t.match(
          left.eventsOf('streams-wanted').map(({ wanted }) => wanted),
          [true, false, true],
        );
      },
    );
  }

  await t.test(
    'are wanted while the only pair is silent, and no more when it answers',
    async (t) => {
      const bench = connected({ paths: ['direct'] });
      bench.left.startTraffic(50);
      bench.block('direct');
      bench.run(3000);
      t.match(bench.left.eventsOf('streams-wanted'), [{ wanted: true }]);
      bench.unblock('direct');
      bench.run(1000);
      t.match(bench.left.eventsOf('streams-wanted'), [{ wanted: true }, { wanted: false }]);
      t.equal(bench.left.selections.length, 1);
    },
  );

  await t.test('one that closes moves its packets to another pair at once', async (t) => {
    const bench = new Bench({ paths: ['direct', 'relayed', 'stream'] });
    bench.block('direct');
    bench.block('relayed');
    bench.introduce();
    bench.run(2000);
    t.equal(bench.left.path, 'stream');
    const { left } = bench;
    const selected = left.connection.selected!;
    left.sockets.delete(selected.base);
    left.connection.handleBroken(selected, left.now);
    left.settle();
    t.equal(left.eventsOf('path-lost').length, 1);
    t.equal(left.connection.state, 'connecting');
    bench.unblock('relayed');
    bench.run(2000);
    t.same([left.path, bench.right.path], ['relayed', 'relayed']);
  });

  await t.test(
    'a channel that the relay refuses ends its pair, and another one is taken',
    async (t) => {
      const bench = new Bench();
      bench.block('direct');
      bench.introduce();
      bench.run(1000);
      const { left } = bench;
      t.equal(left.path, 'relayed');
      const relayed = left.connection.selected!;
      bench.unblock('direct');
      bench.ways.right.direct.delay = 1000;
      while (left.connection.alternatives().length === 0 && left.path === 'relayed') bench.run(5);
      left.connection.handleBroken(relayed, left.now);
      left.settle();
      t.equal(left.path, 'direct');
      t.same(left.eventsOf('path-lost'), []);
    },
  );
});

await t.test(
  'a base that goes takes its path with it, and the next one is used at once',
  async (t) => {
    const bench = connected();
    const { left, right } = bench;
    left.startTraffic(50);
    right.startTraffic(50);
    bench.run(5000);
    const { base } = left.connection.selected!;
    left.sockets.delete(base);
    left.connection.removeBase(base, left.now);
    left.settle();
    t.equal(left.selections.at(-1), 'relayed: base removed');
    bench.run(200);
    t.equal(right.path, 'relayed');
  },
);

await t.test('a change of the network has the path checked and the rest tried', async (t) => {
  const bench = connected();
  bench.run(60_000);
  bench.block('direct');
  bench.left.connection.handleNetworkChange(bench.left.now);
  bench.left.settle();
  t.equal(bench.left.eventsOf('signal-due').length, 2);
  bench.run(2000);
  t.same([bench.left.path, bench.right.path], ['relayed', 'relayed']);
});
