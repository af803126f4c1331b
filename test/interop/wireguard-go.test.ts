import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { DaemonInLab, eventually } from '../lab/daemon.ts';
import { Lab, whyNoLab } from '../lab/namespaces.ts';
import { WireguardGo } from '../lab/wireguard-go.ts';

const skip = whyNoLab();

/** REKEY_AFTER_TIME of the whitepaper §6.2, and time for the handshake. */
const REKEY_SECONDS = 120;

await t.test('we initiate: wireguard-go answers, with a preshared key', { skip }, async (t) => {
  const { lab, daemon, peer } = await pair(t, 'ours');
  await daemon.start();
  await ping(t, lab, 'ours', '10.77.0.2');
  const status = await daemon.status();
  t.match(status.peers, [{ id: 'go', state: 'connected', endpoint: '10.9.0.2:51821' }]);
  t.ok((await peer.latestHandshake()) > 0, 'wireguard-go saw the handshake');
});

await t.test('wireguard-go initiates: we answer and learn where it is', { skip }, async (t) => {
  const { lab, daemon } = await pair(t, 'theirs');
  await daemon.start();
  await ping(t, lab, 'theirs', '10.77.0.1');
  t.match((await daemon.status()).peers, [{ state: 'connected', endpoint: '10.9.0.2:51821' }]);
});

await t.test(
  'another preshared key makes no session, and the status says why',
  { skip },
  async (t) => {
    const { lab, daemon, peer, ourKey } = await pair(t, 'ours');
    await peer.wg(`peer ${ourKey} preshared-key /dev/stdin`, presharedKey());
    await daemon.start();
    const { code } = await lab.exec('ours', ['ping', '-c1', '-W1', '10.77.0.2']);
    t.equal(code, 1);
    const { peers, drops } = await daemon.status();
    t.match(peers, [{ id: 'go', state: 'connecting' }]);
    t.ok(drops['response-not-authentic'], 'a response came that does not open');
  },
);

await t.test('the tunnel follows when either side moves under traffic', { skip }, async (t) => {
  const { lab, daemon, peer } = await pair(t, 'ours');
  await daemon.start();
  await ping(t, lab, 'ours', '10.77.0.2');

  // Who moves must be the one who sends: the other cannot know where it went. This wireguard-go
  // pins its source address and fails for good when that goes away, so it moves to another port.
  const moving = lab.spawn('theirs', pings('10.77.0.1'));
  await moving.waitFor(/icmp_seq=5 /, 5000);
  await peer.wg('listen-port 51999');
  await eventually(
    () => daemon.status(),
    (status) => status.peers[0]?.endpoint === '10.9.0.2:51999',
    5000,
  );
  const [, returned] = await moving.waitFor(/(\d+) received/, 20_000);
  t.ok(Number(returned) > 40, `we follow wireguard-go: ${returned} of 60 pings came back`);

  const following = lab.spawn('ours', pings('10.77.0.2'));
  await following.waitFor(/icmp_seq=5 /, 5000);
  await readdress(lab, 'ours', 'to-theirs', '10.9.0.1/24', '10.9.0.11/24');
  await eventually(
    () => peer.endpoint(),
    (endpoint) => endpoint === '10.9.0.11:51820',
    5000,
  );
  const [, received] = await following.waitFor(/(\d+) received/, 20_000);
  t.ok(Number(received) > 50, `wireguard-go follows us: ${received} of 60 pings came back`);
});

await t.test('1 GB passes through the tunnel in each direction', { skip }, async (t) => {
  const { lab, daemon } = await pair(t, 'ours');
  await daemon.start();
  for (const reverse of [[], ['--reverse']]) {
    const server = lab.spawn('theirs', ['iperf3', '-s', '-1', '--forceflush']);
    await server.waitFor(/Server listening/, 5000);
    const iperf = ['iperf3', '-c', '10.77.0.2', '-n', '1G', '-J', ...reverse];
    const { stdout, code } = await lab.exec('ours', iperf, { timeoutMs: 90_000 });
    t.equal(code, 0, stdout.slice(-500));
    const { end } = JSON.parse(stdout) as {
      end: { sum_received: { bytes: number; bits_per_second: number } };
    };
    t.ok(end.sum_received.bytes >= 0.99 * 2 ** 30, `${end.sum_received.bytes} bytes arrived`);
    t.comment(`${reverse.join('')} ${(end.sum_received.bits_per_second / 1e9).toFixed(2)} Gbit/s`);
  }
  const { drops } = await daemon.status();
  t.notOk(drops['replayed'], 'nothing looked like a replay');
});

