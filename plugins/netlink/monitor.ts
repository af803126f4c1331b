import { NETLINK_ROUTE } from '../../core/netlink/constants.ts';
import { readMessages } from '../../core/netlink/message.ts';
import { RouteGroup } from '../../core/netlink/rtnetlink/constants.ts';
import {
  readNotification,
  type RouteNotification,
} from '../../core/netlink/rtnetlink/notification.ts';
import type { Clock } from '../../core/plugin/clock.ts';
import type { Native } from '../../core/plugin/native.ts';
import type { Log } from '../../core/sansio/log.ts';
import { MulticastSocket, type MulticastHandler } from './multicast-socket.ts';
import { Subscribers } from './subscribers.ts';

/**
 * Tells when links, addresses, routes or rules changed, whoever did it. It says that, not what: whoever cares
 * reads again, so a message that the kernel had to drop costs nothing as long as the loss is noticed.
 */
export class Monitor {
  readonly stats = { notifications: 0, overruns: 0, malformed: 0 };
  readonly #native: Native;
  readonly #subscribers: Subscribers;
  readonly #log: Log;
  readonly #bufferBytes: number;
  #socket: MulticastSocket | undefined;

  /** `bufferBytes`: how much the kernel may queue for us before it drops messages. */
  constructor(native: Native, clock: Clock, log: Log, bufferBytes: number) {
    this.#native = native;
    this.#subscribers = new Subscribers(clock);
    this.#log = log;
    this.#bufferBytes = bufferBytes;
  }

  /** Calls `onChange` at most once per turn of the event loop, until the returned function is called. */
  subscribe(onChange: () => void): () => void {
    const unsubscribe = this.#subscribers.add(onChange);
    this.#socket ??= this.#open();
    return () => {
      unsubscribe();
      if (this.#subscribers.isEmpty) this.close();
    };
  }

  /**
   * Takes what is queued out of the socket: what concerns `link` alone, or rules of `ruleProtocol`, is
   * forgotten, the rest is told. Called after changes of ours and before all that is read again, which
   * shows what the forgotten ones said.
   */
  absorb(link: number | undefined, ruleProtocol: number): void {
    const handler = this.#handler(
      (change) =>
        change.ruleProtocol === ruleProtocol || (link !== undefined && change.link === link),
    );
    this.#socket?.drain(handler, ABSORBED_AT_ONCE);
  }

  close(): void {
    this.#socket?.close();
    this.#socket = undefined;
  }

  #open(): MulticastSocket | undefined {
    const groups = Object.values(RouteGroup);
    const handler = this.#handler(() => false);
    const bytes = this.#bufferBytes;
    const opened = MulticastSocket.open(this.#native, NETLINK_ROUTE, groups, bytes, handler);
    if (!opened.ok) {
      this.#log.error('network changes go unseen', { why: opened.refusal.message });
      return undefined;
    }
    const { refusal } = opened.value;
    if (refusal !== undefined) {
      this.#log.warn('some network changes go unseen', { why: refusal.message });
    }
    return opened.value;
  }

  #handler(isForgotten: (change: RouteNotification) => boolean): MulticastHandler {
    return {
      onDatagram: (datagram) => this.#handleDatagram(datagram, isForgotten),
      onOverrun: () => {
        this.stats.overruns++;
        this.#subscribers.tell();
      },
    };
  }

  #handleDatagram(datagram: Uint8Array, isForgotten: (change: RouteNotification) => boolean): void {
    const { messages, isWhole } = readMessages(datagram);
    if (!isWhole) this.stats.malformed++;
    for (const message of messages) {
      const notification = readNotification(message);
      if (notification === undefined) continue;
      this.stats.notifications++;
      if (!isForgotten(notification)) this.#subscribers.tell();
    }
  }
}

/** More than the socket's buffer holds; only a bound. */
const ABSORBED_AT_ONCE = 65_536;
