/**
 * The packet arena: one block of memory that holds everything the packet path touches.
 *
 * This file is compiled twice, by TypeScript and by AssemblyScript, and its input/output records are
 * mirrored in the native file (`plugins/platform-node/native/`). All numbers in the arena are
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
 * Where to send: { fd i32, sockaddr length u32, remote sockaddr[28], local address[16], ifindex u32, channel u32, _[4] }.
 * A non-zero local address and interface pin the source of the datagram (IP_PKTINFO).
 */
export const PATH_SIZE: i32 = 64;
export const PATH_FD: i32 = 0;
export const PATH_REMOTE_LENGTH: i32 = 4;
export const PATH_REMOTE: i32 = 8;
export const PATH_LOCAL: i32 = 36;
export const PATH_IFINDEX: i32 = 52;
/** The TURN channel (RFC 8656 §12.4) in whose header each message is wrapped, 0 for none. */
export const PATH_CHANNEL: i32 = 56;
export const CHANNEL_HEADER_SIZE: i32 = 4;

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

/* What the packet path keeps for itself --------------------------------------------------------- */

/**
 * A peer: { current session u32: its offset or 0, facts u32, sent bytes u64, sent packets u64, received
 * bytes u64, received packets u64, path, path of the last message that came from elsewhere }.
 * The path is set while its address length is not 0. The sessions lie apart: of a peer without any no
 * page is touched there.
 */
export const PEER_SIZE: i32 = 192;
export const PEER_CURRENT: i32 = 0;
export const PEER_FACTS: i32 = 4;
export const PEER_SENT_BYTES: i32 = 8;
export const PEER_SENT_PACKETS: i32 = 16;
export const PEER_RECEIVED_BYTES: i32 = 24;
export const PEER_RECEIVED_PACKETS: i32 = 32;
export const PEER_PATH: i32 = 64;
export const PEER_ROAMED: i32 = 128;
export const MOST_PEERS: i32 = 4096;

/** What happened to a peer since JavaScript last looked: bits of PEER_FACTS. */
export const FACT_SENT_DATA: i32 = 1;
export const FACT_SENT_KEEPALIVE: i32 = 2;
export const FACT_RECEIVED_DATA: i32 = 4;
export const FACT_RECEIVED_KEEPALIVE: i32 = 8;
export const FACT_ROAMED: i32 = 16;
/** The peer is in the list of touched peers. */
export const FACT_LISTED: i32 = 32;
/** Shifted left by the slot of the session on which something was received. */
export const FACT_RECEIVED_ON_SLOT_0: i32 = 256;

/**
 * A session: { local index u32, remote index u32, installed u32, _ u32, next counter to send u64,
 * greatest counter received + 1 u64, keys, replay window }. Local index = peer << 8 | counter; it lies
 * in the slot counter mod 4 of the four of its peer.
 */
export const SESSION_SIZE: i32 = 1136;
export const SESSION_LOCAL_INDEX: i32 = 0;
export const SESSION_REMOTE_INDEX: i32 = 4;
export const SESSION_INSTALLED: i32 = 8;
export const SESSION_SEND_COUNTER: i32 = 16;
export const SESSION_RECEIVED: i32 = 24;
export const SESSION_SEND_KEY: i32 = 32;
export const SESSION_RECEIVE_KEY: i32 = 64;
export const SESSION_WINDOW: i32 = 96;
export const SESSIONS_PER_PEER: i32 = 4;
/** Bits of the replay window; 64 of them are being cleared, so that 8128 packets are remembered. */
export const WINDOW_BITS: i32 = 8192;
export const WINDOW_PACKETS: i32 = 8128;
/** REJECT_AFTER_MESSAGES of the whitepaper §6.1: 2^64 - 2^13 - 1. */
export const REJECT_AFTER_MESSAGES_LOW: u32 = 0xffffdfff;
export const REJECT_AFTER_MESSAGES_HIGH: u32 = 0xffffffff;

