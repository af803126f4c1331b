import type { Test } from 'tap';
import { VNET_HEADER_SIZE } from '../../core/fastpath/layout.ts';
import type { PacketDevice } from '../../core/plugin/packet-device.ts';
import { PlainArena } from './plain-arena.ts';

/** A host with 10.9.0.1/24 on the device; everything else of that network lies behind the device. */
export interface PacketDeviceWorld {
  create(): PacketDevice;
  /** Gives the interface its address and brings it up. */
  bringUp(name: string): Promise<void>;
  /** Has the host send a UDP datagram from 10.9.0.1 to 10.9.0.2. */
  hostSends(payload: Uint8Array): Promise<void>;
  /** The UDP payloads that the host got on 10.9.0.1 port 9 since the last call. */
  hostReceived(): Promise<readonly Uint8Array[]>;
  /** Lets everything that is under way arrive and be reported. */
  settle(): Promise<void>;
}

const NO_OFFLOAD = new Uint8Array(VNET_HEADER_SIZE);

/** What every implementation of `PacketDevice` must do. */
export async function packetDeviceContract(
  t: Test,
  makeWorld: () => Promise<PacketDeviceWorld>,
): Promise<void> {
  const up = async (t: Test): Promise<{ world: PacketDeviceWorld; tun: Opened }> => {
    const world = await makeWorld();
    const tun = new Opened(world.create());
    t.teardown(() => tun.device.close());
    await world.bringUp(tun.name);
    await world.settle();
    tun.take();
    return { world, tun };
  };

  await t.test('it opens under the name that was asked for', async (t) => {
    const { tun } = await up(t);
    t.equal(tun.name, NAME);
    t.type(tun.offloads.tcp, 'boolean');
    t.type(tun.offloads.udp, 'boolean');
    t.equal(tun.device.read(), 0, 'nothing is waiting');
  });

  await t.test('a packet of the host is read whole, aligned, behind its header', async (t) => {
    const { world, tun } = await up(t);
    for (const length of [0, 1, 1372]) {
      const payload = numbered(length);
      await world.hostSends(payload);
      await world.settle();
      const [read, ...more] = tun.take();
      t.same(more, []);
      t.equal(read?.header.length, VNET_HEADER_SIZE);
      t.equal((read?.offset ?? 1) % 16, 0);
      t.equal(read?.packet[0], 0x45);
      t.same(read?.packet.subarray(12, 20), [10, 9, 0, 1, 10, 9, 0, 2]);
      t.same(read?.packet.subarray(28), payload);
    }
    t.ok(tun.readable >= 3);
  });

  await t.test('several packets are read at once, each aligned', async (t) => {
    const { world, tun } = await up(t);
    const lengths = Array.from({ length: 40 }, (_, i) => i * 31);
    tun.pause();
    for (const length of lengths) await world.hostSends(numbered(length));
    tun.resume();
    await world.settle();
    const packets = tun.take();
    t.same(
      packets.map(({ packet }) => packet.length - 28),
      lengths,
    );
    t.ok(packets.every(({ offset }) => offset % 16 === 0));
  });

  await t.test('a packet in pieces reaches the host as one', async (t) => {
    const { world, tun } = await up(t);
    const payload = numbered(1000);
    const packet = udpPacket(payload);
    const pieces = [NO_OFFLOAD, packet.subarray(0, 20), packet.subarray(20, 21)];
    for (let at = 21; at < packet.length; at += 100) pieces.push(packet.subarray(at, at + 100));
    t.equal(tun.write([pieces, [NO_OFFLOAD, udpPacket(numbered(3))]]), 2);
    t.same([tun.arena.writeResult(0), tun.arena.writeResult(1)], [0, 0]);
    t.same(await world.hostReceived(), [payload, numbered(3)]);
  });

  await t.test('a refused packet says so in its record and does not stop the others', async (t) => {
    const { world, tun } = await up(t);
    const neitherVersion = new Uint8Array(40);
    const written = tun.write([
      [NO_OFFLOAD, udpPacket(numbered(1))],
      [NO_OFFLOAD, neitherVersion],
      [NO_OFFLOAD.subarray(3)],
      [],
      [NO_OFFLOAD, udpPacket(numbered(2))],
    ]);
    t.equal(written, 2);
    t.same(
      [0, 1, 2, 3, 4].map((i) => Math.sign(tun.arena.writeResult(i))),
      [0, -1, -1, -1, 0],
    );
    t.same(await world.hostReceived(), [numbered(1), numbered(2)]);
  });

  await t.test('a name in use is refused', async (t) => {
    const { world, tun } = await up(t);
    const other = world.create();
    t.teardown(() => other.close());
    const wanted = { name: tun.name, mtu: 1408 };
    const refused = other.open(wanted, new PlainArena(), () => undefined);
    t.same(refused, { ok: false, why: 'name-taken' });
    for (const name of ['', 'a name far too long for a device', 'a/b']) {
      const outcome = other.open({ name, mtu: 1408 }, new PlainArena(), () => undefined);
      t.same(outcome, { ok: false, why: 'refused' }, name);
    }
  });

  await t.test('a device that is open stays when another name is refused', async (t) => {
    const { world, tun } = await up(t);
    const wanted = { name: 'a/b', mtu: 1408 };
    const refused = tun.device.open(wanted, new PlainArena(), () => undefined);
    t.same(refused, { ok: false, why: 'refused' });
    await world.hostSends(numbered(7));
    await world.settle();
    t.ok(tun.take().some(({ packet }) => packet.length === 28 + 7));
  });

  await t.test('closing gives the name back, and a closed device is quiet', async (t) => {
    const { world, tun } = await up(t);
    tun.device.close();
    tun.device.close();
    t.equal(tun.device.read(), 0);
    t.equal(tun.write([[NO_OFFLOAD, udpPacket(numbered(1))]]), 0);
    const again = new Opened(world.create());
    t.teardown(() => again.device.close());
    await world.bringUp(again.name);
    await world.hostSends(numbered(5));
    await world.settle();
    t.ok(again.take().some(({ packet }) => packet.length === 28 + 5));
  });
}

