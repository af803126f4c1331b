import { SOL_NETLINK, NETLINK_ROUTE, SocketOption } from '../../core/netlink/constants.ts';
import { stampSequence, type NetlinkMessage } from '../../core/netlink/message.ts';
import { Transaction } from '../../core/netlink/transaction.ts';
import type { Native } from '../../core/plugin/native.ts';
import { NetlinkReceiver, openNetlinkSocket } from './netlink-socket.ts';
import { kernelRefusal, ownRefusal, systemRefusal, type Answer, type Refusal } from './refusal.ts';

/** Objects kept of one dump, about 100 MB of routes. What comes after them is dropped and counted. */
export const MOST_DUMPED = 250_000;

/**
 * Requests to the kernel, one at a time. The kernel works inside send(2) and has queued its answer when
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

  close(): void {
    if (!this.#isClosed) this.#native.close(this.#fd);
    this.#isClosed = true;
  }

  #transact(
    bytes: Uint8Array,
    onMessage: (message: NetlinkMessage) => void,
  ): Answer<{ readonly isInterrupted: boolean }> {
    if (this.#isClosed) {
      return { ok: false, refusal: ownRefusal('EBADF', 'the netlink socket is closed') };
    }
    this.#sequence = (this.#sequence % 0xffff_ffff) + 1;
    stampSequence(bytes, this.#sequence);
    const sent = this.#native.send(this.#fd, bytes);
    if (sent < 0) return { ok: false, refusal: systemRefusal(sent) };

    const transaction = new Transaction(this.#sequence, onMessage);
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

function ignore(): void {
  // Nothing but the acknowledgement is of interest.
}
