import t from 'tap';
import { openPublication } from '../../../core/fleet/device-signature.ts';
import { envelopeHash } from '../../../core/fleet/envelope.ts';
import type { DesiredEvent } from '../../../core/fleet/desired-inbox.ts';
import type { FleetDevice, FleetDeviceInput } from '../../../core/fleet/fleet-device.ts';
import type { DeviceState } from '../../../core/fleet/report.ts';
import { instantAt } from '../../../core/sansio/instant.ts';
import {
  forged,
  signedBody,
  CLOCK_FLOOR_MS,
  UNIX_MS,
  configurationJson,
  crypto,
  devicePublicKey,
  envelope,
  makeDevice,
  nameOf,
} from './fleet-scene.ts';

await t.test('a desired state is given out, applied and reported', async (t) => {
  const scene = connected();
  const message = envelope(3);
  scene.desired(message);
  const [event] = scene.events;
  t.match(event, { type: 'desired', version: 3, configuration: { peers: [{ id: 'b' }] } });
  t.same(event?.type === 'desired' && event.envelope, message, 'with the bytes to keep');
  scene.advance(1000);
  t.match(scene.last('reported'), { phase: 'applying', seenVersion: 3 });
  t.notOk('appliedVersion' in scene.last('reported'));
  scene.input({ type: 'applied', version: 3, running: true, errors: [] });
  scene.advance(1000);
  t.same(scene.last('reported'), {
    phase: 'applied',
    document: envelopeHash(message, crypto),
    seenVersion: 3,
    appliedVersion: 3,
    appliedDocument: envelopeHash(message, crypto),
  });
});

await t.test('a desired state that could not be applied is reported with its paths', async (t) => {
  const scene = connected();
  scene.desired(envelope(1));
  scene.input({ type: 'applied', version: 1, running: true, errors: [] });
  scene.desired(envelope(2));
  const errors = [{ path: 'interface.listenPort', message: 'is in use' }];
  scene.input({ type: 'applied', version: 1, running: false, errors });
  scene.input({ type: 'applied', version: 2, running: false, errors });
  scene.advance(1000);
  t.match(scene.last('reported'), { phase: 'failed', seenVersion: 2, appliedVersion: 1, errors });
});

await t.test('a desired state that runs but for one value is the one that runs', async (t) => {
  const scene = connected();
  scene.desired(envelope(1));
  scene.input({ type: 'applied', version: 1, running: true, errors: [] });
  const second = envelope(2);
  scene.desired(second);
  const errors = [{ path: 'route 10.98.0.0/16', message: 'Network is unreachable' }];
  scene.input({ type: 'applied', version: 2, running: true, errors });
  scene.advance(1000);
  t.match(scene.last('reported'), {
    phase: 'failed',
    seenVersion: 2,
    appliedVersion: 2,
    appliedDocument: envelopeHash(second, crypto),
    errors,
  });
});

await t.test('the port of this device holds, also after a restart, and is reported', async (t) => {
  const local = { listenPort: 4500 };
  const scene = sceneOf(makeDevice({ local }));
  scene.connect();
  scene.desired(envelope(3));
  const [event] = scene.events;
  t.match(event, {
    type: 'desired',
    configuration: { interface: { listenPort: 4500, mtu: 1408 } },
  });
  scene.input({ type: 'applied', version: 3, running: true, errors: [] });
  scene.advance(1000);
  t.match(scene.last('reported'), { phase: 'applied', appliedVersion: 3, local });
  scene.desired(new Uint8Array([0]));
  scene.advance(1000);
  t.match(scene.last('reported'), { phase: 'refused', local });
  const kept = { version: 3, envelope: envelope(3) };
  const again = sceneOf(makeDevice({ kept, local }));
  again.drain();
  t.match(again.events, [{ configuration: { interface: { listenPort: 4500 } } }]);
});

