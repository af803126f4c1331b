import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Aedes } from 'aedes';
import t from 'tap';
import type { FleetDevice } from '../../core/fleet/fleet-device.ts';
import { encodeBase64 } from '../../core/sansio/base64.ts';
import { instantAt } from '../../core/sansio/instant.ts';
import { nullLog } from '../../core/sansio/log.ts';
import { MqttControlChannel } from '../../plugins/fleet-mqtt/index.ts';
import { runOperatorCommand } from '../../plugins/fleet-operator/index.ts';
import { nodeRandom } from '../../plugins/platform-node/index.ts';
import {
  UNIX_MS,
  configurationJson,
  crypto,
  devicePublicKey,
  makeDevice,
} from '../core/fleet/fleet-scene.ts';
import { MOSQUITTO, Mosquitto, makeDirectory } from '../interop/mosquitto-broker.ts';

/** The operator's command against devices on the virtual clock, over brokers that are real. */

const DEVICE_KEY = `r1=${encodeBase64(devicePublicKey)}`;

await t.test('keygen writes a key for its owner alone, and never over another', async (t) => {
  const directory = directoryOf(t);
  const key = join(directory, 'op.key');
  const first = operator();
  t.equal(await first.run('keygen', '--out', key), 0);
  t.match(first.printed, /^[A-Za-z0-9+/]{43}=\n$/, 'the public half on stdout');
  t.equal(statSync(key).mode & 0o777, 0o600);
  const kept = readFileSync(key, 'utf8');
  t.notMatch(first.printed + first.said, kept.trim(), 'the private half nowhere');
  const second = operator();
  t.equal(await second.run('keygen', '--out', key), 1);
  t.match(second.said, /is there already/);
  t.equal(readFileSync(key, 'utf8'), kept);
});

await t.test('sign refuses what the device would refuse', async (t) => {
  const { sign, write } = signing(t);
  const config = write('bad.json', { ...configurationJson(), extra: 1 });
  const refused = operator();
  t.equal(await refused.run(...sign(config, '1')), 1);
  t.match(refused.said, /bad\.json is refused:\n {2}extra: unknown key\n/);
  t.equal(refused.printed, '');
  const good = write('good.json', configurationJson());
  const cases: readonly (readonly [string[], RegExp])[] = [
    [['sign', good], /--version is missing/],
    [sign(good, '0'), /--version must be a whole number/],
    [[...sign(good, '1'), '--not-after', 'tomorrow'], /--not-after must be a time/],
    [[...sign(good, '1'), '--not-after', '2026-10-01T12:00:00'], /--not-after must be a time/],
    [[...sign(good, '1'), '--not-before', '+2h', '--not-after', '+1h'], /lies before/],
    [[...sign(good, '1'), '--device', 'a/b'], /--device: a name is/],
    [[...sign(good, '1'), '--what'], /Unknown option '--what'/],
    [['what'], /no command what/],
    [['constructor'], /no command constructor/],
    [['push', 'x.json', '--broker'], /argument missing|--broker/],
    [['watch', '--fleet', 'acme'], /--broker is missing/],
    [['watch', '--fleet', 'acme', '--broker', 'http://x'], /--broker must be/],
  ];
  for (const [args, message] of cases) {
    const command = operator();
    t.equal(await command.run(...args), 2, args.join(' '));
    t.match(command.said, message);
  }
  const absent = operator();
  t.equal(await absent.run(...sign('/nowhere.json', '1')), 1);
  t.match(absent.said, /cannot read \/nowhere\.json: ENOENT/);
});

