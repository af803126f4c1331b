import type { Arena } from '../fastpath/arena.ts';
import type { Outcome } from '../sansio/outcome.ts';
import { capability, type Capability } from './capability.ts';

/** Why a device could not be opened; each has a message and an exit code of its own. */
export type DeviceFailure =
  /** There is no /dev/net/tun: the kernel module is missing. */
  | 'no-tun'
  /** CAP_NET_ADMIN is missing. */
  | 'not-permitted'
  /** Another program holds an interface of this name. */
  | 'name-taken'
  | 'refused';

/** What the kernel agreed to hand over unsplit and without checksums. */
export interface DeviceOffloads {
  /** TCP super-packets of both families (TUN_F_TSO4 | TUN_F_TSO6). */
  readonly tcp: boolean;
  /** UDP super-packets (TUN_F_USO4 | TUN_F_USO6, kernel 6.2). */
  readonly udp: boolean;
}

/**
 * A TUN device: IP packets with a virtio-net header, in batches through the arena. Reading and writing
 * never throw; what the kernel refuses is in the records. An interface that another program removes is
 * made again under its name, down and without addresses, as whoever watches links will see.
 */
export interface PacketDevice {
  /** Opens the interface. A second call moves to another name; when that fails the old one stays. */
  open(
    wanted: { readonly name: string; readonly mtu: number },
    arena: Arena,
    onReadable: () => void,
  ): Outcome<{ readonly name: string; readonly offloads: DeviceOffloads }, DeviceFailure>;
  /** Fills `arena.reads`; returns the number of read records, 0 when nothing is waiting. */
  read(): number;
  /** Writes `count` write records at `arena.writes`; returns how many the kernel took. */
  write(count: number): number;
  /** Closes the device, which removes the interface. */
  close(): void;
}

export const packetDevice: Capability<PacketDevice> = capability('packet-device');