await t.test('what is refused is reported and changes nothing', async (t) => {
  const scene = connected();
  scene.desired(envelope(5));
  scene.input({ type: 'applied', version: 5, running: true, errors: [] });
  const other = new Uint8Array(32).fill(9);
  const cases: readonly (readonly [string, Uint8Array, number | undefined])[] = [
    ['older-version', envelope(4), 4],
    ['same-version', envelope(5, { configuration: configurationJson(['c']) }), 5],
    ['unknown-operator-key', envelope(6, {}, other), undefined],
    ['bad-signature', forged(envelope(6)), undefined],
    ['wrong-device', envelope(6, { device: nameOf('r2') }), 6],
    ['wrong-fleet', envelope(6, { fleet: nameOf('evil') }), 6],
    ['expired', envelope(6, { notAfter: UNIX_MS / 1000 - 1 }), 6],
    ['would-remove-all-peers', envelope(6, { configuration: configurationJson([]) }), 6],
    ['malformed', envelope(6).subarray(0, 200), undefined],
    ['too-large', new Uint8Array(400_000).fill(0x20), undefined],
  ];
  for (const [why, message, version] of cases) {
    scene.events.length = 0;
    scene.desired(message);
    t.match(scene.events, [{ type: 'refused', why, version }], why);
    scene.advance(1000);
    const report = { phase: 'refused', why, appliedVersion: 5 };
    t.match(scene.last('reported'), { ...report, document: envelopeHash(message, crypto) }, why);
    t.equal(scene.last('reported')['seenVersion'], version, `${why}: only a signed version counts`);
    scene.desired(message);
    t.equal(scene.events.length, 1, `${why}: sent again it is no news`);
  }
  scene.desired(envelope(5));
  scene.advance(1000);
  t.match(scene.last('reported'), { phase: 'applied', seenVersion: 5 }, 'the running one is back');
});

await t.test('a signed configuration with errors is refused with their paths', async (t) => {
  const scene = connected();
  scene.desired(signedBody(1, { ...configurationJson(), mtu: 1 }));
  t.match(scene.events, [
    { type: 'refused', why: 'invalid-configuration', version: 1, errors: [{ path: 'mtu' }] },
  ]);
  scene.advance(1000);
  t.match(scene.last('reported'), { errors: [{ path: 'mtu', message: 'unknown key' }] });
});

await t.test('all peers are removed only when the operator says so', async (t) => {
  const scene = connected();
  scene.desired(envelope(1, { configuration: configurationJson([]) }));
  t.match(scene.events.at(-1), { type: 'desired', version: 1 }, 'nothing to lose at first');
  scene.desired(envelope(2));
  scene.desired(envelope(3, { configuration: configurationJson([]), removeAllPeers: true }));
  t.match(scene.events.at(-1), { type: 'desired', version: 3, configuration: { peers: [] } });
  const count = scene.events.length;
  scene.desired(new Uint8Array());
  t.equal(scene.events.length, count, 'a deleted message means nothing');
});

await t.test('without a broker the device runs on what it kept, for ever', async (t) => {
  const kept = { version: 8, envelope: envelope(8, { notAfter: UNIX_MS / 1000 - 1 }) };
  const scene = sceneOf(makeDevice({ kept, unixMs: 0 }));
  scene.drain();
  t.match(scene.events, [{ type: 'desired', version: 8 }]);
  t.equal(scene.device.pollTimeout(), undefined, 'and waits for nothing');

  const rotated = sceneOf(makeDevice({ kept, operatorKeys: [new Uint8Array(32).fill(3)] }));
  rotated.drain();
  t.match(rotated.events, [{ type: 'desired', version: 8 }], 'even when the keys were changed');

  const moved = sceneOf(makeDevice({ kept, device: nameOf('r2') }));
  moved.connect();
  moved.desired(envelope(1, { device: nameOf('r2') }));
  t.match(moved.events, [{ type: 'desired', version: 1 }], 'but not on what another device kept');
});

await t.test('a kept document that does not read still forbids older ones', async (t) => {
  const scene = sceneOf(makeDevice({ kept: { version: 8, envelope: envelope(8).subarray(9) } }));
  scene.connect();
  scene.desired(envelope(7));
  scene.desired(envelope(8));
  t.match(scene.events, [
    { type: 'refused', why: 'malformed' },
    { type: 'refused', why: 'older-version' },
    { type: 'desired', version: 8 },
  ]);
});

await t.test('a document for later is held until its time', async (t) => {
  const scene = connected();
  scene.desired(envelope(1));
  scene.desired(envelope(2, { notBefore: UNIX_MS / 1000 + 3600 }));
  scene.advance(1000);
  t.match(scene.last('reported'), { phase: 'held', why: 'not-yet-valid', seenVersion: 2 });
  scene.desired(forged(envelope(9)));
  t.match(scene.events.at(-1), { type: 'refused' });
  scene.advance(3_597_000);
  t.match(scene.events.at(-1), { type: 'refused' }, 'a moment before');
  scene.advance(3_000);
  t.match(scene.events.at(-1), { type: 'desired', version: 2 }, 'and not lost by a forged one');
});

