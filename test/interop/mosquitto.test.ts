import { existsSync } from 'node:fs';
import t from 'tap';
import { ListeningChannel } from '../plugins/mqtt-scene.ts';
import { Authority, MOSQUITTO, Mosquitto, makeDirectory } from './mosquitto-broker.ts';

/** The control channel against a real broker: MQTT 5, certificates, access lists, restarts. */

const present = existsSync(MOSQUITTO) ? {} : { skip: 'mosquitto is not installed' };

await t.test('what is retained is delivered, over MQTT 5 and 3.1.1', present, async (t) => {
  for (const protocol of ['5', '3.1.1'] as const) {
    const { url } = await open(t);
    const writer = new ListeningChannel({ protocol }).connect({
      brokers: [url],
      clientId: 'operator',
    });
    t.teardown(() => writer.channel.close(0));
    writer.publish('culvert/1/acme/r1/desired', protocol);
    t.match(await writer.event('connected'), { protocol });
    await writer.channel.close(2000);
    const device = new ListeningChannel({ protocol }).connect({
      brokers: [url],
      subscriptions: ['culvert/1/acme/r1/desired'],
    });
    t.teardown(() => device.channel.close(0));
    await device.message('culvert/1/acme/r1/desired', protocol);
    await device.channel.close(100);
  }
});

await t.test('the will tells of a device that vanished', present, async (t) => {
  const { url } = await open(t);
  const seen = new ListeningChannel().connect({
    brokers: [url],
    clientId: 'operator',
    subscriptions: ['will'],
  });
  t.teardown(() => seen.channel.close(0));
  await seen.event('connected');
  const device = new ListeningChannel().connect({ brokers: [url] });
  await device.event('connected');
  await device.channel.close(0);
  await seen.message('will', 'gone');
});

await t.test('the channel comes back when the broker was restarted', present, async (t) => {
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    const { url, broker } = await open(t);
    const device = new ListeningChannel().connect({ brokers: [url], subscriptions: ['t'] });
    t.teardown(() => device.channel.close(0));
    await device.event('connected');
    await broker.stop(signal);
    const { why } = await device.event('disconnected');
    t.match(why, signal === 'SIGTERM' ? /shuts down|closed by the broker/ : /closed|reset/);
    device.publish('t', `while ${signal}`);
    const from = device.events.length;
    await broker.start();
    await device.event('connected', from);
    await device.message('t', `while ${signal}`);
    await device.channel.close(0);
  }
});

await t.test('certificates', present, async (t) => {
  const directory = makeDirectory();
  t.teardown(() => directory.remove());
  const authority = new Authority(directory, 'fleet-ca');
  const other = new Authority(directory, 'other-ca');
  authority.issue('localhost', 'DNS:localhost');
  const device = authority.issue('r1');
  const stranger = other.issue('r9');
  const accessList = directory.write(
    'acl',
    [
      'user operator',
      'topic readwrite culvert/#',
      'pattern read culvert/1/acme/%u/desired',
      'pattern write culvert/1/acme/%u/reported',
      'pattern readwrite culvert/1/acme/%u/presence',
      '',
    ].join('\n'),
  );
  const broker = await Mosquitto.start(directory, [
    `cafile ${authority.path('crt')}`,
    `certfile ${authority.path('crt', 'localhost')}`,
    `keyfile ${authority.path('key', 'localhost')}`,
    'require_certificate true',
    'use_identity_as_username true',
    `acl_file ${accessList}`,
  ]);
  t.teardown(() => broker.stop());
  const url = `mqtts://localhost:${broker.port}`;
  const ca = authority.certificate;
  const attempt = async (t: Teardown, options: object): Promise<ListeningChannel> => {
    const channel = new ListeningChannel({ longestRetry: 20 });
    t.teardown(() => channel.channel.close(0));
    return channel.connect({ brokers: [url], ca, ...device, ...options });
  };

  await t.test('let a device in to its own topics, and to no others', async (t) => {
    const own = await attempt(t, { subscriptions: ['culvert/1/acme/r1/presence'] });
    t.match(await own.event('connected'), { protocol: '5' });
    own.publish('culvert/1/acme/r1/presence', 'ready');
    await own.message('culvert/1/acme/r1/presence', 'ready');
    own.publish('culvert/1/acme/r2/presence', 'forged');
    await own.problem(/refuses a publication.*access list/);
    const curious = await attempt(t, {
      clientId: 'c2',
      subscriptions: ['culvert/1/acme/+/desired'],
    });
    await curious.event('connected');
    const boss = await attempt(t, { ...authority.issue('operator'), clientId: 'operator' });
    boss.publish('culvert/1/acme/r2/desired', 'for r2');
    boss.publish('culvert/1/acme/r1/desired', 'for r1');
    await curious.message('culvert/1/acme/r1/desired', 'for r1');
    t.equal(curious.events.filter(({ type }) => type === 'message').length, 1);
  });

  const refusals: readonly (readonly [string, object, RegExp])[] = [
    ['the broker’s is from another authority', { ca: other.certificate }, /not from our authority/],
    ['ours is from another authority', stranger, /refuses our certificate/],
    ['we have none', { certificate: undefined, privateKey: undefined }, /refuses our certificate/],
    [
      'the broker’s is for another name',
      { brokers: [url.replace('localhost', '127.0.0.1')] },
      /for another name/,
    ],
    ['ours does not read', { certificate: 'nonsense' }, /does not read/],
    ['the port speaks TLS and we do not', { brokers: [url.replace('mqtts', 'mqtt')] }, /for TLS/],
  ];
  for (const [name, options, expected] of refusals) {
    await t.test(`${name}: refused with the cure, once`, async (t) => {
      const channel = await attempt(t, options);
      await channel.problem(expected);
      await channel.until('three attempts', () => (channel.attempts >= 3 ? true : undefined));
      const lines = channel.log.lines.filter((line) => line.startsWith('warn'));
      t.equal(lines.length, 1, lines.join('\n'));
      t.notOk(channel.events.some(({ type }) => type === 'connected'));
    });
  }
});

await t.test('a wrong password is named as such', present, async (t) => {
  const { url } = await open(t, [], 'allow_anonymous false');
  const device = new ListeningChannel().connect({
    brokers: [url],
    username: 'r1',
    password: 'wrong',
  });
  t.teardown(() => device.channel.close(0));
  const line = await device.problem(/login|authorise/);
  t.notMatch(line, 'wrong');
});

await t.test('a TLS connection to a port without TLS is named as such', present, async (t) => {
  const { url } = await open(t);
  const device = new ListeningChannel().connect({ brokers: [url.replace('mqtt', 'mqtts')] });
  t.teardown(() => device.channel.close(0));
  await device.problem(/does not speak TLS|reset/);
});

interface Teardown {
  teardown(handler: () => unknown): void;
}

async function open(t: Teardown, lines: readonly string[] = [], access = 'allow_anonymous true') {
  const directory = makeDirectory();
  const broker = await Mosquitto.start(directory, [access, ...lines]);
  t.teardown(async () => {
    await broker.stop('SIGKILL');
    directory.remove();
  });
  return { broker, url: `mqtt://127.0.0.1:${broker.port}` };
}
