import type { Test } from 'tap';
import { parseIpPrefix, type IpPrefix } from '../../core/net/ip-prefix.ts';
import { parseSocketAddress, type SocketAddress } from '../../core/net/socket-address.ts';
import type { WantedDevice, WantedPeer } from '../../core/netlink/wireguard/wanted-device.ts';
import type { WireguardDevice } from '../../core/plugin/wireguard-device.ts';

/** A kernel with WireGuard, what other programs do to it, and a view that does not use our codecs. */
export interface WireguardWorld {
  readonly device: WireguardDevice;
  /** The lines of `wg show NAME dump`, their fields; `undefined` where it is no device. */
  readonly dump: (name: string) => readonly (readonly string[])[] | undefined;
  /** The acts of another program: `wg set NAME ...`, and an interface of kind `dummy`. */
  readonly setPeer: (name: string, publicKey: Uint8Array, allowedIps: readonly string[]) => void;
  readonly removePeer: (name: string, publicKey: Uint8Array) => void;
  readonly addOther: (name: string) => void;
  readonly removeOther: (name: string) => void;
  readonly publicKeyOf: (privateKey: Uint8Array) => Uint8Array;
  readonly close: () => void | Promise<void>;
}

/** What the suite needs of tap: in a virtual machine a plain script stands in for it. */
export type Assertions = Pick<Test, 'ok' | 'equal' | 'strictSame' | 'match'> & {
  test(title: string, run: (t: Assertions) => void | Promise<void>): PromiseLike<unknown>;
};

const NAME = 'culvert9';

