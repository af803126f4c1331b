import { constants } from 'node:os';
import { getSystemErrorName } from 'node:util';
import type { Arena } from '../../core/fastpath/arena.ts';
import { VNET_HEADER_SIZE } from '../../core/fastpath/layout.ts';
import type { Native } from '../../core/plugin/native.ts';
import type {
  DeviceFailure,
  DeviceOffloads,
  PacketDevice,
} from '../../core/plugin/packet-device.ts';
import type { Log } from '../../core/sansio/log.ts';
import { failed, ok, type Outcome } from '../../core/sansio/outcome.ts';

/**
 * A TUN device with virtio-net headers. It only makes the interface: addresses, MTU and routes are
 * others' business. The interface is bound to the descriptor, so that it vanishes with the process,
 * however that ends.
 *
 * An interface that another program removed is made again under its name. Whoever watches links sees it
 * come back without addresses and puts them on.
 */
export class TunDevice implements PacketDevice {
  readonly #native: Native;
  readonly #log: Log;
  #device: OpenDevice | undefined;
  #retry: NodeJS.Timeout | undefined;

  constructor(native: Native, log: Log) {
    this.#native = native;
    this.#log = log;
  }

  open(
    wanted: { readonly name: string; readonly mtu: number },
    arena: Arena,
    onReadable: () => void,
  ): Outcome<{ readonly name: string; readonly offloads: DeviceOffloads }, DeviceFailure> {
    const fd = this.#native.open('/dev/net/tun');
    if (fd < 0) return failed(this.#failure(fd));
    const made = this.#makeInterface(fd, wanted.name);
    const watch = made.ok ? this.#native.watch(fd, onReadable) : -1;
    if (!made.ok || watch < 0) {
      this.#native.close(fd);
      return made.ok ? failed('refused') : made;
    }
    this.close();
    this.#device = { fd, watch, name: made.value.name, arena, onReadable };
    return made;
  }

  read(): number {
    if (this.#device === undefined) return 0;
    const { fd, arena } = this.#device;
    const { into, end, table, most } = arena.reads;
    const count = this.#native.readBatch(fd, arena.buffer, into, end, table, most);
    if (count === -EBADFD) this.#onInterfaceRemoved(this.#device);
    return Math.max(count, 0);
  }

  write(count: number): number {
    if (this.#device === undefined) return 0;
    const { fd, arena } = this.#device;
    return Math.max(this.#native.writeBatch(fd, arena.buffer, arena.writes, count), 0);
  }

  close(): void {
    clearTimeout(this.#retry);
    if (this.#device === undefined) return;
    this.#native.unwatch(this.#device.watch);
    this.#native.close(this.#device.fd);
    this.#device = undefined;
  }

  #makeInterface(
    fd: number,
    wantedName: string,
  ): Outcome<{ readonly name: string; readonly offloads: DeviceOffloads }, DeviceFailure> {
    const request = interfaceRequest(wantedName, IFF_TUN | IFF_NO_PI | IFF_VNET_HDR);
    if (request === undefined) return failed('refused');
    const result = this.#native.ioctl(fd, TUNSETIFF, request);
    if (result < 0) return failed(this.#failure(result, wantedName));
    // One that `ip tuntap add` made stays after its users; ours must not.
    this.#native.ioctl(fd, TUNSETPERSIST, 0);
    const headerSize = new Uint8Array(4);
    new DataView(headerSize.buffer).setInt32(0, VNET_HEADER_SIZE, true);
    const sized = this.#native.ioctl(fd, TUNSETVNETHDRSZ, headerSize);
    if (sized < 0) return failed(this.#failure(sized));
    const name = new TextDecoder().decode(request.subarray(0, IFNAMSIZ)).replace(/\0.*$/, '');
    return ok({ name, offloads: this.#agreeOnOffloads(fd) });
  }

  /** USO needs kernel 6.2; what is refused the kernel does itself before it hands packets over. */
  #agreeOnOffloads(fd: number): DeviceOffloads {
    const accepted = OFFLOADS.find(
      ({ flags }) => this.#native.ioctl(fd, TUNSETOFFLOAD, flags) >= 0,
    );
    const { tcp, udp } = accepted ?? { tcp: false, udp: false };
    if (!tcp || !udp) this.#log.info('the kernel offers less offload on the TUN', { tcp, udp });
    return { tcp, udp };
  }

  /** The descriptor signals an error without end from here on, so nothing is done at a later time. */
  #onInterfaceRemoved(device: OpenDevice): void {
    const made = this.#makeInterface(device.fd, device.name);
    if (made.ok) {
      this.#log.warn('the interface was removed and has been made again');
      return;
    }
    this.#log.warn('the interface was removed and cannot be made again yet', { why: made.why });
    this.close();
    this.#retryLater(device);
  }

  #retryLater(device: OpenDevice): void {
    this.#retry = setTimeout(() => {
      const opened = this.open({ name: device.name, mtu: 0 }, device.arena, device.onReadable);
      if (!opened.ok) this.#retryLater(device);
      else this.#log.info('the interface has been made again');
    }, RETRY_INTERVAL);
  }

  #failure(result: number, name?: string): DeviceFailure {
    this.#log.debug('the TUN was refused', { code: getSystemErrorName(result) });
    switch (-result) {
      case ENOENT:
      case ENODEV:
      case ENXIO:
      case ENOTTY: // Another kind of file stands there.
        return 'no-tun';
      case EPERM:
      case EACCES:
        return 'not-permitted';
      case EBUSY:
        return 'name-taken';
      case EINVAL:
        // Also the answer where the name belongs to an interface that is no TUN.
        return name !== undefined && this.#exists(name) ? 'name-taken' : 'refused';
      default:
        return 'refused';
    }
  }

  #exists(name: string): boolean {
    const request = interfaceRequest(name, 0);
    const socket = this.#native.socket(AF_INET, SOCK_DGRAM, 0);
    const result = request && this.#native.ioctl(socket, SIOCGIFINDEX, request);
    this.#native.close(socket);
    return result !== undefined && result >= 0;
  }
}

interface OpenDevice {
  readonly fd: number;
  readonly watch: number;
  readonly name: string;
  readonly arena: Arena;
  readonly onReadable: () => void;
}

/** Milliseconds. */
const RETRY_INTERVAL = 1000;

const { ENOENT, ENODEV, ENXIO, ENOTTY, EPERM, EACCES, EBUSY, EINVAL } = constants.errno;
/** What a TUN without its interface answers; Node.js does not name it. */
const EBADFD = 77;

/* <linux/if_tun.h>, <linux/if.h>, <linux/sockios.h> */
const TUNSETIFF = 0x400454ca;
const TUNSETPERSIST = 0x400454cb;
const TUNSETOFFLOAD = 0x400454d0;
const TUNSETVNETHDRSZ = 0x400454d8;
const IFF_TUN = 0x0001;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
const SIOCGIFINDEX = 0x8933;
const IFNAMSIZ = 16;
/** struct ifreq: { name[16], a union of which we use flags u16 }; 40 bytes on 64-bit machines, else 32. */
const IFREQ_SIZE = 40;
const AF_INET = 2;
const SOCK_DGRAM = 2;

const TUN_F_CSUM = 0x01;
const TUN_F_TSO4 = 0x02;
const TUN_F_TSO6 = 0x04;
const TUN_F_USO4 = 0x20;
const TUN_F_USO6 = 0x40;
const TCP = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;

/** From most to least. TSO_ECN is left out: segments with CWR would need another split. */
const OFFLOADS = [
  { flags: TCP | TUN_F_USO4 | TUN_F_USO6, tcp: true, udp: true },
  { flags: TCP, tcp: true, udp: false },
  { flags: TUN_F_CSUM, tcp: false, udp: false },
  { flags: 0, tcp: false, udp: false },
];

function interfaceRequest(name: string, flags: number): Uint8Array | undefined {
  const bytes = new TextEncoder().encode(name);
  if (bytes.length === 0 || bytes.length >= IFNAMSIZ) return undefined;
  const request = new Uint8Array(IFREQ_SIZE);
  request.set(bytes);
  new DataView(request.buffer).setUint16(IFNAMSIZ, flags, true);
  return request;
}
