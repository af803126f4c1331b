import { SOL_NETLINK, NETLINK_ROUTE, SocketOption } from '../../core/netlink/constants.ts';
import { Batch } from '../../core/netlink/batch.ts';
import { joinRequests, stampSequence, type NetlinkMessage } from '../../core/netlink/message.ts';
import { Transaction } from '../../core/netlink/transaction.ts';
import type { Native } from '../../core/plugin/native.ts';
import { NetlinkReceiver, openNetlinkSocket } from './netlink-socket.ts';
import { kernelRefusal, ownRefusal, systemRefusal, type Answer, type Refusal } from './refusal.ts';
import {
  SO_RCVBUF,
  SO_RCVBUFFORCE,
  SO_SNDBUF,
  SO_SNDBUFFORCE,
  SOL_SOCKET,
} from './socket-options.ts';

/** Objects kept of one dump, about 100 MB of routes. What comes after them is dropped and counted. */
const MOST_DUMPED = 250_000;

/** Requests in one datagram. The refusals of all of them fit into the socket's buffer. */
const MOST_TOGETHER = 64;

/**
 * Requests to the kernel, one datagram at a time. The kernel works inside send(2) and has queued its answer when
 * that returns, so a request is a plain call of about 10 µs: nothing waits and nothing is matched up
 * later. Multicast messages have a socket of their own, for an overrun would cost answers here.
 */
export class RequestSocket {
  readonly stats = { malformed: 0, repeatedDumps: 0, interruptedDumps: 0, dropped: 0 };
  readonly #native: Native;
  readonly #fd: number;
  readonly #receiver: NetlinkReceiver;
  #sequence = 0;
  #isClosed = false;

  static open(native: Native, family: number): Answer<RequestSocket> {
    const opened = openNetlinkSocket(native, family);
    if (!opened.ok) return opened;
    const options: number[] = [SocketOption.extendedAck, SocketOption.capAck];
    // Kernels before 4.12 and 4.20 lack some of these; answers are then longer and less precise.
    if (family === NETLINK_ROUTE) options.push(SocketOption.strictCheck);
    for (const option of options) native.setOption(opened.value, SOL_NETLINK, option, 1);
    return { ok: true, value: new RequestSocket(native, opened.value) };
  }

  constructor(native: Native, fd: number) {
    this.#native = native;
    this.#fd = fd;
    this.#receiver = new NetlinkReceiver(native, fd, RECEIVE_BUFFER);
  }

  /** Sends a request that asks for an acknowledgement; `onMessage` gets what comes before it. */
  request(bytes: Uint8Array, onMessage?: (message: NetlinkMessage) => void): Refusal | undefined {
    const answer = this.#transact(bytes, onMessage ?? ignore);
    return answer.ok ? undefined : answer.refusal;
  }