/** What every implementation of `WireguardDevice` does. */
export async function wireguardDeviceContract(
  t: Assertions,
  open: () => Promise<WireguardWorld>,
): Promise<void> {
  const inWorld = async (
    title: string,
    run: (t: Assertions, world: WireguardWorld) => void | Promise<void>,
  ) => {
    await t.test(title, async (t) => {
      const world = await open();
      try {
        await run(t, world);
      } finally {
        world.device.remove(NAME);
        await world.close();
      }
    });
  };
  const withDevice = (title: string, run: (t: Assertions, world: WireguardWorld) => void) =>
    inWorld(title, (t, world) => {
      world.device.create(NAME);
      t.match(world.device.apply(WANTED), { ok: true, failures: [] });
      run(t, world);
    });

  await inWorld('makes a device once, and removes it once', (t, { device, dump }) => {
    t.strictSame(device.create(NAME), { ok: true, value: { isNew: true }, failures: [] });
    t.strictSame(device.create(NAME), { ok: true, value: { isNew: false }, failures: [] });
    t.equal(dump(NAME)?.length, 1);
    t.strictSame(device.remove(NAME), { ok: true, value: { wasThere: true }, failures: [] });
    t.strictSame(device.remove(NAME), { ok: true, value: { wasThere: false }, failures: [] });
    t.equal(dump(NAME), undefined);
  });

  await inWorld('leaves the interface of another program alone', (t, world) => {
    const { device } = world;
    world.addOther(NAME);
    const message = 'there is an interface of kind dummy of this name';
    t.match(device.create(NAME), { ok: false, why: 'refused', failures: [{ message }] });
    t.match(device.remove(NAME), { ok: false, why: 'refused', failures: [{ message }] });
    t.match(device.apply(WANTED), { ok: false, why: 'no-device' });
    t.match(device.read(NAME), {
      ok: false,
      why: 'no-device',
      failures: [{ message: 'the interface of this name is none of WireGuard' }],
    });
    world.removeOther(NAME);
  });

  await inWorld('says that there is no device', (t, { device }) => {
    const failures = [{ object: `device ${NAME}`, message: 'there is no interface of this name' }];
    t.match(device.apply(WANTED), { ok: false, why: 'no-device', failures });
    t.match(device.read(NAME), { ok: false, why: 'no-device', failures });
    t.match(device.removePeer(NAME, key(1)), { ok: false, why: 'no-device', failures });
    t.match(device.create('a-name-that-is-long'), { ok: false, why: 'refused' });
  });

  await withDevice('makes what is wanted, once', (t, { device, dump, publicKeyOf }) => {
    const [interfaceLine, ...peers] = dump(NAME)!;
    const publicKey = base64(publicKeyOf(PRIVATE_KEY));
    t.strictSame(interfaceLine, [base64(CLAMPED), publicKey, '51820', '0x2680']);
    t.strictSame(
      [1, 2, 3].map((number) => lineOf(peers, key(number))),
      [
        [base64(key(1)), base64(key(9)), '192.0.2.1:51820', '10.1.0.0/16,fd00:1::/48', '25'],
        [base64(key(2)), '(none)', '[2001:db8::2]:4500', '10.2.0.0/16', 'off'],
        [base64(key(3)), '(none)', '(none)', '(none)', 'off'],
      ],
    );
    t.strictSame(device.apply(WANTED), { ok: true, value: { changes: 0 }, failures: [] });
  });

  await withDevice('reads what it made', (t, { device }) => {
    const read = device.read(NAME);
    if (!read.ok) throw new Error(read.why);
    const { privateKey, listenPort, fwmark, peers } = read.value;
    t.strictSame({ privateKey, listenPort, fwmark }, { ...OF_DEVICE, privateKey: CLAMPED });
    t.strictSame(
      peers.toSorted((a, b) => a.publicKey[0]! - b.publicKey[0]!).map(wantedPart),
      WANTED.peers,
    );
    t.match(peers[0], { lastHandshakeUnixMs: undefined, rxBytes: 0, txBytes: 0 });
  });

  await withDevice('changes what differs and nothing else', (t, { device, dump }) => {
    const [one, two, three] = WANTED.peers as [WantedPeer, WantedPeer, WantedPeer];
    const peers = [{ ...one, presharedKey: undefined, persistentKeepalive: 0 }, two, three];
    t.match(device.apply({ ...WANTED, fwmark: 0, peers }), { ok: true, value: { changes: 2 } });
    t.equal(dump(NAME)![0]![3], 'off');
    t.strictSame(lineOf(dump(NAME), key(1))!.slice(1, 5), [
      '(none)',
      '192.0.2.1:51820',
      '10.1.0.0/16,fd00:1::/48',
      'off',
    ]);
    const other = { ...WANTED, privateKey: key(77) };
    t.match(device.apply({ ...other, fwmark: 0, peers }), { ok: true, value: { changes: 1 } });
  });

  await withDevice('adds and removes peers', (t, { device, dump }) => {
    const peers = [...WANTED.peers.slice(1), peer(4, { allowedIps: prefixes('10.4.0.0/16') })];
    t.match(device.apply({ ...WANTED, peers }), { ok: true, value: { changes: 2 } });
    t.equal(lineOf(dump(NAME), key(1)), undefined);
    t.equal(prefixesOf(dump(NAME), key(4)), '10.4.0.0/16');
    t.match(device.apply({ ...WANTED, peers: [] }), { ok: true, value: { changes: 3 } });
    t.equal(dump(NAME)!.length, 1);
  });

  await withDevice('moves a prefix to another peer', (t, { device, dump }) => {
    const [one, two, three] = WANTED.peers as [WantedPeer, WantedPeer, WantedPeer];
    const peers = [
      { ...one, allowedIps: prefixes('fd00:1::/48') },
      two,
      { ...three, allowedIps: prefixes('10.1.0.0/16') },
    ];
    t.match(device.apply({ ...WANTED, peers }), { ok: true, value: { changes: 1 } });
    t.equal(prefixesOf(dump(NAME), key(1)), 'fd00:1::/48');
    t.equal(prefixesOf(dump(NAME), key(3)), '10.1.0.0/16');
    t.match(device.apply({ ...WANTED, peers }), { ok: true, value: { changes: 0 } });
    const gone = [peers[1]!, { ...peers[2]!, allowedIps: prefixes('fd00:1::/48', '10.1.0.0/16') }];
    t.match(device.apply({ ...WANTED, peers: gone }), { ok: true, value: { changes: 2 } });
    t.equal(prefixesOf(dump(NAME), key(3)), '10.1.0.0/16,fd00:1::/48');
  });

  await withDevice('swaps the prefixes of two peers', (t, { device, dump }) => {
    const [one, two, three] = WANTED.peers as [WantedPeer, WantedPeer, WantedPeer];
    const peers = [
      { ...one, allowedIps: two.allowedIps },
      { ...two, allowedIps: one.allowedIps },
      three,
    ];
    t.match(device.apply({ ...WANTED, peers }), { ok: true, value: { changes: 2 } });
    t.equal(prefixesOf(dump(NAME), key(1)), '10.2.0.0/16');
    t.equal(prefixesOf(dump(NAME), key(2)), '10.1.0.0/16,fd00:1::/48');
  });

  await withDevice('takes a prefix from a peer that nobody gets', (t, { device, dump }) => {
    const [one, ...others] = WANTED.peers as [WantedPeer, ...WantedPeer[]];
    const less = [{ ...one, allowedIps: prefixes('10.1.0.0/16', '10.9.0.0/16') }, ...others];
    t.match(device.apply({ ...WANTED, peers: less }), { ok: true, value: { changes: 1 } });
    t.equal(prefixesOf(dump(NAME), key(1)), '10.1.0.0/16,10.9.0.0/16');
    const none = [{ ...one, allowedIps: [] }, ...others];
    t.match(device.apply({ ...WANTED, peers: none }), { ok: true, value: { changes: 1 } });
    t.equal(prefixesOf(dump(NAME), key(1)), '(none)');
  });

  await withDevice('gives a prefix that two peers want to the last of them', (t, world) => {
    const { device, dump } = world;
    const peers = [
      peer(1, { allowedIps: prefixes('10.5.0.0/16', '10.6.0.0/16') }),
      peer(2, { allowedIps: prefixes('10.5.0.0/16') }),
      peer(2, { allowedIps: prefixes('10.5.0.0/16', '10.7.0.0/16', '10.7.0.0/16') }),
    ];
    t.match(device.apply({ ...WANTED, peers }), { ok: true, failures: [] });
    t.equal(prefixesOf(dump(NAME), key(1)), '10.6.0.0/16');
    t.equal(prefixesOf(dump(NAME), key(2)), '10.5.0.0/16,10.7.0.0/16');
    t.match(device.apply({ ...WANTED, peers }), { ok: true, value: { changes: 0 } });
  });

  await withDevice('mends what another program changed', (t, world) => {
    const { device, dump } = world;
    world.removePeer(NAME, key(2));
    world.setPeer(NAME, key(5), ['10.1.0.0/16']);
    t.match(device.apply(WANTED), { ok: true, value: { changes: 3 } });
    t.equal(prefixesOf(dump(NAME), key(1)), '10.1.0.0/16,fd00:1::/48');
    t.equal(prefixesOf(dump(NAME), key(2)), '10.2.0.0/16');
    t.equal(lineOf(dump(NAME), key(5)), undefined);
  });

  await withDevice(
    'leaves the endpoint of a peer that has none in the wanted state',
    (t, world) => {
      const [one, ...others] = WANTED.peers as [WantedPeer, ...WantedPeer[]];
      const peers = [{ ...one, endpoint: undefined }, ...others];
      t.match(world.device.apply({ ...WANTED, peers }), { ok: true, value: { changes: 0 } });
      t.equal(lineOf(world.dump(NAME), key(1))![2], '192.0.2.1:51820');
    },
  );

  await withDevice('changes one peer with one message', (t, { device, dump }) => {
    const there = { endpoint: socket('198.51.100.9:1'), persistentKeepalive: 25 };
    t.strictSame(device.changePeer(NAME, key(3), there), {
      ok: true,
      value: undefined,
      failures: [],
    });
    t.match(lineOf(dump(NAME), key(3)), [base64(key(3)), '(none)', '198.51.100.9:1', '(none)']);
    t.equal(lineOf(dump(NAME), key(3))!.at(-1), '25');
    t.match(device.changePeer(NAME, key(3), { persistentKeepalive: 0 }), { ok: true });
    t.equal(lineOf(dump(NAME), key(3))![2], '198.51.100.9:1');
    t.match(device.changePeer(NAME, key(8), there), { ok: true });
    t.equal(lineOf(dump(NAME), key(8)), undefined, 'one that is not there is not made');
  });

  await withDevice('makes one peer what it shall be, with one message', (t, world) => {
    const { device, dump } = world;
    const four = peer(4, { presharedKey: key(9), allowedIps: prefixes('10.4.0.0/16') });
    t.match(device.putPeer(NAME, four), { ok: true, failures: [] });
    t.strictSame(lineOf(dump(NAME), key(4)), [
      base64(key(4)),
      base64(key(9)),
      '(none)',
      '10.4.0.0/16',
      'off',
    ]);
    const one = peer(1, { allowedIps: prefixes('10.4.0.0/16') });
    t.match(device.putPeer(NAME, one), { ok: true, failures: [] });
    t.equal(prefixesOf(dump(NAME), key(4)), '(none)');
    t.strictSame(lineOf(dump(NAME), key(1)), [
      base64(key(1)),
      '(none)',
      '192.0.2.1:51820',
      '10.4.0.0/16',
      'off',
    ]);
  });

  await withDevice('removes one peer with one message', (t, { device, dump }) => {
    t.match(device.removePeer(NAME, key(1)), { ok: true, failures: [] });
    t.equal(lineOf(dump(NAME), key(1)), undefined);
    t.match(
      device.removePeer(NAME, key(1)),
      { ok: true, failures: [] },
      'also when it is not there',
    );
    t.equal(dump(NAME)!.length, 3);
  });

  await withDevice('says that a peer has the key of the device', (t, { device, publicKeyOf }) => {
    const own: WantedPeer = { ...peer(0, {}), publicKey: publicKeyOf(PRIVATE_KEY) };
    t.match(device.apply({ ...WANTED, peers: [...WANTED.peers, own] }), {
      ok: false,
      why: 'refused',
      failures: [
        {
          object: `peer ${base64(own.publicKey)}`,
          message: 'this is the key of the device itself',
        },
      ],
    });
  });

  await inWorld('makes 300 peers, and one with 4,000 prefixes', (t, { device, dump }) => {
    const peers = Array.from({ length: 300 }, (_, i) =>
      peer(i + 1, {
        presharedKey: key(i + 1),
        endpoint: socket(`192.0.2.${(i % 254) + 1}:51820`),
        allowedIps: i === 150 ? manyPrefixes(4000) : prefixes(`10.${i >> 8}.${i & 255}.0/24`),
      }),
    );
    device.create(NAME);
    t.match(device.apply({ ...WANTED, peers }), { ok: true, failures: [] });
    t.equal(dump(NAME)!.length, 301);
    t.equal(prefixesOf(dump(NAME), key(151))!.split(',').length, 4000);
    t.match(device.apply({ ...WANTED, peers }), { ok: true, value: { changes: 0 } });
    const fewer = peers.map((one, i) =>
      i === 150 ? { ...one, allowedIps: one.allowedIps.slice(1) } : one,
    );
    t.match(device.apply({ ...WANTED, peers: fewer }), { ok: true, value: { changes: 1 } });
    t.equal(prefixesOf(dump(NAME), key(151))!.split(',').length, 3999);
  });
}