await t.test(
  'a rekey loses no packet, whoever initiates it',
  { skip, timeout: 200_000 },
  async (t) => {
    const names = ['ours', 'theirs'] as const;
    const pairs = await Promise.all(
      names.map((initiator) => pair(t, initiator, `rekey-${initiator}`)),
    );
    await Promise.all(pairs.map(({ daemon }) => daemon.start()));
    const runs = pairs.map(async ({ lab, peer }, i) => {
      const initiator = names[i] ?? 'ours';
      const target = initiator === 'ours' ? '10.77.0.2' : '10.77.0.1';
      await ping(t, lab, initiator, target);
      const before = await peer.latestHandshake();
      const count = (REKEY_SECONDS + 10) * 20;
      const command = ['ping', '-q', '-i', '0.05', '-c', String(count), target];
      const { stdout } = await lab.exec(initiator, command, {
        timeoutMs: (REKEY_SECONDS + 40) * 1000,
      });
      const after = await peer.latestHandshake();
      t.ok(
        after - before >= REKEY_SECONDS - 1,
        `${initiator}: a handshake after ${after - before} s`,
      );
      t.match(stdout, new RegExp(`${count} received`), `${initiator}: no ping was lost`);
    });
    await Promise.all(runs);
  },
);

/** A daemon of ours and a wireguard-go that know each other; only `initiator` knows where the other is. */
async function pair(t: Test, initiator: 'ours' | 'theirs', prefix = 'interop') {
  const directory = mkdtempSync(join(tmpdir(), 'culvert-interop-'));
  const lab = await Lab.create(prefix);
  t.teardown(async () => {
    await lab.destroy();
    rmSync(directory, { recursive: true, force: true });
  });
  await lab.namespace('ours');
  await lab.namespace('theirs');
  await lab.link('ours', 'theirs', ['10.9.0.1/24'], ['10.9.0.2/24']);

  const daemon = new DaemonInLab(lab, 'ours', directory);
  const { publicKey: ourKey } = await daemon.keys();
  const peer = await WireguardGo.start({
    lab,
    namespace: 'theirs',
    name: initiator === 'ours' ? 'wgo-a' : 'wgo-b',
    addresses: ['10.77.0.2/24'],
    listenPort: 51821,
  });
  const psk = presharedKey();
  const theirEndpoint = initiator === 'theirs' ? ' endpoint 10.9.0.1:51820' : '';
  await peer.wg(
    `peer ${ourKey} preshared-key /dev/stdin allowed-ips 10.77.0.1/32${theirEndpoint}`,
    psk,
  );
  daemon.configure({
    interface: { name: initiator === 'ours' ? 'cvt-a' : 'cvt-b', addresses: ['10.77.0.1/24'] },
    peers: [
      {
        id: 'go',
        publicKey: peer.publicKey,
        presharedKey: psk,
        allowedIps: ['10.77.0.2/32'],
        ...(initiator === 'ours' ? { endpoint: '10.9.0.2:51821' } : {}),
      },
    ],
  });
  return { lab, daemon, peer, ourKey };
}

/** The old address goes first: the kernel takes secondary addresses of a subnet away with it. */
async function readdress(lab: Lab, namespace: string, device: string, from: string, to: string) {
  await lab.ip(namespace, `address del ${from} dev ${device}`);
  await lab.ip(namespace, `address add ${to} dev ${device}`);
}

function pings(target: string): readonly string[] {
  return ['ping', '-i', '0.1', '-W', '1', '-c', '60', target];
}

async function ping(t: Test, lab: Lab, from: string, to: string): Promise<void> {
  const { code, stdout } = await lab.exec(from, ['ping', '-c', '3', '-i', '0.2', '-W', '5', to]);
  t.equal(code, 0, `${to} answers: ${stdout}`);
}

function presharedKey(): string {
  return execFileSync('wg', ['genpsk'], { encoding: 'utf8' }).trim();
}
