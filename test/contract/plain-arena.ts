import type { Arena, InputRegion } from '../../core/fastpath/arena.ts';
import {
  DATAGRAM_IFINDEX,
  DATAGRAM_LENGTH,
  DATAGRAM_LOCAL,
  DATAGRAM_OFFSET,
  DATAGRAM_REMOTE,
  DATAGRAM_SEGMENT,
  DATAGRAM_SIZE,
  DATAGRAM_TOS,
  IOVEC_SIZE,
  LARGEST_READ,
  LARGEST_TRAIN,
  PATH_FD,
  PATH_IFINDEX,
  PATH_LOCAL,
  PATH_REMOTE,
  PATH_REMOTE_LENGTH,
  PATH_SIZE,
  READ_LENGTH,
  READ_OFFSET,
  READ_SIZE,
  SEND_LENGTH,
  SEND_OFFSET,
  SEND_PATH,
  SEND_RESULT,
  SEND_SEGMENT,
  SEND_SIZE,
  SEND_TOS,
  VNET_HEADER_SIZE,
  WRITE_COUNT,
  WRITE_IOVECS,
  WRITE_RESULT,
  WRITE_SIZE,
} from '../../core/fastpath/layout.ts';
import { readPath, type Path } from '../../core/fastpath/path.ts';
import { ipAddressBytes, ipAddressFromBytes, type IpAddress } from '../../core/net/ip-address.ts';
import {
  decodeSockaddr,
  encodeSockaddr,
  type SocketAddress,
} from '../../core/net/socket-address.ts';

export interface Outgoing {
  readonly fd: number | undefined;
  readonly remote: SocketAddress;
  readonly payload: Uint8Array;
  /** More than 0 for a train. */
  readonly segment?: number;
  readonly tos?: number;
  /** Pins the source. */
  readonly local?: IpAddress;
  readonly ifindex?: number;
}

/** A datagram record, cut into the datagrams of its train. */
export interface Incoming {
  readonly remote: SocketAddress | undefined;
  readonly local: IpAddress;
  readonly ifindex: number;
  readonly tos: number;
  readonly payloads: readonly Uint8Array[];
}

const REGIONS = 64 * 1024;
const MOST = 64;
const TABLES = { sends: 0, paths: 8192, writes: 16_384, iovecs: 20_480, reads: 32_768 };
const RECEIVE_BUFFERS = 8;

/** An arena in ordinary memory, with what tests need to put records in and to take them out. */
export class PlainArena implements Arena {
  readonly buffer = new ArrayBuffer(4 << 20);
  readonly sends = TABLES.sends;
  readonly writes = TABLES.writes;
  readonly reads: InputRegion = {
    table: TABLES.reads,
    into: REGIONS,
    end: REGIONS + 8 * LARGEST_READ,
    most: MOST,
  };
  readonly datagrams: InputRegion = {
    table: TABLES.reads + MOST * READ_SIZE,
    into: 1 << 20,
    end: (1 << 20) + RECEIVE_BUFFERS * LARGEST_TRAIN,
    most: RECEIVE_BUFFERS,
  };
  readonly bytes = new Uint8Array(this.buffer);
  readonly view = new DataView(this.buffer);

  /** Writes one send record for each, beginning at the first; returns their number. */
  putSends(all: readonly Outgoing[]): number {
    let payloadAt = 2 << 20;
    for (const [i, { fd, remote, payload, segment, tos, local, ifindex }] of all.entries()) {
      const path = TABLES.paths + i * PATH_SIZE;
      this.bytes.fill(0, path, path + PATH_SIZE);
      this.view.setInt32(path + PATH_FD, fd ?? -1, true);
      const length = encodeSockaddr(remote, this.bytes, path + PATH_REMOTE);
      this.view.setUint32(path + PATH_REMOTE_LENGTH, length, true);
      if (local !== undefined) this.bytes.set(ipAddressBytes(local), path + PATH_LOCAL);
      this.view.setUint32(path + PATH_IFINDEX, ifindex ?? 0, true);

      const record = this.sends + i * SEND_SIZE;
      this.view.setUint32(record + SEND_OFFSET, payloadAt, true);
      this.view.setUint32(record + SEND_LENGTH, payload.length, true);
      this.view.setUint32(record + SEND_SEGMENT, segment ?? 0, true);
      this.view.setUint32(record + SEND_PATH, path, true);
      this.view.setUint32(record + SEND_TOS, tos ?? 0, true);
      this.view.setInt32(record + SEND_RESULT, 12_345, true);
      this.bytes.set(payload, payloadAt);
      payloadAt += payload.length;
    }
    return all.length;
  }

