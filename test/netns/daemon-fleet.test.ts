import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { Status } from '../../core/engine/status.ts';
import { eventually } from '../lab/daemon.ts';
import { whyNoLab, type Running } from '../lab/namespaces.ts';
import { TwoSites } from '../lab/two-sites.ts';
import { shownForms } from '../secret-forms.ts';

/**
 * Site `a` is a device of a fleet, with a broker (embedded, MQTT 3.1.1) at site `b`, which stands alone.
 * The operator works from `b` too.
 */
const skip = whyNoLab();
const BROKER = 'mqtt://10.9.0.2:1883';
const OPERATOR = [process.execPath, 'dist/culvert-fleet.cjs'];
const PASSWORD = 'correct horse battery staple';

const HOLD_PORT = `
  const socket = require('node:dgram').createSocket('udp4');
  socket.bind(51999, '0.0.0.0', () => console.log('held'));`;

interface OperatorKey {
  readonly file: string;
  readonly publicKey: string;
}

class Scene {
  readonly sites: TwoSites;
  readonly #devices: Running[] = [];
  readonly #signingKey: string;
  #operator: OperatorKey | undefined;
  #broker: Running | undefined;
  #watch: Running | undefined;

  static async create(t: Test): Promise<Scene> {
    const sites = await TwoSites.create(t, 'dmn-fleet');
    sites.b.daemon.configure(sites.configurationOf(sites.b));
    const { signingPublicKey } = await sites.a.daemon.keys();
    const scene = new Scene(sites, signingPublicKey);
    scene.#operator = await scene.operatorKey('operator.key');
    return scene;
  }

  private constructor(sites: TwoSites, signingKey: string) {
    this.sites = sites;
    this.#signingKey = signingKey;
  }

