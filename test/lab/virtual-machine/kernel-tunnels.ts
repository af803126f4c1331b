/*
 * Tunnels of the kernel's WireGuard, set by our plugin: with each other and with our daemon. For a kernel that
 * has WireGuard, `npm run lab`.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { loadNative } from '../../../plugins/platform-node/index.ts';
import { key, peer, prefixes, socket } from '../../contract/wireguard-device.ts';
import { kernelWorld } from '../../netns/wireguard-world.ts';
import { DaemonInLab } from '../daemon.ts';
import { Lab } from '../namespaces.ts';

const loaded = loadNative(process.argv[2] ?? 'culvert.node');
if ('skip' in loaded) throw new Error(loaded.skip);
const world = kernelWorld(loaded);

await t.test('two kernels ping each other through devices that we set', async (t) => {
  const lab = await twoNamespaces(t);
  await device(lab, 'a', { number: 8, other: world.publicKeyOf(key(16)) });
  await device(lab, 'b', { number: 16, other: world.publicKeyOf(key(8)) });
  await ping(t, lab, 'a', '10.77.0.2');
  await ping(t, lab, 'b', '10.77.0.1');
});

for (const initiator of ['a', 'b']) {
  const who = initiator === 'a' ? 'the kernel' : 'our daemon';
  await t.test(`a kernel and our daemon ping each other, ${who} first`, async (t) => {
    const lab = await twoNamespaces(t);
    const directory = mkdtempSync(join(tmpdir(), 'culvert-kernel-'));
    t.teardown(() => rmSync(directory, { recursive: true, force: true }));
    const daemon = new DaemonInLab(lab, 'b', directory);
    const { publicKey } = await daemon.keys();
    await device(lab, 'a', { number: 8, other: new Uint8Array(Buffer.from(publicKey, 'base64')) });
    daemon.configure({
      interface: { name: 'cvt-b', addresses: ['10.77.0.2/24'] },
      peers: [
        {
          id: 'kernel',
          publicKey: Buffer.from(world.publicKeyOf(key(8))).toString('base64'),
          allowedIps: ['10.77.0.1/32'],
          endpoint: '10.9.0.1:51820',
        },
      ],
    });
    await daemon.start();
    await ping(t, lab, initiator, initiator === 'a' ? '10.77.0.2' : '10.77.0.1');
    t.match((await daemon.status()).peers, [{ id: 'kernel', state: 'connected' }]);
    t.equal(await daemon.stop(), 0);
  });
}

await world.close();

async function twoNamespaces(t: Test): Promise<Lab> {
  const lab = await Lab.create('kernel');
  t.teardown(() => lab.destroy());
  await lab.namespace('a');
  await lab.namespace('b');
  await lab.link('a', 'b', ['10.9.0.1/24'], ['10.9.0.2/24']);
  return lab;
}

/**
 * Makes a device in its namespace, where its socket stays, and has it here while the plugin sets it: the plugin
 * speaks to the namespace that its process is in.
 */
async function device(
  lab: Lab,
  namespace: 'a' | 'b',
  { number, other }: { readonly number: number; readonly other: Uint8Array },
): Promise<void> {
  const name = `kernel-${namespace}`;
  const [own, far] = namespace === 'a' ? [1, 2] : [2, 1];
  execFileSync('ip', ['-n', `kernel.${namespace}`, 'link', 'add', name, 'type', 'wireguard']);
  execFileSync('ip', [
    '-n',
    `kernel.${namespace}`,
    'link',
    'set',
    name,
    'netns',
    String(process.pid),
  ]);
  const wanted = peer(0, { allowedIps: prefixes(`10.77.0.${far}/32`) });
  const endpoint = socket(`10.9.0.${far}:51820`);
  const peers = [{ ...wanted, publicKey: other, endpoint }];
  const applied = world.device.apply({
    name,
    privateKey: key(number),
    listenPort: 51820,
    fwmark: 0,
    peers,
  });
  if (!applied.ok) throw new Error(JSON.stringify(applied.failures));
  execFileSync('ip', ['link', 'set', name, 'netns', `kernel.${namespace}`]);
  await lab.ip(namespace, `address add 10.77.0.${own}/24 dev ${name}`);
  await lab.ip(namespace, `link set ${name} up`);
}

async function ping(t: Test, lab: Lab, from: string, to: string): Promise<void> {
  const command = ['ping', '-n', '-c', '3', '-i', '0.2', '-W', '5', to];
  const { code, stdout } = await lab.exec(from, command, { timeoutMs: 20_000 });
  t.equal(code, 0, `${to} answers ${from}: ${stdout}`);
}