  /** Sends changes, many at a time, in order. Returns why each was refused, `undefined` where it was not. */
  requestAll(requests: readonly Uint8Array[]): readonly (Refusal | undefined)[] {
    const refusals: (Refusal | undefined)[] = [];
    for (let at = 0; at < requests.length; at += MOST_TOGETHER) {
      refusals.push(...this.#requestTogether(requests.slice(at, at + MOST_TOGETHER)));
    }
    return refusals;
  }

  /**
   * Sends a request for a dump and returns what `decode` makes of its messages and `isWanted` lets pass,
   * since older kernels do not filter. A dump during which the table changed is repeated; when that goes
   * on, the last one stands.
   */
  dump<Item>(
    bytes: Uint8Array,
    decode: (message: NetlinkMessage) => Item | undefined,
    isWanted: (item: Item) => boolean = () => true,
  ): Answer<readonly Item[]> {
    for (let attempt = 1; ; attempt++) {
      const items: Item[] = [];
      const answer = this.#transact(bytes, (message) => {
        const item = decode(message);
        if (item === undefined) this.stats.malformed++;
        else if (!isWanted(item)) return;
        else if (items.length < MOST_DUMPED) items.push(item);
        else this.stats.dropped++;
      });
      if (!answer.ok) return answer;
      if (!answer.value.isInterrupted) return { ok: true, value: items };
      if (attempt === MOST_DUMP_ATTEMPTS) {
        this.stats.interruptedDumps++;
        return { ok: true, value: items };
      }
      this.stats.repeatedDumps++;
    }
  }

  /**
   * Sends one datagram of `count` requests, which `encode` numbers upwards from its argument, and of
   * which the last asks for an acknowledgement. Returns why each was refused; with `lost`, what is not
   * refused was not answered either.
   */
  exchange(
    count: number,
    encode: (first: number) => Uint8Array,
  ): {
    readonly refusals: readonly (Refusal | undefined)[];
    readonly lost: Refusal | undefined;
  } {
    const none = Array.from({ length: count }, () => undefined);
    if (this.#isClosed) return { refusals: none, lost: CLOSED };
    const first = this.#takeSequences(count);
    const sent = this.#native.send(this.#fd, encode(first));
    if (sent < 0) return { refusals: none, lost: systemRefusal(sent) };

    const batch = new Batch(first, count);
    let lost: Refusal | undefined;
    while (batch.isOpen && lost === undefined) {
      const datagram = this.#receiver.receive();
      if (typeof datagram === 'number') lost = systemRefusal(datagram);
      else batch.handleDatagram(datagram);
    }
    this.stats.malformed += batch.malformed;
    return { refusals: batch.refusals.map((why) => why && kernelRefusal(why)), lost };
  }

  /** Lets the kernel queue so many bytes of requests and of answers, beyond its limits where we may. */
  enlarge(bytes: number): void {
    for (const [forced, usual] of [
      [SO_SNDBUFFORCE, SO_SNDBUF],
      [SO_RCVBUFFORCE, SO_RCVBUF],
    ] as const) {
      if (this.#native.setOption(this.#fd, SOL_SOCKET, forced, bytes) < 0) {
        this.#native.setOption(this.#fd, SOL_SOCKET, usual, bytes);
      }
    }
  }

  close(): void {
    if (!this.#isClosed) this.#native.close(this.#fd);
    this.#isClosed = true;
  }

  #requestTogether(requests: readonly Uint8Array[]): readonly (Refusal | undefined)[] {
    const { refusals, lost } = this.exchange(requests.length, (first) =>
      joinRequests(requests, first),
    );
    return refusals.map((refusal) => refusal ?? lost);
  }

  /** Returns the first of `count` sequences in a row, none of which is zero. */
  #takeSequences(count: number): number {
    const first = this.#sequence + count > 0xffff_ffff ? 1 : this.#sequence + 1;
    this.#sequence = first + count - 1;
    return first;
  }

  #transact(
    bytes: Uint8Array,
    onMessage: (message: NetlinkMessage) => void,
  ): Answer<{ readonly isInterrupted: boolean }> {
    if (this.#isClosed) return { ok: false, refusal: CLOSED };
    const sequence = this.#takeSequences(1);
    stampSequence(bytes, sequence);
    const sent = this.#native.send(this.#fd, bytes);
    if (sent < 0) return { ok: false, refusal: systemRefusal(sent) };

    const transaction = new Transaction(sequence, onMessage);
    while (transaction.state.type === 'open') {
      const datagram = this.#receiver.receive();
      if (typeof datagram === 'number') return { ok: false, refusal: systemRefusal(datagram) };
      transaction.handleDatagram(datagram);
    }
    this.stats.malformed += transaction.malformed;
    const { state } = transaction;
    if (state.type === 'refused') return { ok: false, refusal: kernelRefusal(state.why) };
    return { ok: true, value: state };
  }
}

/** Eight times what the kernel fills in one piece of a dump. */
const RECEIVE_BUFFER = 256 * 1024;
const MOST_DUMP_ATTEMPTS = 5;

const CLOSED = ownRefusal('EBADF', 'the netlink socket is closed');

function ignore(): void {
  // Nothing but the acknowledgement is of interest.
}
