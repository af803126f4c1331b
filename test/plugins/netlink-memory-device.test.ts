import { createPrivateKey, createPublicKey } from 'node:crypto';
import t from 'tap';
import { formatIpPrefix } from '../../core/net/ip-prefix.ts';
import type { PluginHost } from '../../core/plugin/plugin.ts';
import { nullLog } from '../../core/sansio/log.ts';
import { createMemoryDevice, MemoryDevices } from '../../plugins/netlink/index.ts';
import {
  key,
  peer,
  prefixes,
  socket,
  wireguardDeviceContract,
  type WireguardWorld,
} from '../contract/wireguard-device.ts';

const HOST: PluginHost = {
  log: nullLog,
  get clock(): never {
    throw new Error('not used');
  },
  use: () => {
    throw new Error('not used');
  },
};

await wireguardDeviceContract(t, async () => memoryWorld(new MemoryDevices({ publicKey })));

const WANTED = { name: 'wg0', privateKey: key(99), listenPort: 51820, fwmark: 0, peers: [] };

await t.test('says that the module is not loaded, and what to do', (t) => {
  const devices = new MemoryDevices({ publicKey });
  const { device } = memoryWorld(devices);
  devices.hasModule = false;
  const message =
    'kmod-wireguard is not loaded: install the package kmod-wireguard, or run modprobe wireguard';
  const failure = { ok: false, why: 'no-module', failures: [{ object: 'device wg0', message }] };
  t.match(device.create('wg0'), failure);
  t.match(device.apply(WANTED), failure);
  t.match(device.read('wg0'), failure);
  devices.hasModule = true;
  t.match(device.create('wg0'), { ok: true });
  t.match(device.apply(WANTED), { ok: true });
  t.end();
});

await t.test('sets the peers also where the port is in use', (t) => {
  const devices = new MemoryDevices({ publicKey });
  const { device, dump } = memoryWorld(devices);
  devices.usedPorts.add(51820);
  device.create('wg0');
  const peers = [peer(1, { allowedIps: prefixes('10.0.0.0/8') })];
  t.strictSame(device.apply({ ...WANTED, peers }), {
    ok: false,
    why: 'refused',
    failures: [
      {
        object: 'listen port 51820',
        code: 'EADDRINUSE',
        message: 'another program uses this UDP port',
      },
    ],
  });
  t.equal(dump('wg0')?.length, 2);
  t.end();
});

await t.test('tells of handshakes and counters, and takes an endpoint back', (t) => {
  const devices = new MemoryDevices({ publicKey });
  const { device } = memoryWorld(devices);
  device.create('wg0');
  const peers = [peer(1, { endpoint: socket('192.0.2.1:1') })];
  device.apply({ ...WANTED, peers });
  const endpoint = socket('192.0.2.7:7');
  devices.receive('wg0', key(1), { endpoint, unixMs: 5000, rxBytes: 3, txBytes: 4 });
  const seen = { endpoint, lastHandshakeUnixMs: 5000, rxBytes: 3, txBytes: 4 };
  t.match(device.read('wg0'), { value: { peers: [seen] } });
  t.match(device.apply({ ...WANTED, peers }), { value: { changes: 1 } });
  t.match(device.read('wg0'), { value: { peers: [{ ...seen, endpoint: '192.0.2.1:1' }] } });
  t.end();
});

function memoryWorld(devices: MemoryDevices): WireguardWorld {
  const plugin = createMemoryDevice(devices).create(HOST);
  if ('skip' in plugin) throw new Error(plugin.skip);
  return {
    device: plugin.api,
    dump(name) {
      const read = devices.observe(name);
      if (!read.ok) return undefined;
      const { privateKey, listenPort, fwmark, peers, ...device } = read.value;
      return [
        [
          base64(privateKey),
          base64(device.publicKey),
          String(listenPort),
          fwmark === 0 ? 'off' : `0x${fwmark.toString(16)}`,
        ],
        ...peers.map((one) => [
          base64(one.publicKey),
          base64(one.presharedKey),
          one.endpoint ?? '(none)',
          one.allowedIps.map(formatIpPrefix).join(',') || '(none)',
          String(Math.floor((one.lastHandshakeUnixMs ?? 0) / 1000)),
          String(one.rxBytes),
          String(one.txBytes),
          one.persistentKeepalive === 0 ? 'off' : String(one.persistentKeepalive),
        ]),
      ];
    },
    setPeer(name, publicKey, allowedIps) {
      devices.change(name, { peers: [{ publicKey, allowedIps: prefixes(...allowedIps) }] });
    },
    removePeer: (name, publicKey) =>
      void devices.change(name, { peers: [{ publicKey, remove: true }] }),
    addOther: (name) => devices.addLink(name, 'dummy'),
    removeOther: (name) => void devices.removeLink(name),
    publicKeyOf: publicKey,
    close: () => plugin.stop(),
  };
}

function base64(bytes: Uint8Array | undefined): string {
  return bytes === undefined ? '(none)' : Buffer.from(bytes).toString('base64');
}

/** By node's own OpenSSL. */
function publicKey(privateKey: Uint8Array): Uint8Array {
  const header = Buffer.from('302e020100300506032b656e04220420', 'hex');
  const key = createPrivateKey({
    key: Buffer.concat([header, privateKey]),
    format: 'der',
    type: 'pkcs8',
  });
  return createPublicKey(key).export({ format: 'der', type: 'spki' }).subarray(-32);
}
