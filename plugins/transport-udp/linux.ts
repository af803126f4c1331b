/** Numbers of the Linux interface that Node.js does not name: socket(7), ip(7), ipv6(7), udp(7). */

export const AF_INET = 2;
export const AF_INET6 = 10;
export const SOCK_DGRAM = 2;

export const SOL_SOCKET = 1;
export const SO_SNDBUF = 7;
export const SO_RCVBUF = 8;
export const SO_SNDBUFFORCE = 32;
export const SO_RCVBUFFORCE = 33;
export const SO_MARK = 36;

export const IPPROTO_IP = 0;
export const IP_PKTINFO = 8;
export const IP_MTU_DISCOVER = 10;
export const IP_RECVTOS = 13;

export const IPPROTO_IPV6 = 41;
export const IPV6_MTU_DISCOVER = 23;
export const IPV6_V6ONLY = 26;
export const IPV6_RECVPKTINFO = 49;
export const IPV6_RECVTCLASS = 66;

/** The same value for both families: fragment where the path needs it, never set DF. */
export const PMTUDISC_DONT = 0;

export const IPPROTO_UDP = 17;
export const UDP_SEGMENT = 103;
export const UDP_GRO = 104;

export const SOCKADDR_SIZE = 28;