  /** What the fleet sees, as long as the broker runs. */
  get watch(): Running {
    if (this.#watch === undefined) throw new Error('the broker was never started');
    return this.#watch;
  }

  async startBroker(): Promise<void> {
    const { lab } = this.sites;
    this.#broker = lab.spawn('b', [process.execPath, 'test/demo/broker.mjs', '0.0.0.0', '1883']);
    await this.#broker.waitFor(/listening/, 15_000);
    const key = `router-a=${this.#signingKey}`;
    const watch = [...OPERATOR, 'watch', '--broker', BROKER, '--fleet', 'test', '--json'];
    this.#watch = lab.spawn('b', [...watch, '--device-key', key]);
    await this.#watch.waitFor(/connected to/, 15_000);
  }

  async stopBroker(): Promise<void> {
    this.#broker?.signal('SIGKILL');
    await this.#broker?.ended;
    await this.#watch?.stop();
  }

  /** It holds the connections and says nothing. */
  freezeBroker(): void {
    this.#broker?.signal('SIGSTOP');
  }

  thawBroker(): void {
    this.#broker?.signal('SIGCONT');
  }

  /** `own` completes the bootstrap. */
  startDevice(own: object = {}): Running {
    const file = join(this.sites.directory, 'bootstrap.json');
    const bootstrap = {
      fleet: 'test',
      device: 'router-a',
      brokers: [BROKER],
      username: 'router-a',
      password: PASSWORD,
      operatorKeys: [this.#operator?.publicKey],
      ...own,
    };
    writeFileSync(file, JSON.stringify(bootstrap));
    const running = this.sites.a.daemon.spawnWith('--bootstrap', file, '--log-level', 'trace');
    this.#devices.push(running);
    return running;
  }

  async operatorKey(name: string): Promise<OperatorKey> {
    const file = join(this.sites.directory, name);
    const stdout = await this.#operate(['keygen', '--out', file, '--json']);
    const { publicKey } = JSON.parse(stdout) as { publicKey: string };
    return { file, publicKey };
  }

  configuration(own: object = {}): object {
    const { sites } = this;
    return { schema: 1, ...sites.configurationOf(sites.a, own) };
  }

  async sign(
    version: number,
    configuration: object,
    { device = 'router-a', key = this.#operator } = {},
  ): Promise<string> {
    const file = join(this.sites.directory, 'configuration.json');
    writeFileSync(file, JSON.stringify(configuration));
    const options = ['--fleet', 'test', '--device', device, '--version', String(version)];
    return (await this.#operate(['sign', '--key', key?.file ?? '', ...options, file])).trim();
  }

  /** Pushes as an operator does. */
  async push(envelope: string, ...options: readonly string[]) {
    const file = join(this.sites.directory, 'envelope.json');
    writeFileSync(file, envelope);
    const key = `router-a=${this.#signingKey}`;
    const push = [...OPERATOR, 'push', '--broker', BROKER, '--device-key', key, '--json'];
    return this.sites.lab.exec('b', [...push, ...options, file], { timeoutMs: 40_000 });
  }

  /** Puts anything on the topic of the device, as whoever has the broker can. */
  async publish(payload: string): Promise<void> {
    const topic = 'culvert/1/test/router-a/desired';
    const command = ['mosquitto_pub', '-h', '10.9.0.2', '-q', '1', '-r', '-t', topic, '-s'];
    const { code, stderr } = await this.sites.lab.exec('b', command, { input: payload });
    if (code !== 0) throw new Error(stderr);
  }

  /** All that the device ever printed or wrote, but for its bootstrap. */
  everything(): string {
    const kept = readFileSync(join(this.sites.a.daemon.directory, 'desired.json'), 'utf8');
    return [kept, ...this.#devices.flatMap(({ lines }) => lines)].join('\n');
  }

  async #operate(parameters: readonly string[]): Promise<string> {
    const { stdout, stderr, code } = await this.sites.lab.exec('b', [...OPERATOR, ...parameters]);
    if (code !== 0) throw new Error(stderr);
    return stdout;
  }
}

await t.test('a device of a fleet', { skip }, async (t) => {
  const scene = await Scene.create(t);
  const { sites } = scene;
  const { a, b } = sites;
  await b.daemon.start();
  let running = scene.startDevice();

  await t.test('waits for a broker that is down', async (t) => {
    await running.waitFor(/no connection to a broker/, 15_000);
    t.match(await a.daemon.status(), { phase: 'waiting for configuration', peers: [] });
    await scene.startBroker();
    await eventually(() => a.daemon.status(), isConnected, 20_000);
    await scene.watch.waitFor(says('presence', { state: 'ready' }), 10_000);
  });

  await t.test('applies the configuration that its operator signed, and says so', async (t) => {
    const pushed = await scene.push(await scene.sign(2, scene.configuration()), '--wait', '20');
    t.equal(pushed.code, 0, pushed.stderr);
    t.match(pushed.stdout, /"phase":"applied".*"appliedVersion":2/);
    await sites.ping(t, 'a', b.ipv4);
    t.match(await a.daemon.status(), { phase: 'running', fleet: { version: 2 } });
  });

  await t.test('refuses what is not for it or not from its operator', async (t) => {
    const other = await scene.operatorKey('other.key');
    const elsewhere = await scene.sign(9, scene.configuration(), { device: 'router-z' });
    const good = await scene.sign(9, scene.configuration({ mtu: 1300 }));
    const forged = JSON.parse(good) as { body: string; signature: string };
    const changed = Buffer.from(forged.body, 'base64').toString().replace('1300', '1301');
    const cases: readonly (readonly [why: string, envelope: string])[] = [
      ['unknown-operator-key', await scene.sign(9, scene.configuration(), { key: other })],
      [
        'bad-signature',
        JSON.stringify({ ...forged, body: Buffer.from(changed).toString('base64') }),
      ],
      ['wrong-device', elsewhere],
      ['older-version', await scene.sign(1, scene.configuration())],
      ['same-version', await scene.sign(2, scene.configuration({ mtu: 1301 }))],
      ['malformed', '{"not":"an envelope"}'],
      ['would-remove-all-peers', await scene.sign(9, { ...scene.configuration(), peers: [] })],
    ];
    const before = await a.daemon.status();
    const pings = await sites.startPings('a', b.ipv4);
    for (const [why, envelope] of cases) {
      await t.test(why, async (t) => {
        const from = scene.watch.lines.length;
        await scene.publish(envelope);
        const line = await eventually(
          async () => scene.watch.lines.slice(from).find((text) => text.includes('"refused"')),
          (found) => found !== undefined,
          10_000,
        );
        t.match(line, new RegExp(`"why":"${why}".*"appliedVersion":2\\b`), 'it tells the fleet');
        const { lastError, interface: own, peers } = await a.daemon.status();
        t.match(lastError, `desired state refused: ${why}`, 'and whoever asks here');
        t.same(own, before.interface);
        t.match(peers, [{ lastHandshakeUnixMs: before.peers[0]?.lastHandshakeUnixMs }]);
      });
    }
    const { sent, lost } = await pings.end();
    t.ok(lost <= 1, `${lost} of ${sent} pings were lost`);
  });

  await t.test('tells the fleet of its tunnels', async (t) => {
    const up = says('state', { id: 'site-b', path: 'direct' });
    const [line] = await scene.watch.waitFor(up, 20_000);
    t.match(line, '"verified":true');
  });

  await t.test('says which value cannot be, and tries again until it can', async (t) => {
    const holder = sites.lab.spawn('a', [process.execPath, '-e', HOLD_PORT]);
    await holder.waitFor(/held/, 10_000);
    const moved = await scene.sign(3, scene.configuration({ listenPort: 51999 }));
    const failed = await scene.push(moved, '--wait', '20');
    t.equal(failed.code, 1);
    t.match(failed.stdout, /"phase":"failed".*interface\.listenPort.*port-taken/);
    await sites.ping(t, 'a', b.ipv4);
    t.match(await a.daemon.status(), { interface: { listenPort: 51820 }, fleet: { version: 2 } });
    await holder.stop();
    const { interface: own } = await eventually(
      () => a.daemon.status(),
      ({ fleet }) => fleet?.version === 3,
      20_000,
    );
    t.match(own, { listenPort: 51999 });
    await sites.ping(t, 'a', b.ipv4);
  });

  await t.test('comes back to a broker that was restarted, which forgot all', async (t) => {
    const pings = await sites.startPings('a', b.ipv4);
    await scene.stopBroker();
    await eventually(
      () => a.daemon.status(),
      ({ fleet }) => fleet?.broker === undefined,
      10_000,
    );
    await pings.next();
    await scene.startBroker();
    await eventually(() => a.daemon.status(), isConnected, 30_000);
    await scene.watch.waitFor(says('presence', { state: 'ready' }), 20_000);
    await scene.watch.waitFor(says('reported', { phase: 'applied', appliedVersion: 3 }), 20_000);
    t.match(await a.daemon.status(), { phase: 'running', fleet: { version: 3 } });
    const { sent, lost } = await pings.end();
    t.ok(lost <= 1, `${lost} of ${sent} pings were lost`);
  });

  await t.test('is lost when it is killed, and ready when it is back', async (t) => {
    running.signal('SIGKILL');
    await running.ended;
    await scene.watch.waitFor(says('presence', { state: 'lost' }), 20_000);
    const from = scene.watch.lines.length;
    running = scene.startDevice();
    await eventually(
      async () => scene.watch.lines.slice(from),
      (lines) => lines.some((line) => says('presence', { state: 'ready' }).test(line)),
      20_000,
    );
    await sites.ping(t, 'a', b.ipv4);
  });

  await t.test('leaves a broker that is silent after a change of the network', async (t) => {
    await eventually(() => a.daemon.status(), isConnected, 20_000);
    scene.freezeBroker();
    await sites.lab.ip('a', 'address add 10.9.0.111/24 dev to-b');
    await eventually(
      () => a.daemon.status(),
      ({ fleet }) => fleet?.broker === undefined,
      3_500,
    );
    t.match(running.lines.join('\n'), 'the broker fell silent');
    scene.thawBroker();
    await eventually(() => a.daemon.status(), isConnected, 5_000);
    await sites.lab.ip('a', 'address del 10.9.0.111/24 dev to-b');
  });

  await t.test('says goodbye when it is stopped', async (t) => {
    running.signal('SIGTERM');
    t.equal(await running.ended, 0);
    await scene.watch.waitFor(says('presence', { state: 'stopped' }), 10_000);
  });

  await t.test('ends in time although the broker is frozen', async (t) => {
    running = scene.startDevice();
    await running.waitFor(/connected to a broker/, 20_000);
    scene.freezeBroker();
    const asked = performance.now();
    running.signal('SIGTERM');
    t.equal(await running.ended, 0);
    const tookMs = performance.now() - asked;
    t.ok(tookMs < 2000, `it took ${tookMs.toFixed(0)} ms`);
  });

  await t.test('runs on what it kept, without a broker and on a full flash', async (t) => {
    await scene.stopBroker();
    // A folder in its place makes the counter of starts as impossible to write as a full flash does.
    mkdirSync(join(a.daemon.directory, '.boot.unfinished'));
    running = scene.startDevice();
    await running.waitFor(/this start is not counted/, 15_000);
    await running.waitFor(/configuration applied/, 15_000);
    await sites.ping(t, 'a', b.ipv4);
    t.match(await a.daemon.status(), { phase: 'running', fleet: { version: 3 } });
  });

  await t.test('listens on its own port where its bootstrap names one', async (t) => {
    running.signal('SIGTERM');
    t.equal(await running.ended, 0);
    running = scene.startDevice({ interface: { listenPort: 4501 } });
    await running.waitFor(/configuration applied/, 15_000);
    t.match(await a.daemon.status(), { interface: { listenPort: 4501 }, fleet: { version: 3 } });
    await sites.ping(t, 'a', b.ipv4);
  });

  await t.test('never writes its password into the log', async (t) => {
    t.match(running.lines.join('\n'), '"severity":"debug"');
    t.notMatch(scene.everything(), new RegExp(PASSWORD.slice(0, 9)));
  });
});

await t.test(
  'an error of its own ends it with a record that holds no secret',
  { skip },
  async (t) => {
    const scene = await Scene.create(t);
    const { sites } = scene;
    const { a, b } = sites;
    const [psk, setPsk, setKey] = ['genpsk', 'genpsk', 'genkey'].map((command) =>
      execFileSync('wg', [command], { encoding: 'utf8' }).trim(),
    ) as [string, string, string];
    b.daemon.configure(sites.configurationOf(b, {}, { presharedKey: psk }));
    await b.daemon.start();
    await scene.startBroker();
    a.daemon.nodeFlags = ['--import', './test/lab/fault.mjs'];
    const running = scene.startDevice();
    const document = { schema: 1, ...sites.configurationOf(a, {}, { presharedKey: psk }) };
    const envelope = await scene.sign(1, document);
    const pushed = await scene.push(envelope, '--wait', '20');
    t.equal(pushed.code, 0, pushed.stderr);
    await sites.ping(t, 'a', b.ipv4);
    const [pskFile, keyFile] = ['set.psk', 'set.key'].map((name) =>
      join(sites.directory, name),
    ) as [string, string];
    writeFileSync(pskFile, setPsk);
    writeFileSync(keyFile, setKey);
    const set = ['private-key', keyFile, 'peer', b.publicKey, 'preshared-key', pskFile];
    const { code } = await sites.lab.exec('a', ['wg', 'set', a.device, ...set]);
    t.equal(code, 0);

    running.signal('SIGWINCH');
    sites.lab.spawn('b', ['ping', '-i', '0.1', '-c', '50', a.ipv4]);
    t.equal(await running.ended, 70, 'the supervisor is told');
    const file = `${a.daemon.socket}.flight-record.json`;
    t.match(running.lines.join('\n'), `"flightRecord":"${file}"`);
    t.equal(statSync(file).mode & 0o777, 0o600);
    const text = readFileSync(file, 'utf8');
    const record = JSON.parse(text) as { error: object; inputs: readonly object[] };
    t.match(record.error, { message: 'Error: injected fault', stack: [/fault\.mjs/] });
    const bytes = Buffer.byteLength(envelope);
    t.match(
      record.inputs.find((recorded) => JSON.stringify(recorded).includes('/desired')),
      { input: { event: { bytes, sha256: createHash('sha256').update(envelope).digest('hex') } } },
    );
    t.match(text, '"setsPrivateKey":true');
    t.match(text, '"setsPresharedKey":true');
    const keys = ['wireguard.key', 'device.key'].map((name) =>
      readFileSync(join(a.daemon.directory, name), 'utf8').trim(),
    );
    for (const key of [psk, setPsk, setKey, ...keys]) {
      t.same(shownForms(Buffer.from(key, 'base64'), text), []);
      t.same(shownForms(Buffer.from(key), text), []);
    }
    t.same(shownForms(Buffer.from(PASSWORD), text), []);

    a.daemon.nodeFlags = [];
    const again = scene.startDevice();
    await again.waitFor(/configuration applied/, 20_000);
    await sites.ping(t, 'a', b.ipv4);
  },
);

await t.test('a bad bootstrap is refused with the path of the value', { skip }, async (t) => {
  const sites = await TwoSites.create(t, 'dmn-boot');
  const { a } = sites;
  const file = join(sites.directory, 'bootstrap.json');
  const good = {
    fleet: 'test',
    device: 'router-a',
    brokers: [BROKER],
    operatorKeys: [a.publicKey],
  };
  for (const [changes, says] of [
    [{ brokers: ['http://10.9.0.2'] }, /^ {2}brokers\[0\]: /m],
    [{ brokers: ['mqtt://10.9.0.2:99999'] }, /brokers/],
    [{ operatorKeys: [] }, /^ {2}operatorKeys: /m],
    [{ device: 'a/b' }, /^ {2}device: /m],
    [{ passwort: PASSWORD }, /^ {2}passwort: unknown key/m],
    [{ ca: '/nonexistent/ca.pem' }, /\/nonexistent\/ca\.pem: there is no such file/],
  ] as const) {
    writeFileSync(file, JSON.stringify({ ...good, ...changes }));
    const running = a.daemon.spawnWith('--bootstrap', file);
    t.equal(await running.ended, 3, JSON.stringify(changes));
    t.match(running.lines.join('\n'), says);
    t.notMatch(running.lines.join('\n'), PASSWORD);
  }
});

/** A line of `culvert-fleet watch --json` of this kind with these values, in this order. */
function says(kind: string, values: Readonly<Record<string, string | number>>): RegExp {
  const fields = Object.entries(values).map(([key, value]) => `"${key}":${JSON.stringify(value)}`);
  return new RegExp(`.*"kind":"${kind}".*${fields.join('.*')}.*`);
}

function isConnected({ fleet }: Status): boolean {
  return fleet?.broker !== undefined;
}