for (const kind of ['aedes', 'mosquitto'] as const) {
  const skip = kind === 'mosquitto' && !existsSync(MOSQUITTO) && 'mosquitto is not installed';
  await t.test(`from the operator to the device and back, over ${kind}`, { skip }, async (t) => {
    const url = kind === 'aedes' ? await aedes(t) : await mosquitto(t);
    const { sign, write, operatorKey } = signing(t);
    const device = deviceOn(t, url, makeDevice({ operatorKeys: [operatorKey] }));
    const config = write('config.json', configurationJson());
    const envelope = async (version: string, ...more: string[]): Promise<string> => {
      const command = operator();
      t.equal(await command.run(...sign(config, version), ...more), 0, command.said);
      return write(`envelope-${version}.json`, command.printed);
    };
    const broker = ['--broker', url];
    const waiting = [...broker, '--wait', '10', '--device-key', DEVICE_KEY];

    const first = operator();
    t.equal(await first.run('push', ...waiting, await envelope('1')), 0, first.said);
    t.match(first.printed, /r1 version 1 is at the broker\n/);
    t.match(first.printed, /r1 reported applied version 1 running 1\n$/);
    t.same(device.taken, [1]);

    await t.test('an older one is refused, and the exit code says so', async (t) => {
      const second = await envelope('5');
      t.equal(await operator().run('push', ...waiting, second), 0);
      const older = operator();
      t.equal(await older.run('push', ...waiting, await envelope('4')), 1);
      t.match(older.printed, /r1 reported refused version 4 \(older-version\) running 5/);
      t.match(older.said, /not applied by r1/);
      t.same(device.taken, [1, 5]);
    });

    await t.test('the wrong key of a device is not believed', async (t) => {
      const wrong = `r1=${encodeBase64(new Uint8Array(32).fill(3))}`;
      const command = operator();
      const args = [...broker, '--wait', '1', '--device-key', wrong];
      t.equal(await command.run('push', ...args, await envelope('6')), 1);
      t.match(command.printed, /ignored culvert\/1\/acme\/r1\/reported: the signature is not that/);
      t.match(command.said, /no answer from r1 within 1 s/);
    });

    await t.test('watch shows what devices say, verified or marked', async (t) => {
      const pinned = operator();
      const open = operator();
      const done = Promise.all([
        pinned.run('watch', ...broker, '--fleet', 'acme', '--device-key', DEVICE_KEY, '--json'),
        open.run('watch', ...broker, '--fleet', 'acme'),
      ]);
      await pinned.until(/"phase":"applied"/);
      await open.until(/r1 \(unverified\) reported applied/);
      await open.until(/r1 \(unverified\) presence ready \(culvert 0\.1\.0\)/);
      device.state();
      await pinned.until(/"kind":"state"/);
      await open.until(
        /1 of 1 peers up, 3 packets dropped\n {4}b direct 192\.0\.2\.1:51820 rtt 12 ms/,
      );
      const forger = forgerOn(t, url);
      forger('culvert/1/acme/r1/presence', '{"payload":{"state":"\\u001b[2J"},"boot":9,"seq":1}');
      await pinned.until(/"ignored":"culvert\/1\/acme\/r1\/presence","why":"malformed"/);
      forger('culvert/1/acme/evil/presence', signedByAnyone({ state: '\u001b[2J\u202e' }));
      await open.until(/evil \(unverified\) presence/);
      t.notMatch(open.printed, /[^\P{C}\n]/u, 'nothing moves the cursor');
      await device.stop();
      await pinned.until(/"state":"stopped"/);
      pinned.interrupt();
      open.interrupt();
      t.same(await done, [0, 0]);
      const lines = pinned.printed.trim().split('\n');
      t.ok(lines.every((line) => typeof JSON.parse(line) === 'object'));
    });
  });
}

await t.test('a push without a broker fails, and names the cure', async (t) => {
  const { sign, write } = signing(t);
  const config = write('config.json', configurationJson());
  const signed = operator();
  await signed.run(...sign(config, '1'));
  const envelope = write('e.json', signed.printed);
  const command = operator();
  const done = command.run('push', '--broker', 'mqtt://127.0.0.1:1', envelope);
  await command.until(/nothing listens on that port/);
  command.interrupt();
  t.equal(await done, 1);
});

function signedByAnyone(payload: object): string {
  const text = JSON.stringify({ session: 's', software: 'x', ...payload });
  return `{"payload":${text},"boot":1,"seq":1,"signature":"${'A'.repeat(86)}=="}`;
}

function forgerOn(t: Teardown, url: string) {
  const channel = new MqttControlChannel(nullLog);
  connect(channel, url, 'forger', []);
  t.teardown(() => channel.close(0));
  return (topic: string, text: string) =>
    channel.publish({ topic, payload: new TextEncoder().encode(text), retain: true, qos: 1 });
}