/** Not clamped (RFC 7748 §5), as a key that was drawn may be. */
const PRIVATE_KEY = new Uint8Array(32).fill(0xff);
const CLAMPED = Uint8Array.from(PRIVATE_KEY, (byte, i) =>
  i === 0 ? 0xf8 : i === 31 ? 0x7f : byte,
);

const OF_DEVICE = { privateKey: PRIVATE_KEY, listenPort: 51820, fwmark: 0x2680 } as const;

const WANTED: WantedDevice = {
  name: NAME,
  ...OF_DEVICE,
  peers: [
    peer(1, {
      presharedKey: key(9),
      endpoint: socket('192.0.2.1:51820'),
      persistentKeepalive: 25,
      allowedIps: prefixes('10.1.0.0/16', 'fd00:1::/48'),
    }),
    peer(2, { endpoint: socket('[2001:db8::2]:4500'), allowedIps: prefixes('10.2.0.0/16') }),
    peer(3, {}),
  ],
};

export function peer(number: number, parts: Partial<WantedPeer>): WantedPeer {
  return {
    publicKey: key(number),
    presharedKey: undefined,
    endpoint: undefined,
    persistentKeepalive: 0,
    allowedIps: [],
    ...parts,
  };
}

export function key(number: number): Uint8Array {
  const bytes = new Uint8Array(32).fill(7);
  bytes[0] = number & 0xff;
  bytes[1] = number >> 8;
  return bytes;
}

