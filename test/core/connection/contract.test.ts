import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import t from 'tap';
import { encodeAnswer } from '../../../core/ice/binding.ts';
import { decoded } from '../ice/network.ts';
import { Connection } from '../../../core/connection/connection.ts';
import { ICE_TIMEOUT } from '../../../core/ice/agent.ts';
import { after, instantAt } from '../../../core/sansio/instant.ts';
import { derivePairSecrets } from '../../../core/connection/pair-secrets.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';
import { Bench, connected, crypto, isStream, KEYS, localCandidate, type Side } from './bench.ts';

await t.test('a drained connection stays silent, and asking changes nothing', async (t) => {
  const { left } = connected();
  for (let i = 0; i < 3; i++) {
    t.equal(left.connection.pollTransmit(), undefined);
    t.equal(left.connection.pollEvent(), undefined);
    t.same(left.connection.pollTimeout(), left.connection.pollTimeout());
  }
});

await t.test('while outputs are queued the deadline is the time of the last call', async (t) => {
  const { left } = connected();
  left.connection.handleNetworkChange(left.now);
  t.equal(left.connection.pollTimeout()?.at, left.now);
  left.settle();
  t.ok((left.connection.pollTimeout()?.at ?? 0) > left.now);
});

await t.test('events are told once, in order', async (t) => {
  const { left } = connected();
  left.connection.handleGoodbye('leaving', left.now);
  t.same(left.connection.pollEvent(), { type: 'path-lost' });
  t.equal(left.connection.pollEvent(), undefined);
});

/** Does one of the things that can happen to a connection. */
function act(side: Side, random: SeededRandom): void {
  const { connection, now } = side;
  const pair = connection.selected ?? connection.alternatives()[0];
  const candidates = side.other.candidates.filter(() => random.fraction() < 0.8);
  const fraction = random.fraction();
  if (fraction < 0.3) side.sendPacket();
  else if (fraction < 0.4) connection.wake(now);
  else if (fraction < 0.5) connection.setRemoteCandidates(candidates, now);
  else if (fraction < 0.55) connection.handlePeerRestart(now);
  else if (fraction < 0.6) connection.handleGoodbye('restarting', now);
  else if (fraction < 0.65) connection.handleHandshakeFailed('no-session', now);
  else if (fraction < 0.7) connection.handleNetworkChange(now);
  else if (fraction < 0.8 && pair !== undefined) connection.handleBroken(pair, now);
  else if (fraction < 0.9 && pair !== undefined) connection.handleOpened(pair, now);
  else connection.handleTransport({ sent: false, received: true, elsewhere: true }, now);
  side.settle();
}

await t.test(
  'whatever happens, when, the deadline is in the future and states agree',
  async (t) => {
    for (let seed = 1; seed <= 40; seed++) {
      const random = new SeededRandom(seed);
      const bench = new Bench({
        seed,
        loss: 0.1,
        jitter: 50,
        paths: ['direct', 'relayed', 'stream'],
      });
      bench.introduce();
      for (let step = 0; step < 150; step++) {
        const side = random.fraction() < 0.5 ? bench.left : bench.right;
        act(side, random);
        const { connection } = side;
        // The bench throws for a deadline in the past, and for one that does not go away.
        bench.run(random.fraction() < 0.1 ? random.fraction() * 40_000 : random.fraction() * 500);
        const hasPath = connection.state === 'connected' || connection.state === 'idle';
        if (hasPath !== (connection.selected !== undefined)) t.fail(`SEED=${seed} step ${step}`);
        const due = connection.pollTimeout();
        if (connection.state !== 'waiting' && due === undefined) t.fail(`SEED=${seed} no deadline`);
      }
      // Left alone they find each other again.
      bench.run(75_000);
      bench.left.sendPacket();
      bench.run(20_000);
      if (bench.left.path === undefined || bench.left.path !== bench.right.path) {
        t.fail(`SEED=${seed}: ${bench.left.path} and ${bench.right.path}`);
      }
    }
    t.pass();
  },
);

/** Fails when a side is in `connecting` for longer than an attempt takes. */
class AttemptWatch {
  readonly #side: Side;
  #seen = 0;
  #since: number | undefined;

  constructor(side: Side) {
    this.#side = side;
  }

  /** How long the attempt that is under way has been, as far as was seen. */
  look(): number {
    const { connection, events, bench } = this.#side;
    const isOver = events.slice(this.#seen).some(({ event }) => {
      return (
        event.type === 'failed' || event.type === 'path-selected' || event.type === 'path-lost'
      );
    });
    this.#seen = events.length;
    if (connection.state !== 'connecting' || isOver) this.#since = undefined;
    if (connection.state !== 'connecting') return 0;
    this.#since ??= bench.now;
    return bench.now - this.#since;
  }
}

