import { constants } from 'node:os';
import type { Arena } from '../../core/fastpath/arena.ts';
import {
  IOVEC_SIZE,
  LARGEST_READ,
  READ_LENGTH,
  READ_OFFSET,
  READ_SIZE,
  VNET_HEADER_SIZE,
  WRITE_COUNT,
  WRITE_IOVECS,
  WRITE_RESULT,
  WRITE_SIZE,
} from '../../core/fastpath/layout.ts';
import type {
  DeviceFailure,
  DeviceOffloads,
  PacketDevice,
} from '../../core/plugin/packet-device.ts';
import { failed, ok, type Outcome } from '../../core/sansio/outcome.ts';

/** A host in memory with any number of TUN devices, as a simulation sees it. */
export class MemoryTunHost {
  readonly #open = new Map<string, MemoryTun>();

  createDevice(): MemoryTun {
    return new MemoryTun(this.#open);
  }
}

/**
 * The memory twin of the TUN device. The host's side is `send` and `received`; nothing is reported
 * before `report`, so that a test decides when the device becomes readable.
 */
export class MemoryTun implements PacketDevice {
  /** What was written to the device: virtio-net header and packet, in order. */
  readonly received: Uint8Array[] = [];

  readonly #taken: Map<string, MemoryTun>;
  readonly #waiting: Uint8Array[] = [];
  #device:
    { readonly name: string; readonly arena: Arena; readonly onReadable: () => void } | undefined;

  constructor(taken: Map<string, MemoryTun>) {
    this.#taken = taken;
  }

  /** Has the host send an IP packet into the interface, with the virtio-net header in front of it. */
  send(headerAndPacket: Uint8Array): void {
    // A full queue drops, as the kernel's does.
    if (this.#device !== undefined && this.#waiting.length < QUEUE_LENGTH) {
      this.#waiting.push(headerAndPacket.slice());
    }
  }

  /** Calls `onReadable` while packets wait and are being read. */
  report(): void {
    for (let left = -1; this.#waiting.length > 0 && this.#waiting.length !== left;) {
      left = this.#waiting.length;
      this.#device?.onReadable();
    }
  }

  open(
    { name }: { readonly name: string; readonly mtu: number },
    arena: Arena,
    onReadable: () => void,
  ): Outcome<{ readonly name: string; readonly offloads: DeviceOffloads }, DeviceFailure> {
    if (!/^[^/\s]{1,15}$/.test(name)) return failed('refused');
    if (this.#taken.has(name)) return failed('name-taken');
    this.close();
    this.#taken.set(name, this);
    this.#device = { name, arena, onReadable };
    return ok({ name, offloads: { tcp: true, udp: true } });
  }

  read(): number {
    if (this.#device === undefined) return 0;
    const { buffer, reads } = this.#device.arena;
    const view = new DataView(buffer);
    let count = 0;
    let next = reads.into;
    while (count < reads.most) {
      const offset = Math.ceil((next + VNET_HEADER_SIZE) / 16) * 16 - VNET_HEADER_SIZE;
      if (offset + LARGEST_READ > reads.end) break;
      const packet = this.#waiting.shift();
      if (packet === undefined) break;
      new Uint8Array(buffer).set(packet, offset);
      view.setUint32(reads.table + count * READ_SIZE + READ_OFFSET, offset, true);
      view.setUint32(reads.table + count * READ_SIZE + READ_LENGTH, packet.length, true);
      next = offset + packet.length;
      count++;
    }
    return count;
  }

  write(count: number): number {
    if (this.#device === undefined) return 0;
    const { buffer, writes } = this.#device.arena;
    const view = new DataView(buffer);
    let written = 0;
    for (let i = 0; i < count; i++) {
      const record = writes + i * WRITE_SIZE;
      const packet = gather(buffer, record);
      const version = (packet[VNET_HEADER_SIZE] ?? 0) >> 4;
      const isPacket = version === 4 || version === 6;
      view.setInt32(record + WRITE_RESULT, isPacket ? 0 : -constants.errno.EINVAL, true);
      if (!isPacket) continue;
      this.received.push(packet);
      written++;
    }
    return written;
  }

  close(): void {
    if (this.#device !== undefined) this.#taken.delete(this.#device.name);
    this.#device = undefined;
    this.#waiting.length = 0;
  }
}

/** Packets; the default of the kernel's TUN. */
const QUEUE_LENGTH = 500;

function gather(buffer: ArrayBuffer, record: number): Uint8Array {
  const view = new DataView(buffer);
  const iovecs = view.getUint32(record + WRITE_IOVECS, true);
  const pieces: Uint8Array[] = [];
  for (let i = 0; i < view.getUint32(record + WRITE_COUNT, true); i++) {
    const offset = view.getUint32(iovecs + i * IOVEC_SIZE, true);
    const length = view.getUint32(iovecs + i * IOVEC_SIZE + 4, true);
    pieces.push(new Uint8Array(buffer, offset, length));
  }
  const packet = new Uint8Array(pieces.reduce((total, { length }) => total + length, 0));
  let at = 0;
  for (const piece of pieces) {
    packet.set(piece, at);
    at += piece.length;
  }
  return packet;
}
