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
import { CHANNEL_HEADER_LENGTH } from '../../../core/turn/channel-data.ts';
import { loadNative } from '../../../plugins/platform-node/native.ts';
import { UdpTransport } from '../../../plugins/transport-udp/udp-transport.ts';
import type { Line } from '../../interop/turn-client.ts';
import { FULL_LENGTH } from './datagrams.ts';

/** Datagrams of one batch. */
const RECEIVED = 64;

const PATH_AT = 0;
const SENDS = PATH_AT + PATH_SIZE;
const DATAGRAMS = SENDS + SEND_SIZE;
const TRAIN = DATAGRAMS + RECEIVED * DATAGRAM_SIZE;
const INTO = TRAIN + LARGEST_TRAIN;
const END = INTO + 8 * LARGEST_TRAIN;

/** RFC 768: what a UDP datagram over IPv4, and a train of them, carries at most. */
const LARGEST_PAYLOAD = 65_507;

/** Milliseconds after which those on their way are held for lost. */
const PATIENCE = 10;

/** Shorter than a STUN message, also with the header of a channel. */
const ANSWER_LENGTH = 8;
const LONGEST_ANSWER = ANSWER_LENGTH + CHANNEL_HEADER_LENGTH;

/**
 * UDP to one address by the batches of the product: single messages, and floods. The last four bytes of a
 * datagram of a flood are its number. The receiver answers each batch with the number of its last one,
 * by which the sender knows how fast it may go on: more than the way carries would only steal its time.
 */
export class UdpLine implements Line {
  readonly transport = 'udp';
  readonly #udp: UdpTransport;
  readonly #remote: SocketAddress;
  /** How what is not STUN is sent, such as in a channel. */
  wrap: (payload: Uint8Array) => Uint8Array = (payload) => payload;
  readonly #arena: ArrayBuffer = new ArrayBuffer(END);
  #handle: (message: Uint8Array) => void = () => undefined;
  /** Datagrams of the flood, which are counted and not looked at. */
  #received = 0;
  /** Of a flood of ours: the number that was answered last, and what waits for the next answer. */
  #answered = 0;
  #onAnswer: () => void = () => undefined;

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

  /** How many datagrams of the flood came. */
  get received(): number {
    return this.#received;
  }

  close(): void {
    this.#udp.close();
  }

  /**
   * Sends the payload again and again until the signal, as long as at most `window` datagrams are on their
   * way, behind the last one that was answered.
   */
  async flood(payload: Uint8Array, window: number, end: AbortSignal): Promise<void> {
    const view = new DataView(this.#arena);
    const datagram = this.wrap(payload);
    const { length } = datagram;
    const count = Math.floor(LARGEST_PAYLOAD / length);
    for (let i = 0; i < count; i++) new Uint8Array(this.#arena).set(datagram, TRAIN + i * length);
    view.setUint32(SEND_OFFSET + SENDS, TRAIN, true);
    view.setUint32(SEND_LENGTH + SENDS, count * length, true);
    view.setUint32(SEND_PATH + SENDS, PATH_AT, true);
    for (let sent = 0; !end.aborted;) {
      for (let i = 1; i <= count; i++) view.setUint32(TRAIN + i * length - 4, ++sent);
      view.setUint32(SEND_SEGMENT + SENDS, length, true);
      this.#udp.send(1);
      while (sent - this.#answered > window) {
        if (!(await this.#isAnswered())) this.#answered = sent;
      }
    }
  }

  #isAnswered(): Promise<boolean> {
    return new Promise((resolve) => {
      const patience = setTimeout(() => resolve(false), PATIENCE);
      this.#onAnswer = () => {
        clearTimeout(patience);
        resolve(true);
      };
    });
  }

  #receive(fd: number): void {
    const view = new DataView(this.#arena);
    const count = this.#udp.receive(fd);
    let last: number | undefined;
    for (let i = 0; i < count; i++) {
      const record = DATAGRAMS + i * DATAGRAM_SIZE;
      const start = view.getUint32(record + DATAGRAM_OFFSET, true);
      const length = view.getUint32(record + DATAGRAM_LENGTH, true);
      const segment = view.getUint32(record + DATAGRAM_SEGMENT, true) || length;
      for (let at = 0; at < length; at += segment) {
        const size = Math.min(segment, length - at);
        if (size > LONGEST_ANSWER && size < FULL_LENGTH) {
          this.#handle(new Uint8Array(this.#arena, start + at, size).slice());
          continue;
        }
        const number = view.getUint32(start + at + size - 4);
        if (size <= LONGEST_ANSWER) this.#answered = Math.max(this.#answered, number);
        else last = number;
        if (size >= FULL_LENGTH) this.#received++;
      }
    }
    if (last === undefined) return this.#onAnswer();
    const answer = new Uint8Array(ANSWER_LENGTH);
    new DataView(answer.buffer).setUint32(ANSWER_LENGTH - 4, last);
    this.send(this.wrap(answer));
  }
}