export function prefixes(...texts: readonly string[]): readonly IpPrefix[] {
  return texts.map((text) => {
    const prefix = parseIpPrefix(text);
    if (!prefix.ok) throw new Error(text);
    return prefix.value;
  });
}

/** Single addresses of 172.16.0.0/12. */
export function manyPrefixes(count: number, from = 0): readonly IpPrefix[] {
  return Array.from({ length: count }, (_, i) => i + from).flatMap((i) =>
    prefixes(`172.${16 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}/32`),
  );
}

export function socket(text: string): SocketAddress {
  const address = parseSocketAddress(text);
  if (!address.ok) throw new Error(text);
  return address.value;
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64');
}

type Dump = ReturnType<WireguardWorld['dump']>;

function lineOf(dump: Dump, publicKey: Uint8Array): readonly string[] | undefined {
  return (
    dump?.find(([text]) => text === base64(publicKey)) &&
    withSortedPrefixes(dump.find(([text]) => text === base64(publicKey))!)
  );
}

function prefixesOf(dump: Dump, publicKey: Uint8Array): string | undefined {
  return lineOf(dump, publicKey)?.[3];
}

/** Without handshake and counters. The kernel lists prefixes in the order of its trie. */
function withSortedPrefixes(line: readonly string[]): readonly string[] {
  const [publicKey = '', presharedKey = '', endpoint = '', allowedIps = ''] = line;
  const sorted = allowedIps.split(',').toSorted().join(',');
  return [publicKey, presharedKey, endpoint, sorted, line.at(-1) ?? ''];
}

function wantedPart(read: WantedPeer): WantedPeer {
  const { publicKey, presharedKey, endpoint, persistentKeepalive, allowedIps } = read;
  const sorted = allowedIps.toSorted((a, b) => a.address.localeCompare(b.address));
  return { publicKey, presharedKey, endpoint, persistentKeepalive, allowedIps: sorted };
}
