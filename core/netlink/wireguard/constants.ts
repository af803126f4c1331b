/** Numbers of the family `wireguard` (linux/wireguard.h), the same on every architecture. */

export const WIREGUARD_FAMILY = 'wireguard';

/** The kind of its links, which the module has under the same name. */
export const WIREGUARD_KIND = 'wireguard';

export const DeviceCommand = { get: 0, set: 1 } as const;

export const DeviceAttribute = {
  index: 1,
  name: 2,
  privateKey: 3,
  publicKey: 4,
  flags: 5,
  listenPort: 6,
  fwmark: 7,
  peers: 8,
} as const;

export const DeviceFlag = { replacePeers: 1 } as const;

export const PeerAttribute = {
  publicKey: 1,
  presharedKey: 2,
  flags: 3,
  endpoint: 4,
  persistentKeepalive: 5,
  lastHandshake: 6,
  rxBytes: 7,
  txBytes: 8,
  allowedIps: 9,
  protocolVersion: 10,
} as const;

export const PeerFlag = { remove: 1, replaceAllowedIps: 2, updateOnly: 4 } as const;

export const AllowedIpAttribute = { family: 1, address: 2, length: 3 } as const;

/** Bytes of a key. */
export const DEVICE_KEY = 32;
