import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import t, { type Test } from 'tap';
import { IceAgent } from '../../../core/ice/agent.ts';
import { encodeAnswer, isAuthenticAnswer, isAuthenticRequest } from '../../../core/ice/binding.ts';
import { after, instantAt, type Instant } from '../../../core/sansio/instant.ts';
import { decodeStun } from '../../../core/stun/message.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';
import {
  at,
  candidate,
  createPair,
  crypto,
  decoded,
  host,
  introduce,
  LEFT,
  LEFT_PAIR,
  lossyLink,
  Network,
  RIGHT,
  type Datagram,
  type Peer,
} from './network.ts';

const SEED = Number(process.env['SEED'] ?? 1);

await t.test('at 20 % loss both sides have a valid pair within 10 s', async (t) => {
  let slowest = 0;
  for (let seed = SEED; seed < SEED + 200; seed++) {
    const network = new Network(lossyLink(new SeededRandom(seed), 0.2));
    const left = network.addPeer('controlling', 'left', seed);
    const right = network.addPeer('controlled', 'right', seed);
    left.open('192.0.2.1:1000', network.now);
    left.open('[2001:db8::1]:1000', network.now);
    right.open('198.51.100.1:2000', network.now);
    const start = network.now;
    introduce(network, left, right);
    network.run(10_000);
    const [a, b] = [left, right].map((peer) => peer.events[0]);
    if (a?.event.type !== 'pair-valid' || b?.event.type !== 'pair-valid') {
      t.fail(`no valid pair, SEED=${seed}`);
      continue;
    }
    slowest = Math.max(slowest, a.at - start, b.at - start);
  }
  t.comment(`the slowest took ${Math.round(slowest)} ms`);
  t.ok(slowest <= 10_000);
});

/** All that shows of an agent. */
function stateOf({ agent, events, sent }: Peer): string {
  return JSON.stringify([
    agent.role,
    agent.validPairs(),
    agent.pollTimeout(),
    events.length,
    sent.length,
  ]);
}

await t.test('10,000 datagrams that do not authenticate change nothing', async (t) => {
  const random = new SeededRandom(SEED);
  const below = (limit: number) => Math.floor(random.fraction() * limit);
  const seen: Datagram[] = [];
  const { network, left, right } = createPair({
    link: (datagram) => {
      seen.push(datagram);
      return 10;
    },
  });
  network.run(100);
  left.agent.nominate(LEFT_PAIR, network.now);
  right.agent.probe({ base: '198.51.100.1:2000', remote: at('192.0.2.1:1000') }, network.now);
  network.run(100);
  left.agent.probe(LEFT_PAIR, network.now);
  left.settle(network.now);
  const inFlight = left.checks.at(-1)?.message.transactionId ?? new Uint8Array(12);

  let [unauthentic, authentic] = [0, 0];
  for (let n = 0; n < 10_000; n++) {
    const payload = seen[below(seen.length)]?.payload.slice() ?? new Uint8Array(0);
    // Some are random behind the header of STUN, some nearly right, some with an id that is awaited.
    const kind = below(4);
    if (kind === 0) random.fill(payload.subarray(20));
    if (kind === 1) payload[below(payload.length)] = below(256);
    if (kind === 2) payload.set(inFlight, 8);
    if (kind === 3) payload.fill(below(256), below(payload.length));
    const from = at(`203.0.113.${below(256)}:${1 + below(60_000)}`);
    const message = decodeStun(payload);
    const context = { local: LEFT, remote: RIGHT, crypto };
    const isAuthentic =
      message.ok &&
      (isAuthenticRequest(message.value, context) || isAuthenticAnswer(message.value, context));
    if (isAuthentic) {
      authentic++;
      continue;
    }
    unauthentic++;
    const before = stateOf(left);
    left.receive(payload, '192.0.2.1:1000', below(2) === 0 ? from : LEFT_PAIR.remote, network.now);
    if (stateOf(left) !== before) t.fail(`datagram ${n} changed the state, SEED=${SEED}`);
  }
  t.ok(unauthentic > 7000, `${unauthentic} of them, ${authentic} were authentic after all`);
  t.ok(left.agent.owns(inFlight));
});

