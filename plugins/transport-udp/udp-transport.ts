import { constants } from 'node:os';
import { getSystemErrorName } from 'node:util';
import type { Arena } from '../../core/fastpath/arena.ts';
import {
  PATH_FD,
  PATH_LOCAL,
  PATH_SIZE,
  SEND_LENGTH,
  SEND_OFFSET,
  SEND_PATH,
  SEND_RESULT,
  SEND_SEGMENT,
  SEND_SIZE,
  SEND_SPLIT,
} from '../../core/fastpath/layout.ts';
import { writePath, type Path } from '../../core/fastpath/path.ts';
import { ipFamily } from '../../core/net/ip-address.ts';
import { socketAddressIp, type SocketAddress } from '../../core/net/socket-address.ts';
import type { Source } from '../../core/net/source.ts';
import type { Datagrams, Listening, ListenFailure } from '../../core/plugin/datagrams.ts';
import type { Native } from '../../core/plugin/native.ts';
import type { Log } from '../../core/sansio/log.ts';
import { failed, ok, type Outcome } from '../../core/sansio/outcome.ts';
import {
  closeSocketPair,
  openSocketPair,
  setMark,
  socketsOf,
  type SocketPair,
} from './socket-pair.ts';

/**
 * UDP in batches. Records go to the kernel as they are; JavaScript looks at them only to keep a train
 * off a socket that refused GSO, and to send what was refused once more without what was to blame.
 */
export class UdpTransport implements Datagrams {
  readonly #native: Native;
  readonly #log: Log;
  #bound: Bound | undefined;
  readonly #single = new SingleDatagram();
  /** Errors that were logged: each of them once. */
  readonly #seen = new Set<number>();

  constructor(native: Native, log: Log) {
    this.#native = native;
    this.#log = log;
  }

