import { readFileSync } from 'node:fs';
import type { TransportCipher } from '../../../core/fastpath/cipher.ts';
import type { FastPathKernel } from '../../../core/fastpath/kernel.ts';
import {
  DATAGRAMS,
  DATAGRAM_LENGTH,
  DATAGRAM_OFFSET,
  DATAGRAM_REMOTE,
  DATAGRAM_SEGMENT,
  DATAGRAM_SIZE,
  DATAGRAM_TOS,
  KEY_SIZE,
  LARGEST_TRAIN,
  MESSAGE_AUTHENTIC,
  MESSAGE_COUNTER_LOW,
  MESSAGE_HEADER_SIZE,
  MESSAGE_KEY,
  MESSAGE_LENGTH,
  MESSAGE_OFFSET,
  MESSAGE_SIZE,
  READS,
  READ_LENGTH,
  READ_OFFSET,
  READ_SIZE,
  SENDS,
  SEND_LENGTH,
  SEND_OFFSET,
  SEND_PATH,
  SEND_SEGMENT,
  SEND_SIZE,
  SEND_TOS,
  TAG_SIZE,
  TUN_IN,
  TUN_IN_END,
  UDP_IN,
  UDP_IN_END,
  WRITES,
  WRITE_COUNT,
  WRITE_IOVECS,
  WRITE_SIZE,
} from '../../../core/fastpath/layout.ts';
import {
  PacketPath,
  type FlowVerdict,
  type PacketPolicy,
  type Path,
} from '../../../core/fastpath/packet-path.ts';
import { createTwinKernel } from '../../../core/fastpath/twin/kernel.ts';
import {
  encodeSockaddr,
  parseSocketAddress,
  type SocketAddress,
} from '../../../core/net/socket-address.ts';
import { instantAt } from '../../../core/sansio/instant.ts';
import { nullLog } from '../../../core/sansio/log.ts';
import { buildAssembly } from '../../../openwrt/build/assembly.mjs';
import { createWasmFastPath, type WasmFastPath } from '../../../plugins/fastpath-wasm/index.ts';
import { bytes, joined } from './packets.ts';

/* A packet path with a TUN and a socket that are arrays. */

const modules = await buildAssembly();
const wasm = { simd: readFileSync(modules.simd), plain: readFileSync(modules.plain) };

export function createWasm(kind: 'simd' | 'plain'): WasmFastPath {
  const notWasm = new Uint8Array(8);
  const created = createWasmFastPath(kind === 'simd' ? wasm : { ...wasm, simd: notWasm });
  if ('skip' in created) throw new Error(created.skip);
  return created;
}

/** Every kernel there is, by name. */
export const kernels: Readonly<Record<string, () => FastPathKernel>> = {
  twin: () => createTwinKernel(),
  'WebAssembly with SIMD': () => createWasm('simd').kernel,
  WebAssembly: () => createWasm('plain').kernel,
};

export const forwardAll: PacketPolicy = {
  outbound: (): FlowVerdict => ({ type: 'forward', peer: 0 }),
  inbound: (peer): FlowVerdict => ({ type: 'forward', peer }),
};

export const REMOTE = address('192.0.2.1:51820');
export const FD = 7;
export const NOW = instantAt(0);

/** A datagram that left, or one that comes. */
export interface Datagram {
  readonly payload: Uint8Array;
  readonly tos: number;
}

/** A send record. */
export interface Send {
  readonly datagrams: readonly Datagram[];
  /** Offset of the path record. */
  readonly path: number;
}

/** A write to the TUN: the virtio-net header and one packet, however large. */
export interface Write {
  readonly vnet: {
    readonly flags: number;
    readonly gso: number;
    readonly headers: number;
    readonly size: number;
    readonly start: number;
    readonly field: number;
  };
  readonly packet: Uint8Array;
}

export class Station {
  readonly path: PacketPath;
  readonly kernel: FastPathKernel;
  readonly view: DataView;
  readonly #bytes: Uint8Array;

