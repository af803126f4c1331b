import fc from 'fast-check';
import t from 'tap';
import { formatIpPrefix } from '../../../../core/net/ip-prefix.ts';
import { HOST_IS_LITTLE_ENDIAN } from '../../../../core/netlink/byte-order.ts';
import { MessageType } from '../../../../core/netlink/constants.ts';
import {
  decodeGenericFamily,
  encodeGenericFamilyQuery,
} from '../../../../core/netlink/genetlink/controller.ts';
import { MessageWriter } from '../../../../core/netlink/message-writer.ts';
import { readMessages } from '../../../../core/netlink/message.ts';
import {
  assembleDevice,
  decodeDevicePart,
  encodeDeviceQuery,
  readDevicePart,
  type DevicePart,
} from '../../../../core/netlink/wireguard/device.ts';
import { encodeSettings } from '../../../../core/netlink/wireguard/settings.ts';
import { encodeHex } from '../../../../core/sansio/hex.ts';
import { key, manyPrefixes, prefixes, socket } from '../../../contract/wireguard-device.ts';
import { CAPTURED, messagesOf } from './vectors.ts';

const FAMILY = { id: 0x20, name: 'wireguard', version: 1, groups: new Map<string, number>() };
const skip = HOST_IS_LITTLE_ENDIAN ? false : 'captured on a little-endian machine';

await t.test('asks for a family as wg does', { skip }, async (t) => {
  const query = encodeGenericFamilyQuery('wireguard');
  // The kernel does not look at the version of the controller: wg says 1, the headers 2.
  t.equal(encodeHex(query.with(17, 1)), encodeHex(CAPTURED.familyQuery));
});

await t.test('reads the family that the kernel tells of', { skip }, async (t) => {
  const [message] = messagesOf([CAPTURED.family]);
  t.strictSame(decodeGenericFamily(message!), FAMILY);
  t.equal(decodeGenericFamily({ ...message!, type: 0x11 }), undefined);
});

await t.test('reads the multicast groups of a family', async (t) => {
  const writer = new MessageWriter().begin(0x10, 0);
  writer.fixed(4).setUint8(0, 1);
  writer.u16(1, 0x10).name(2, 'nlctrl').u32(3, 2);
  writer.nested(7, () => {
    writer.nested(1, () => writer.name(1, 'notify').u32(2, 16));
    writer.nested(2, () => writer.name(1, 'nameless'));
  });
  const [message] = messagesOf([writer.end().take()]);
  t.strictSame(decodeGenericFamily(message!), {
    id: 0x10,
    name: 'nlctrl',
    version: 2,
    groups: new Map([['notify', 16]]),
  });
});

await t.test('asks for a device as wg does', { skip }, async (t) => {
  t.equal(encodeHex(encodeDeviceQuery(FAMILY, 'wg9')), encodeHex(CAPTURED.deviceQuery));
});

const ONE = {
  publicKey: key(1),
  presharedKey: key(9),
  endpoint: socket('192.0.2.1:51820'),
  persistentKeepalive: 25,
  allowedIps: prefixes('10.1.0.0/16', 'fd00:1::/48'),
};
const TWO = {
  publicKey: key(2),
  endpoint: socket('[2001:db8::2]:4500'),
  allowedIps: prefixes('10.2.0.0/16'),
};

await t.test('sets a whole device as wg setconf does', { skip }, async (t) => {
  const request = encodeSettings(new MessageWriter(), FAMILY, 'wg9', {
    privateKey: key(99),
    listenPort: 51820,
    fwmark: 0x2680,
    replacePeers: true,
    peers: [
      { ...ONE, replaceAllowedIps: true },
      { ...TWO, replaceAllowedIps: true },
    ],
  });
  t.equal(encodeHex(request), encodeHex(CAPTURED.setconf));
});

await t.test('removes and changes peers as wg set does', { skip }, async (t) => {
  // wg set wg9 peer TWO remove peer ONE persistent-keepalive 0 allowed-ips 10.1.0.0/16
  const request = encodeSettings(new MessageWriter(), FAMILY, 'wg9', {
    peers: [
      { publicKey: key(2), remove: true },
      {
        publicKey: key(1),
        persistentKeepalive: 0,
        replaceAllowedIps: true,
        allowedIps: prefixes('10.1.0.0/16'),
      },
    ],
  });
  t.equal(encodeHex(request), encodeHex(CAPTURED.set));
});

