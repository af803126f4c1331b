import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { formatIpPrefix } from '../../../core/net/ip-prefix.ts';
import { nullLog } from '../../../core/sansio/log.ts';
import type { UapiPeerState, UapiSet, UapiState } from '../../../core/wireguard/uapi.ts';
import { createUapiSocket, type UapiHandler } from '../../../plugins/local-api/index.ts';

/** What a device keeps of what it is told. */
class MemoryDevice implements UapiHandler {
  errno: number | 'throw' = 0;
  peers: UapiPeerState[] = [];
  #own: Omit<UapiState, 'peers'> = { privateKey: undefined, listenPort: 0, fwmark: 0 };

  get(): UapiState {
    return { ...this.#own, peers: this.peers };
  }

  set(request: UapiSet): number {
    if (this.errno === 'throw') throw new Error('broken');
    if (this.errno !== 0) return this.errno;
    const { privateKey = this.#own.privateKey, listenPort, fwmark } = request;
    this.#own = {
      privateKey: privateKey === 'none' ? undefined : privateKey,
      listenPort: listenPort ?? this.#own.listenPort,
      fwmark: fwmark ?? this.#own.fwmark,
    };
    if (request.replacePeers) this.peers = [];
    for (const change of request.peers) {
      const isThis = (peer: UapiPeerState): boolean =>
        Buffer.from(peer.publicKey).equals(change.publicKey);
      const old = this.peers.find(isThis);
      this.peers = this.peers.filter((peer) => !isThis(peer));
      if (change.remove || (change.updateOnly && old === undefined)) continue;
      const { presharedKey = old?.presharedKey } = change;
      const allowedIps = new Map(
        (change.replaceAllowedIps ? [] : (old?.allowedIps ?? [])).map((p) => [
          formatIpPrefix(p),
          p,
        ]),
      );
      for (const { action, prefix } of change.allowedIps) {
        if (action === 'add') allowedIps.set(formatIpPrefix(prefix), prefix);
        else allowedIps.delete(formatIpPrefix(prefix));
      }
      this.peers.push({
        publicKey: change.publicKey,
        presharedKey: presharedKey === 'none' ? undefined : presharedKey,
        endpoint: change.endpoint ?? old?.endpoint,
        persistentKeepalive: change.persistentKeepalive ?? old?.persistentKeepalive ?? 0,
        allowedIps: [...allowedIps.values()],
        lastHandshakeUnixMs: 1_700_000_000_000,
        rxBytes: 2 ** 40,
        txBytes: 7,
      });
    }
    return 0;
  }
}

const name = `cvtest${process.pid % 100_000}`;
const directory = mkdtempSync(join(tmpdir(), 'culvert-uapi-'));
t.teardown(() => rmSync(directory, { recursive: true }));
let files = 0;
const path = `/var/run/wireguard/${name}.sock`;

const wgVersion = await wg('--version').catch(() => undefined);
const isRoot = process.getuid?.() === 0;
const skip = !isRoot
  ? 'needs root for /var/run/wireguard'
  : wgVersion === undefined
    ? 'needs wg of wireguard-tools'
    : false;

await t.test('the real wg sets, shows and writes out an interface', { skip }, async (t) => {
  const device = new MemoryDevice();
  const socket = createUapiSocket({ path, handler: device, log: nullLog });
  t.match(await socket.start(), { ok: true });
  t.teardown(() => socket.stop());

  const privateKey = (await wg('genkey')).trim();
  const publicKey = await wg('pubkey', { input: privateKey });
  const peer = (await wg('pubkey', { input: await wg('genkey') })).trim();
  const presharedKey = (await wg('genpsk')).trim();
  await wg(
    'set',
    name,
    'listen-port',
    '51820',
    'fwmark',
    '0x2680',
    'private-key',
    file(privateKey),
  );
  await wg('set', name, 'peer', peer, 'preshared-key', file(presharedKey), 'endpoint', '[2001:db8::1]:51821',
    'persistent-keepalive', '25', 'allowed-ips', '10.0.0.0/8,fd00::/8'); // prettier-ignore

  const [own, ...peers] = (await wg('show', name, 'dump'))
    .trim()
    .split('\n')
    .map((line) => line.split('\t'));
  t.same(own, [privateKey, publicKey.trim(), '51820', '0x2680']);
  t.same(peers, [
    [
      peer,
      presharedKey,
      '[2001:db8::1]:51821',
      '10.0.0.0/8,fd00::/8',
      '1700000000',
      '1099511627776',
      '7',
      '25',
    ],
  ]);
  t.match(
    await wg('show', name),
    /latest handshake: .*\n {2}transfer: 1\.00 TiB received, 7 B sent/,
  );
  t.ok((await wg('show', 'interfaces')).split(/\s+/).includes(name));

  const configuration = await wg('showconf', name);
  t.match(configuration, `PrivateKey = ${privateKey}`);
  t.match(configuration, `AllowedIPs = 10.0.0.0/8, fd00::/8`);

  await wg('set', name, 'peer', peer, 'preshared-key', '/dev/null', 'allowed-ips', '');
  t.match(device.peers[0], { presharedKey: undefined, allowedIps: [] });
  await wg('setconf', name, file(configuration));
  t.equal(await wg('showconf', name), configuration, 'what it wrote out, it takes back');
  await wg('syncconf', name, file(configuration));
  t.equal(await wg('showconf', name), configuration);
  await wg('set', name, 'peer', peer, 'remove');
  t.equal(await wg('show', name, 'peers'), '');
});

await t.test('wg shows the error that the handler gives', { skip }, async (t) => {
  const device = new MemoryDevice();
  device.errno = 98;
  const socket = createUapiSocket({ path, handler: device, log: nullLog });
  t.match(await socket.start(), { ok: true });
  t.teardown(() => socket.stop());
  await t.rejects(wg('set', name, 'listen-port', '1'), { message: /Address already in use/ });
  device.errno = 'throw';
  await t.rejects(wg('set', name, 'listen-port', '1'), { message: /Input\/output error/ });
});

await t.test(
  'one connection may ask again and again, and a bad request is answered',
  { skip },
  async (t) => {
    const socket = createUapiSocket({ path, handler: new MemoryDevice(), log: nullLog });
    t.match(await socket.start(), { ok: true });
    t.teardown(() => socket.stop());
    const answers = await new Promise<string>((resolve) => {
      const client = connect({ path, allowHalfOpen: true });
      let received = '';
      client.setEncoding('utf8');
      client.on('data', (piece: string) => (received += piece));
      client.once('end', () => {
        client.destroy();
        resolve(received);
      });
      client.end('get=1\n\nset=1\nlisten_port=x\n\nhello\n\nget=1\n\n');
    });
    t.equal(answers, 'errno=0\n\nerrno=-22\n\nerrno=-71\n\nerrno=0\n\n');
  },
);

/** Returns the path of a file with this text: wg cannot open the socket that is its standard input. */
function file(text: string): string {
  const path = join(directory, `${files++}`);
  writeFileSync(path, text, { mode: 0o600 });
  return path;
}

/** Runs wg and returns what it prints; rejects with what it complains. */
function wg(...args: (string | { readonly input: string })[]): Promise<string> {
  const words = args.filter((arg) => typeof arg === 'string');
  const options = args.find((arg) => typeof arg !== 'string');
  return new Promise((resolve, reject) => {
    const child = execFile('wg', words, { timeout: 10_000 }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else reject(new Error(stderr || error.message));
    });
    child.stdin?.end(options?.input);
  });
}