await t.test(
  'whatever is lost and happens for hours, connecting ends, and all is well when the network is',
  async (t) => {
    const { SEED, SEEDS } = process.env;
    const first = Number(SEED ?? 1);
    const count = SEED === undefined ? Number(SEEDS ?? 10) : 1;
    for (let seed = first; seed < first + count; seed++) {
      const random = new SeededRandom(seed);
      const paths = ['direct', 'relayed', 'stream'] as const;
      const controlling = seed % 2 === 0 ? 'left' : 'right';
      const bench = new Bench({ seed, jitter: 50, paths, controlling });
      const sides = [bench.left, bench.right];
      const watches = sides.map((side) => new AttemptWatch(side));
      const runWatched = (ms: number) => {
        for (const end = bench.now + ms; bench.now < end;) {
          bench.run(Math.min(500, end - bench.now));
          for (const watch of watches) {
            if (watch.look() > ICE_TIMEOUT + 1_000) t.fail(`SEED=${seed}: connecting for ever`);
          }
        }
      };
      bench.introduce();
      for (const end = bench.now + 2 * 3_600_000; bench.now < end;) {
        bench.hasBroker = random.fraction() < 0.7;
        for (const path of paths) {
          bench.block(path, 'both', random.fraction() < 0.6);
          for (const side of sides) bench.ways[side.name][path].loss = random.fraction() ** 2;
        }
        for (let acts = random.fraction() * 4; acts > 0; acts--) {
          act(random.fraction() < 0.5 ? bench.left : bench.right, random);
          // A goodbye ends an attempt too.
          for (const watch of watches) watch.look();
          runWatched(random.fraction() * 2_000);
        }
        runWatched(random.fraction() ** 2 * 90_000);
      }
      for (const path of paths) {
        bench.unblock(path);
        for (const side of sides) bench.ways[side.name][path].loss = 0;
      }
      runWatched(150_000);
      const states = sides.map(({ path, connection }) => `${connection.state} ${path}`);
      const isWell = bench.left.path !== undefined && bench.left.path === bench.right.path;
      if (!isWell) t.fail(`SEED=${seed}: ${states.join(', ')}`);
    }
    t.pass();
  },
);

await t.test(
  'a driver that comes each 100 ms sees the same as one that comes in time',
  async (t) => {
    const outcome = (tick: number) => {
      const bench = connected({ seed: 3 });
      bench.tick = tick;
      bench.left.startTraffic(100);
      bench.right.startTraffic(100);
      bench.run(10_000);
      bench.block('direct');
      bench.run(20_000);
      bench.unblock('direct');
      bench.run(60_000);
      return [bench.left.selections, bench.right.selections];
    };
    t.same(outcome(100), outcome(0));
  },
);

await t.test('calls that come late cause one thing of each kind', async (t) => {
  const { left } = connected();
  left.connection.wake(left.now);
  const late = after(left.now, 3_600_000);
  left.connection.handleTimeout(late);
  let transmits = 0;
  while (left.connection.pollTransmit() !== undefined) transmits++;
  t.ok(transmits <= 3, `${transmits} transmits`);
  while (left.connection.pollEvent() !== undefined);
  t.ok((left.connection.pollTimeout()?.at ?? 0) > late);
});

await t.test(
  'an idle connection with ten candidates of the peer takes less than 8 KB',
  async (t) => {
    const secrets = derivePairSecrets(KEYS.left, KEYS.right.publicKey, '', crypto);
    if (secrets === undefined) throw new Error('no secrets');
    const theirs = { local: secrets.remoteIce, remote: secrets.localIce, crypto };
    const COUNT = 1000;
    const start = instantAt(1000);
    const random = new SeededRandom(1);
    const own = localCandidate('left', 'direct', '192.0.2.1:1000');
    const create = (): Connection => {
      const connection = new Connection({ secrets, isStream, random, crypto }, start);
      connection.addLocalCandidate(own.candidate, own.base, start);
      const remotes = Array.from({ length: 10 }, (_, i) => {
        return localCandidate('right', 'direct', `198.51.100.1:${2000 + i}`).candidate;
      });
      connection.setRemoteCandidates(remotes, start);
      for (let ms = 1000; ms < 60_000; ms += 100) {
        const now = instantAt(ms);
        connection.handleTimeout(now);
        for (let sent = connection.pollTransmit(); sent; sent = connection.pollTransmit()) {
          const { base, to: from, payload } = sent;
          // One of the candidates answers.
          if (!from.endsWith(':2000')) continue;
          const answer = encodeAnswer(decoded(payload), { class: 'success', from }, theirs);
          connection.handleStun({ message: decoded(answer), base, from }, now);
        }
        while (connection.pollEvent() !== undefined) connection.handleSession(now);
      }
      return connection;
    };
    const kept = [create()];
    const before = heapUsed();
    while (kept.length <= COUNT) kept.push(create());
    const each = (heapUsed() - before) / COUNT;
    t.comment(`${Math.round(each)} bytes`);
    t.ok(each < 8192, `${Math.round(each)} bytes`);
    t.ok(kept.every(({ state }) => state === 'idle'));
  },
);

function heapUsed(): number {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  collect();
  collect();
  return process.memoryUsage().heapUsed;
}