await t.test('reads the device that the kernel tells of', { skip }, async (t) => {
  const unseen = { lastHandshakeUnixMs: undefined, rxBytes: 0, txBytes: 0, protocolVersion: 1 };
  const device = assembleDevice(partsOf(CAPTURED.device));
  t.match(device, { index: 3, name: 'wg9', listenPort: 51820, fwmark: 0x2680 });
  t.strictSame(device?.privateKey, key(99).with(0, 0x60).with(31, 0x47), 'clamped');
  t.equal(device?.publicKey?.length, 32);
  t.strictSame(device?.peers, [
    { ...ONE, ...unseen },
    { ...TWO, ...unseen, presharedKey: undefined, persistentKeepalive: 0 },
  ]);
});

await t.test('puts a peer together that goes on in the next message', { skip }, async (t) => {
  const parts = partsOf(CAPTURED.longDevice);
  t.ok(parts.length > 1);
  t.equal(parts[1]!.index, undefined, 'only the first tells of the device');
  const device = assembleDevice(parts);
  t.equal(device?.peers.length, 2);
  const [, long] = device!.peers;
  t.strictSame(long!.presharedKey, key(9));
  t.strictSame(
    long!.allowedIps.map(formatIpPrefix).toSorted(),
    manyPrefixes(150).map(formatIpPrefix).toSorted(),
  );
  t.equal(assembleDevice(parts.slice(1)), undefined);
});

await t.test('reads handshake and counters', async (t) => {
  const writer = new MessageWriter();
  const time = new DataView(new ArrayBuffer(16));
  time.setBigInt64(0, 1_700_000_000n, HOST_IS_LITTLE_ENDIAN);
  time.setBigInt64(8, 123_456_789n, HOST_IS_LITTLE_ENDIAN);
  const count = new DataView(new ArrayBuffer(8));
  count.setBigUint64(0, 0x1_0000_0002n, HOST_IS_LITTLE_ENDIAN);
  writer.nested(8, () =>
    writer.nested(0, () => {
      writer.bytes(1, key(1)).bytes(6, new Uint8Array(time.buffer));
      writer.bytes(7, new Uint8Array(count.buffer)).bytes(8, new Uint8Array(8));
    }),
  );
  t.match(readDevicePart(writer.take())?.peers, [
    { lastHandshakeUnixMs: 1_700_000_000_123, rxBytes: 0x1_0000_0002, txBytes: 0 },
  ]);
});

await t.test('no bytes make a decoder throw', async (t) => {
  const seeds = [CAPTURED.family, ...CAPTURED.device, CAPTURED.setconf, ...CAPTURED.longDevice];
  const readAll = (bytes: Uint8Array) => {
    const body = bytes.subarray(Math.min(16, bytes.length));
    const forged = [0x10, FAMILY.id].map((type) => ({ type, body }));
    const parts: DevicePart[] = [];
    for (const message of [...readMessages(bytes).messages, ...forged]) {
      decodeGenericFamily(message);
      const part = decodeDevicePart(message, FAMILY);
      if (part !== undefined) parts.push(part);
    }
    assembleDevice(parts);
    readDevicePart(bytes);
  };
  fc.assert(fc.property(fc.uint8Array({ maxLength: 600 }), readAll), { numRuns: 3000 });
  const mutated = fc
    .tuple(
      fc.constantFrom(...seeds),
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 8 }),
      fc.nat(),
    )
    .map(([seed, changes, cut]) => {
      const bytes = seed.slice();
      for (const [at, value] of changes) bytes[at % bytes.length] = value;
      return cut % 4 === 0 ? bytes.subarray(0, cut % bytes.length) : bytes;
    });
  fc.assert(fc.property(mutated, readAll), { numRuns: 5000 });
  t.pass();
});

function partsOf(datagrams: readonly Uint8Array[]): readonly DevicePart[] {
  return messagesOf(datagrams)
    .filter(({ type }) => type !== MessageType.done)
    .map((message) => {
      const part = decodeDevicePart(message, FAMILY);
      if (part === undefined) throw new Error('unreadable');
      return part;
    });
}
