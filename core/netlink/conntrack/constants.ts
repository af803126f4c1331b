/** Numbers of ctnetlink (linux/netfilter/nfnetlink_conntrack.h), the same on every architecture. */

export const ConntrackMessage = { new: 0, get: 1, remove: 2, getStatistics: 5 } as const;

export const ConnectionAttribute = {
  original: 1,
  reply: 2,
  status: 3,
  protocolInfo: 4,
  timeout: 7,
  mark: 8,
  originalCounters: 9,
  replyCounters: 10,
  id: 12,
  zone: 18,
  markMask: 21,
  filter: 25,
} as const;

export const TupleAttribute = { ip: 1, protocol: 2, zone: 3 } as const;
export const IpAttribute = { source4: 1, destination4: 2, source6: 3, destination6: 4 } as const;
export const ProtocolAttribute = {
  number: 1,
  sourcePort: 2,
  destinationPort: 3,
  icmpId: 4,
  icmpType: 5,
  icmpCode: 6,
  icmp6Id: 7,
  icmp6Type: 8,
  icmp6Code: 9,
} as const;
export const CountersAttribute = { packets: 1, bytes: 2 } as const;

/** Inside `ConnectionAttribute.protocolInfo`. */
export const ProtocolInfo = { tcp: 1 } as const;
export const TcpInfo = { state: 1 } as const;

export const FilterAttribute = { originalFlags: 1, replyFlags: 2 } as const;
/** CTA_FILTER_F_*: what of a tuple is compared. */
export const FilterFlag = {
  source: 1,
  destination: 2,
  protocol: 8,
  sourcePort: 16,
  destinationPort: 32,
} as const;
