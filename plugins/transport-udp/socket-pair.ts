import { constants } from 'node:os';
import type { ListenFailure } from '../../core/plugin/datagrams.ts';
import type { Native } from '../../core/plugin/native.ts';
import { failed, ok, type Outcome } from '../../core/sansio/outcome.ts';
import {
  AF_INET,
  AF_INET6,
  IP_MTU_DISCOVER,
  IP_PKTINFO,
  IP_RECVTOS,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPPROTO_UDP,
  IPV6_MTU_DISCOVER,
  IPV6_RECVPKTINFO,
  IPV6_RECVTCLASS,
  IPV6_V6ONLY,
  PMTUDISC_DONT,
  SO_MARK,
  SO_RCVBUF,
  SO_RCVBUFFORCE,
  SO_SNDBUF,
  SO_SNDBUFFORCE,
  SOCK_DGRAM,
  SOCKADDR_SIZE,
  SOL_SOCKET,
  UDP_GRO,
  UDP_SEGMENT,
} from './linux.ts';

/** The sockets of both families on one port; a machine without IPv6 has only the first. */
export interface SocketPair {
  readonly port: number;
  readonly ipv4: UdpSocket | undefined;
  readonly ipv6: UdpSocket | undefined;
}

export interface UdpSocket {
  readonly fd: number;
  /** Whether the kernel knows UDP_SEGMENT (4.18); older ones would send the train as one datagram. */
  readonly hasGso: boolean;
}

/** Opens both sockets on `port`; 0 lets the kernel choose one that is free for both families. */
export function openSocketPair(
  native: Native,
  port: number,
  mark: number | undefined,
): Outcome<SocketPair, ListenFailure> {
  for (let tries = 1; ; tries++) {
    const outcome = tryPair(native, port, mark);
    const isOtherFamilyTaken = port === 0 && !outcome.ok && outcome.why === 'port-taken';
    if (!isOtherFamilyTaken || tries === MOST_TRIES) return outcome;
  }
}

export function closeSocketPair(native: Native, pair: SocketPair): void {
  for (const { fd } of socketsOf(pair)) native.close(fd);
}

export function socketsOf({ ipv4, ipv6 }: SocketPair): readonly UdpSocket[] {
  return [ipv4, ipv6].filter((socket) => socket !== undefined);
}

/** Sets SO_MARK, by which the routing rules keep the tunnel's own datagrams out of the tunnel. */
export function setMark(native: Native, { fd }: UdpSocket, mark: number): boolean {
  return native.setOption(fd, SOL_SOCKET, SO_MARK, mark) >= 0;
}

/** How often the kernel may choose a port for IPv4 that is taken for IPv6. */
const MOST_TRIES = 16;

/**
 * Bytes. Reception: what arrives while the event loop does something else, such as collecting garbage:
 * 30 ms at 1 Gbit/s. Sending: a dozen trains keep a fast link busy, more would only wait in the queue of
 * a slow one, unseen by the congestion control of the flows inside.
 */
const RECEIVE_BUFFER = 4 << 20;
const SEND_BUFFER = 1 << 20;

const { EADDRINUSE, EAFNOSUPPORT, EADDRNOTAVAIL, EPERM, EACCES } = constants.errno;

type Opened = Outcome<UdpSocket, ListenFailure | 'no-such-family'>;

function tryPair(
  native: Native,
  port: number,
  mark: number | undefined,
): Outcome<SocketPair, ListenFailure> {
  const ipv4 = openSocket(native, AF_INET, port, mark);
  if (!ipv4.ok && ipv4.why !== 'no-such-family') return failed(ipv4.why);
  const chosen = ipv4.ok ? portOf(native, ipv4.value.fd) : port;
  const ipv6 = openSocket(native, AF_INET6, chosen, mark);
  if (!ipv6.ok && (ipv6.why !== 'no-such-family' || !ipv4.ok)) {
    if (ipv4.ok) native.close(ipv4.value.fd);
    return failed(ipv6.why === 'no-such-family' ? 'refused' : ipv6.why);
  }
  return ok({
    port: ipv6.ok ? portOf(native, ipv6.value.fd) : chosen,
    ipv4: ipv4.ok ? ipv4.value : undefined,
    ipv6: ipv6.ok ? ipv6.value : undefined,
  });
}

function openSocket(
  native: Native,
  family: number,
  port: number,
  mark: number | undefined,
): Opened {
  const fd = native.socket(family, SOCK_DGRAM, IPPROTO_UDP);
  if (fd < 0) return failed(listenFailure(fd));
  const socket = { fd, hasGso: native.getOption(fd, IPPROTO_UDP, UDP_SEGMENT) >= 0 };
  if (mark !== undefined && !setMark(native, socket, mark)) {
    native.close(fd);
    return failed('not-permitted');
  }
  setOptions(native, fd, family);
  const bound = native.bind(fd, anyAddress(family, port));
  if (bound >= 0) return ok(socket);
  native.close(fd);
  return failed(listenFailure(bound));
}

/** What a kernel lacks of these costs speed or a detail, never the socket. */
function setOptions(native: Native, fd: number, family: number): void {
  // The forced ones go past net.core.rmem_max but need CAP_NET_ADMIN.
  if (native.setOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER) < 0) {
    native.setOption(fd, SOL_SOCKET, SO_RCVBUF, RECEIVE_BUFFER);
  }
  if (native.setOption(fd, SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER) < 0) {
    native.setOption(fd, SOL_SOCKET, SO_SNDBUF, SEND_BUFFER);
  }
  native.setOption(fd, IPPROTO_UDP, UDP_GRO, 1);
  // As the kernel's WireGuard does: the MTU inside is configured, and where that is too much for a path,
  // fragments are better than a black hole behind a firewall that drops ICMP.
  if (family === AF_INET6) {
    native.setOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    native.setOption(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_DONT);
    native.setOption(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
    native.setOption(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
  } else {
    native.setOption(fd, IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DONT);
    native.setOption(fd, IPPROTO_IP, IP_RECVTOS, 1);
    native.setOption(fd, IPPROTO_IP, IP_PKTINFO, 1);
  }
}

function listenFailure(result: number): ListenFailure | 'no-such-family' {
  switch (-result) {
    case EADDRINUSE:
      return 'port-taken';
    case EPERM:
    case EACCES:
      return 'not-permitted';
    case EAFNOSUPPORT:
    case EADDRNOTAVAIL:
      return 'no-such-family';
    default:
      return 'refused';
  }
}

function anyAddress(family: number, port: number): Uint8Array {
  const address = new Uint8Array(family === AF_INET6 ? SOCKADDR_SIZE : 16);
  new DataView(address.buffer).setUint16(0, family, true);
  new DataView(address.buffer).setUint16(2, port);
  return address;
}

function portOf(native: Native, fd: number): number {
  const address = new Uint8Array(SOCKADDR_SIZE);
  native.getsockname(fd, address);
  return new DataView(address.buffer).getUint16(2);
}
