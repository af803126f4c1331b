import fc from 'fast-check';
import t from 'tap';
import type { Device, Peer } from '../../../../core/netlink/wireguard/device.ts';
import {
  countChanges,
  planDevice,
  type WantedDevice,
  type WantedPeer,
} from '../../../../core/netlink/wireguard/wanted-device.ts';
import { MemoryDevices } from '../../../../plugins/netlink/index.ts';
import { key, peer, prefixes, socket } from '../../../contract/wireguard-device.ts';

const PRIVATE_KEY = key(8).with(31, 0x47);
const SAME = { privateKey: PRIVATE_KEY, listenPort: 51820, fwmark: 0 };
const UNSEEN = { lastHandshakeUnixMs: undefined, rxBytes: 0, txBytes: 0, protocolVersion: 1 };

await t.test('nothing when all is there', async (t) => {
  const one = peer(1, { presharedKey: key(2), allowedIps: prefixes('10.0.0.0/8') });
  t.strictSame(plan([one], [one]), []);
  t.strictSame(planDevice({ ...wanted([]), listenPort: 0 }, observed([])), { peers: [] });
});

await t.test('host bits and order of allowed IPs do not count', async (t) => {
  const [network, other] = prefixes('10.1.0.0/16', 'fd00::/8');
  const withHost = { ...network!, address: prefixes('10.1.2.3')[0]!.address };
  const there = peer(1, { allowedIps: [network!, other!] });
  t.strictSame(plan([peer(1, { allowedIps: [other!, withHost, network!] })], [there]), []);
});

await t.test('values of the device itself', async (t) => {
  const there = observed([]);
  const set = (values: Partial<WantedDevice>) => planDevice({ ...wanted([]), ...values }, there);
  t.strictSame(set({ listenPort: 1 }), { listenPort: 1, peers: [] });
  t.strictSame(set({ fwmark: 7 }), { fwmark: 7, peers: [] });
  t.strictSame(set({ privateKey: key(16) }), { privateKey: key(16), peers: [] });
  const unclamped = PRIVATE_KEY.with(0, 0xf).with(31, 0xc7);
  t.strictSame(set({ privateKey: unclamped }), { peers: [] }, 'the kernel clamps what it is given');
  t.equal(countChanges(set({ fwmark: 7, listenPort: 1 })), 2);
});

await t.test('only what differs of a peer, and only if it is still there', async (t) => {
  const old = peer(1, { presharedKey: key(2), persistentKeepalive: 25 });
  const updated = { publicKey: key(1), updateOnly: true };
  const endpoint = socket('192.0.2.1:1');
  t.strictSame(plan([{ ...old, presharedKey: key(3) }], [old]), [
    { ...updated, presharedKey: key(3) },
  ]);
  t.strictSame(plan([{ ...old, presharedKey: undefined }], [old]), [
    { ...updated, presharedKey: 'none' },
  ]);
  t.strictSame(plan([{ ...old, persistentKeepalive: 0 }], [old]), [
    { ...updated, persistentKeepalive: 0 },
  ]);
  t.strictSame(plan([{ ...old, endpoint }], [old]), [{ ...updated, endpoint }]);
  t.strictSame(plan([old], [{ ...old, endpoint }]), [], 'no endpoint leaves it where it is');
});

await t.test('a new peer as short as it can be said, and a removal', async (t) => {
  t.strictSame(plan([peer(1, {})], []), [{ publicKey: key(1) }]);
  t.strictSame(plan([], [peer(1, {})]), [{ publicKey: key(1), remove: true }]);
});

await t.test('a new prefix is added, a lost one costs the list', async (t) => {
  const old = peer(1, { allowedIps: prefixes('10.0.0.0/8', 'fd00::/8') });
  const updated = { publicKey: key(1), updateOnly: true };
  const more = peer(1, { allowedIps: prefixes('10.0.0.0/8', 'fd00::/8', '11.0.0.0/8') });
  t.strictSame(plan([more], [old]), [{ ...updated, allowedIps: prefixes('11.0.0.0/8') }]);
  const less = peer(1, { allowedIps: prefixes('10.0.0.0/8') });
  t.strictSame(plan([less], [old]), [
    { ...updated, replaceAllowedIps: true, allowedIps: prefixes('10.0.0.0/8') },
  ]);
  t.strictSame(plan([peer(1, {})], [old]), [{ ...updated, replaceAllowedIps: true }]);
});

await t.test('a prefix that moves is taken along by the peer that gets it', async (t) => {
  const from = peer(1, { allowedIps: prefixes('10.0.0.0/8', 'fd00::/8') });
  const to = peer(2, {});
  t.strictSame(
    plan(
      [
        peer(1, { allowedIps: prefixes('fd00::/8') }),
        peer(2, { allowedIps: prefixes('10.0.0.0/8') }),
      ],
      [from, to],
    ),
    [{ publicKey: key(2), updateOnly: true, allowedIps: prefixes('10.0.0.0/8') }],
  );
  t.strictSame(
    plan([peer(2, { allowedIps: prefixes('10.0.0.0/8') })], [from, to]).map(({ remove }) => remove),
    [undefined, true],
    'it moves before its peer goes',
  );
});

await t.test('one round leads from any state to any other', async () => {
  const state = fc.array(
    fc.record({
      number: fc.nat(6),
      prefixes: fc.array(fc.constantFrom('10.1.0.0/16', '10.2.0.0/16', '10.0.0.0/8', 'fd00::/8')),
      presharedKey: fc.option(fc.nat(2), { nil: undefined }),
      endpoint: fc.constantFrom('192.0.2.1:1', '[2001:db8::1]:2'),
      persistentKeepalive: fc.nat(2),
    }),
    { maxLength: 8 },
  );
  const device = fc.record({
    state,
    listenPort: fc.nat(2),
    fwmark: fc.nat(2),
    privateKey: fc.nat(3),
  });
  fc.assert(
    fc.property(device, device, (before, after) => {
      const kernel = new MemoryDevices({ publicKey: (bytes) => bytes.with(31, 7) });
      kernel.createLink('wg0');
      const read = () => {
        const answer = kernel.observe('wg0');
        if (!answer.ok) throw new Error(answer.refusal.message);
        return answer.value;
      };
      for (const { state, privateKey, ...values } of [before, after]) {
        const target: WantedDevice = {
          ...values,
          name: 'wg0',
          privateKey: key(privateKey * 8 + 200),
          peers: state.map(({ number, prefixes: texts, presharedKey, endpoint, ...rest }) =>
            peer(number, {
              ...rest,
              endpoint: socket(endpoint),
              presharedKey: presharedKey === undefined ? undefined : key(presharedKey),
              allowedIps: prefixes(...texts),
            }),
          ),
        };
        kernel.change('wg0', planDevice(target, read()));
        const left = planDevice(target, read());
        if (countChanges(left) > 0) throw new Error(JSON.stringify(left));
      }
    }),
    { numRuns: 1000 },
  );
});

function plan(to: readonly WantedPeer[], from: readonly WantedPeer[]) {
  return planDevice(wanted(to), observed(from)).peers;
}

function wanted(peers: readonly WantedPeer[]): WantedDevice {
  return { name: 'wg0', ...SAME, peers };
}

function observed(peers: readonly WantedPeer[]): Device {
  const seen = peers.map((one): Peer => ({ ...one, ...UNSEEN }));
  return { name: 'wg0', index: 1, publicKey: undefined, ...SAME, peers: seen };
}