await t.test('a held document gives way to a newer one, never to an older one', async (t) => {
  const scene = connected();
  scene.desired(envelope(5, { notBefore: UNIX_MS / 1000 + 3600 }));
  scene.desired(envelope(4));
  t.match(scene.events, [{ type: 'refused', why: 'older-version', version: 4 }]);
  scene.desired(envelope(6));
  t.match(scene.events.at(-1), { type: 'desired', version: 6 });
  scene.advance(7_200_000);
  t.equal(scene.events.length, 2);
});

await t.test('while the clock is not set, time limits wait and all else goes on', async (t) => {
  const scene = sceneOf(makeDevice({ unixMs: 1_000_000 }));
  scene.connect();
  scene.desired(envelope(1));
  t.match(scene.events, [{ type: 'desired', version: 1 }]);
  scene.desired(envelope(2, { notAfter: UNIX_MS / 1000 + 60 }));
  scene.advance(1000);
  t.match(scene.last('reported'), { phase: 'held', why: 'clock-unknown' });
  scene.input({ type: 'wall-clock', unixMs: CLOCK_FLOOR_MS - 1 });
  t.equal(scene.events.length, 1);
  scene.input({ type: 'wall-clock', unixMs: UNIX_MS });
  t.match(scene.events.at(-1), { type: 'desired', version: 2 });
});

await t.test('a document that a wrong clock called expired is taken when it is set', async (t) => {
  const scene = sceneOf(makeDevice({ unixMs: UNIX_MS + 1e9 }));
  scene.connect();
  scene.desired(envelope(1, { notAfter: UNIX_MS / 1000 + 60 }));
  t.match(scene.events, [{ type: 'refused', why: 'expired' }]);
  scene.input({ type: 'wall-clock', unixMs: UNIX_MS });
  t.match(scene.events.at(-1), { type: 'desired', version: 1 });
});

await t.test('each connection begins with presence and report', async (t) => {
  const scene = sceneOf(makeDevice());
  scene.drain();
  t.same(scene.published, [], 'nothing waits for a broker');
  const will = scene.connect();
  t.match(will, { retain: true, qos: 1, topic: 'culvert/1/acme/r1/presence' });
  t.same(scene.kinds(), ['presence', 'reported']);
  const ready = scene.last('presence');
  const lost = opened(will.topic, will.payload);
  t.match(ready, { state: 'ready', software: '0.1.0' });
  t.match(lost.payload, { state: 'lost', session: ready['session'] });
  t.equal(lost.boot, 7);
  scene.connect();
  t.not(scene.last('presence')['session'], ready['session'], 'and is a session of its own');
  t.match(scene.last('reported'), { phase: 'none' });
});

await t.test('presence that the device did not say is said again', async (t) => {
  const scene = sceneOf(makeDevice());
  const late = scene.connect();
  const current = scene.connect();
  const ready = scene.published.at(-2)!;
  scene.published.length = 0;
  scene.message(ready.topic, ready.payload);
  scene.advance(60_000);
  t.same(scene.published, [], 'its own is no reason to speak');
  scene.message(late.topic, late.payload);
  scene.message(late.topic, late.payload);
  scene.advance(5_000);
  t.same(scene.kinds(), ['presence'], 'a late will is overwritten once');
  t.match(scene.last('presence'), { state: 'ready' });
  scene.message(late.topic, late.payload);
  scene.message(late.topic, scene.published[0]!.payload);
  scene.advance(60_000);
  t.equal(scene.published.length, 1, 'a will that came before the device spoke does no harm');
  scene.message(late.topic, new Uint8Array());
  scene.advance(5_000);
  t.equal(scene.published.length, 2, 'nor does a deleted message');
  scene.message(late.topic, current.payload);
  scene.advance(5_000);
  t.equal(scene.published.length, 3, 'nor the will of this very connection');
});

await t.test('a goodbye ends it all', async (t) => {
  const scene = connected();
  scene.input({ type: 'drain' });
  t.match(scene.last('presence'), { state: 'draining' });
  scene.input({ type: 'stop' });
  t.match(scene.last('presence'), { state: 'stopped' });
  const count = scene.published.length;
  scene.desired(envelope(1));
  scene.advance(100_000);
  t.equal(scene.published.length, count);
  t.same(scene.events, []);
  t.equal(scene.device.pollTimeout(), undefined);
});

