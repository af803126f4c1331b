import fc from 'fast-check';
import t from 'tap';
import { formatIpPrefix } from '../../../../core/net/ip-prefix.ts';
import { MESSAGE_HEADER } from '../../../../core/netlink/constants.ts';
import type { GenericFamily } from '../../../../core/netlink/genetlink/controller.ts';
import { GENERIC_HEADER } from '../../../../core/netlink/genetlink/header.ts';
import { MessageWriter } from '../../../../core/netlink/message-writer.ts';
import { assembleDevice, readDevicePart } from '../../../../core/netlink/wireguard/device.ts';
import {
  encodeSettings,
  PEERS_BUDGET,
  splitSettings,
  type DeviceSettings,
} from '../../../../core/netlink/wireguard/settings.ts';
import { planDevice } from '../../../../core/netlink/wireguard/wanted-device.ts';
import { key, manyPrefixes, peer, prefixes, socket } from '../../../contract/wireguard-device.ts';

const FAMILY: GenericFamily = { id: 0x1e, name: 'wireguard', version: 1, groups: new Map() };

const EMPTY = {
  index: 1,
  name: 'wg0',
  privateKey: undefined,
  publicKey: undefined,
  listenPort: 0,
  fwmark: 0,
  peers: [],
} as const;

/** What a request does not say. */
const UNSEEN = { lastHandshakeUnixMs: undefined, rxBytes: 0, txBytes: 0, protocolVersion: 0 };

await t.test('a small change is one message', async (t) => {
  t.equal(splitSettings({ peers: [peer(1, {}), peer(2, {})] }).length, 1);
  t.equal(splitSettings({ listenPort: 1, peers: [] }).length, 1);
  t.strictSame(splitSettings({ peers: [] }), []);
});

await t.test('what is about the device itself comes alone and first', async (t) => {
  const [first, second] = splitSettings({ fwmark: 1, replacePeers: true, peers: [peer(1, {})] });
  t.strictSame(first, { fwmark: 1, replacePeers: true, peers: [] });
  t.strictSame(second, { peers: [peer(1, {})] });
});

await t.test('a peer that does not fit goes on, and is replaced only once', async (t) => {
  const allowedIps = manyPrefixes(2000);
  const settings = { ...peer(1, { presharedKey: key(2) }), replaceAllowedIps: true, allowedIps };
  const pieces = splitSettings({ peers: [settings, peer(2, {})] });
  t.equal(pieces.length, 3);
  t.match(pieces[0]!.peers[0], { presharedKey: key(2), replaceAllowedIps: true });
  for (const piece of pieces.slice(1)) {
    const { allowedIps: more, ...rest } = piece.peers[0]!;
    t.strictSame(rest, { publicKey: key(1), updateOnly: true });
    t.ok(more!.length > 0);
  }
  t.strictSame(
    pieces.flatMap(({ peers }) => peers[0]!.allowedIps),
    allowedIps,
  );
  t.strictSame(pieces[2]!.peers[1], peer(2, {}), 'the next one shares the last piece');
});

await t.test('pieces of any size say the same as the whole, and fit', async (t) => {
  const peers = fc.array(
    fc.record({
      prefixes: fc.nat(60),
      isIpv6: fc.boolean(),
      presharedKey: fc.boolean(),
      endpoint: fc.constantFrom(undefined, '192.0.2.1:51820', '[2001:db8::1]:1'),
      persistentKeepalive: fc.nat(65_535),
    }),
    { maxLength: 30 },
  );
  fc.assert(
    fc.property(peers, fc.integer({ min: 200, max: 4000 }), (drawn, budget) => {
      const wanted = drawn.map((one, i) =>
        peer(i, {
          ...(one.presharedKey && { presharedKey: key(i + 100) }),
          ...(one.endpoint !== undefined && { endpoint: socket(one.endpoint) }),
          persistentKeepalive: one.persistentKeepalive,
          allowedIps: one.isIpv6
            ? Array.from({ length: one.prefixes }, (_, k) => prefixes(`fd00:${i}:${k}::/48`)[0]!)
            : manyPrefixes(one.prefixes, i * 100),
        }),
      );
      const messages = encode(splitSettings({ peers: wanted }, budget));
      for (const message of messages) {
        if (message.length > budget + 64) throw new Error(`${message.length} bytes`);
      }
      const read = merge(messages);
      t.strictSame(
        read,
        wanted.map((one) => ({ ...one, ...UNSEEN })),
      );
    }),
    { numRuns: 60 },
  );
});

await t.test('2,000 peers with 100,000 allowed IPs', async (t) => {
  const peers = Array.from({ length: 2000 }, (_, i) =>
    peer(i + 1, { allowedIps: manyPrefixes(50, i * 50) }),
  );
  const wanted = { name: 'wg0', privateKey: key(3), listenPort: 51820, fwmark: 0, peers };
  const start = performance.now();
  const plan = planDevice(wanted, EMPTY);
  const planned = performance.now();
  const messages = encode(splitSettings(plan));
  const encoded = performance.now();
  const read = merge(messages);
  const decoded = performance.now();
  const device = { ...EMPTY, privateKey: clamped(key(3)), listenPort: 51820, peers: read };
  t.strictSame(planDevice(wanted, device), { peers: [] });
  const compared = performance.now();
  const bytes = messages.reduce((sum, { length }) => sum + length, 0);
  const ms = (from: number, to: number) => `${(to - from).toFixed(0)} ms`;
  t.comment(
    `${messages.length} messages, ${bytes} bytes: planned in ${ms(start, planned)}, encoded in ` +
      `${ms(planned, encoded)}, decoded in ${ms(encoded, decoded)}, compared in ${ms(decoded, compared)}`,
  );
  t.ok(messages.length < 150);
  for (const { length } of messages) t.ok(length <= PEERS_BUDGET + 64);
  t.equal(read.length, 2000);
  t.equal(formatIpPrefix(read[1999]!.allowedIps[49]!), formatIpPrefix(manyPrefixes(1, 99_999)[0]!));
});

function encode(pieces: readonly DeviceSettings[]): readonly Uint8Array[] {
  const writer = new MessageWriter();
  return pieces.map((piece) => encodeSettings(writer, FAMILY, 'wg0', piece));
}

/** Requests and answers have the attributes in common. */
function merge(messages: readonly Uint8Array[]) {
  const parts = messages.map((message) => {
    const part = readDevicePart(message.subarray(MESSAGE_HEADER + GENERIC_HEADER));
    if (part === undefined) throw new Error('unreadable');
    return { ...part, index: 1 };
  });
  return assembleDevice(parts)?.peers ?? [];
}

function clamped(bytes: Uint8Array): Uint8Array {
  return bytes.map((byte, i) => (i === 0 ? byte & 0xf8 : i === 31 ? (byte & 0x7f) | 0x40 : byte));
}
