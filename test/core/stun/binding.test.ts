import t from 'tap';
import type { SocketAddress } from '../../../core/net/socket-address.ts';
import { encodeHex } from '../../../core/sansio/hex.ts';
import { BindingClient, type BindingEvent } from '../../../core/stun/binding.ts';
import { decodeStun, encodeStun, type StunAttributes } from '../../../core/stun/message.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';
import { crypto, MAPPED, MINUTE, SECOND, Timeline } from '../turn/turn-scene.ts';

const MOVED = '203.0.113.10:4711' as SocketAddress;

/** What a server answers; `undefined` is silence. */
type Reply = StunAttributes | 'error' | undefined;

/** A client, and a server that answers each request with `reply`. */
class BindingScene extends Timeline<BindingClient, BindingEvent> {
  readonly #server: { reply: Reply };

  constructor(reply: Reply, seed = 1) {
    const server = { reply };
    const random = new SeededRandom(seed);
    super(
      (now) => new BindingClient({ software: 'culvert', random, crypto }, now),
      (message) => {
        const request = decodeStun(message);
        if (!request.ok || server.reply === undefined) return undefined;
        return answer(request.value.transactionId, server.reply);
      },
    );
    this.#server = server;
  }

  set reply(reply: Reply) {
    this.#server.reply = reply;
  }
}

await t.test(
  'our address is told at first and when it changes, and asked for each 25 s',
  async (t) => {
    const scene = new BindingScene({ xorMappedAddress: MAPPED });
    scene.run(60 * SECOND);
    t.same(scene.events, [{ at: 20, event: { type: 'mapped', address: MAPPED } }]);
    t.same(
      scene.sent.map(({ at }) => at),
      [0, 25_020, 50_040],
    );
    t.equal(scene.agent.rtt, 20);
    t.equal(scene.agent.mapped, MAPPED);
    scene.reply = { xorMappedAddress: MOVED };
    scene.takeEvents();
    scene.run(60 * SECOND);
    t.same(scene.takeEvents(), [{ type: 'mapped', address: MOVED }]);
  },
);

await t.test(
  'a request is repeated with fresh ids at 1, 2.5 and 4.75 s and given up at 8.125 s',
  async (t) => {
    const scene = new BindingScene(undefined);
    scene.run(8_125);
    t.same(
      scene.sent.map(({ at }) => at),
      [0, 1000, 2500, 4750],
    );
    t.equal(new Set(scene.sent.map(({ request }) => encodeHex(request.transactionId))).size, 4);
    t.same(scene.events, [{ at: 8125, event: { type: 'failed', why: 'no-response' } }]);
  },
);

await t.test('a server that fails is asked for ever, and told as failed once', async (t) => {
  const scene = new BindingScene(undefined);
  scene.run(60 * MINUTE);
  t.same(scene.takeEvents(), [{ type: 'failed', why: 'no-response' }]);
  t.ok(scene.sent.length > (4 * 60 * 60) / 70, 'after at most 60 s each time');
  scene.reply = { xorMappedAddress: MAPPED };
  scene.run(2 * MINUTE);
  t.same(scene.takeEvents(), [{ type: 'mapped', address: MAPPED }]);
});

await t.test('the time between attempts is random and grows to 60 s', async (t) => {
  const rests = (refusals: number) =>
    Array.from({ length: 200 }, (_, seed) => {
      const scene = new BindingScene('error', seed + 1);
      scene.run(20);
      for (let i = 1; i < refusals; i++) scene.run(scene.agent.pollTimeout().at - scene.now + 20);
      return scene.agent.pollTimeout().at - scene.now;
    });
  for (const [refusals, longest] of [
    [1, 1_000],
    [2, 2_000],
    [3, 4_000],
    [9, 60_000],
  ] as const) {
    const all = rests(refusals);
    t.ok(Math.max(...all) <= longest && Math.max(...all) > 0.9 * longest, `after ${refusals}`);
    t.ok(Math.min(...all) >= 100 && Math.min(...all) < 0.2 * longest);
  }
});

await t.test('an error is a refusal', async (t) => {
  const scene = new BindingScene('error');
  scene.run(SECOND);
  t.match(scene.events[0], { at: 20, event: { type: 'failed', why: 'refused' } });
});

await t.test('servers of RFC 3489 send the address plain', async (t) => {
  const scene = new BindingScene({ mappedAddress: MAPPED });
  scene.run(SECOND);
  t.equal(scene.agent.mapped, MAPPED);
});

await t.test('what answers no request changes nothing', async (t) => {
  const scene = new BindingScene(undefined);
  const random = new SeededRandom(7);
  const before = scene.agent.pollTimeout();
  const { request } = scene.sent[0]!;
  const forged = encodeStun(
    {
      class: 'success',
      method: 'binding',
      transactionId: new Uint8Array(12),
      attributes: { xorMappedAddress: MOVED },
    },
    { crypto },
  );
  const wrongMethod = answer(request.transactionId, { xorMappedAddress: MOVED }, 'allocate');
  for (let i = 0; i < 10_000; i++) {
    let bytes = [forged, wrongMethod, scene.sent[0]!.bytes][i % 4];
    if (bytes === undefined) {
      bytes = new Uint8Array(random.next() % 80);
      random.fill(bytes);
    }
    scene.agent.handleMessage(bytes, scene.now);
  }
  t.equal(scene.agent.pollEvent(), undefined);
  t.equal(scene.agent.pollTransmit(), undefined);
  t.same(scene.agent.pollTimeout(), before);
});

await t.test('an answer that comes twice is told once', async (t) => {
  const scene = new BindingScene({ xorMappedAddress: MAPPED });
  const bytes = answer(scene.sent[0]!.request.transactionId, { xorMappedAddress: MOVED });
  scene.agent.handleMessage(bytes, scene.now);
  scene.agent.handleMessage(bytes, scene.now);
  scene.run(SECOND);
  t.same(scene.takeEvents(), [{ type: 'mapped', address: MOVED }]);
});

await t.test('a driver that is late by hours asks once', async (t) => {
  const scene = new BindingScene({ xorMappedAddress: MAPPED });
  scene.run(SECOND);
  scene.takeSent();
  scene.sleep(180 * MINUTE);
  scene.timeout();
  t.equal(scene.sent.length, 1);
});

function answer(
  transactionId: Uint8Array,
  reply: StunAttributes | 'error',
  method: 'binding' | 'allocate' = 'binding',
): Uint8Array {
  const isError = reply === 'error';
  return encodeStun(
    {
      class: isError ? 'error' : 'success',
      method,
      transactionId: transactionId.slice(),
      attributes: isError ? { errorCode: { code: 500, reason: 'no' } } : reply,
    },
    { crypto },
  );
}
