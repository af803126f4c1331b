import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { EXIT_CODES, type ExitName } from '../../openwrt/exit-code.ts';
import { DaemonInLab } from '../lab/daemon.ts';
import { Lab, whyNoLab } from '../lab/namespaces.ts';

/** What the daemon says and how it ends where it cannot start. */
const skip = whyNoLab();
const DEVICE = 'dmn-start0';
const GOOD = { interface: { name: DEVICE, addresses: ['100.64.0.1/32'] }, peers: [] };
const NATIVE = `dist/native/culvert-${process.arch}.node`;

const HOLD_PORT = `
  const socket = require('node:dgram').createSocket('udp4');
  socket.bind(51820, '0.0.0.0', () => console.log('held'));`;

await t.test('a bad configuration is refused with the path of the value', { skip }, async (t) => {
  const { refusal, configurationFile } = await router(t);
  const bad: readonly (readonly [what: string, text: string, says: RegExp])[] = [
    [
      'a wrong type',
      json({ interface: { mtu: 'big' } }),
      /^ {2}interface\.mtu: must be a number$/m,
    ],
    ['an unknown key', json({ colour: 'red' }), /^ {2}colour: unknown key$/m],
    [
      'a deep value',
      json({ peers: [{ id: 'b', publicKey: 'x', allowedIps: ['10.0.0.1/8'] }] }),
      /^ {2}peers\[0\]\.publicKey: .*\n {2}peers\[0\]\.allowedIps\[0\]: .*$/m,
    ],
    ['a missing one', json({ peers: undefined }), /^ {2}peers: is missing$/m],
    ['truncated JSON', json({}).slice(0, 40), /is not JSON: \S/],
    ['an empty file', '', /is not JSON: \S/],
    ['something else', 'config interface', /is not JSON: \S/],
    ['null', 'null', /must be an object/],
  ];
  for (const [what, text, says] of bad) {
    writeFileSync(configurationFile, text);
    const stderr = await refusal(t, what, 'configuration');
    t.match(stderr, says, what);
    t.match(stderr, configurationFile, 'the file is named');
  }

  const secret = 'eW91IHNob3VsZCBub3Qgc2VlIHRoaXMgYW55d2hlcmU=';
  writeFileSync(configurationFile, `{"peers":[{"presharedKey":${secret}}]}`);
  t.notMatch(
    await refusal(t, 'JSON with a key and no quotes', 'configuration'),
    secret.slice(0, 5),
  );

  rmSync(configurationFile);
  t.match(await refusal(t, 'a missing file', 'configuration'), /no such file/);
});

await t.test('what the machine lacks is named, with a cure', { skip }, async (t) => {
  const { refusal, inMountNamespace, daemon } = await router(t);
  const hidden = inMountNamespace('mount -t tmpfs tmpfs /dev/net');
  t.match(await refusal(t, 'no /dev/net/tun', 'no-tun', hidden), /kmod-tun/);
  const covered = inMountNamespace('mount --bind /dev/null /dev/net/tun');
  t.match(await refusal(t, 'another file there', 'no-tun', covered), /kmod-tun/);

  const incapable = ['setpriv', '--bounding-set', '-net_admin'];
  t.match(await refusal(t, 'no CAP_NET_ADMIN', 'not-permitted', incapable), /as root/);
  const nobody = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'];
  await daemon.keys();
  t.match(await refusal(t, 'not root', 'not-permitted', nobody), /wireguard\.key.* as root/);
});

