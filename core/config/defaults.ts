/** What holds where a document says nothing. Nothing else in the product has defaults for these. */
export const DEFAULTS = {
  interfaceName: 'culvert0',
  /** 1492 (PPPoE) less 40 IPv6, 8 UDP, 4 channel header and 32 WireGuard. */
  mtu: 1408,
  listenPort: 51_820,
  peerKind: 'wireguard',
  /** Seconds; 0 is off. */
  keepalive: 0,
  streamListenPort: 0,
  /** What every firewall takes for HTTPS. */
  streamProtocol: 'tls',
  ipStack: 'dual',
  masquerade: true,
  dnsMode: 'off',
  /** UDP and TCP; 53 belongs to the router's own resolver. */
  dnsListenPort: 53_053,
  /** The upper half of the shared address space (RFC 6598), of which tunnels have the lower one. */
  proxiesIpv4: '100.96.0.0/11',
  /** A unique local network (RFC 4193) drawn at random for this. */
  proxiesIpv6: 'fd3c:91d6:b4a2:8000::/64',
  logLevel: 'info',
} as const;

export const LIMITS = {
  /** Bytes of a document on the wire. */
  documentBytes: 262_144,
  peers: 2048,
  /** Bytes: what a UDP datagram holds, less WireGuard's 32 and a channel header, and a little to spare. */
  mtu: 65_440,
  allowedIps: 256,
  interfaceAddresses: 16,
  brokers: 8,
  operatorKeys: 8,
  relays: 16,
  resources: 10_000,
  authorizations: 10_000,
  /** Patterns or prefixes of one resource, sources of one authorization, zones of one rule. */
  targets: 64,
  /** Of one resource or authorization. */
  filters: 32,
  /** Of one filter. */
  portRanges: 32,
  gateways: 8,
  lans: 16,
  prefixMaps: 64,
  upstreams: 8,
  dnsRules: 64,
  /** Errors told about one document; the rest is counted in the last of them. */
  errors: 32,
} as const;
