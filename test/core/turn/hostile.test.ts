import fc from 'fast-check';
import t from 'tap';
import { instantAt } from '../../../core/sansio/instant.ts';
import { encodeStun, type StunClass, type StunMethod } from '../../../core/stun/message.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';
import { crypto, MAPPED, PEER, Scene, SECOND, RELAYED_4, type Sent } from './turn-scene.ts';

/** What comes from the network without our key: nothing of it may change, throw or pile up anything. */

const SEED = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
const CLASSES: readonly StunClass[] = ['request', 'indication', 'success', 'error'];
const METHODS: readonly StunMethod[] = ['binding', 'allocate', 'refresh', 'send', 'channel-bind'];

await t.test(
  `10,000 random, mutated and replayed messages change nothing (SEED=${SEED})`,
  async (t) => {
    const random = new SeededRandom(SEED);
    const answers: Uint8Array[] = [];
    const scene = new Scene({}, undefined, SEED);
    scene.server.script = (request) => {
      answers.push(scene.server.encode(request, { attributes: { lifetime: 600 } }));
      return undefined;
    };
    scene.run(SECOND);
    scene.agent.channelTo(PEER, scene.now);
    scene.run(SECOND);
    scene.takeEvents();
    // Requests of all kinds are under way, and nobody but the attacker answers.
    scene.server.script = (request) => {
      answers.push(scene.server.encode(request, { attributes: { lifetime: 1 } }));
      return 'silence';
    };
    scene.agent.channelTo('192.0.2.99:1' as typeof PEER, scene.now);
    scene.agent.refresh(scene.now);
    scene.settle();
    const before = observe(scene);
    for (let i = 0; i < 10_000; i++) {
      const message = hostileMessage(random, answers, scene.sent);
      scene.agent.handleMessage(message, scene.now);
      if (scene.agent.pollTransmit() !== undefined) t.fail(`message ${i} made it send`);
    }
    for (let event; (event = scene.agent.pollEvent()) !== undefined;) {
      if (event.type !== 'data') t.fail(`told ${event.type}`);
    }
    t.same(observe(scene), before);
    const { malformed, unsolicited, unauthenticated } = scene.agent.drops;
    t.ok(malformed > 0 && unsolicited > 0 && unauthenticated > 0);
    scene.run(20 * SECOND);
    t.equal(scene.agent.state, 'failed', 'the refresh was never answered');
  },
);

await t.test(
  'forged challenges are followed a few times at most, and tell nobody the password',
  async (t) => {
    // Who sees our requests can answer 401 and 438: he can waste our time, and no more.
    const scene = Scene.allocated();
    let n = 0;
    scene.server.script = () => ({
      code: 438,
      isSigned: false,
      attributes: { realm: 'evil.test', nonce: `${n++}` },
    });
    scene.agent.refresh(scene.now);
    scene.run(20 * SECOND);
    t.ok(scene.sent.length <= 5);
    t.equal(scene.agent.state, 'failed');
  },
);

await t.test('any order of calls keeps the contract of agents', async (t) => {
  const call = fc.oneof(
    fc.record({ type: fc.constant('run' as const), ms: fc.nat(400_000) }),
    fc.record({ type: fc.constant('sleep' as const), ms: fc.nat(3_000_000) }),
    fc.record({ type: fc.constant('channel' as const), peer: fc.nat(5) }),
    fc.record({ type: fc.constant('traffic' as const), peer: fc.nat(5) }),
    fc.record({ type: fc.constant('refresh' as const) }),
    fc.record({ type: fc.constant('lose' as const) }),
    fc.record({ type: fc.constant('nonce' as const) }),
    fc.record({
      type: fc.constant('code' as const),
      code: fc.constantFrom(0, 1, 400, 401, 403, 437, 438, 441, 500),
    }),
  );
  fc.assert(
    fc.property(fc.array(call, { maxLength: 25 }), fc.nat(), (calls, seed) => {
      const scene = new Scene({}, undefined, seed);
      for (const step of calls) {
        if (step.type === 'run') scene.run(step.ms);
        else if (step.type === 'sleep') {
          scene.sleep(step.ms);
          scene.timeout();
        } else if (step.type === 'channel') {
          scene.agent.channelTo(`192.0.2.${step.peer}:1` as typeof PEER, scene.now);
        } else if (step.type === 'traffic') {
          scene.agent.handleTraffic(0x4000 + step.peer, scene.now);
        } else if (step.type === 'refresh') scene.agent.refresh(scene.now);
        else if (step.type === 'lose') scene.server.allocation = undefined;
        else if (step.type === 'nonce') scene.server.nonce += 'x';
        else {
          const { code } = step;
          scene.server.script = () => (code === 0 ? undefined : code === 1 ? 'silence' : { code });
        }
      }
      scene.agent.close(scene.now);
      scene.settle();
      const failures = scene.events.filter(({ event }) => event.type === 'failed');
      return failures.length === 1 && scene.agent.pollTimeout() === undefined;
    }),
    { numRuns: 300, seed: SEED },
  );
  t.pass(`SEED=${SEED}`);
});

function observe({ agent, now }: Scene) {
  const { state, rtt, relayed } = agent;
  const deadline = agent.pollTimeout();
  return { state, rtt, relayed, deadline, peer: agent.peerOf(0x4000), now: instantAt(now) };
}

function hostileMessage(
  random: SeededRandom,
  answers: readonly Uint8Array[],
  sent: readonly Sent[],
): Uint8Array {
  const pick = <T>(items: readonly T[]): T => items[random.next() % items.length]!;
  switch (random.next() % 5) {
    case 0: {
      const bytes = new Uint8Array(random.next() % 120);
      random.fill(bytes);
      return bytes;
    }
    case 1: {
      // A genuine answer, to a request under way too, with one bit changed.
      const bytes = pick(answers).slice();
      // FINGERPRINT, the last 8 bytes, is not under MESSAGE-INTEGRITY, and nothing hangs on it.
      const at = random.next() % (bytes.length - 8);
      bytes[at]! ^= 1 << (random.next() % 8);
      return bytes;
    }
    case 2:
      // Answers to requests that are over.
      return pick(answers.slice(0, 2));
    case 3:
      return pick(sent).bytes;
    default:
      // The right transaction, without the key or with another one.
      return forged(random, pick(sent), pick);
  }
}

function forged(
  random: SeededRandom,
  { request }: Sent,
  pick: <T>(items: readonly T[]) => T,
): Uint8Array {
  const integrityKey = new Uint8Array(16);
  random.fill(integrityKey);
  return encodeStun(
    {
      class: pick(CLASSES),
      method: random.next() % 2 === 0 ? request.method : pick(METHODS),
      transactionId: request.transactionId.slice(),
      attributes: {
        lifetime: 1,
        xorRelayedAddresses: [RELAYED_4],
        xorMappedAddress: MAPPED,
        errorCode: { code: pick([300, 400, 403, 437, 440, 441, 486, 500, 508]), reason: '' },
      },
    },
    { crypto, ...(random.next() % 2 === 0 && { integrityKey }) },
  );
}
