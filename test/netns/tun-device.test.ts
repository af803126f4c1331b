import { execFile } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { constants } from 'node:os';
import { promisify } from 'node:util';
import t from 'tap';
import type { Native } from '../../core/plugin/native.ts';
import { nullLog, type Log } from '../../core/sansio/log.ts';
import { TunDevice } from '../../plugins/dataplane-tun/tun-device.ts';
import { numbered, packetDeviceContract, udpPacket } from '../contract/packet-device.ts';
import { PlainArena } from '../contract/plain-arena.ts';
import { inNamespace, ipJson, loadSystemCalls, run, turns } from './netlink-namespace.ts';

if (await inNamespace(import.meta.url)) {
  const native = await loadSystemCalls();
  await t.test('the TUN device keeps the contract', async (t) => {
    const host = await createHost();
    t.teardown(() => host.close());
    await packetDeviceContract(t, async () => {
      return {
        create: () => new TunDevice(native, nullLog),
        bringUp: async (name) => bringUp(name),
        hostSends: (payload) => host.send(payload),
        hostReceived: () => host.received(),
        settle: turns,
      };
    });
  });
  await kernelBehaviour(native);
}

async function kernelBehaviour(native: Native): Promise<void> {
  await t.test('a ping into the TUN is answered through it', async (t) => {
    const { device, arena } = open(t, native, (device, arena) => {
      for (const { packet } of arena.takePackets(device.read())) {
        if (packet[9] !== 1 || packet[20] !== 8) continue; // an ICMP echo request
        packet.set([10, 9, 0, 2, 10, 9, 0, 1], 12);
        packet[20] = 0;
        const sum = new DataView(packet.buffer).getUint16(22) + 0x0800;
        new DataView(packet.buffer).setUint16(22, (sum & 0xffff) + (sum >> 16));
        t.equal(device.write(arena.putWrites([[new Uint8Array(10), packet]])), 1);
      }
    });
    bringUp('tun7');
    const ping = ['-c', '3', '-i', '0.01', '-W', '2', '-s', '1000', '10.9.0.2'];
    const { stdout } = await promisify(execFile)('ping', ping);
    t.match(stdout, '3 received');
    t.equal(device.read(), 0);
    t.equal(arena.writeResult(0), 0);
  });

  await t.test('the kernel agrees on headers and offload', async (t) => {
    const { offloads } = open(t, native, () => undefined);
    t.equal(offloads.tcp, true);
    const features = run('ip', '-d', 'link', 'show', 'tun7');
    t.match(features, 'vnet_hdr on');
    t.match(features, 'persist off');
  });

  await t.test('what a kernel refuses of the offloads is left out step by step', async (t) => {
    for (const [most, expected] of [
      [0x67, { tcp: true, udp: true }],
      [0x07, { tcp: true, udp: false }],
      [0x01, { tcp: false, udp: false }],
    ] as const) {
      const lines: string[] = [];
      const older: Native = {
        ...native,
        ioctl: (fd, request, argument) =>
          typeof argument === 'number' && argument > most
            ? -constants.errno.EINVAL
            : native.ioctl(fd, request, argument),
      };
      const device = new TunDevice(older, logInto(lines));
      const outcome = device.open({ name: 'tun7', mtu: 1408 }, new PlainArena(), () => undefined);
      device.close();
      t.match(outcome, { ok: true, value: { offloads: expected } });
      t.equal(lines.length, expected.udp ? 0 : 1);
    }
  });

  await t.test('the interface vanishes with the descriptor, whoever made it', async (t) => {
    run('ip', 'tuntap', 'add', 'tun7', 'mode', 'tun');
    const { device } = open(t, native, () => undefined);
    t.ok(exists('tun7'));
    device.close();
    t.notOk(exists('tun7'));
  });

  await t.test('each failure to open has its own name', async (t) => {
    const why = (change: Partial<Native>, name = 'tun7'): unknown => {
      const device = new TunDevice({ ...native, ...change }, nullLog);
      const outcome = device.open({ name, mtu: 1408 }, new PlainArena(), () => undefined);
      device.close();
      return outcome.ok ? outcome.value : outcome.why;
    };
    const { ENOENT, ENODEV, EPERM, EACCES, EBUSY } = constants.errno;
    t.equal(why({ open: () => -ENOENT }), 'no-tun');
    t.equal(why({ open: () => -ENODEV }), 'no-tun');
    t.equal(why({ open: () => -EACCES }), 'not-permitted');
    t.equal(why({ ioctl: () => -EPERM }), 'not-permitted');
    t.equal(why({ ioctl: () => -EBUSY }), 'name-taken');
    t.equal(why({}, 'lo'), 'name-taken', 'an interface of another kind');
    t.equal(why({ watch: () => -EPERM }), 'refused');
    t.notOk(exists('tun7'), 'nothing is left open');
  });

  await t.test('an interface that another program removes is made again', async (t) => {
    const lines: string[] = [];
    let reads = 0;
    const packets: Uint8Array[] = [];
    open(
      t,
      native,
      (device, arena) => {
        reads++;
        packets.push(...arena.takePackets(device.read()).map(({ packet }) => packet));
      },
      logInto(lines),
    );
    bringUp('tun7');
    run('ip', 'link', 'del', 'tun7');
    t.notOk(exists('tun7'));
    await turns();
    t.ok(exists('tun7'));
    t.equal(lines.length, 1);
    t.ok(reads < 5, 'and the loop does not spin');
    bringUp('tun7');
    const host = await createHost();
    t.teardown(() => host.close());
    await host.send(numbered(12));
    await turns();
    t.ok(packets.some((packet) => packet.length === 28 + 12));
  });

  await t.test('writing while the interface is down is refused and harmless', async (t) => {
    const { device, arena } = open(t, native, () => undefined);
    t.equal(device.write(arena.putWrites([[new Uint8Array(10), udpPacket(numbered(1))]])), 0);
    t.equal(arena.writeResult(0), -constants.errno.EIO);
  });
}

