/**
 * The packet arena: one block of memory that holds everything the packet path touches.
 *
 * This file is compiled twice, by TypeScript and by AssemblyScript, and its input/output records are
 * mirrored in the native file (`plugins/platform-node/native/culvert.c`). All numbers in the arena are
 * little-endian, all offsets are bytes from its start; every supported machine is little-endian.
 *
 * Only integer constants live here.
 */

/* Input/output records, the contract with the native file ------------------------------------- */

/** A packet read from the TUN: { offset u32, length u32 }, both including the virtio-net header. */
export const READ_SIZE: i32 = 8;
export const READ_OFFSET: i32 = 0;
export const READ_LENGTH: i32 = 4;

/** One writev to the TUN: { iovecs u32: offset of its first iovec, count u32, result i32, _ u32 }. */
export const WRITE_SIZE: i32 = 16;
export const WRITE_IOVECS: i32 = 0;
export const WRITE_COUNT: i32 = 4;
/** 0, or the negative errno with which the kernel refused this one. */
export const WRITE_RESULT: i32 = 8;

/** A piece of a write: { offset u32, length u32 }. */
export const IOVEC_SIZE: i32 = 8;

/**
 * A received datagram, or a train of them that UDP GRO joined:
 * { offset u32, length u32, segment u32, tos u32, remote sockaddr[28], local address[16], ifindex u32 }.
 */
export const DATAGRAM_SIZE: i32 = 64;
export const DATAGRAM_OFFSET: i32 = 0;
export const DATAGRAM_LENGTH: i32 = 4;
/** Length of all datagrams of the train but the last; 0 where there is only one. */
export const DATAGRAM_SEGMENT: i32 = 8;
/** Type of service / traffic class of the outer header; its low two bits are the ECN field. */
export const DATAGRAM_TOS: i32 = 12;
/** Linux sockaddr_in or sockaddr_in6: family host-endian, port and address in network order. */
export const DATAGRAM_REMOTE: i32 = 16;
/** Where it arrived: the local address (IPv4 in the first four bytes) and the interface; zero if unknown. */
export const DATAGRAM_LOCAL: i32 = 44;
export const DATAGRAM_IFINDEX: i32 = 60;

/**
 * Where to send: { fd i32, sockaddr length u32, remote sockaddr[28], local address[16], ifindex u32, _[8] }.
 * A non-zero local address and interface pin the source of the datagram (IP_PKTINFO).
 */
export const PATH_SIZE: i32 = 64;
export const PATH_FD: i32 = 0;
export const PATH_REMOTE_LENGTH: i32 = 4;
export const PATH_REMOTE: i32 = 8;
export const PATH_LOCAL: i32 = 36;
export const PATH_IFINDEX: i32 = 52;

/**
 * One sendmsg: { offset u32, length u32, segment u32, path u32, tos u32, result i32, _ u32, _ u32 }.
 * `segment` > 0 asks for UDP GSO: all datagrams have that length but the last. With SEND_SPLIT added
 * they go out one by one, for where GSO is not to be had. `path` is the offset of a path record.
 * `result` is 0, or the negative errno with which the kernel refused this one.
 */
export const SEND_SIZE: i32 = 32;
export const SEND_OFFSET: i32 = 0;
export const SEND_LENGTH: i32 = 4;
export const SEND_SEGMENT: i32 = 8;
export const SEND_SPLIT: i32 = 0x10000;
export const SEND_PATH: i32 = 12;
export const SEND_TOS: i32 = 16;
export const SEND_RESULT: i32 = 20;

/** The virtio-net header in front of every packet on a TUN opened with IFF_VNET_HDR. */
export const VNET_HEADER_SIZE: i32 = 10;
/** What one read of the TUN may need: the header and the largest IP packet. */
export const LARGEST_READ: i32 = 65_552;
/** A UDP receive buffer: the largest train that GRO delivers. */
export const LARGEST_TRAIN: i32 = 65_536;
/** Limits of one UDP GSO send (UDP_MAX_SEGMENTS of the kernels we support, and the largest payload). */
export const MOST_SEGMENTS: i32 = 64;
export const LARGEST_SEND: i32 = 65_000;

/* The record between the packet path and the transport cipher ---------------------------------- */

/**
 * A transport message to seal or to open in place:
 * { offset u32, length u32, counter low u32, counter high u32, key u32, authentic u32, peer u32, session u32 }.
 *
 * `offset` is that of the 16-byte message header; the payload follows it and is `length` bytes long
 * without the 16-byte tag, which follows the payload. The nonce is 32 zero bits ‖ counter (Noise,
 * WireGuard whitepaper §5.4.6), the additional data is empty. `key` is the offset of 32 key bytes.
 * `seal` writes ciphertext and tag; `open` writes the plaintext and sets `authentic` to 1, or leaves
 * the bytes undefined and sets it to 0.
 */
export const MESSAGE_SIZE: i32 = 32;
export const MESSAGE_OFFSET: i32 = 0;
export const MESSAGE_LENGTH: i32 = 4;
export const MESSAGE_COUNTER_LOW: i32 = 8;
export const MESSAGE_COUNTER_HIGH: i32 = 12;
export const MESSAGE_KEY: i32 = 16;
export const MESSAGE_AUTHENTIC: i32 = 20;
export const MESSAGE_PEER: i32 = 24;
export const MESSAGE_SESSION: i32 = 28;

export const MESSAGE_HEADER_SIZE: i32 = 16;
export const TAG_SIZE: i32 = 16;
export const KEY_SIZE: i32 = 32;