/** Runs a device of the core over a real channel, as the daemon does; it applies at once. */
function deviceOn(t: Teardown, url: string, device: FleetDevice) {
  const channel = new MqttControlChannel(nullLog, { firstRetry: 10 });
  const taken: number[] = [];
  let now = 0;
  const drain = (): void => {
    for (let event = device.pollEvent(); event; event = device.pollEvent()) {
      if (event.type !== 'desired') continue;
      taken.push(event.version);
      device.handleInput(
        { type: 'applied', version: event.version, running: true, errors: [] },
        instantAt(now),
      );
    }
    // Whatever it waits for comes at once.
    for (let steps = 0; steps < 10; steps++) {
      now = Math.max(now, device.pollTimeout()?.at ?? now);
      device.handleTimeout(instantAt(now));
      for (let out = device.pollTransmit(); out; out = device.pollTransmit()) channel.publish(out);
    }
  };
  channel.connect({
    ...connectionOf(url, 'culvert-acme-r1', device.subscriptions),
    will: () => device.will(),
    onEvent(event) {
      device.handleInput({ type: 'control', event }, instantAt(now));
      drain();
    },
  });
  t.teardown(() => channel.close(0));
  return {
    taken,
    state() {
      const peer = { id: 'b', path: 'direct', remote: '192.0.2.1:51820', rtt: 12, handshakeAge: 5 };
      const state = { peers: [{ ...peer, received: 1, sent: 2 }], drops: { 'bad-mac': 3 } };
      device.handleInput({ type: 'state', state }, instantAt(now));
      drain();
    },
    async stop() {
      device.handleInput({ type: 'stop' }, instantAt(now));
      drain();
      await channel.close(1000);
    },
  };
}

function connect(channel: MqttControlChannel, url: string, id: string, topics: string[]): void {
  channel.connect({ ...connectionOf(url, id, topics), onEvent: () => undefined });
}

function connectionOf(url: string, clientId: string, subscriptions: readonly string[]) {
  const none = undefined;
  const tls = { ca: none, certificate: none, privateKey: none };
  return { brokers: [url], clientId, ...tls, username: none, password: none, subscriptions };
}

/** One run of the command with its outputs. */
function operator() {
  let interrupt = (): void => undefined;
  const interrupted = new Promise<void>((resolve) => (interrupt = resolve));
  let look = (): void => undefined;
  const command = {
    printed: '',
    said: '',
    interrupt: () => interrupt(),
    run: (...args: string[]) =>
      runOperatorCommand(args, {
        crypto,
        random: nodeRandom,
        version: '0.1.0',
        interrupted,
        createChannel: (log) => new MqttControlChannel(log, { sessionExpiry: 0, firstRetry: 20 }),
        print: (text) => {
          command.printed += text;
          look();
        },
        say: (text) => {
          command.said += text;
          look();
        },
        readInput: () => Promise.resolve(new Uint8Array()),
        unixMs: () => UNIX_MS,
      }),
    until: (pattern: RegExp) =>
      new Promise<void>((resolve, reject) => {
        const timer = setTimeout(
          () =>
            reject(new Error(`waited in vain for ${pattern}: ${command.printed}${command.said}`)),
          10_000,
        );
        look = () => {
          if (!pattern.test(command.printed) && !pattern.test(command.said)) return;
          clearTimeout(timer);
          resolve();
        };
        look();
      }),
  };
  return command;
}

interface Teardown {
  teardown(handler: () => unknown): void;
}

function directoryOf(t: Teardown): string {
  const directory = mkdtempSync(join(tmpdir(), 'culvert-operator-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  return directory;
}

function signing(t: Teardown) {
  const directory = directoryOf(t);
  const seed = new Uint8Array(32).fill(5);
  const key = join(directory, 'op.key');
  writeFileSync(key, encodeBase64(seed));
  return {
    operatorKey: crypto.ed25519.publicKey(seed),
    write: (name: string, content: unknown): string => {
      const path = join(directory, name);
      writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content));
      return path;
    },
    sign: (config: string, version: string): string[] => {
      const names = ['--fleet', 'acme', '--device', 'r1'];
      return ['sign', '--key', key, ...names, '--version', version, config];
    },
  };
}

async function aedes(t: Teardown): Promise<string> {
  const broker = await Aedes.createBroker();
  const sockets = new Set<Socket>();
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    broker.handle(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
    broker.close();
  });
  return `mqtt://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function mosquitto(t: Teardown): Promise<string> {
  const directory = makeDirectory();
  const broker = await Mosquitto.start(directory, ['allow_anonymous true']);
  t.teardown(async () => {
    await broker.stop();
    directory.remove();
  });
  return `mqtt://127.0.0.1:${broker.port}`;
}
