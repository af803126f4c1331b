/** Numbers of rtnetlink (linux/rtnetlink.h, if_link.h, if_addr.h, fib_rules.h), the same on every architecture. */

export const RouteMessage = {
  newLink: 16,
  removeLink: 17,
  getLink: 18,
  newAddress: 20,
  removeAddress: 21,
  getAddress: 22,
  newRoute: 24,
  removeRoute: 25,
  getRoute: 26,
  newRule: 32,
  removeRule: 33,
  getRule: 34,
} as const;

/** Multicast groups, as NETLINK_ADD_MEMBERSHIP takes them. */
export const RouteGroup = {
  link: 1,
  ipv4Address: 5,
  ipv4Route: 7,
  ipv4Rule: 8,
  ipv6Address: 9,
  ipv6Route: 11,
  ipv6Rule: 19,
} as const;

export const AF_UNSPEC = 0;
export const AF_INET = 2;
export const AF_INET6 = 10;

/** Bytes of struct ifinfomsg, ifaddrmsg, rtmsg, fib_rule_hdr and rtnexthop. */
export const LINK_HEADER = 16;
export const ADDRESS_HEADER = 8;
export const ROUTE_HEADER = 12;
export const RULE_HEADER = 12;
export const NEXT_HOP_HEADER = 8;

export const LinkAttribute = {
  hardwareAddress: 1,
  name: 3,
  mtu: 4,
  lower: 5,
  controller: 10,
  wireless: 11,
  operationalState: 16,
  info: 18,
  extendedMask: 29,
} as const;

/** Inside `LinkAttribute.info`. */
export const LinkInfo = { kind: 1 } as const;

/** RTEXT_FILTER_SKIP_STATS: leave the IPv6 counters, a third of a message, out of the answer. */
export const SKIP_STATISTICS = 8;

/** ARPHRD_* (linux/if_arp.h). */
export const HardwareType = { ethernet: 1, loopback: 772, none: 65_534 } as const;

/** IFF_*: administratively up; carrier. */
export const LinkFlag = { up: 0x1, lowerUp: 0x1_0000 } as const;

export const AddressAttribute = { address: 1, local: 2, label: 3, flags: 8, protocol: 11 } as const;

/** IFA_F_*: the first bit has one meaning for IPv4 and another for IPv6. */
export const AddressFlag = {
  secondary: 0x01,
  temporary: 0x01,
  noDuplicateDetection: 0x02,
  duplicate: 0x08,
  deprecated: 0x20,
  tentative: 0x40,
  permanent: 0x80,
} as const;

export const RouteAttribute = {
  destination: 1,
  source: 2,
  outgoingLink: 4,
  gateway: 5,
  metric: 6,
  preferredSource: 7,
  multipath: 9,
  table: 15,
  via: 18,
} as const;

/** FRA_*. */
export const RuleAttribute = {
  inputLink: 3,
  priority: 6,
  suppressPrefixLength: 14,
  table: 15,
  padding: 18,
  protocol: 21,
} as const;

/** FR_ACT_TO_TBL: look the destination up in a table. */
export const RULE_LOOKUP = 1;

/** FIB_RULE_INVERT: the rule is for what its selectors do not match. */
export const RULE_INVERTED = 2;

/** RTM_F_CLONED: a cache entry, not configuration. */
export const ROUTE_CLONED = 0x200;

export const RouteTable = { default: 253, main: 254, local: 255 } as const;

/** Who made a route. 128 to 254 are free for daemons; /etc/iproute2/rt_protos names some. */
export const RouteProtocol = { kernel: 2, boot: 3, static: 4 } as const;

export const Scope = { universe: 0, site: 200, link: 253, host: 254, nowhere: 255 } as const;

/** RTN_*: the index is the number in the message. */
export const ROUTE_TYPES = [
  'unspecified',
  'unicast',
  'local',
  'broadcast',
  'anycast',
  'multicast',
  'blackhole',
  'unreachable',
  'prohibit',
  'throw',
  'nat',
  'external',
] as const;

/** IF_OPER_* (RFC 2863): the index is the number in the message. */
export const OPERATIONAL_STATES = [
  'unknown',
  'not-present',
  'down',
  'lower-layer-down',
  'testing',
  'dormant',
  'up',
] as const;
