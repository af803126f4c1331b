/** Numbers of the netlink protocol itself (RFC 3549, linux/netlink.h), the same on every architecture. */

/** Bytes of struct nlmsghdr: length, type, flags, sequence, port. */
export const MESSAGE_HEADER = 16;
/** Bytes of struct nlattr: length and type. */
export const ATTRIBUTE_HEADER = 4;

/** The length field of an attribute has 16 bits. */
export const LARGEST_ATTRIBUTE = 0xffff;

export const MessageType = { noop: 1, error: 2, done: 3, overrun: 4 } as const;

export const MessageFlag = {
  request: 0x001,
  multi: 0x002,
  ack: 0x004,
  /** The table changed while it was dumped: entries may be missing or doubled. */
  dumpInterrupted: 0x010,
  /** In a request to get: the whole table. */
  dump: 0x300,
  /** In a request to make something: fail where it exists. */
  exclusive: 0x200,
  create: 0x400,
  /** In a request to make something: behind the others. */
  append: 0x800,
  /** In an acknowledgement: the request's payload is left out. */
  capped: 0x100,
  /** In an acknowledgement: attributes follow that explain the error. */
  ackAttributes: 0x200,
} as const;

/** Attributes of an extended acknowledgement. */
export const AckAttribute = { message: 1, offset: 2 } as const;

export const ATTRIBUTE_NESTED = 0x8000;
/** Clears NLA_F_NESTED and NLA_F_NET_BYTEORDER. */
export const ATTRIBUTE_TYPE_MASK = 0x3fff;

/** Netlink families, AF_NETLINK and SOL_NETLINK options, as socket(2) and setsockopt(2) take them. */
export const NETLINK_ROUTE = 0;
export const NETLINK_NETFILTER = 12;
export const NETLINK_GENERIC = 16;
export const AF_NETLINK = 16;
export const SOL_NETLINK = 270;
export const SocketOption = {
  addMembership: 1,
  capAck: 10,
  extendedAck: 11,
  strictCheck: 12,
} as const;
