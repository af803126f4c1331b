import { ipAddressBytes, ipAddressFromBytes, isLinkLocal } from '../net/ip-address.ts';
import {
  decodeSockaddr,
  encodeSockaddr,
  socketAddressIp,
  type SocketAddress,
} from '../net/socket-address.ts';
import type { Source } from '../net/source.ts';
import { BugError } from '../sansio/outcome.ts';
import {
  DATAGRAM_IFINDEX,
  DATAGRAM_LOCAL,
  DATAGRAM_REMOTE,
  PATH_CHANNEL,
  PATH_FD,
  PATH_IFINDEX,
  PATH_LOCAL,
  PATH_REMOTE,
  PATH_REMOTE_LENGTH,
  PATH_SIZE,
} from './layout.ts';

/** How datagrams reach a peer. */
export interface Path extends Source {
  /** The socket, which has the family of `remote`, or the `streamDescriptor` of a stream. */
  readonly fd: number;
  readonly remote: SocketAddress;
  /** The TURN channel (0x4000 to 0x4fff) of the relay at `remote` that leads to the peer. */
  readonly channel?: number;
}

/**
 * The descriptor of a stream in place of a socket's: datagrams to it are the caller's to carry. Below
 * every errno and -1, so that it is no result of a call either.
 */
export function streamDescriptor(stream: number): number {
  return FIRST_STREAM - stream;
}

/** Returns the stream of a descriptor, or `undefined` for a socket's. */
export function streamOfDescriptor(fd: number): number | undefined {
  return fd <= FIRST_STREAM ? FIRST_STREAM - fd : undefined;
}

const FIRST_STREAM = -65_536;

/** Writes the path record at `at`; `undefined` clears it. */
export function writePath(arena: ArrayBuffer, at: number, path: Path | undefined): void {
  const bytes = new Uint8Array(arena, at, PATH_SIZE);
  bytes.fill(0);
  if (path === undefined) return;
  const { channel = 0 } = path;
  if (channel !== 0 && channel >> 12 !== 4) throw new BugError(`TURN channel ${channel}`);
  const view = new DataView(arena, at, PATH_SIZE);
  view.setInt32(PATH_FD, path.fd, true);
  view.setUint32(PATH_REMOTE_LENGTH, encodeSockaddr(path.remote, bytes, PATH_REMOTE), true);
  if (path.local !== undefined) bytes.set(ipAddressBytes(path.local), PATH_LOCAL);
  view.setUint32(PATH_IFINDEX, path.ifindex ?? 0, true);
  view.setUint32(PATH_CHANNEL, channel, true);
}

/** Returns the path in the record at `at`, or `undefined` where none is set. */
export function readPath(arena: ArrayBuffer, at: number): Path | undefined {
  const view = new DataView(arena, at, PATH_SIZE);
  if (view.getUint32(PATH_REMOTE_LENGTH, true) === 0) return undefined;
  return pathOf(arena, {
    fd: view.getInt32(PATH_FD, true),
    remote: at + PATH_REMOTE,
    local: at + PATH_LOCAL,
    ifindex: view.getUint32(PATH_IFINDEX, true),
    channel: view.getUint32(PATH_CHANNEL, true),
  });
}

/**
 * Returns the path back to where the datagram of the record at `at` came from. It names the interface
 * only where the remote is link-local: elsewhere routes decide, and may have changed.
 */
export function readSourcePath(arena: ArrayBuffer, at: number, fd: number): Path | undefined {
  return pathOf(arena, {
    fd,
    remote: at + DATAGRAM_REMOTE,
    local: at + DATAGRAM_LOCAL,
    ifindex: new DataView(arena).getUint32(at + DATAGRAM_IFINDEX, true),
    channel: 0,
  });
}

/** Writes where a datagram came from into its record at `at`, as if the path's socket had received it. */
export function writeSource(arena: ArrayBuffer, at: number, path: Path): void {
  const bytes = new Uint8Array(arena);
  bytes.fill(0, at + DATAGRAM_REMOTE, at + DATAGRAM_IFINDEX + 4);
  encodeSockaddr(path.remote, bytes, at + DATAGRAM_REMOTE);
  if (path.local !== undefined) bytes.set(ipAddressBytes(path.local), at + DATAGRAM_LOCAL);
  new DataView(arena).setUint32(at + DATAGRAM_IFINDEX, path.ifindex ?? 0, true);
}

const AF_INET = 2;

/** `remote` and `local` are offsets; the rest are values. */
function pathOf(
  arena: ArrayBuffer,
  fields: { fd: number; remote: number; local: number; ifindex: number; channel: number },
): Path | undefined {
  const bytes = new Uint8Array(arena);
  const remote = decodeSockaddr(bytes, fields.remote);
  if (remote === undefined) return undefined;
  const length = bytes[fields.remote] === AF_INET ? 4 : 16;
  const local = bytes.subarray(fields.local, fields.local + length);
  const hasScope = fields.ifindex !== 0 && isLinkLocal(socketAddressIp(remote));
  const hasLocal = local.some((byte) => byte !== 0);
  return {
    fd: fields.fd,
    remote,
    ...(hasLocal ? { local: ipAddressFromBytes(local) } : {}),
    ...(hasScope ? { ifindex: fields.ifindex } : {}),
    ...(fields.channel === 0 ? {} : { channel: fields.channel }),
  };
}
