import t, { type Test } from 'tap';
import type { Name } from '../../../core/config/name.ts';
import type { Event } from '../../../core/engine/event.ts';
import { formatTopic } from '../../../core/fleet/topics.ts';
import { Arenas } from '../../sim/arenas.ts';
import type { Device } from '../../sim/device.ts';
import { Stage } from '../../sim/stage.ts';

const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
t.comment(`SEED=${SEED}`);

const SECOND = 1000;
const HOUR = 3600 * SECOND;

const arenas = new Arenas();

await t.test(
  'a peer that vanishes: its path is lost, then it is not found; each is told once',
  (t) => {
    const { world, a, b } = talking(t);
    b.restart(HOUR);
    world.run(12 * SECOND);
    t.same(news(a), [{ type: 'path-lost', peer: 'b', why: 'silence' }]);
    t.match(statusOf(a), { state: 'connecting', cause: 'path-lost', path: { kind: undefined } });
    world.run(120 * SECOND);
    t.same(news(a), [
      { type: 'path-lost', peer: 'b', why: 'silence' },
      { type: 'connection-failed', peer: 'b', cause: 'no-answer' },
    ]);
    t.match(statusOf(a), { cause: 'no-answer' });
    t.not(statusOf(a)?.state, 'connected', 'although the session has not run out');
    t.end();
  },
);

await t.test('what was found again is lost again: that is news', (t) => {
  const { world, a, b } = talking(t);
  for (const times of [1, 2]) {
    b.restart(40 * SECOND);
    world.run(120 * SECOND);
    t.match(statusOf(a), { state: 'connected', cause: undefined });
    t.equal(news(a).filter(({ type }) => type === 'path-lost').length, times);
  }
  t.end();
});

await t.test('a peer that said goodbye has lost no path, and that is why there is none', (t) => {
  const { world, a, b } = talking(t);
  b.site.input({ type: 'stop', reason: 'leaving' });
  b.host.timeline.run(0);
  b.restart(HOUR);
  world.run(SECOND);
  t.match(statusOf(a), { state: 'no path', cause: 'said goodbye: leaving' });
  world.run(120 * SECOND);
  t.same(news(a), []);
  t.match(statusOf(a), { cause: 'said goodbye: leaving' });
  t.end();
});

await t.test('keys that differ are the cause until something signalled opens', (t) => {
  const { world, a, b } = talking(t);
  const topic = formatTopic({ fleet: 'sim' as Name, device: a.name, kind: 'signal', from: b.name });
  const forge = (): void => {
    const event = { type: 'message', topic, payload: new Uint8Array(200) } as const;
    a.site.input({ type: 'control', event });
  };
  forge();
  t.match(statusOf(a), { state: 'connected', cause: undefined }, 'a session says that they do not');
  b.restart(40 * SECOND);
  world.run(35 * SECOND);
  t.match(statusOf(a), { cause: 'key-mismatch' });
  world.run(60 * SECOND);
  t.match(statusOf(a), { state: 'connected', cause: undefined });
  b.restart(HOUR);
  world.run(35 * SECOND);
  t.match(statusOf(a), { cause: 'no-answer' }, 'its signals did open');
  t.end();
});

await t.test('preshared keys that differ are told, once, and kept as the cause', (t) => {
  const { world, a, b } = talking(t);
  const key = Buffer.alloc(32, 7).toString('base64');
  const peers = [
    {
      id: b.name,
      kind: 'culvert',
      publicKey: b.publicKey,
      presharedKey: key,
      allowedIps: [`${b.address}/32`],
    },
  ];
  a.configure({ interface: { addresses: [`${a.address}/24`] }, peers });
  b.restart(SECOND);
  world.run(180 * SECOND);
  const failures = news(a).filter(({ type }) => type === 'connection-failed');
  t.match(failures, [{ cause: 'preshared-key-differs' }]);
  t.equal(failures.length, 1);
  t.match(statusOf(a), { cause: 'preshared-key-differs' });
  t.not(statusOf(a)?.state, 'connected');
  t.end();
});

await t.test('where the operator removed all relays, none is missed', (t) => {
  const { world, a, b } = talking(t, ['runs']);
  const peer = { id: b.name, kind: 'culvert', publicKey: b.publicKey, allowedIps: [] };
  const own = { interface: { addresses: [`${a.address}/24`] }, peers: [peer] };
  t.ok(a.site.events.some(({ type }) => type === 'relay-ready'));
  a.configure(own);
  world.run(60 * SECOND);
  t.notOk(a.site.events.some(({ type }) => type === 'no-relays'));
  t.end();
});

/** Two routers on the Internet, a packet each second from one to the other. */
function talking(t: Test, relays: readonly 'runs'[] = []) {
  const side = { nat: 'none', isBehindCarrier: false, ipv6: 'none', startsAt: 0 } as const;
  const stage = new Stage(
    {
      seed: SEED,
      a: side,
      b: side,
      isSameCarrier: false,
      loss: 0,
      bursts: undefined,
      relays,
      hasStreams: false,
      upsets: [],
    },
    arenas,
  );
  t.teardown(() => stage.dispose());
  const { world, sides } = stage;
  const [a, b] = [sides.a.device, sides.b.device];
  let number = 0;
  const next = (): void => {
    a.send(b, ++number);
    world.timeline.in(SECOND, next);
  };
  next();
  world.run(10 * SECOND);
  t.match(statusOf(a), { state: 'connected', cause: undefined });
  return { world, a, b };
}

function news(device: Device): readonly Event[] {
  return device.site.events.filter(({ type }) => ['path-lost', 'connection-failed'].includes(type));
}

function statusOf(device: Device) {
  return device.site.engine.status().peers[0];
}