/**
 * A flow: { who u32: 0 for outbound, else peer + 1; kind u32: family | protocol << 8 | fragment << 16;
 * ports: source u16, destination u16 in network order; generation u32; source[16]; destination[16];
 * verdict u32: verdict | detail << 8 | peer << 16; rewrite u32: offset of the rewrite, 0 for none;
 * batch u32 that used it last; write group u32 of that batch }. A 4-way set-associative table.
 * IPv4 addresses take the first four bytes. Fragments have no ports, but for the first of UDP; ICMP
 * has the identifier of an echo as source port and type, code as destination port.
 */
export const FLOW_SIZE: i32 = 64;
export const FLOW_WHO: i32 = 0;
export const FLOW_KIND: i32 = 4;
export const FLOW_PORTS: i32 = 8;
export const FLOW_GENERATION: i32 = 12;
export const FLOW_SOURCE: i32 = 16;
export const FLOW_DESTINATION: i32 = 32;
export const FLOW_VERDICT: i32 = 48;
export const FLOW_REWRITE: i32 = 52;
export const FLOW_BATCH: i32 = 56;
export const FLOW_GROUP: i32 = 60;
export const FLOW_WAYS: i32 = 4;
export const MOST_FLOWS: i32 = 16_384;

/**
 * What is changed in the packets of a flow, in the row of the same index as the flow's: { source[16];
 * destination[16]; ports: source u16, destination u16 in network order; what the checksums grow by: for
 * the addresses u16, for the ports u16 in network order; what u16: bits; facts u16: bits; session u32:
 * + 1, 0 for none; stamp u32 of the session; packets u32 and bytes u64 since JavaScript last looked }.
 * The identifier of an ICMP echo is its source port.
 */
export const REWRITE_SIZE: i32 = 64;
export const REWRITE_SOURCE: i32 = 0;
export const REWRITE_DESTINATION: i32 = 16;
export const REWRITE_PORTS: i32 = 32;
export const REWRITE_GROWTH: i32 = 36;
export const REWRITE_WHAT: i32 = 40;
export const REWRITE_FACTS: i32 = 42;
export const REWRITE_SESSION: i32 = 44;
export const REWRITE_STAMP: i32 = 48;
export const REWRITE_PACKETS: i32 = 52;
export const REWRITE_BYTES: i32 = 56;
/** One more than the greatest session that a rewrite may be of. */
export const MOST_REWRITE_SESSIONS: i32 = 131_072;

/** Bits of REWRITE_WHAT. */
export const NEW_SOURCE: i32 = 1;
export const NEW_DESTINATION: i32 = 2;
export const NEW_SOURCE_PORT: i32 = 4;
export const NEW_DESTINATION_PORT: i32 = 8;
/** Changes nothing; JavaScript wants it told. */
export const IS_REPLY: i32 = 16;

/** Bits of REWRITE_FACTS: flags of TCP as they lie in its header, FIN and RST since the last SYN. */
export const FACT_FIN: i32 = 1;
export const FACT_SYN: i32 = 2;
export const FACT_RST: i32 = 4;
/** The row is in the list of touched ones. */
export const FACT_FLOW_LISTED: i32 = 8;

export const VERDICT_FORWARD: i32 = 1;
/** Count it under the drop counter `detail`. */
export const VERDICT_DROP: i32 = 2;
/** The same, and JavaScript answers with an ICMP error. */
export const VERDICT_REFUSE: i32 = 3;
/** For the daemon itself. */
export const VERDICT_LOCAL: i32 = 4;

/** Why the kernel handed back to JavaScript before the end of a batch: values of CONTROL_STOP. */
export const STOP_END: i32 = 0;
/** No verdict for the flow at CONTROL_KEY: insert one and go on with the same packet. */
export const STOP_MISS: i32 = 1;
/** The peer has no session or no path: keep a copy. */
export const STOP_STAGE: i32 = 2;
export const STOP_REFUSED: i32 = 3;
export const STOP_LOCAL: i32 = 4;
export const STOP_TOO_BIG: i32 = 5;

