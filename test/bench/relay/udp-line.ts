import type { Arena } from '../../../core/fastpath/arena.ts';
import {
  DATAGRAM_LENGTH,
  DATAGRAM_OFFSET,
  DATAGRAM_SEGMENT,
  DATAGRAM_SIZE,
  LARGEST_TRAIN,
  PATH_SIZE,
  SEND_LENGTH,
  SEND_OFFSET,
  SEND_PATH,
  SEND_SEGMENT,
  SEND_SIZE,
} from '../../../core/fastpath/layout.ts';
import { writePath } from '../../../core/fastpath/path.ts';
import type { SocketAddress } from '../../../core/net/socket-address.ts';
import { nullLog } from '../../../core/sansio/log.ts';
import { loadNative } from '../../../plugins/platform-node/native.ts';
import { UdpTransport } from '../../../plugins/transport-udp/udp-transport.ts';
import type { Line } from '../../interop/turn-client.ts';

/** Trains of one batch. */
const TRAINS = 16;
const RECEIVED = 16;

const PATH_AT = 0;
const SENDS = PATH_AT + PATH_SIZE;
const DATAGRAMS = SENDS + TRAINS * SEND_SIZE;
const TRAIN = DATAGRAMS + RECEIVED * DATAGRAM_SIZE;
const INTO = TRAIN + LARGEST_TRAIN;
const END = INTO + RECEIVED * LARGEST_TRAIN;

/** RFC 768: what a UDP datagram over IPv4, and a train of them, carries at most. */
const LARGEST_PAYLOAD = 65_507;

/** UDP to one address, message by message and in trains, by the batches of the product. */
export class UdpLine implements Line {
  readonly transport = 'udp';
  readonly #udp: UdpTransport;
  readonly #remote: SocketAddress;
  readonly #arena: ArrayBuffer = new ArrayBuffer(END);
  #handle: (message: Uint8Array) => void = () => undefined;

  /** Binds `port`, or any where it is 0. Throws where that fails. */
  constructor(nativeFile: string, remote: SocketAddress, port: number) {
    const native = loadNative(nativeFile);
    if ('skip' in native) throw new Error(native.skip);
    this.#udp = new UdpTransport(native, nullLog);
    this.#remote = remote;
    const unused = { table: 0, into: 0, end: 0, most: 0 };
    const arena: Arena = {
      buffer: this.#arena,
      reads: unused,
      datagrams: { table: DATAGRAMS, into: INTO, end: END, most: RECEIVED },
      sends: SENDS,
      writes: 0,
    };
    const listening = this.#udp.listen(port, { mark: undefined }, arena, (fd) => this.#receive(fd));
    if (!listening.ok || listening.value.ipv4 === undefined) throw new Error('no socket for IPv4');
    writePath(this.#arena, PATH_AT, { fd: listening.value.ipv4, remote });
  }

  send(message: Uint8Array): void {
    this.#udp.sendTo(this.#remote, message);
  }

  onMessage(handle: (message: Uint8Array) => void): void {
    this.#handle = handle;
  }

  close(): void {
    this.#udp.close();
  }

  /** Sends the datagram again and again, as fast as it can, until `isOver`. */
  async flood(datagram: Uint8Array, isOver: () => boolean): Promise<void> {
    const view = new DataView(this.#arena);
    const count = Math.floor(LARGEST_PAYLOAD / datagram.length);
    for (let i = 0; i < count; i++) {
      new Uint8Array(this.#arena, TRAIN + i * datagram.length).set(datagram);
    }
    while (!isOver()) {
      for (let i = 0; i < TRAINS; i++) {
        const record = SENDS + i * SEND_SIZE;
        view.setUint32(record + SEND_OFFSET, TRAIN, true);
        view.setUint32(record + SEND_LENGTH, count * datagram.length, true);
        view.setUint32(record + SEND_SEGMENT, datagram.length, true);
        view.setUint32(record + SEND_PATH, PATH_AT, true);
      }
      this.#udp.send(TRAINS);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  #receive(fd: number): void {
    const view = new DataView(this.#arena);
    const count = this.#udp.receive(fd);
    for (let i = 0; i < count; i++) {
      const record = DATAGRAMS + i * DATAGRAM_SIZE;
      const start = view.getUint32(record + DATAGRAM_OFFSET, true);
      const length = view.getUint32(record + DATAGRAM_LENGTH, true);
      const segment = view.getUint32(record + DATAGRAM_SEGMENT, true) || length;
      for (let at = 0; at < length; at += segment) {
        const size = Math.min(segment, length - at);
        this.#handle(new Uint8Array(this.#arena, start + at, size).slice());
      }
    }
  }
}
