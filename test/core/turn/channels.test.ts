import t from 'tap';
import type { SocketAddress } from '../../../core/net/socket-address.ts';
import { BIND_INTERVAL, MOST_BINDS } from '../../../core/turn/allocation.ts';
import { MINUTE, methods, OTHER_PEER, PEER, Scene, SECOND, TurnServer } from './turn-scene.ts';

await t.test('a channel is usable while it is being bound, and told when it is', async (t) => {
  const scene = Scene.allocated();
  t.equal(scene.agent.channelTo(PEER, scene.now), 0x4000);
  t.equal(scene.agent.channelTo(OTHER_PEER, scene.now), 0x4001);
  t.equal(scene.agent.channelTo(PEER, scene.now), 0x4000);
  t.equal(scene.agent.peerOf(0x4001), OTHER_PEER);
  t.equal(scene.agent.peerOf(0x4002), undefined);
  scene.run(SECOND);
  t.same(scene.takeEvents(), [
    { type: 'channel-bound', peer: PEER, channel: 0x4000 },
    { type: 'channel-bound', peer: OTHER_PEER, channel: 0x4001 },
  ]);
  t.match(scene.sent[0]?.request.attributes, { channelNumber: 0x4000, xorPeerAddresses: [PEER] });
  t.equal(scene.sent.length, 2);
});

await t.test('a channel waits for the allocation', async (t) => {
  const scene = new Scene();
  t.equal(scene.agent.channelTo(PEER, scene.now), 0x4000);
  scene.run(SECOND);
  t.same(methods(scene.sent), ['allocate', 'allocate', 'channel-bind']);
  t.match(scene.takeEvents(), [{ type: 'allocated' }, { type: 'channel-bound' }]);
});

await t.test('a peer that the relay refuses is refused, and the allocation goes on', async (t) => {
  for (const code of [400, 403, 443]) {
    const scene = Scene.allocated();
    scene.server.script = ({ attributes }) =>
      attributes.xorPeerAddresses?.[0] === PEER ? { code } : undefined;
    scene.agent.channelTo(PEER, scene.now);
    scene.agent.channelTo(OTHER_PEER, scene.now);
    scene.run(SECOND);
    t.same(scene.takeEvents(), [
      { type: 'channel-refused', peer: PEER },
      { type: 'channel-bound', peer: OTHER_PEER, channel: 0x4001 },
    ]);
    t.equal(scene.agent.state, 'allocated', `${code}`);
    t.equal(scene.agent.channelTo(PEER, scene.now), undefined, 'not asked for again soon');
    scene.run(6 * MINUTE);
    scene.server.script = () => undefined;
    t.equal(scene.agent.channelTo(PEER, scene.now), 0x4000, 'but later');
    scene.run(SECOND);
    t.match(scene.takeEvents().at(-1), { type: 'channel-bound', peer: PEER });
  }
});

await t.test('a port that another login holds is lost for all channels (441)', async (t) => {
  const scene = Scene.allocated();
  scene.server.script = () => ({ code: 441 });
  scene.agent.channelTo(PEER, scene.now);
  scene.run(SECOND);
  t.same(scene.takeEvents(), [{ type: 'failed', why: 'held-by-another-login', code: 441 }]);
});

await t.test(
  'a binding without answer is no refusal: the relay is asked whether it is there, and for the channel again',
  async (t) => {
    const scene = Scene.allocated();
    scene.server.script = ({ method }) => (method === 'channel-bind' ? 'silence' : undefined);
    const channel = scene.agent.channelTo(PEER, scene.now);
    scene.run(10 * SECOND);
    t.same(methods(scene.takeSent()), [...Array<string>(4).fill('channel-bind'), 'refresh']);
    t.equal(scene.agent.channelTo(PEER, scene.now), channel, 'what is wanted meanwhile');
    scene.server.script = () => undefined;
    scene.run(SECOND);
    t.same(methods(scene.takeSent()), ['channel-bind'], 'after 2 s');
    t.same(scene.takeEvents(), [{ type: 'channel-bound', peer: PEER, channel }]);
  },
);

