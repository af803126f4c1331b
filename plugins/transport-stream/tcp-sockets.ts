import { connect, isIPv6, Socket } from 'node:net';
import type { Native } from '../../core/plugin/native.ts';
import type { Millis } from '../../core/sansio/instant.ts';
import type { Log } from '../../core/sansio/log.ts';
import { Refusal } from './problem.ts';

/** What Node.js alone cannot do with TCP sockets: mark them, and keep their queues short. */
export class TcpSockets {
  readonly #native: Native | undefined;
  readonly #log: Log;
  #hasSaidUnmarked = false;

  constructor(native: Native | undefined, log: Log) {
    this.#native = native;
    this.#log = log;
  }

  /** Starts to connect to an IP address. Throws what keeps us from marking the socket. */
  connect(host: string, port: number, mark: number | undefined): Socket {
    const native = mark === undefined ? undefined : this.#native;
    if (mark !== undefined && native === undefined && !this.#hasSaidUnmarked) {
      this.#hasSaidUnmarked = true;
      this.#log.debug('streams are not marked: there is no native file');
    }
    if (mark === undefined || native === undefined) return connect({ host, port, ...OPTIONS });
    return connectMarked(native, host, port, mark);
  }

  /**
   * Limits what the kernel keeps of a socket that is up. Its buffer grows to megabytes, which are seconds
   * on a slow link: datagrams are better dropped than late.
   */
  keepShallow(socket: Socket): void {
    const fd = descriptorOf(socket);
    if (fd >= 0) this.#native?.setOption(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, MOST_UNSENT);
  }
}

/** Bytes that the kernel takes before it can send them: a few packets of the fastest links. */
const MOST_UNSENT = 64 << 10;

/** A path that forgets idle connections does so after minutes; NATs of mobile networks after one or two. */
const KEEPALIVE: Millis = 30_000;

/** Datagrams inside want to leave at once, and a peer that vanished must be noticed. */
export const OPTIONS = {
  noDelay: true,
  keepAlive: true,
  keepAliveInitialDelay: KEEPALIVE,
} as const;

/**
 * Node.js opens the socket within connect(2), when the first packet leaves and the source address is
 * chosen. So that the mark is there before, the socket is ours and Node.js gets its descriptor.
 */
function connectMarked(native: Native, host: string, port: number, mark: number): Socket {
  const fd = native.socket(isIPv6(host) ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
  if (fd < 0) throw new Refusal('no socket: does this machine have that family of addresses?');
  if (native.setOption(fd, SOL_SOCKET, SO_MARK, mark) < 0) {
    native.close(fd);
    throw new Refusal('not permitted to mark the socket: run with CAP_NET_ADMIN');
  }
  // Reading before it is connected would fail, hence the option that the types do not know.
  const unconnected = { fd, readable: true, writable: true, manualStart: true };
  const socket = new Socket(unconnected);
  socket.setNoDelay(OPTIONS.noDelay);
  socket.setKeepAlive(OPTIONS.keepAlive, OPTIONS.keepAliveInitialDelay);
  return socket.connect({ host, port });
}

/** Node.js does not document where it keeps it. Without it, -1, the queue is deeper and nothing breaks. */
function descriptorOf(socket: Socket): number {
  const handle = Reflect.get(socket, '_handle') as { readonly fd?: number } | null | undefined;
  return handle?.fd ?? -1;
}

/* socket(7), tcp(7) */
const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const SOL_SOCKET = 1;
const SO_MARK = 36;
const IPPROTO_TCP = 6;
const TCP_NOTSENT_LOWAT = 25;