/** Packets that went nowhere, by reason: indices of the drop counters. */
export const DROP_MALFORMED: i32 = 0;
export const DROP_OVERSIZED: i32 = 1;
export const DROP_ARENA_FULL: i32 = 2;
export const DROP_UNKNOWN_SESSION: i32 = 3;
export const DROP_NOT_AUTHENTIC: i32 = 4;
export const DROP_REPLAYED: i32 = 5;
export const DROP_CONGESTION_MARK_LOST: i32 = 6;
/** Too many packets wait for a session. */
export const DROP_STAGE_FULL: i32 = 7;
/** The peer was removed, or its handshake failed, while they waited. */
export const DROP_UNDELIVERED: i32 = 8;
/** Too many packets or datagrams wait for the daemon itself. */
export const DROP_QUEUE_FULL: i32 = 9;
/** The first index that the policy's own reasons may take. */
export const DROP_POLICY: i32 = 16;
export const MOST_DROP_REASONS: i32 = 128;

/** What the TUN device takes unsplit: bits of CONTROL_OFFLOADS. */
export const OFFLOAD_TCP: i32 = 1;
export const OFFLOAD_UDP: i32 = 2;

/** A write being coalesced: one TUN write, its packets linked as pieces. */
export const GROUP_SIZE: i32 = 48;
/** Offset of the first packet. */
export const GROUP_PACKET: i32 = 0;
/** Length of its IP header. */
export const GROUP_TRANSPORT: i32 = 4;
/** Length of its IP and transport headers. */
export const GROUP_HEADERS: i32 = 8;
/** Length of the whole as one IP packet. */
export const GROUP_LENGTH: i32 = 12;
/** Payload of every packet but the last. */
export const GROUP_SEGMENT: i32 = 16;
/** Sequence number that the next packet must have. */
export const GROUP_SEQUENCE: i32 = 20;
/** Protocol while another packet may join, else 0. */
export const GROUP_OPEN: i32 = 24;
export const GROUP_COUNT: i32 = 28;
export const GROUP_FIRST_PIECE: i32 = 32;
export const GROUP_LAST_PIECE: i32 = 36;
/** 1 when the last packet pushed. */
export const GROUP_PUSH: i32 = 40;
/** IPv4 identification of the first packet. */
export const GROUP_IDENTIFICATION: i32 = 44;

/** A piece: { offset u32, length u32, next u32: offset of the next piece or 0, _ u32 }. */
export const PIECE_SIZE: i32 = 16;
export const PIECE_NEXT: i32 = 8;

/** A datagram for JavaScript: { offset u32, length u32, datagram u32: offset of its record, _ u32 }. */
export const OTHER_SIZE: i32 = 16;
export const OTHER_DATAGRAM: i32 = 8;
export const MOST_OTHERS: i32 = 512;

/** One u32 beside each message record: outbound its outer type of service; inbound datagram | channel << 16. */
export const NOTE_SIZE: i32 = 4;

/* Where everything lies -------------------------------------------------------------------------- */

export const MOST_READS: i32 = 64;
/** Trains that the UDP_IN region takes, and datagrams that came one by one. */
export const MOST_TRAINS: i32 = 8;
export const MOST_DATAGRAMS: i32 = 64;
/** The most transport messages of a batch, each way. */
export const MOST_MESSAGES: i32 = 2048;

/** Below it the compiler of the WebAssembly module keeps its constants. */
export const ARENA_START: i32 = 65_536;