  listen(
    port: number,
    { mark }: { readonly mark: number | undefined },
    arena: Arena,
    onReadable: (fd: number) => void,
  ): Outcome<Listening, ListenFailure> {
    const records = new Int32Array(arena.buffer);
    // Our own sockets hold the port that is asked for, so they stay.
    if (this.#bound?.pair.port === port) {
      if (!this.#changeMark(this.#bound, mark)) return failed('not-permitted');
      this.#bound = { ...this.#bound, mark, arena, records, onReadable };
      return ok(listening(this.#bound.pair));
    }
    const opened = openSocketPair(this.#native, port, mark);
    if (!opened.ok) return opened;
    const pair = opened.value;
    const watches = socketsOf(pair).map(({ fd }) =>
      this.#native.watch(fd, () => this.#bound?.onReadable(fd)),
    );
    if (watches.some((watch) => watch < 0)) {
      for (const watch of watches) this.#native.unwatch(watch);
      closeSocketPair(this.#native, pair);
      return failed('refused');
    }
    const refused = socketsOf(pair).filter(({ hasGso }) => !hasGso);
    const withoutGso = new Set(refused.map(({ fd }) => fd));
    this.close();
    this.#bound = { pair, mark, watches, withoutGso, arena, records, onReadable };
    return ok(listening(pair));
  }

  receive(fd: number): number {
    if (this.#bound === undefined) return 0;
    const { buffer, datagrams } = this.#bound.arena;
    const { into, end, table, most } = datagrams;
    const received = this.#native.receiveBatch(fd, buffer, into, end, table, most);
    if (received >= 0) return received;
    this.#note('datagrams could not be received', received);
    return 0;
  }

  send(count: number): number {
    if (this.#bound === undefined) return 0;
    const { arena, withoutGso } = this.#bound;
    this.#keepToOwnSockets(this.#bound, count);
    if (withoutGso.size > 0) this.#splitTrains(this.#bound, count);
    const sent = this.#native.sendBatch(arena.buffer, arena.sends, count, LONGEST_WAIT);
    return sent >= count ? sent : this.#afterRefusal(this.#bound, count);
  }

  sendTo(remote: SocketAddress, payload: Uint8Array, { local, ifindex }: Source = {}): void {
    const pair = this.#bound?.pair;
    const socket = ipFamily(socketAddressIp(remote)) === 4 ? pair?.ipv4 : pair?.ipv6;
    if (socket === undefined) return;
    const free = { fd: socket.fd, remote, ...(ifindex === undefined ? {} : { ifindex }) };
    const path = local === undefined ? free : { ...free, local };
    let result = this.#single.send(this.#native, path, payload);
    if (local !== undefined && SOURCE_REFUSALS.has(-result)) {
      result = this.#single.send(this.#native, free, payload);
    }
    if (result < 0) this.#note('datagram refused', result);
  }

  close(): void {
    if (this.#bound === undefined) return;
    for (const watch of this.#bound.watches) this.#native.unwatch(watch);
    closeSocketPair(this.#native, this.#bound.pair);
    this.#bound = undefined;
  }

  #changeMark(bound: Bound, mark: number | undefined): boolean {
    if (mark === bound.mark) return true;
    return socketsOf(bound.pair).every((socket) => setMark(this.#native, socket, mark ?? 0));
  }

  /**
   * A path record may still name a socket that was closed when the port moved, and whose number meanwhile
   * belongs to another file of the process, such as the connection to the broker.
   */
  #keepToOwnSockets({ arena, records, pair }: Bound, count: number): void {
    for (let i = 0; i < count; i++) {
      const record = (arena.sends + i * SEND_SIZE) >> 2;
      const fdAt = ((records[record + (SEND_PATH >> 2)] ?? 0) + PATH_FD) >> 2;
      const fd = records[fdAt];
      if (fd !== pair.ipv4?.fd && fd !== pair.ipv6?.fd) records[fdAt] = NO_SOCKET;
    }
  }

  #splitTrains({ arena, records, withoutGso }: Bound, count: number): void {
    for (let i = 0; i < count; i++) {
      const record = (arena.sends + i * SEND_SIZE) >> 2;
      const segment = records[record + (SEND_SEGMENT >> 2)] ?? 0;
      if (segment > 0 && withoutGso.has(fdOf(records, record))) {
        records[record + (SEND_SEGMENT >> 2)] = segment | SEND_SPLIT;
      }
    }
  }

  /** Sends what was refused once more, without GSO and then without its source; returns all that left. */
  #afterRefusal(bound: Bound, count: number): number {
    const { arena, records } = bound;
    let sent = 0;
    const sources = new Map<number, Int32Array>();
    for (let i = 0; i < count; i++) {
      const at = arena.sends + i * SEND_SIZE;
      this.#retrySplit(bound, at);
      this.#retryWithoutSource(bound, at, sources);
      const result = records[(at + SEND_RESULT) >> 2] ?? 0;
      if (result === 0) sent++;
      else this.#note('datagram refused', result);
    }
    return sent;
  }

  #retrySplit({ arena, records, withoutGso }: Bound, at: number): void {
    const segment = records[(at + SEND_SEGMENT) >> 2] ?? 0;
    const error = -(records[(at + SEND_RESULT) >> 2] ?? 0);
    if (segment === 0 || segment >= SEND_SPLIT || !GSO_REFUSALS.has(error)) return;
    records[(at + SEND_SEGMENT) >> 2] = segment | SEND_SPLIT;
    this.#native.sendBatch(arena.buffer, at, 1, 0);
    // EIO is the interface's lack of checksumming. The others are about this one path: its MTU, or a
    // pinned source address that is gone.
    if (error === EIO && records[(at + SEND_RESULT) >> 2] === 0) {
      withoutGso.add(fdOf(records, at >> 2));
      this.#log.info('the kernel refuses UDP GSO here, sending datagram by datagram');
    }
  }

  /** `sources` holds the local addresses that were tried without in this batch, by path. */
  #retryWithoutSource(
    { arena, records }: Bound,
    at: number,
    sources: Map<number, Int32Array>,
  ): void {
    if (!SOURCE_REFUSALS.has(-(records[(at + SEND_RESULT) >> 2] ?? 0))) return;
    const path = records[(at + SEND_PATH) >> 2] ?? 0;
    const local = records.subarray((path + PATH_LOCAL) >> 2, (path + PATH_LOCAL + LOCAL_SIZE) >> 2);
    const pinned = sources.get(path) ?? local.slice();
    if (pinned.every((word) => word === 0)) return;
    sources.set(path, pinned);
    local.fill(0);
    this.#native.sendBatch(arena.buffer, at, 1, 0);
    // Otherwise there is no way at all for now, and the address may be right when there is one again.
    if (records[(at + SEND_RESULT) >> 2] !== 0) local.set(pinned);
  }

  #note(message: string, result: number): void {
    if (this.#seen.has(result)) return;
    this.#seen.add(result);
    this.#log.debug(message, { code: getSystemErrorName(result) });
  }
}

interface Bound {
  readonly pair: SocketPair;
  readonly mark: number | undefined;
  readonly watches: readonly number[];
  /** The sockets whose trains are split before sending. */
  readonly withoutGso: Set<number>;
  readonly arena: Arena;
  readonly records: Int32Array;
  readonly onReadable: (fd: number) => void;
}

/** Milliseconds for which a full socket may hold up the event loop: the way a slow link slows the TUN. */
const LONGEST_WAIT = 5;

const NO_SOCKET = -1;

const { EADDRNOTAVAIL, EINVAL, EIO, EMSGSIZE, ENETUNREACH } = constants.errno;
const GSO_REFUSALS = new Set([EIO, EINVAL, EMSGSIZE]);
/** What sendmsg(2) says of a source address that is gone, or that has no route to the remote any more. */
const SOURCE_REFUSALS = new Set([EINVAL, EADDRNOTAVAIL, ENETUNREACH]);
const LOCAL_SIZE = 16;

function listening({ port, ipv4, ipv6 }: SocketPair): Listening {
  return { port, ipv4: ipv4?.fd, ipv6: ipv6?.fd };
}

/** `record` is in units of the view. */
function fdOf(records: Int32Array, record: number): number {
  return records[((records[record + (SEND_PATH >> 2)] ?? 0) + PATH_FD) >> 2] ?? NO_SOCKET;
}

/** A small arena of its own for what is sent outside the batches: one send, one path, one payload. */
class SingleDatagram {
  readonly #bytes = new Uint8Array(PAYLOAD_AT + LARGEST_PAYLOAD);
  readonly #view = new DataView(this.#bytes.buffer);

  /** Returns 0 or a negative errno. */
  send(native: Native, path: Path, payload: Uint8Array): number {
    if (payload.length > LARGEST_PAYLOAD) return -EMSGSIZE;
    const view = this.#view;
    writePath(this.#bytes.buffer, PATH_AT, path);
    view.setUint32(SEND_OFFSET, PAYLOAD_AT, true);
    view.setUint32(SEND_LENGTH, payload.length, true);
    view.setUint32(SEND_PATH, PATH_AT, true);
    this.#bytes.set(payload, PAYLOAD_AT);
    native.sendBatch(this.#bytes.buffer, 0, 1, 0);
    return view.getInt32(SEND_RESULT, true);
  }
}

const PATH_AT = SEND_SIZE;
const PAYLOAD_AT = PATH_AT + PATH_SIZE;
/** RFC 768: what a UDP datagram over IPv4 carries at most. */
const LARGEST_PAYLOAD = 65_507;