  constructor(
    options: {
      readonly kernel?: FastPathKernel;
      readonly cipher?: TransportCipher;
      readonly policy?: PacketPolicy;
      readonly mtu?: number;
    } = {},
  ) {
    this.kernel = options.kernel ?? createTwinKernel();
    this.view = new DataView(this.kernel.memory);
    this.#bytes = new Uint8Array(this.kernel.memory);
    this.path = new PacketPath({
      kernel: this.kernel,
      cipher: options.cipher ?? createTransparentCipher(this.kernel.memory),
      policy: options.policy ?? forwardAll,
      mtu: options.mtu ?? 1408,
      log: nullLog,
    });
    this.path.setOffloads({ tcp: true, udp: true });
  }

  /** Gives the peer a path and a session whose messages this station itself would accept. */
  connect(peer: number, path: Partial<Path> = {}): void {
    const localIndex = peer << 8;
    this.path.installSession({
      peer,
      localIndex,
      remoteIndex: localIndex,
      sendKey: bytes(KEY_SIZE, peer),
      receiveKey: bytes(KEY_SIZE, peer),
    });
    this.path.setPath(peer, { fd: FD, remote: REMOTE, ...path });
    this.path.activateSession(peer, localIndex);
  }

  /** Reads from the TUN (with virtio-net headers) as one batch. */
  read(...reads: readonly Uint8Array[]): void {
    let at = TUN_IN + 6;
    for (const [i, read] of reads.entries()) {
      if (at + read.length > TUN_IN_END) throw new Error('too many reads for a batch');
      this.#bytes.set(read, at);
      this.view.setUint32(READS + i * READ_SIZE + READ_OFFSET, at, true);
      this.view.setUint32(READS + i * READ_SIZE + READ_LENGTH, read.length, true);
      at += (read.length + 15) & ~15;
    }
    this.path.outbound(reads.length, NOW);
  }