await t.test(
  'copies of authentic checks from everywhere leave little and break nothing',
  async (t) => {
    const random = new SeededRandom(SEED);
    const seen: Datagram[] = [];
    const { network, left } = createPair({
      link: (datagram) => {
        seen.push(datagram);
        return 10;
      },
    });
    network.run(100);
    const copies = seen.filter(({ to }) => to === '192.0.2.1:1000').map(({ payload }) => payload);
    network.link = ({ to }) =>
      to === LEFT_PAIR.remote || to === '192.0.2.1:1000' ? 10 : undefined;
    const heapBefore = heapUsed();
    for (let n = 0; n < 10_000; n++) {
      const from = at(`203.0.113.${n % 256}:${1 + Math.floor(random.fraction() * 60_000)}`);
      const copy = copies[n % copies.length] ?? new Uint8Array(0);
      const message = decoded(copy);
      left.agent.handleStun({ message, base: '192.0.2.1:1000', from }, network.now);
      while (left.agent.pollTransmit() !== undefined); // nobody looks at them here
      if (n % 10 === 0) network.run(1);
    }
    t.ok(heapUsed() - heapBefore < 1_000_000, 'what is remembered is bounded');
    const count = left.checks.length;
    network.run(60_000);
    t.ok(left.checks.length - count < 200, 'and is not checked for long');
    t.same(left.valid, ['192.0.2.1:1000 → 198.51.100.1:2000']);
    t.same(left.eventsOf('pair-gone'), []);
  },
);

await t.test('a doubled datagram changes no outcome', async (t) => {
  for (let seed = SEED; seed < SEED + 20; seed++) {
    const outcomes = [false, true].map((isDoubled) => {
      const { network, left, right } = createPair({ seed });
      if (isDoubled) {
        for (const peer of [left, right]) {
          const once = peer.receive.bind(peer);
          peer.receive = (...args) => {
            once(...args);
            once(...args);
          };
        }
      }
      network.run(100);
      left.agent.nominate(LEFT_PAIR, network.now);
      network.run(5000);
      return [left.valid, right.valid, right.eventsOf('nominated').length > 0];
    });
    t.same(outcomes[0], outcomes[1], `SEED=${seed}`);
  }
});

/** Keeps the valid pairs of a peer from its events alone. */
class Follower {
  readonly pairs = new Set<string>();
  readonly #peer: Peer;
  #read = 0;

  constructor(peer: Peer) {
    this.#peer = peer;
  }

  follow(t: Test, now: Instant): void {
    this.#peer.settle(now);
    for (const { event } of this.#peer.events.slice(this.#read)) {
      if (event.type === 'failed') continue;
      const pair = `${event.pair.base} → ${event.pair.remote}`;
      const wasKnown = this.pairs.has(pair);
      if (wasKnown === (event.type === 'pair-valid')) t.fail(`${event.type}: ${pair}`);
      if (event.type === 'pair-valid') this.pairs.add(pair);
      if (event.type === 'pair-gone') this.pairs.delete(pair);
    }
    this.#read = this.#peer.events.length;
  }

  get sorted(): readonly string[] {
    return [...this.pairs].sort();
  }
}

/** Does something at random to two peers. */
function act(network: Network, random: SeededRandom, follower: Follower): void {
  const [left, right] = network.peers;
  if (left === undefined || right === undefined) throw new Error('no peers');
  const { now } = network;
  const below = (limit: number) => Math.floor(random.fraction() * limit);
  const [valid] = left.agent.validPairs().slice(below(4));
  switch (below(12)) {
    case 0:
      return void left.open(`192.0.2.${below(4)}:1000`, now);
    case 1:
      return void right.open(`198.51.100.${below(4)}:1000`, now);
    case 2: {
      const [base] = left.sockets.keys();
      if (base === undefined) return;
      left.sockets.delete(base);
      return left.agent.removeBase(base, now);
    }
    case 3: {
      const some = right.candidates.filter(() => below(3) > 0);
      return left.agent.setRemoteCandidates(some, now);
    }
    case 4:
      return right.agent.setRemoteCandidates(left.candidates, now);
    case 5:
      return valid && left.agent.nominate(valid, now);
    case 6:
      return left.agent.validPairs().forEach((pair) => left.agent.probe(pair, now));
    case 7:
      if (valid === undefined) return;
      follower.pairs.delete(`${valid.base} → ${valid.remote}`);
      return left.agent.invalidate(valid, now);
    case 8:
      return left.agent.recheck(now);
    case 9:
      if (below(10) > 0) return right.agent.stop(now);
      follower.pairs.clear();
      return left.agent.stop(now);
    case 10:
      return network.run(below(4000));
    default:
      return network.run(below(300));
  }
}

await t.test('events tell all there is to know of valid pairs, whatever happens', async (t) => {
  for (let seed = SEED; seed < SEED + 30; seed++) {
    const random = new SeededRandom(seed);
    const network = new Network(lossyLink(random, 0.1));
    const left = network.addPeer('controlling', 'left', seed);
    network.addPeer('controlled', 'right', seed);
    const follower = new Follower(left);
    for (let step = 0; step < 300; step++) {
      act(network, random, follower);
      follower.follow(t, network.now);
      if (follower.sorted.join() === [...left.valid].sort().join()) continue;
      t.same(follower.sorted, [...left.valid].sort(), `SEED=${seed}, step ${step}`);
      break;
    }
    t.ok(left.eventsOf('pair-valid').length > 0, `SEED=${seed}`);
  }
});

