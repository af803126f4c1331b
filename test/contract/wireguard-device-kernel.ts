/*
 * The contract of `WireguardDevice` on the kernel of this machine, for a virtual machine that has WireGuard:
 * a plain script, that bundles into one file. It needs root, `ip`, `wg`, and the native file:
 * node wireguard-device-kernel.cjs culvert.node
 */
import { execFileSync } from 'node:child_process';
import type { Native } from '../../core/plugin/native.ts';
import { loadNative } from '../../plugins/platform-node/index.ts';
import { kernelWorld } from '../netns/wireguard-world.ts';
import { PlainAssertions } from './plain-assertions.ts';
import {
  key,
  manyPrefixes,
  peer,
  socket,
  wireguardDeviceContract,
  type Assertions,
} from './wireguard-device.ts';

const loaded = loadNative(process.argv[2] ?? 'culvert.node');
if ('skip' in loaded) throw new Error(loaded.skip);
let sent = 0;
const calls: Native = {
  ...loaded,
  send(fd, bytes) {
    sent++;
    return loaded.send(fd, bytes);
  },
};

void main();

async function main(): Promise<void> {
  const t = new PlainAssertions();
  await wireguardDeviceContract(t.asTap, async () => kernelWorld(calls));
  await t.test('a keepalive that is switched on starts a handshake, which is read', () =>
    handshake(t.asTap),
  );
  for (const each of [2, 50]) {
    await t.test(`costs of 2,000 peers with ${each} allowed IPs each`, () => measure(each));
  }
  process.exitCode = t.failed === 0 ? 0 : 1;
}

/** Between two devices of this machine. */
async function handshake(t: Assertions): Promise<void> {
  const { device, publicKeyOf, close } = kernelWorld(calls);
  const ends = [
    { name: 'culvert8', privateKey: key(8), other: key(16), listenPort: 51828, to: 51829 },
    { name: 'culvert9', privateKey: key(16), other: key(8), listenPort: 51829, to: 51828 },
  ];
  for (const { name, privateKey, other, listenPort } of ends) {
    device.create(name);
    const one = { ...peer(0, {}), publicKey: publicKeyOf(other) };
    t.match(device.apply({ name, privateKey, listenPort, fwmark: 0, peers: [one] }), { ok: true });
    execFileSync('ip', ['link', 'set', name, 'up']);
  }
  for (const { name, other, to } of ends) {
    const endpoint = socket(`127.0.0.1:${to}`);
    const change = { endpoint, persistentKeepalive: 25 };
    t.match(device.changePeer(name, publicKeyOf(other), change), { ok: true });
  }
  const read = () => {
    const answer = device.read('culvert9');
    return answer.ok ? answer.value.peers[0] : undefined;
  };
  for (let i = 0; i < 100 && read()?.lastHandshakeUnixMs === undefined; i++) {
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  const { lastHandshakeUnixMs = 0, rxBytes = 0, txBytes = 0 } = read() ?? {};
  t.ok(Math.abs(Date.now() - lastHandshakeUnixMs) < 10_000, `at ${lastHandshakeUnixMs}`);
  t.ok(rxBytes > 0 && txBytes > 0, `${rxBytes} received, ${txBytes} sent`);
  const taken = { name: 'culvert9', privateKey: key(16), listenPort: 51828, fwmark: 0, peers: [] };
  const failures = [{ object: 'listen port 51828', code: 'EADDRINUSE' }];
  t.match(device.apply(taken), { ok: false, why: 'refused', failures });
  for (const { name } of ends) device.remove(name);
  void close();
}

/** Prints; what it takes depends on the machine. */
function measure(each: number): void {
  const kernel = kernelWorld(calls);
  const { device } = kernel;
  const peers = Array.from({ length: 2000 }, (_, i) =>
    peer(i + 1, { allowedIps: manyPrefixes(each, i * each) }),
  );
  const wanted = { name: 'culvert9', privateKey: key(9999), listenPort: 51820, fwmark: 0, peers };
  const timed = (title: string, run: () => { readonly ok: boolean }) => {
    const start = performance.now();
    const before = sent;
    const { ok } = run();
    const ms = (performance.now() - start).toFixed(1);
    console.log(`# ${title}: ${ms} ms, ${sent - before} messages, ok ${ok}`);
  };
  device.create('culvert9');
  timed('apply to an empty device', () => device.apply(wanted));
  timed('apply what is there', () => device.apply(wanted));
  timed('read', () => device.read('culvert9'));
  timed('wg show dump', () => ({ ok: kernel.dump('culvert9')?.length === 2001 }));
  timed('change one peer', () => device.changePeer('culvert9', key(7), { persistentKeepalive: 9 }));
  timed('put one peer', () => device.putPeer('culvert9', peers[6]!));
  timed('remove one peer', () => device.removePeer('culvert9', key(8)));
  timed('apply, one peer differs', () => device.apply(wanted));
  timed('remove all', () => device.apply({ ...wanted, peers: [] }));
  device.remove('culvert9');
  void kernel.close();
}
