import { HOST_IS_LITTLE_ENDIAN } from '../../core/netlink/byte-order.ts';
import { AF_NETLINK } from '../../core/netlink/constants.ts';
import type { Native } from '../../core/plugin/native.ts';
import { systemRefusal, type Answer } from './refusal.ts';

/** Opens and binds a netlink socket of the family; the kernel chooses its port. */
export function openNetlinkSocket(native: Native, family: number): Answer<number> {
  const fd = native.socket(AF_NETLINK, SOCK_RAW, family);
  if (fd < 0) return { ok: false, refusal: systemRefusal(fd) };
  const address = new Uint8Array(SOCKADDR_NL);
  new DataView(address.buffer).setUint16(0, AF_NETLINK, HOST_IS_LITTLE_ENDIAN);
  const bound = native.bind(fd, address);
  if (bound >= 0) return { ok: true, value: fd };
  native.close(fd);
  return { ok: false, refusal: systemRefusal(bound) };
}

/** Receives datagrams into one buffer of its own, and only from the kernel. */
export class NetlinkReceiver {
  /** Datagrams from other processes, which may send to our port too. */
  foreign = 0;
  readonly #native: Native;
  readonly #fd: number;
  readonly #buffer: Uint8Array;
  readonly #from = new Uint8Array(SOCKADDR_NL);
  readonly #fromView = new DataView(this.#from.buffer);

  /** `bytes`: room for one datagram; the kernel fills up to 32 KB of it in a dump. */
  constructor(native: Native, fd: number, bytes: number) {
    this.#native = native;
    this.#fd = fd;
    this.#buffer = new Uint8Array(bytes);
  }

  /** Returns the next datagram, borrowed until the next call, or the negative errno. */
  receive(): Uint8Array | number {
    for (;;) {
      const length = this.#native.receive(this.#fd, this.#buffer, this.#from);
      if (length < 0) return length;
      if (this.#fromView.getUint32(4, HOST_IS_LITTLE_ENDIAN) === 0) {
        return this.#buffer.subarray(0, length);
      }
      this.foreign++;
    }
  }
}

const SOCK_RAW = 3;
/** Bytes of struct sockaddr_nl: family, padding, port, groups. */
const SOCKADDR_NL = 12;