await t.test('the contract of agents', async (t) => {
  await t.test('a drained agent stays silent, and asking changes nothing', async (t) => {
    const { network, left } = createPair();
    network.run(15);
    for (let i = 0; i < 3; i++) {
      t.equal(left.agent.pollTransmit(), undefined);
      t.equal(left.agent.pollEvent(), undefined);
      t.same(left.agent.pollTimeout(), left.agent.pollTimeout());
    }
  });

  await t.test('while outputs are queued the deadline is the time of the last call', async (t) => {
    const { network, left } = createPair();
    network.run(100);
    left.agent.probe(LEFT_PAIR, network.now);
    t.equal(left.agent.pollTimeout()?.at, network.now);
    left.settle(network.now);
    t.ok((left.agent.pollTimeout()?.at ?? 0) > network.now);
  });

  await t.test('after handleTimeout at any time the deadline is in the future', async (t) => {
    const random = new SeededRandom(SEED);
    for (let run = 0; run < 50; run++) {
      const network = new Network();
      const left = network.addPeer('controlling', 'left', run);
      left.open('192.0.2.1:1000', network.now);
      const all = Array.from({ length: 12 }, (_, i) => host(`198.51.100.1:${2000 + i}`, i));
      left.agent.setRemoteCandidates(all, network.now);
      left.settle(network.now);
      let { now } = network;
      for (let i = 0; i < 60; i++) {
        now = after(now, random.fraction() * 700);
        left.agent.handleTimeout(now);
        left.settle(now);
        const deadline = left.agent.pollTimeout();
        if (deadline !== undefined && deadline.at <= now)
          t.fail(`${deadline.reason}, SEED=${SEED}`);
      }
      const gaps = left.checks.map((check, i) => check.at - (left.checks[i - 1]?.at ?? -Infinity));
      t.ok(
        gaps.every((gap) => gap >= 20),
        'and no checks leave closer than Ta',
      );
    }
  });

  await t.test('calls that nothing asked for change no outcome', async (t) => {
    const timelines = [0, 7].map((tick) => {
      const { network, left } = createPair({ link: () => undefined });
      const calls = tick === 0 ? 0 : Math.ceil(12_000 / tick);
      for (let i = 0; i < calls; i++) {
        network.run(tick);
        left.agent.handleTimeout(network.now);
      }
      network.run(20_000);
      return left.checks.map((check) => [check.at, check.to]);
    });
    t.same(timelines[0], timelines[1]);
  });
});

await t.test('an idle agent with ten candidates is below 6 KB', async (t) => {
  const COUNT = 500;
  const agents: IceAgent[] = [];
  const random = new SeededRandom(SEED);
  const build = () => {
    const now = instantAt(0);
    const agent = new IceAgent(
      { role: 'controlling', local: LEFT, remote: RIGHT, random, crypto },
      now,
    );
    locals.forEach((local, i) => agent.addLocalCandidate(local, `udp ${i}`, now));
    agent.setRemoteCandidates(remotes(), now);
    for (let ms = 0; ms < 20_000; ms += 100) {
      const time = instantAt(ms);
      agent.handleTimeout(time);
      for (let transmit = agent.pollTransmit(); transmit; transmit = agent.pollTransmit()) {
        const { base, to: from, payload } = transmit;
        const context = { local: RIGHT, remote: LEFT, crypto };
        const answer = encodeAnswer(decoded(payload), { class: 'success', from }, context);
        // The relay answers and all of one base, as it mostly is.
        if (base !== 'udp 0' && !from.startsWith('198.51.100.5')) continue;
        agent.handleStun({ message: decoded(answer), base, from }, time);
      }
      while (agent.pollEvent() !== undefined);
    }
    return agent;
  };
  // Those of this host are shared by all its agents; each peer signals its own.
  const locals = ['1', '2', '3', '4', '5'].map((n, i) => host(`192.0.2.${n}:1000`, i));
  const remotes = () =>
    ['1', '2', '3', '4', '5'].map((n) => candidate('srflx', `198.51.100.${n}:2000`));

  build();
  const before = heapUsed();
  for (let i = 0; i < COUNT; i++) agents.push(build());
  const each = (heapUsed() - before) / COUNT;
  t.comment(`${Math.round(each)} bytes an agent`);
  t.ok(each < 6 * 1024, `${Math.round(each)} bytes`);
  t.equal(agents[0]?.pollTimeout(), undefined);
});

function heapUsed(): number {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  collect();
  collect();
  return process.memoryUsage().heapUsed;
}
