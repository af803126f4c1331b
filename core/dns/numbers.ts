/** Numbers of the IANA registry "Domain Name System (DNS) Parameters" that something here asks for. */

export const TYPE = {
  A: 1,
  NS: 2,
  CNAME: 5,
  SOA: 6,
  PTR: 12,
  TXT: 16,
  AAAA: 28,
  SRV: 33,
  OPT: 41,
  SVCB: 64,
  HTTPS: 65,
  ANY: 255,
} as const;

export const CLASS = { IN: 1, ANY: 255 } as const;

export const OPCODE = { QUERY: 0 } as const;

export const RCODE = {
  NOERROR: 0,
  FORMERR: 1,
  SERVFAIL: 2,
  NXDOMAIN: 3,
  NOTIMP: 4,
  REFUSED: 5,
  /** Its upper bits stand in the OPT record (RFC 6891 §6.1.3). */
  BADVERS: 16,
} as const;

/** EDNS options (RFC 6891 §6.1.2). */
export const OPTION = { CLIENT_SUBNET: 8 } as const;

/** UDP and TCP port of a gateway's address in the tunnel, at which peers ask the resolvers of its site. */
export const SITE_DNS_PORT = 53_535;
