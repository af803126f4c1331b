import { SOL_NETLINK, SocketOption } from '../../core/netlink/constants.ts';
import type { Native } from '../../core/plugin/native.ts';
import { NetlinkReceiver, openNetlinkSocket } from './netlink-socket.ts';
import { systemRefusal, type Answer, type Refusal } from './refusal.ts';
import { SO_RCVBUF, SO_RCVBUFFORCE, SOL_SOCKET } from './socket-options.ts';

export interface MulticastHandler {
  readonly onDatagram: (datagram: Uint8Array) => void;
  /** The kernel dropped some: what they said has to be read. */
  readonly onOverrun: () => void;
  /** After all that was there, or as much as one turn of the event loop reads. */
  readonly onDrained?: () => void;
}

/** Hears what the kernel tells to groups. */
export class MulticastSocket {
  /** Why some groups were not joined. */
  readonly refusal: Refusal | undefined;
  readonly #native: Native;
  readonly #fd: number;
  readonly #watch: number;
  readonly #receiver: NetlinkReceiver;

  /** `bufferBytes`: how much the kernel may queue for us before it drops messages. */
  static open(
    native: Native,
    family: number,
    groups: readonly number[],
    bufferBytes: number,
    handler: MulticastHandler,
  ): Answer<MulticastSocket> {
    const opened = openNetlinkSocket(native, family);
    if (!opened.ok) return opened;
    const fd = opened.value;
    // Beyond the system's limit where we may (CAP_NET_ADMIN), up to it otherwise.
    if (native.setOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, bufferBytes) < 0) {
      native.setOption(fd, SOL_SOCKET, SO_RCVBUF, bufferBytes);
    }
    let refusal: Refusal | undefined;
    for (const group of groups) {
      const joined = native.setOption(fd, SOL_NETLINK, SocketOption.addMembership, group);
      if (joined < 0) refusal = systemRefusal(joined);
    }
    return { ok: true, value: new MulticastSocket(native, fd, handler, refusal) };
  }

  private constructor(
    native: Native,
    fd: number,
    handler: MulticastHandler,
    refusal: Refusal | undefined,
  ) {
    this.refusal = refusal;
    this.#native = native;
    this.#fd = fd;
    this.#receiver = new NetlinkReceiver(native, fd, RECEIVE_BUFFER);
    this.#watch = native.watch(fd, () => this.drain(handler, READ_PER_TURN));
  }

  /** Reads what is there, up to `most` datagrams. */
  drain(handler: MulticastHandler, most: number): void {
    for (let count = 0; count < most; count++) {
      const datagram = this.#receiver.receive();
      if (typeof datagram !== 'number') handler.onDatagram(datagram);
      else if (systemRefusal(datagram).code === 'ENOBUFS') handler.onOverrun();
      else break;
    }
    handler.onDrained?.();
  }

  close(): void {
    this.#native.unwatch(this.#watch);
    this.#native.close(this.#fd);
  }
}

/** One multicast datagram: links of bridges with many VLANs take a few KB. */
const RECEIVE_BUFFER = 32 * 1024;
/** Datagrams read before others have their turn. */
const READ_PER_TURN = 256;