/** Single words that the kernel and JavaScript share. */
export const CONTROL: i32 = ARENA_START;
export const CONTROL_STOP: i32 = CONTROL;
/** The packet at which the kernel stopped, without virtio-net header, its length, its peer. */
export const CONTROL_PACKET: i32 = CONTROL + 4;
export const CONTROL_LENGTH: i32 = CONTROL + 8;
export const CONTROL_PEER: i32 = CONTROL + 12;
/** Index of the drop counter, when it stopped at a refused packet. */
export const CONTROL_DETAIL: i32 = CONTROL + 16;
/** Flows of another generation count as absent. Starts at 1. */
export const CONTROL_GENERATION: i32 = CONTROL + 20;
/** Number of the batch. */
export const CONTROL_BATCH: i32 = CONTROL + 24;
export const CONTROL_MTU: i32 = CONTROL + 28;
export const CONTROL_OFFLOADS: i32 = CONTROL + 32;
/** The descriptor on which the batch of datagrams was received. */
export const CONTROL_FD: i32 = CONTROL + 36;
/** End of what was written to the OUT region. */
export const CONTROL_OUT: i32 = CONTROL + 40;
export const CONTROL_OUT_MESSAGES: i32 = CONTROL + 44;
export const CONTROL_IN_MESSAGES: i32 = CONTROL + 48;
export const CONTROL_GROUPS: i32 = CONTROL + 52;
export const CONTROL_PIECES: i32 = CONTROL + 56;
export const CONTROL_OTHERS: i32 = CONTROL + 60;
export const CONTROL_TOUCHED: i32 = CONTROL + 64;
export const CONTROL_TOUCHED_FLOWS: i32 = CONTROL + 68;
/** The key of the packet at hand, laid out as a flow. */
export const CONTROL_KEY: i32 = CONTROL + 128;

/** u64 each. */
export const DROPS: i32 = CONTROL + 256;
/** u32 each: peers whose facts await JavaScript. */
export const TOUCHED: i32 = DROPS + MOST_DROP_REASONS * 8;
export const READS: i32 = TOUCHED + MOST_PEERS * 4;
export const DATAGRAMS: i32 = READS + MOST_READS * READ_SIZE;
export const OTHERS: i32 = DATAGRAMS + MOST_DATAGRAMS * DATAGRAM_SIZE;
export const OUT_MESSAGES: i32 = OTHERS + MOST_OTHERS * OTHER_SIZE;
export const OUT_NOTES: i32 = OUT_MESSAGES + MOST_MESSAGES * MESSAGE_SIZE;
export const IN_MESSAGES: i32 = OUT_NOTES + MOST_MESSAGES * NOTE_SIZE;
export const IN_NOTES: i32 = IN_MESSAGES + MOST_MESSAGES * MESSAGE_SIZE;
export const SENDS: i32 = IN_NOTES + MOST_MESSAGES * NOTE_SIZE;
export const WRITES: i32 = SENDS + MOST_MESSAGES * SEND_SIZE;
export const IOVECS: i32 = WRITES + MOST_MESSAGES * WRITE_SIZE;
export const PIECES: i32 = IOVECS + MOST_MESSAGES * IOVEC_SIZE;
export const GROUPS: i32 = PIECES + MOST_MESSAGES * PIECE_SIZE;

/** Four super-packets, each behind at most 15 bytes of alignment. */
export const TUN_IN: i32 = 524_288;
export const TUN_IN_END: i32 = TUN_IN + 4 * (LARGEST_READ + 16);
export const UDP_IN: i32 = 851_968;
export const UDP_IN_END: i32 = UDP_IN + MOST_TRAINS * LARGEST_TRAIN;
/** Transport messages, one behind the other so that a train is one send. */
export const OUT: i32 = UDP_IN_END;
export const OUT_END: i32 = OUT + 1_048_576;
export const FLOWS: i32 = OUT_END;
export const REWRITES: i32 = FLOWS + MOST_FLOWS * FLOW_SIZE;
/** u32 each: offsets of rewrites whose facts await JavaScript. */
export const TOUCHED_FLOWS: i32 = REWRITES + MOST_FLOWS * REWRITE_SIZE;
/** u32 each, by session + 1: a rewrite with another stamp is of a session that ended. */
export const REWRITE_STAMPS: i32 = TOUCHED_FLOWS + MOST_FLOWS * 4;
export const PEERS: i32 = REWRITE_STAMPS + (MOST_REWRITE_SESSIONS + 64) * 4;
export const SESSIONS: i32 = PEERS + MOST_PEERS * PEER_SIZE;
export const ARENA_END: i32 = SESSIONS + MOST_PEERS * SESSIONS_PER_PEER * SESSION_SIZE;
/** Pages of WebAssembly memory. Pages that no peer uses are never touched and cost nothing. */
export const ARENA_PAGES: i32 = (ARENA_END + 65_535) >> 16;
export const ARENA_SIZE: i32 = ARENA_PAGES << 16;