  sendResult(i: number): number {
    return this.view.getInt32(this.sends + i * SEND_SIZE + SEND_RESULT, true);
  }

  /** The path of a send, with what the transport changed of it. */
  pathOfSend(i: number): Path | undefined {
    return readPath(this.buffer, TABLES.paths + i * PATH_SIZE);
  }

  takeDatagrams(count: number): Incoming[] {
    return Array.from({ length: count }, (_, i) => {
      const record = this.datagrams.table + i * DATAGRAM_SIZE;
      const offset = this.view.getUint32(record + DATAGRAM_OFFSET, true);
      const length = this.view.getUint32(record + DATAGRAM_LENGTH, true);
      const segment = this.view.getUint32(record + DATAGRAM_SEGMENT, true);
      const remote = decodeSockaddr(this.bytes, record + DATAGRAM_REMOTE);
      const local = record + DATAGRAM_LOCAL;
      const localLength = remote?.startsWith('[') ? 16 : 4;
      return {
        remote,
        local: ipAddressFromBytes(this.bytes.slice(local, local + localLength)),
        ifindex: this.view.getUint32(record + DATAGRAM_IFINDEX, true),
        tos: this.view.getUint32(record + DATAGRAM_TOS, true),
        payloads: cut(this.bytes.slice(offset, offset + length), segment),
      };
    });
  }

  /** Writes one write record for each packet, which comes in pieces; returns their number. */
  putWrites(packets: readonly (readonly Uint8Array[])[]): number {
    let pieceAt = 2 << 20;
    let iovecAt = TABLES.iovecs;
    for (const [i, pieces] of packets.entries()) {
      const record = this.writes + i * WRITE_SIZE;
      this.view.setUint32(record + WRITE_IOVECS, iovecAt, true);
      this.view.setUint32(record + WRITE_COUNT, pieces.length, true);
      this.view.setInt32(record + WRITE_RESULT, 12_345, true);
      for (const piece of pieces) {
        this.view.setUint32(iovecAt, pieceAt, true);
        this.view.setUint32(iovecAt + 4, piece.length, true);
        this.bytes.set(piece, pieceAt);
        iovecAt += IOVEC_SIZE;
        pieceAt += piece.length;
      }
    }
    return packets.length;
  }

  writeResult(i: number): number {
    return this.view.getInt32(this.writes + i * WRITE_SIZE + WRITE_RESULT, true);
  }

  /** What was read: the virtio-net header, the packet behind it, and where that lies. */
  takePackets(count: number): { header: Uint8Array; packet: Uint8Array; offset: number }[] {
    return Array.from({ length: count }, (_, i) => {
      const record = this.reads.table + i * READ_SIZE;
      const start = this.view.getUint32(record + READ_OFFSET, true);
      const end = start + this.view.getUint32(record + READ_LENGTH, true);
      const offset = start + VNET_HEADER_SIZE;
      return {
        header: this.bytes.slice(start, offset),
        packet: this.bytes.slice(offset, end),
        offset,
      };
    });
  }
}

function cut(train: Uint8Array, segment: number): Uint8Array[] {
  if (segment === 0) return [train];
  const count = Math.ceil(train.length / segment);
  return Array.from({ length: count }, (_, i) => train.slice(i * segment, (i + 1) * segment));
}