await t.test('what another program holds is named', { skip }, async (t) => {
  const { lab, refusal } = await router(t);
  const port = lab.spawn('router', [process.execPath, '-e', HOLD_PORT]);
  await port.waitFor(/held/, 10_000);
  t.match(await refusal(t, 'the port', 'port-taken'), /interface\.listenPort/);
  await port.stop();

  const tun = lab.spawn('router', ['wireguard-go', '-f', DEVICE], {
    env: { WG_PROCESS_FOREGROUND: '1', LOG_LEVEL: 'verbose' },
  });
  await tun.waitFor(/UAPI listener started/, 10_000);
  t.match(await refusal(t, 'a TUN of the name', 'name-taken'), /interface\.name/);
  await tun.stop();

  await lab.ip('router', `link add ${DEVICE} type veth peer name other`);
  t.match(await refusal(t, 'another kind of interface', 'name-taken'), /interface\.name/);
  await lab.ip('router', `link del ${DEVICE}`);
});

await t.test('one socket has one daemon', { skip }, async (t) => {
  const { daemon, refusal } = await router(t);
  const first = await daemon.start();
  t.match(await refusal(t, 'a second daemon', 'already-running'), daemon.socket);
  t.match(await daemon.status(), { phase: 'running' }, 'the first is unharmed');
  first.signal('SIGKILL');
  await first.ended;
  await daemon.start();
  t.match(await daemon.status(), { phase: 'running' }, 'the socket of a dead one is taken over');
  t.equal(await daemon.stop(), 0);
  const { code, stderr } = await daemon.command('status', '--socket', daemon.socket);
  t.equal(code, EXIT_CODES['not-running'].code);
  t.match(stderr, /is not running/);
});

await t.test('a native file that is missing or damaged is named', { skip }, async (t) => {
  const { refusal, directory } = await router(t);
  const file = join(directory, 'native.node');
  const native = (): Promise<string> => refusal(t, 'the file', 'no-native', [], ['--native', file]);
  t.match(await native(), /native\.node is missing/);
  const whole = readFileSync(NATIVE);
  for (const length of [0, 30, 100, whole.length >> 1, whole.length - 1]) {
    writeFileSync(file, whole.subarray(0, length));
    t.match(await native(), /native\.node/, `cut off after ${length} bytes`);
  }
  writeFileSync(file, 'not a shared object');
  t.match(await native(), /does not load/);
});

function json(changes: object): string {
  return JSON.stringify({ schema: 1, ...GOOD, ...changes });
}

/** A namespace with a daemon that is configured well but not started. */
async function router(t: Test) {
  const directory = mkdtempSync(join(tmpdir(), 'culvert-dmn-start-'));
  const lab = await Lab.create('dmn-start');
  t.teardown(async () => {
    await lab.destroy();
    rmSync(directory, { recursive: true, force: true });
  });
  await lab.namespace('router');
  chmodSync(directory, 0o755);
  const daemon = new DaemonInLab(lab, 'router', join(directory, 'state'));
  const configurationFile = join(directory, 'culvert.json');
  writeFileSync(configurationFile, json({}));
  daemon.configure(GOOD);

  /**
   * Runs the daemon, behind the words of `wrapper`, to its end. Checks the exit code and the form of the
   * message, and returns it.
   */
  async function refusal(
    t: Test,
    what: string,
    exit: ExitName,
    wrapper: readonly string[] = [],
    options: readonly string[] = [],
  ): Promise<string> {
    const own = ['--config', configurationFile, '--state-dir', daemon.directory];
    const command = [...wrapper, process.execPath, 'dist/culvert.cjs', 'run', ...own];
    const { code, stderr } = await lab.exec(
      'router',
      [...command, '--socket', daemon.socket, ...options],
      { timeoutMs: 20_000 },
    );
    t.equal(code, EXIT_CODES[exit].code, `${what}: the exit code says ${exit}`);
    t.match(stderr, /^culvert: \S.*\n( {2}\S.*\n)*$/, `${what}: one message`);
    t.notMatch(stderr, /^ +at /m, `${what}: no stack trace`);
    return stderr;
  }

  function inMountNamespace(change: string): readonly string[] {
    return ['unshare', '-m', 'sh', '-ec', `${change}; exec "$@"`, 'sh'];
  }

  return { lab, directory, daemon, configurationFile, refusal, inMountNamespace };
}
