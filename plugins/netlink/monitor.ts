import { NETLINK_ROUTE, SOL_NETLINK, SocketOption } from '../../core/netlink/constants.ts';
import { readMessages } from '../../core/netlink/message.ts';
import { RouteGroup } from '../../core/netlink/rtnetlink/constants.ts';
import { readNotification } from '../../core/netlink/rtnetlink/notification.ts';
import type { Clock } from '../../core/plugin/clock.ts';
import type { Native } from '../../core/plugin/native.ts';
import type { Log } from '../../core/sansio/log.ts';
import { NetlinkReceiver, openNetlinkSocket } from './netlink-socket.ts';
import { systemRefusal } from './refusal.ts';
import { SO_RCVBUF, SO_RCVBUFFORCE, SOL_SOCKET } from './socket-options.ts';

/**
 * Tells when links, addresses or routes changed, whoever did it. It says that, not what: whoever cares
 * reads again, so a message that the kernel had to drop costs nothing as long as the loss is noticed.
 */
export class Monitor {
  readonly stats = { notifications: 0, overruns: 0, malformed: 0 };
  readonly #native: Native;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #bufferBytes: number;
  readonly #listeners = new Set<() => void>();
  #socket: MonitorSocket | undefined;
  #isTelling = false;

  /** `bufferBytes`: how much the kernel may queue for us before it drops messages. */
  constructor(native: Native, clock: Clock, log: Log, bufferBytes: number) {
    this.#native = native;
    this.#clock = clock;
    this.#log = log;
    this.#bufferBytes = bufferBytes;
  }

  /** Calls `onChange` at most once per turn of the event loop, until the returned function is called. */
  subscribe(onChange: () => void): () => void {
    const listener = () => onChange();
    this.#listeners.add(listener);
    this.#socket ??= this.#open();
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size === 0) this.close();
    };
  }

  /**
   * Takes what is queued out of the socket: what concerns `link` alone is forgotten, the rest is told.
   * Called after changes of ours and before the link is read again, which shows what the forgotten ones
   * said.
   */
  absorb(link: number): void {
    if (this.#socket !== undefined) this.#drain(this.#socket.receiver, ABSORBED_AT_ONCE, link);
  }

  close(): void {
    if (this.#socket === undefined) return;
    this.#native.unwatch(this.#socket.watch);
    this.#native.close(this.#socket.fd);
    this.#socket = undefined;
  }

  #open(): MonitorSocket | undefined {
    const opened = openNetlinkSocket(this.#native, NETLINK_ROUTE);
    if (!opened.ok) {
      this.#log.error('network changes go unseen', { why: opened.refusal.message });
      return undefined;
    }
    const fd = opened.value;
    // Beyond the system's limit where we may (CAP_NET_ADMIN), up to it otherwise.
    if (this.#native.setOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, this.#bufferBytes) < 0) {
      this.#native.setOption(fd, SOL_SOCKET, SO_RCVBUF, this.#bufferBytes);
    }
    for (const group of Object.values(RouteGroup)) {
      const joined = this.#native.setOption(fd, SOL_NETLINK, SocketOption.addMembership, group);
      if (joined < 0) {
        this.#log.warn('some network changes go unseen', { why: systemRefusal(joined).message });
      }
    }
    const receiver = new NetlinkReceiver(this.#native, fd, RECEIVE_BUFFER);
    const watch = this.#native.watch(fd, () => this.#drain(receiver, READ_PER_TURN, undefined));
    return { fd, watch, receiver };
  }

  #drain(receiver: NetlinkReceiver, most: number, absorbed: number | undefined): void {
    for (let count = 0; count < most; count++) {
      const datagram = receiver.receive();
      if (typeof datagram !== 'number') this.#handleDatagram(datagram, absorbed);
      else if (systemRefusal(datagram).code === 'ENOBUFS') {
        this.stats.overruns++;
        this.#tell();
      } else return;
    }
  }

  #handleDatagram(datagram: Uint8Array, absorbed: number | undefined): void {
    const { messages, isWhole } = readMessages(datagram);
    if (!isWhole) this.stats.malformed++;
    for (const message of messages) {
      const notification = readNotification(message);
      if (notification === undefined) continue;
      this.stats.notifications++;
      if (absorbed === undefined || notification.link !== absorbed) this.#tell();
    }
  }

  #tell(): void {
    if (this.#isTelling) return;
    this.#isTelling = true;
    this.#clock.soon(() => {
      this.#isTelling = false;
      for (const listener of Array.from(this.#listeners)) {
        if (this.#listeners.has(listener)) listener();
      }
    });
  }
}

interface MonitorSocket {
  readonly fd: number;
  readonly watch: number;
  readonly receiver: NetlinkReceiver;
}

/** One multicast datagram: links of bridges with many VLANs take a few KB. */
const RECEIVE_BUFFER = 32 * 1024;
/** Datagrams read before others have their turn. */
const READ_PER_TURN = 256;
/** More than the socket's buffer holds; only a bound. */
const ABSORBED_AT_ONCE = 65_536;