await t.test('reports are told at most once a second, and the newest wins', async (t) => {
  const scene = connected();
  scene.published.length = 0;
  for (let i = 0; i < 50; i++) scene.desired(new Uint8Array([i]));
  t.equal(scene.published.length, 0);
  scene.advance(1000);
  t.same(scene.kinds(), ['reported']);
  const last = envelopeHash(new Uint8Array([49]), crypto);
  t.match(scene.last('reported'), { document: last, why: 'malformed' });
});

await t.test(
  'state is coalesced: paths soon, counters slowly, nothing when nothing is',
  async (t) => {
    const scene = connected();
    scene.published.length = 0;
    scene.input({ type: 'state', state: stateOf({}) });
    scene.advance(5_000);
    t.same(scene.kinds(), ['state'], 'the first one within 5 s');
    scene.input({ type: 'state', state: stateOf({ handshakeAge: 99 }) });
    scene.advance(120_000);
    t.equal(scene.published.length, 1, 'age alone is no news');
    const from = scene.published.length;
    for (let second = 0; second < 600; second++) {
      scene.input({ type: 'state', state: stateOf({ received: second }) });
      scene.advance(1_000);
    }
    const counted = scene.published.length - from;
    t.ok(counted >= 9 && counted <= 13, `counters about once a minute: ${counted} in ten`);
    scene.input({ type: 'state', state: stateOf({ received: 600, path: 'relayed' }) });
    scene.advance(5_000);
    t.match(scene.last('state'), { peers: [{ path: 'relayed', received: 600 }] });
  },
);

await t.test('driving at the deadlines alone gives the same as a steady tick', async (t) => {
  const run = (tick: number | undefined): unknown[] => {
    const scene = sceneOf(makeDevice());
    scene.connect();
    scene.desired(envelope(1, { notBefore: UNIX_MS / 1000 + 20 }));
    scene.input({ type: 'state', state: stateOf({}) });
    scene.advance(30_000, tick);
    return [...scene.kinds(), scene.events.map((event) => event.type), scene.last('reported')];
  };
  t.same(run(undefined), run(100));
});

function stateOf(change: Partial<DeviceState['peers'][number]>): DeviceState {
  const peer = { id: 'b', path: 'direct', handshakeAge: 3, received: 0, sent: 0, ...change };
  return { peers: [peer], drops: {} };
}

function opened(topic: string, message: Uint8Array) {
  const publication = openPublication(topic, message, devicePublicKey, crypto);
  if (!publication.ok) throw new Error(publication.why);
  return publication.value;
}

/** Drives a device on a virtual clock and collects what it says. */
function sceneOf(device: FleetDevice) {
  let now = 0;
  const published: { topic: string; payload: Uint8Array }[] = [];
  const events: DesiredEvent[] = [];
  const scene = {
    device,
    published,
    events,
    drain() {
      for (let out = device.pollTransmit(); out; out = device.pollTransmit()) published.push(out);
      for (let out = device.pollEvent(); out; out = device.pollEvent()) events.push(out);
    },
    input(input: FleetDeviceInput) {
      device.handleInput(input, instantAt(now));
      scene.drain();
    },
    message(topic: string, payload: Uint8Array) {
      scene.input({ type: 'control', event: { type: 'message', topic, payload } });
    },
    desired(payload: Uint8Array) {
      scene.message(device.subscriptions[0]!, payload);
    },
    connect() {
      scene.input({ type: 'control', event: { type: 'disconnected', why: 'test' } });
      const will = device.will();
      scene.input({ type: 'control', event: { type: 'connected', broker: 'b', protocol: '5' } });
      return will;
    },
    advance(ms: number, tick?: number) {
      const end = now + ms;
      for (let steps = 0; now < end; steps++) {
        if (steps > 10_000) throw new Error('no progress');
        const due = tick === undefined ? device.pollTimeout()?.at : now + tick;
        now = Math.min(Math.max(due ?? end, now), end);
        device.handleTimeout(instantAt(now));
        scene.drain();
        const next = device.pollTimeout();
        if (next !== undefined && next.at <= now) throw new Error(`spins: ${next.reason}`);
      }
    },
    kinds: () => published.map(({ topic }) => topic.split('/').at(-1)),
    last(kind: string): Record<string, unknown> {
      const found = published.filter(({ topic }) => topic.endsWith(`/${kind}`)).at(-1);
      return found === undefined ? {} : opened(found.topic, found.payload).payload;
    },
  };
  return scene;
}

function connected() {
  const scene = sceneOf(makeDevice());
  scene.connect();
  return scene;
}