await t.test(
  'a relay that cannot bind a channel at present is asked ever more rarely',
  async (t) => {
    for (const code of [500, 508]) {
      const scene = Scene.allocated();
      scene.server.script = ({ method }) => (method === 'channel-bind' ? { code } : undefined);
      for (let second = 0; second < 600; second++) {
        scene.agent.channelTo(PEER, scene.now);
        scene.run(SECOND);
      }
      const times = scene.sent.flatMap(({ at, request }) =>
        request.method === 'channel-bind' ? at : [],
      );
      const gaps = times.slice(1).map((at, i) => Math.round((at - times[i]!) / SECOND));
      t.same(gaps.slice(0, 8), [2, 4, 8, 16, 32, 60, 60, 60], `${code}`);
      t.same(scene.takeEvents(), []);
    }
  },
);

await t.test('a channel that is wanted no more is not asked for again', async (t) => {
  const scene = Scene.allocated();
  scene.server.script = ({ method }) => (method === 'channel-bind' ? { code: 500 } : undefined);
  scene.agent.channelTo(PEER, scene.now);
  scene.run(MINUTE);
  t.equal(methods(scene.takeSent()).filter((method) => method === 'channel-bind').length, 1);
});

await t.test('a bound channel whose prolongation fails goes on, and is told once', async (t) => {
  const scene = Scene.allocated();
  scene.agent.channelTo(PEER, scene.now);
  for (let i = 0; i < 60; i++) {
    scene.agent.handleTraffic(0x4000, scene.now);
    scene.server.script = ({ method }) =>
      method === 'channel-bind' && i < 20 && i > 0 ? 'silence' : undefined;
    scene.run(15 * SECOND);
    t.equal(scene.agent.peerOf(0x4000), PEER);
  }
  t.same(scene.takeEvents(), [{ type: 'channel-bound', peer: PEER, channel: 0x4000 }]);
});

await t.test('data on a channel of an old allocation are dropped', async (t) => {
  const scene = Scene.allocated();
  const channel = scene.agent.channelTo(PEER, scene.now)!;
  scene.run(SECOND);
  t.equal(scene.agent.peerOf(channel), PEER);
  scene.server.allocation = undefined;
  scene.agent.refresh(scene.now);
  scene.run(25);
  t.equal(scene.agent.state, 'allocating');
  t.equal(scene.agent.peerOf(channel), undefined, 'of which there is none');
  scene.run(SECOND);
  t.equal(scene.agent.peerOf(channel), PEER, 'until it is bound again');
});

await t.test(
  'an allocation lost with a thousand channels has them bound again 32 at a time',
  async (t) => {
    const scene = Scene.allocated();
    for (let i = 0; i < 1000; i++) scene.agent.channelTo(peer(0, i), scene.now);
    scene.run(10 * SECOND);
    t.equal(scene.takeEvents().length, 1000);
    scene.takeSent();
    scene.server.allocation = undefined;
    scene.agent.refresh(scene.now);
    scene.run(10 * SECOND);
    const times = scene.sent.flatMap(({ at, request }) =>
      request.method === 'channel-bind' ? at : [],
    );
    t.equal(times.length, 1000);
    for (const [i, at] of times.entries()) {
      if (i + MOST_BINDS < times.length) t.ok(times[i + MOST_BINDS]! - at >= BIND_INTERVAL);
    }
    t.equal(times.at(-1)! - times[0]!, 31 * BIND_INTERVAL);
    t.equal((scene.server.allocation as TurnServer['allocation'])!.channels.size, 1000);
  },
);

await t.test(
  'a channel in use is prolonged before its permission is over (RFC 8656 §9)',
  async (t) => {
    const scene = Scene.allocated();
    scene.agent.channelTo(PEER, scene.now);
    scene.run(SECOND);
    scene.takeEvents();
    for (let i = 0; i < 60; i++) {
      scene.agent.handleTraffic(0x4000, scene.now);
      scene.run(20 * SECOND);
    }
    const times = scene.sent.flatMap(({ at, request }) =>
      request.method === 'channel-bind' ? at : [],
    );
    const gaps = times.slice(1).map((at, i) => at - times[i]!);
    t.equal(gaps.length, 5);
    t.ok(gaps.every((gap) => gap < 5 * MINUTE - 8 * SECOND));
    t.same(scene.takeEvents(), [], 'which is no news');
  },
);

