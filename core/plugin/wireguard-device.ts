import type { SocketAddress } from '../net/socket-address.ts';
import type { Device } from '../netlink/wireguard/device.ts';
import type { WantedDevice, WantedPeer } from '../netlink/wireguard/wanted-device.ts';
import type { Outcome } from '../sansio/outcome.ts';
import { capability, type Capability } from './capability.ts';

/**
 * `no-module`: the kernel has no WireGuard, or it is not loaded. `no-device`: there is no such interface,
 * or it is none of WireGuard. `not-permitted`: it takes CAP_NET_ADMIN, to read too.
 */
export type WireguardProblem = 'no-module' | 'no-device' | 'not-permitted' | 'refused';

/** One thing the kernel refused: which object, and the errno and text it gave. */
export interface WireguardFailure {
  /** As in `device culvert0`, `listen port 51820`, `peer xTIB…`. */
  readonly object: string;
  readonly code: string;
  /** Says what to do about it where that is known. */
  readonly message: string;
}

export type WireguardOutcome<Value> = Outcome<Value, WireguardProblem> & {
  readonly failures: readonly WireguardFailure[];
};

/** What can be set of a peer that is there, without reading the device. */
export interface PeerChange {
  readonly endpoint?: SocketAddress | undefined;
  /** Seconds, 0 to 65535. From 0 to more it makes the kernel send at once, and so start a handshake. */
  readonly persistentKeepalive?: number | undefined;
}

/** WireGuard interfaces of the kernel. Addresses, MTU and bringing them up are the business of `Links`. */
export interface WireguardDevice {
  /** Makes the interface, which is down and empty, unless it is there. */
  create(name: string): WireguardOutcome<{ readonly isNew: boolean }>;
  /** Removes the interface, if it is there and one of WireGuard. */
  remove(name: string): WireguardOutcome<{ readonly wasThere: boolean }>;
  /**
   * Makes the device what is wanted. It changes only the difference to what is there, and is idempotent;
   * sessions of peers that stay go on. `changes` counts the peers and values that differed.
   */
  apply(wanted: WantedDevice): WireguardOutcome<{ readonly changes: number }>;
  /** Returns the device with its keys, and its peers with their counters. */
  read(name: string): WireguardOutcome<Device>;
  /**
   * Makes a peer what is wanted, whether or not it is there, with one message (more for hundreds of allowed
   * IPs) and without reading the device.
   */
  putPeer(name: string, peer: WantedPeer): WireguardOutcome<undefined>;
  /** Changes a peer with one message; nothing happens where it is not there. */
  changePeer(name: string, publicKey: Uint8Array, change: PeerChange): WireguardOutcome<undefined>;
  /** Removes a peer and its sessions with one message; nothing happens where it is not there. */
  removePeer(name: string, publicKey: Uint8Array): WireguardOutcome<undefined>;
}

export const wireguardDevice: Capability<WireguardDevice> = capability('wireguard-device');
