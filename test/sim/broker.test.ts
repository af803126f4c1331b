import t from 'tap';
import { Broker, type Channel } from './broker.ts';
import { SeededRandom } from './seeded-random.ts';
import { Timeline } from './timeline.ts';

await t.test(
  'what one device says, those that subscribed hear, in order and after a while',
  async (t) => {
    const { timeline, a, b } = scene();
    a.say('a/x', '1');
    a.say('a/x', '2');
    timeline.run(10);
    t.same(b.heard, []);
    timeline.run(100);
    t.same(b.heard, ['a/x 1', 'a/x 2']);
  },
);

await t.test(
  'a retained message waits for those that subscribe later, until it expires',
  async (t) => {
    const { timeline, broker, a } = scene();
    a.say('a/kept', '1', { retain: true });
    a.say('a/short', '1', { retain: true, expiry: 5 });
    a.say('a/gone', '1', { retain: true });
    a.say('a/gone', '', { retain: true });
    a.say('a/fleeting', '1');
    timeline.run(10_000);
    const late = device(broker, 'late');
    timeline.run(1_000);
    t.same(late.heard, ['connected', 'a/kept 1']);
  },
);

await t.test('a short partition only delays', async (t) => {
  const { timeline, broker, a, b } = scene();
  broker.partition('a');
  a.say('a/x', 'from a');
  b.say('b/x', 'from b');
  timeline.run(20_000);
  t.same([a.heard, b.heard], [[], ['b/x from b']]);
  broker.heal('a');
  timeline.run(100);
  t.same(
    [a.heard, b.heard],
    [
      ['b/x from b', 'a/x from a'],
      ['b/x from b', 'a/x from a'],
    ],
  );
});

await t.test(
  'a long partition ends the connection; the session keeps what the device missed',
  async (t) => {
    const { timeline, broker, a, b } = scene();
    broker.partition('a');
    a.say('a/x', 'lost with the connection');
    timeline.run(91_000);
    t.same(a.heard, ['disconnected']);
    a.say('a/kept', 'old', { retain: true });
    a.say('a/kept', 'new', { retain: true });
    a.say('a/x', 'dropped');
    b.say('b/x', 'missed');
    timeline.run(10_000);
    t.same(b.heard, ['b/x missed', 'a/will gone']);
    broker.heal('a');
    timeline.run(11_000);
    t.same(a.heard, ['disconnected', 'connected', 'b/x missed', 'a/will gone', 'a/kept new']);
    t.same(b.heard, ['b/x missed', 'a/will gone', 'a/kept new']);
  },
);

await t.test('a device that doubts its connection knows within 2 s', async (t) => {
  const { timeline, broker, a, b } = scene();
  broker.partition('a');
  a.channel.checkConnection();
  b.channel.checkConnection();
  timeline.run(2_000);
  t.same([a.heard, b.heard], [['disconnected'], []]);
});

await t.test('a broker that stops comes back with what it retained', async (t) => {
  const { timeline, broker, a, b } = scene();
  a.say('a/kept', '1', { retain: true });
  timeline.run(1_000);
  broker.stop();
  t.equal(b.heard.at(-1), 'disconnected');
  timeline.run(60_000);
  broker.start();
  timeline.run(11_000);
  t.same(b.heard, ['a/kept 1', 'disconnected', 'connected', 'a/kept 1']);
});

await t.test(
  'a daemon that closes leaves no will, one that dies does, unless it is back soon',
  async (t) => {
    const { timeline, broker, a, b } = scene();
    await a.channel.close();
    timeline.run(20_000);
    t.same(b.heard, []);
    const again = device(broker, 'a');
    timeline.run(1_000);
    again.channel.kill();
    timeline.run(5_000);
    device(broker, 'a').channel.kill();
    const third = device(broker, 'a');
    timeline.run(20_000);
    t.same(b.heard, []);
    third.channel.kill();
    timeline.run(20_000);
    t.same(b.heard, ['a/will gone']);
  },
);

function scene() {
  const timeline = new Timeline();
  const broker = new Broker(timeline, new SeededRandom(1));
  const a = device(broker, 'a');
  const b = device(broker, 'b');
  timeline.run(1_000);
  for (const { heard } of [a, b]) heard.length = 0;
  return { timeline, broker, a, b };
}

function device(broker: Broker, name: string) {
  const channel: Channel = broker.channel();
  const heard: string[] = [];
  channel.connect({
    brokers: ['mqtt://broker'],
    clientId: name,
    ca: undefined,
    certificate: undefined,
    privateKey: undefined,
    username: undefined,
    password: undefined,
    subscriptions: ['a/+', 'b/#'],
    will: () => ({ topic: `${name}/will`, payload: Buffer.from('gone'), retain: false, qos: 1 }),
    onEvent: (event) => {
      const isMessage = event.type === 'message';
      heard.push(isMessage ? `${event.topic} ${String(Buffer.from(event.payload))}` : event.type);
    },
  });
  const say = (topic: string, text: string, rest: { retain?: boolean; expiry?: number } = {}) =>
    channel.publish({ topic, payload: Buffer.from(text), retain: false, qos: 1, ...rest });
  return { channel, heard, say };
}
