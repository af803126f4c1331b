import { constants } from 'node:os';
import type { Arena } from '../../core/fastpath/arena.ts';
import {
  DATAGRAM_IFINDEX,
  DATAGRAM_LENGTH,
  DATAGRAM_LOCAL,
  DATAGRAM_OFFSET,
  DATAGRAM_REMOTE,
  DATAGRAM_SEGMENT,
  DATAGRAM_SIZE,
  DATAGRAM_TOS,
  LARGEST_TRAIN,
  PATH_FD,
  PATH_LOCAL,
  PATH_REMOTE,
  SEND_LENGTH,
  SEND_OFFSET,
  SEND_PATH,
  SEND_RESULT,
  SEND_SEGMENT,
  SEND_SIZE,
  SEND_TOS,
} from '../../core/fastpath/layout.ts';
import { readPath } from '../../core/fastpath/path.ts';
import { ipAddressBytes, ipFamily, type IpAddress } from '../../core/net/ip-address.ts';
import {
  decodeSockaddr,
  encodeSockaddr,
  socketAddress,
  socketAddressIp,
  socketAddressPort,
  type SocketAddress,
} from '../../core/net/socket-address.ts';
import type { Source } from '../../core/net/source.ts';
import type { Datagrams, Listening, ListenFailure } from '../../core/plugin/datagrams.ts';
import { failed, ok, type Outcome } from '../../core/sansio/outcome.ts';

/** A datagram on its way, or a train of them. */
export interface MemoryDatagram {
  readonly from: SocketAddress;
  readonly to: SocketAddress;
  readonly payload: Uint8Array;
  /** Length of all datagrams of the train but the last; 0 for a single one. */
  readonly segment: number;
  readonly tos: number;
}

/**
 * A network in memory that joins the transports of any number of hosts. Nothing moves by itself: what
 * was sent waits in `wire` until `deliver` hands it over, so that a simulation may drop, delay, rewrite
 * or inspect it in between.
 */
export class MemoryNetwork {
  /** What was sent and not yet delivered, in order. */
  readonly wire: MemoryDatagram[] = [];

  /** What becomes of each datagram: none when it is lost, two when it comes twice. */
  fate: (datagram: MemoryDatagram) => readonly MemoryDatagram[] = (datagram) => [datagram];

  readonly #hosts: MemoryHost[] = [];

  /** Adds a host that has all addresses for which `owns` answers true; `source` is its own by family. */
  host(owns: (address: IpAddress) => boolean, source: (family: 4 | 6) => IpAddress): MemoryHost {
    const host = new MemoryHost(this, owns, source);
    this.#hosts.push(host);
    return host;
  }

  put(datagram: MemoryDatagram): void {
    this.wire.push(...this.fate(datagram));
  }

  /** Delivers all that is on the wire, and what the receivers send at once in answer. */
  deliver(): void {
    for (let datagram = this.wire.shift(); datagram !== undefined; datagram = this.wire.shift()) {
      const to = socketAddressIp(datagram.to);
      this.#hosts.find((host) => host.owns(to))?.accept(datagram);
      if (this.wire.length === 0) for (const host of this.#hosts) host.report();
    }
  }
}

export class MemoryHost {
  readonly owns: (address: IpAddress) => boolean;
  readonly source: (family: 4 | 6) => IpAddress;
  readonly network: MemoryNetwork;
  readonly #sockets = new Map<number, MemorySocket>();
  #lastFd = 100;

  constructor(
    network: MemoryNetwork,
    owns: (address: IpAddress) => boolean,
    source: (family: 4 | 6) => IpAddress,
  ) {
    this.network = network;
    this.owns = owns;
    this.source = source;
  }

  createDatagrams(): Datagrams {
    return new MemoryDatagrams(this);
  }