const NAME = 'culvert7';

/** A device that is open, with its arena and what was read from it. */
class Opened {
  readonly arena = new PlainArena();
  readonly device: PacketDevice;
  readonly name: string;
  readonly offloads: { readonly tcp: boolean; readonly udp: boolean };
  readable = 0;
  #isPaused = false;
  #packets: ReturnType<PlainArena['takePackets']> = [];

  constructor(device: PacketDevice) {
    this.device = device;
    const onReadable = (): void => {
      this.readable++;
      if (!this.#isPaused) this.#read();
    };
    const opened = device.open({ name: NAME, mtu: 1408 }, this.arena, onReadable);
    if (!opened.ok) throw new Error(opened.why);
    this.name = opened.value.name;
    this.offloads = opened.value.offloads;
  }

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
    this.#read();
  }

  write(packets: readonly (readonly Uint8Array[])[]): number {
    return this.device.write(this.arena.putWrites(packets));
  }

  /** The IPv4 packets read since the last call; a host also sends IPv6 of its own accord. */
  take(): ReturnType<PlainArena['takePackets']> {
    return this.#packets.splice(0).filter(({ packet }) => packet[0] === 0x45);
  }

  #read(): void {
    this.#packets.push(...this.arena.takePackets(this.device.read()));
  }
}

/** IPv4 from 10.9.0.2 to 10.9.0.1, UDP from port 9 to port 9 without a checksum (RFC 768). */
export function udpPacket(payload: Uint8Array): Uint8Array {
  const packet = new Uint8Array(28 + payload.length);
  const view = new DataView(packet.buffer);
  packet.set([0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 9, 0, 2, 10, 9, 0, 1, 0, 9, 0, 9]);
  view.setUint16(2, packet.length);
  view.setUint16(24, 8 + payload.length);
  packet.set(payload, 28);
  let sum = 0;
  for (let at = 0; at < 20; at += 2) sum += view.getUint16(at);
  view.setUint16(10, ~(sum + (sum >> 16)) & 0xffff);
  return packet;
}

export function numbered(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 7 + (i >> 8)) & 0xff);
}