  /** All send records that are ready. */
  sends(): Send[] {
    const sends: Send[] = [];
    for (let count = this.path.takeSends(); count > 0; count = this.path.takeSends()) {
      for (let i = 0; i < count; i++) sends.push(this.#sendAt(SENDS + i * SEND_SIZE));
    }
    return sends;
  }

  /** The same as datagrams. */
  sent(): Datagram[] {
    return this.sends().flatMap((send) => send.datagrams);
  }

  /** Receives trains, each of datagrams of one length but for the last, from one address or from one each. */
  receive(
    trains: readonly (readonly Datagram[])[],
    from: SocketAddress | readonly SocketAddress[] = REMOTE,
    fd: number = FD,
  ): void {
    let at = UDP_IN;
    for (const [i, train] of trains.entries()) {
      const record = DATAGRAMS + i * DATAGRAM_SIZE;
      const whole = joined(...train.map((datagram) => datagram.payload));
      if (whole.length > LARGEST_TRAIN || at >= UDP_IN_END) throw new Error('train too long');
      this.#bytes.set(whole, at);
      this.#bytes.fill(0, record, record + DATAGRAM_SIZE);
      this.#set(record + DATAGRAM_OFFSET, at);
      this.#set(record + DATAGRAM_LENGTH, whole.length);
      this.#set(record + DATAGRAM_SEGMENT, train.length > 1 ? (train[0]?.payload.length ?? 0) : 0);
      this.#set(record + DATAGRAM_TOS, train[0]?.tos ?? 0);
      const remote = typeof from === 'string' ? from : (from[i] ?? REMOTE);
      encodeSockaddr(remote, this.#bytes, record + DATAGRAM_REMOTE);
      at += LARGEST_TRAIN;
    }
    this.path.inbound(trains.length, fd, NOW);
  }

  /** All writes that are ready. */
  writes(): Write[] {
    const writes: Write[] = [];
    for (let count = this.path.takeWrites(); count > 0; count = this.path.takeWrites()) {
      for (let i = 0; i < count; i++) writes.push(this.#writeAt(WRITES + i * WRITE_SIZE));
    }
    return writes;
  }

  /** The packets of all writes. */
  written(): Uint8Array[] {
    return this.writes().map((write) => write.packet);
  }

  u32(at: number): number {
    return this.view.getUint32(at, true);
  }

  #set(at: number, value: number): void {
    this.view.setUint32(at, value, true);
  }

  #sendAt(at: number): Send {
    const start = this.u32(at + SEND_OFFSET);
    const length = this.u32(at + SEND_LENGTH);
    const segment = this.u32(at + SEND_SEGMENT) || length;
    const datagrams: Datagram[] = [];
    for (let done = 0; done < length; done += segment) {
      const end = start + Math.min(done + segment, length);
      const payload = this.#bytes.slice(start + done, end);
      datagrams.push({ payload, tos: this.u32(at + SEND_TOS) });
    }
    return { datagrams, path: this.u32(at + SEND_PATH) };
  }

  #writeAt(at: number): Write {
    const parts: Uint8Array[] = [];
    for (let i = 0; i < this.u32(at + WRITE_COUNT); i++) {
      const iovec = this.u32(at + WRITE_IOVECS) + i * 8;
      const start = this.u32(iovec);
      parts.push(this.#bytes.subarray(start, start + this.u32(iovec + 4)));
    }
    const whole = joined(...parts);
    const view = new DataView(whole.buffer);
    return {
      vnet: {
        flags: view.getUint8(0),
        gso: view.getUint8(1),
        headers: view.getUint16(2, true),
        size: view.getUint16(4, true),
        start: view.getUint16(6, true),
        field: view.getUint16(8, true),
      },
      packet: whole.slice(10),
    };
  }
}

/** The packet in a transport message that the transparent cipher sealed, with its padding. */
export function plaintextOf(datagram: Datagram): Uint8Array {
  return datagram.payload.subarray(MESSAGE_HEADER_SIZE, datagram.payload.length - TAG_SIZE);
}

/** The same without padding. */
export function packetOf(datagram: Datagram): Uint8Array {
  const plaintext = plaintextOf(datagram);
  const view = new DataView(plaintext.buffer, plaintext.byteOffset);
  const isIpv4 = view.getUint8(0) >> 4 === 4;
  return plaintext.slice(0, isIpv4 ? view.getUint16(2) : 40 + view.getUint16(4));
}

/** A cipher that hides nothing, but whose tag depends on key, counter and every byte. */
export function createTransparentCipher(arena: ArrayBuffer): TransportCipher {
  const view = new DataView(arena);
  const u32 = (at: number): number => view.getUint32(at, true);
  const tagOf = (message: number): number => {
    const payload = u32(message + MESSAGE_OFFSET) + MESSAGE_HEADER_SIZE;
    const parts = [
      new Uint8Array(arena, u32(message + MESSAGE_KEY), KEY_SIZE),
      new Uint8Array(arena, message + MESSAGE_COUNTER_LOW, 8),
      new Uint8Array(arena, payload, u32(message + MESSAGE_LENGTH)),
    ];
    let hash = 0x811c9dc5;
    for (const part of parts) for (const byte of part) hash = Math.imul(hash ^ byte, 0x01000193);
    return hash >>> 0;
  };
  const tagAt = (message: number): number =>
    u32(message + MESSAGE_OFFSET) + MESSAGE_HEADER_SIZE + u32(message + MESSAGE_LENGTH);
  const last = (first: number, count: number): number => first + count * MESSAGE_SIZE;
  return {
    name: 'transparent',
    seal(first, count) {
      for (let message = first; message < last(first, count); message += MESSAGE_SIZE) {
        new Uint8Array(arena, tagAt(message), TAG_SIZE).fill(0);
        view.setUint32(tagAt(message), tagOf(message), true);
      }
    },
    open(first, count) {
      for (let message = first; message < last(first, count); message += MESSAGE_SIZE) {
        const authentic = u32(tagAt(message)) === tagOf(message);
        view.setUint32(message + MESSAGE_AUTHENTIC, authentic ? 1 : 0, true);
      }
    },
  };
}

export function address(text: string): SocketAddress {
  const parsed = parseSocketAddress(text);
  if (!parsed.ok) throw new Error(text);
  return parsed.value;
}