await t.test(
  'a channel that nobody uses is given up, and bound again with its number when it is',
  async (t) => {
    for (const use of ['asked for', 'traffic'] as const) {
      const scene = Scene.allocated();
      scene.agent.channelTo(PEER, scene.now);
      scene.run(9 * MINUTE);
      t.equal(methods(scene.takeSent()).filter((method) => method === 'channel-bind').length, 1);
      if (use === 'traffic') scene.agent.handleTraffic(0x4000, scene.now);
      else t.equal(scene.agent.channelTo(PEER, scene.now), 0x4000);
      scene.settle();
      t.same(methods(scene.takeSent()), ['channel-bind'], use);
    }
  },
);

await t.test(
  'a number rests for 15 min after it was last bound, then it is forgotten',
  async (t) => {
    const scene = Scene.allocated();
    scene.agent.channelTo(PEER, scene.now);
    scene.run(14 * MINUTE);
    t.equal(scene.agent.peerOf(0x4000), PEER);
    scene.run(2 * MINUTE);
    t.equal(scene.agent.peerOf(0x4000), undefined);
    t.equal(scene.agent.channelTo(OTHER_PEER, scene.now), 0x4001, 'numbers are taken in turn');
  },
);

await t.test('there are 1024 channels, and their numbers start over where free', async (t) => {
  const scene = Scene.allocated();
  const seen = new Set<number>();
  for (let round = 0; round < 5; round++) {
    for (let i = 0; i < 1024; i++) {
      const channel = scene.agent.channelTo(peer(round, i), scene.now);
      if (channel === undefined) t.fail(`no channel ${i} in round ${round}`);
      else seen.add(channel);
    }
    t.equal(scene.agent.channelTo(peer(9, 9), scene.now), undefined, 'full');
    scene.run(4 * SECOND);
    t.equal(scene.takeEvents().length, 1024);
    scene.run(16 * MINUTE);
  }
  t.equal(seen.size, 4096);
  t.ok([...seen].every((channel) => channel >= 0x4000 && channel <= 0x4fff));
});

await t.test(
  'a channel that went idle is not bound at the next allocation, the others are',
  async (t) => {
    const scene = Scene.allocated();
    scene.agent.channelTo(PEER, scene.now);
    scene.agent.channelTo(OTHER_PEER, scene.now);
    for (let i = 0; i < 20; i++) {
      scene.run(20 * SECOND);
      scene.agent.handleTraffic(0x4001, scene.now);
    }
    scene.server.allocation = undefined;
    scene.agent.refresh(scene.now);
    scene.run(SECOND);
    t.same(
      [...(scene.server.allocation as TurnServer['allocation'])!.channels.values()],
      [OTHER_PEER],
    );
  },
);

await t.test('a late driver prolongs a used channel once and forgets an unused one', async (t) => {
  const server = new TurnServer();
  server.lifetime = 3_600;
  const scene = Scene.allocated({}, server);
  scene.agent.channelTo(PEER, scene.now);
  scene.agent.channelTo(OTHER_PEER, scene.now);
  scene.run(SECOND);
  scene.agent.handleTraffic(0x4000, scene.now);
  scene.takeSent();
  scene.sleep(25 * MINUTE);
  scene.timeout();
  t.same(methods(scene.takeSent()).filter((method) => method === 'channel-bind').length, 1);
  t.equal(scene.agent.peerOf(0x4000), PEER);
  t.equal(scene.agent.peerOf(0x4001), undefined);
});

function peer(round: number, index: number): SocketAddress {
  return `10.${round}.${index >> 8}.${index & 255}:1` as SocketAddress;
}