interface Open {
  readonly device: TunDevice;
  readonly arena: PlainArena;
  readonly offloads: { readonly tcp: boolean; readonly udp: boolean };
}

function open(
  t: { teardown(end: () => void): void },
  native: Native,
  onReadable: (device: TunDevice, arena: PlainArena) => void,
  log: Log = nullLog,
): Open {
  const device = new TunDevice(native, log);
  const arena = new PlainArena();
  const wanted = { name: 'tun7', mtu: 1408 };
  const opened = device.open(wanted, arena, () => onReadable(device, arena));
  if (!opened.ok) throw new Error(opened.why);
  t.teardown(() => device.close());
  return { device, arena, offloads: opened.value.offloads };
}

function bringUp(name: string): void {
  run('ip', 'addr', 'replace', '10.9.0.1/24', 'dev', name);
  run('ip', 'link', 'set', name, 'up');
}

function exists(name: string): boolean {
  return ipJson<{ ifname: string }>('link').some(({ ifname }) => ifname === name);
}

interface Host {
  send(payload: Uint8Array): Promise<void>;
  received(): Promise<readonly Uint8Array[]>;
  close(): void;
}

/** The host's programs: a UDP socket on port 9 of all addresses. */
async function createHost(): Promise<Host> {
  const socket = createSocket('udp4');
  const received: Uint8Array[] = [];
  socket.on('message', (payload) => received.push(new Uint8Array(payload)));
  socket.bind(9);
  await once(socket, 'listening');
  return {
    async send(payload) {
      await new Promise<void>((resolve, reject) => {
        socket.send(payload, 9, '10.9.0.2', (error) => (error ? reject(error) : resolve()));
      });
    },
    async received() {
      await turns();
      return received.splice(0);
    },
    close: () => void socket.close(),
  };
}

function logInto(lines: string[]): Log {
  const line = (message: string): void => void lines.push(message);
  return { ...nullLog, info: line, warn: line, error: line };
}