  /** Opens the socket of a family on a port, or returns `undefined` where the port is taken. */
  bind(family: 4 | 6, port: number, onReadable: (fd: number) => void): MemorySocket | undefined {
    for (const other of this.#sockets.values()) {
      if (other.family === family && other.port === port) return undefined;
    }
    const socket = { fd: ++this.#lastFd, family, port, waiting: [], onReadable };
    this.#sockets.set(socket.fd, socket);
    return socket;
  }

  freePort(): number {
    const taken = new Set([...this.#sockets.values()].map(({ port }) => port));
    let port = 49_152;
    while (taken.has(port)) port++;
    return port;
  }

  unbind(socket: MemorySocket): void {
    this.#sockets.delete(socket.fd);
  }

  accept(datagram: MemoryDatagram): void {
    const family = ipFamily(socketAddressIp(datagram.to));
    const port = socketAddressPort(datagram.to);
    for (const socket of this.#sockets.values()) {
      if (socket.family === family && socket.port === port) socket.waiting.push(datagram);
    }
  }

  /** Tells each socket of what waits, as a level-triggered poll does. */
  report(): void {
    for (const socket of this.#sockets.values()) {
      for (let left = -1; socket.waiting.length > 0 && socket.waiting.length !== left;) {
        left = socket.waiting.length;
        socket.onReadable(socket.fd);
      }
    }
  }
}

interface MemorySocket {
  readonly fd: number;
  readonly family: 4 | 6;
  readonly port: number;
  readonly waiting: MemoryDatagram[];
  onReadable: (fd: number) => void;
}

/** The memory twin of the UDP transport. */
class MemoryDatagrams implements Datagrams {
  readonly #host: MemoryHost;
  #bound: { readonly sockets: readonly MemorySocket[]; readonly arena: Arena } | undefined;

  constructor(host: MemoryHost) {
    this.#host = host;
  }

  listen(
    port: number,
    _options: { readonly mark: number | undefined },
    arena: Arena,
    onReadable: (fd: number) => void,
  ): Outcome<Listening, ListenFailure> {
    if (this.#bound !== undefined && this.#bound.sockets[0]?.port === port) {
      for (const socket of this.#bound.sockets) socket.onReadable = onReadable;
      this.#bound = { ...this.#bound, arena };
      return ok(this.#listening());
    }
    const chosen = port === 0 ? this.#host.freePort() : port;
    const ipv4 = this.#host.bind(4, chosen, onReadable);
    if (ipv4 === undefined) return failed('port-taken');
    const ipv6 = this.#host.bind(6, chosen, onReadable);
    if (ipv6 === undefined) {
      this.#host.unbind(ipv4);
      return failed('port-taken');
    }
    this.close();
    this.#bound = { sockets: [ipv4, ipv6], arena };
    return ok(this.#listening());
  }

  receive(fd: number): number {
    const socket = this.#socket(fd);
    if (this.#bound === undefined || socket === undefined) return 0;
    const { buffer, datagrams } = this.#bound.arena;
    const room = Math.floor((datagrams.end - datagrams.into) / LARGEST_TRAIN);
    const taken = socket.waiting.splice(0, Math.min(datagrams.most, room));
    for (const [i, datagram] of taken.entries()) {
      const payloadAt = datagrams.into + i * LARGEST_TRAIN;
      putDatagram(buffer, datagrams.table + i * DATAGRAM_SIZE, payloadAt, datagram);
    }
    return taken.length;
  }

  send(count: number): number {
    if (this.#bound === undefined) return 0;
    const { buffer, sends } = this.#bound.arena;
    let sent = 0;
    for (let i = 0; i < count; i++) {
      const record = sends + i * SEND_SIZE;
      const result = this.#sendRecord(buffer, record);
      new DataView(buffer).setInt32(record + SEND_RESULT, result, true);
      if (result === 0) sent++;
    }
    return sent;
  }

  sendTo(remote: SocketAddress, payload: Uint8Array, { local }: Source = {}): void {
    const family = ipFamily(socketAddressIp(remote));
    const socket = this.#bound?.sockets.find((socket) => socket.family === family);
    if (socket === undefined || payload.length > LARGEST_PAYLOAD) return;
    const isOurs = local !== undefined && this.#host.owns(local);
    this.#transmit(socket, isOurs ? local : this.#host.source(family), remote, payload, 0, 0);
  }

  close(): void {
    for (const socket of this.#bound?.sockets ?? []) this.#host.unbind(socket);
    this.#bound = undefined;
  }

  #listening(): Listening {
    const [ipv4, ipv6] = this.#bound?.sockets ?? [];
    return { port: ipv4?.port ?? 0, ipv4: ipv4?.fd, ipv6: ipv6?.fd };
  }

  #socket(fd: number): MemorySocket | undefined {
    return this.#bound?.sockets.find((socket) => socket.fd === fd);
  }

  /** Returns 0 or the negative errno that the kernel would give. */
  #sendRecord(buffer: ArrayBuffer, record: number): number {
    const view = new DataView(buffer);
    const bytes = new Uint8Array(buffer);
    const path = view.getUint32(record + SEND_PATH, true);
    const socket = this.#socket(view.getInt32(path + PATH_FD, true));
    const remote = decodeSockaddr(bytes, path + PATH_REMOTE);
    if (socket === undefined) return -constants.errno.EBADF;
    if (remote === undefined || ipFamily(socketAddressIp(remote)) !== socket.family) {
      return -constants.errno.EAFNOSUPPORT;
    }
    const length = view.getUint32(record + SEND_LENGTH, true);
    if (length > LARGEST_PAYLOAD) return -constants.errno.EMSGSIZE;
    const pinned = readPath(buffer, path)?.local;
    const isOurs = pinned !== undefined && this.#host.owns(pinned);
    if (!isOurs) bytes.fill(0, path + PATH_LOCAL, path + PATH_LOCAL + 16);
    const local = isOurs ? pinned : this.#host.source(socket.family);
    const offset = view.getUint32(record + SEND_OFFSET, true);
    const segment = view.getUint32(record + SEND_SEGMENT, true) & 0xffff;
    const tos = view.getUint32(record + SEND_TOS, true) & 0xff;
    this.#transmit(socket, local, remote, bytes.slice(offset, offset + length), segment, tos);
    return 0;
  }

  #transmit(
    socket: MemorySocket,
    local: IpAddress,
    to: SocketAddress,
    payload: Uint8Array,
    segment: number,
    tos: number,
  ): void {
    const from = socketAddress(local, socket.port);
    const isTrain = segment > 0 && payload.length > segment;
    this.#host.network.put({
      from,
      to,
      tos,
      payload: payload.slice(),
      segment: isTrain ? segment : 0,
    });
  }
}

/** RFC 768: what a UDP datagram over IPv4 carries at most. */
const LARGEST_PAYLOAD = 65_507;

function putDatagram(
  buffer: ArrayBuffer,
  record: number,
  payloadAt: number,
  { from, to, payload, segment, tos }: MemoryDatagram,
): void {
  const view = new DataView(buffer);
  const bytes = new Uint8Array(buffer);
  bytes.fill(0, record, record + DATAGRAM_SIZE);
  view.setUint32(record + DATAGRAM_OFFSET, payloadAt, true);
  view.setUint32(record + DATAGRAM_LENGTH, payload.length, true);
  view.setUint32(record + DATAGRAM_SEGMENT, segment, true);
  view.setUint32(record + DATAGRAM_TOS, tos, true);
  encodeSockaddr(from, bytes, record + DATAGRAM_REMOTE);
  bytes.set(ipAddressBytes(socketAddressIp(to)), record + DATAGRAM_LOCAL);
  view.setUint32(record + DATAGRAM_IFINDEX, 1, true);
  bytes.set(payload, payloadAt);
}
