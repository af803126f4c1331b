import { parseName } from '../config/name.ts';
import { parseDomainName } from '../dns/name.ts';
import { PROXIES_PER_FAMILY } from '../dns/proxy-pool.ts';
import { parseJson } from '../fleet/json.ts';
import { ipFamily, parseIpAddress, type IpAddress } from '../net/ip-address.ts';
import { failed, ok, type Outcome } from '../sansio/outcome.ts';
import { encodeUtf8 } from '../sansio/utf8.ts';

/** The UDP port inside the tunnel on which two daemons speak with each other. */
export const PEERING_PORT = 2680;

/** Bytes of a message with its header: with UDP and IPv6 below 1280, so that every path takes it whole. */
export const LONGEST_PEERING = 1200;

/** Why a peer goes. `restarting`: it will be back in a moment; `revoked`: its last authorization ended. */
export type GoodbyeReason = (typeof GOODBYE_REASONS)[number];

/**
 * What one daemon tells the other inside the tunnel. Delivery is not reliable: each message is idempotent
 * and repeated by the state machine of its sender, or harmless when lost.
 */
export type PeeringMessage =
  /** A client is about to use these proxies for the name: they are to be translated to what it stands for. */
  | {
      readonly type: 'assigned-ips';
      readonly resource: string;
      readonly domain: string;
      /** One or more, distinct, four of each family at most; the caller sees to it, the receiver checks it. */
      readonly proxyIps: readonly IpAddress[];
    }
  /** What became of that. */
  | {
      readonly type: 'domain-status';
      readonly resource: string;
      readonly domain: string;
      readonly status: DomainStatus;
    }
  | { readonly type: 'goodbye'; readonly reason: GoodbyeReason }
  /** The path that the sender sends on, for `culvert paths` at the other end. */
  | { readonly type: 'path-report'; readonly kind: PathKind; readonly rttMs?: number };

/**
 * `active`: the proxies are translated. `refused`: the peer may not use the resource, or not so.
 * `not-resolved`: no server of the site knows the name.
 */
export type DomainStatus = (typeof DOMAIN_STATUSES)[number];

/** How packets travel. `relayed`: a relay of one side or of both. */
export type PathKind = (typeof PATH_KINDS)[number];

/**
 * Header (type u8, seven zeros), then JSON in UTF-8. `LONGEST_PEERING` bytes at most, but for a name that
 * consists of escapes (`\DDD`): such a message is longer, and nobody reads it.
 */
export function encodePeering({ type, ...members }: PeeringMessage): Uint8Array {
  const json = encodeUtf8(JSON.stringify(members));
  const datagram = new Uint8Array(HEADER_SIZE + json.length);
  datagram[0] = TYPES.indexOf(type);
  datagram.set(json, HEADER_SIZE);
  return datagram;
}

/** Reads a datagram. `unknown-type` is a newer peer's and no fault; unknown members are ignored. */
export function decodePeering(
  datagram: Uint8Array,
): Outcome<PeeringMessage, 'malformed' | 'unknown-type'> {
  const isFitting = datagram.length >= HEADER_SIZE && datagram.length <= LONGEST_PEERING;
  const hasZeros = datagram.subarray(1, HEADER_SIZE).every((byte) => byte === 0);
  if (!isFitting || !hasZeros) return failed('malformed');
  const type = TYPES[datagram[0] ?? 0];
  if (type === undefined) return failed('unknown-type');
  const members = parseJson(datagram.subarray(HEADER_SIZE));
  if (typeof members !== 'object' || members === null) return failed('malformed');
  const message = READERS[type](members);
  return message === undefined ? failed('malformed') : ok(message);
}

const HEADER_SIZE = 8;

/** The index is the number in the header. */
const TYPES = ['assigned-ips', 'domain-status', 'goodbye', 'path-report'] as const;

const GOODBYE_REASONS = ['leaving', 'restarting', 'revoked'] as const;
const DOMAIN_STATUSES = ['active', 'refused', 'not-resolved'] as const;
const PATH_KINDS = ['direct', 'relayed', 'stream'] as const;

type MemberName = 'resource' | 'domain' | 'proxyIps' | 'status' | 'reason' | 'kind' | 'rttMs';
type Members = Readonly<Partial<Record<MemberName, unknown>>>;

const READERS: Readonly<
  Record<(typeof TYPES)[number], (members: Members) => PeeringMessage | undefined>
> = {
  'assigned-ips': readAssignedIps,
  'domain-status': readDomainStatus,
  goodbye: readGoodbye,
  'path-report': readPathReport,
};

function readAssignedIps(members: Members): PeeringMessage | undefined {
  const name = readResourceName(members);
  const proxyIps = readProxyIps(members.proxyIps);
  if (name === undefined || proxyIps === undefined) return undefined;
  return { type: 'assigned-ips', ...name, proxyIps };
}

/** A status that only a newer gateway knows is not `active`, and so it is read as `refused`. */
function readDomainStatus(members: Members): PeeringMessage | undefined {
  const name = readResourceName(members);
  if (name === undefined || typeof members.status !== 'string') return undefined;
  const status = DOMAIN_STATUSES.find((known) => known === members.status) ?? 'refused';
  return { type: 'domain-status', ...name, status };
}

/** Returns the domain in canonical text, as it is a key. */
function readResourceName(
  members: Members,
): { readonly resource: string; readonly domain: string } | undefined {
  if (typeof members.resource !== 'string' || typeof members.domain !== 'string') return undefined;
  const resource = parseName(members.resource);
  const domain = parseDomainName(members.domain);
  return resource !== undefined && domain.ok ? { resource, domain: domain.value } : undefined;
}

/** Returns one address or more, all distinct and in canonical text. */
function readProxyIps(list: unknown): readonly IpAddress[] | undefined {
  if (!Array.isArray(list) || list.length === 0) return undefined;
  const proxyIps = new Set<IpAddress>();
  const left = { 4: PROXIES_PER_FAMILY, 6: PROXIES_PER_FAMILY };
  for (const text of list as readonly unknown[]) {
    const address = typeof text === 'string' ? parseIpAddress(text) : undefined;
    if (address?.ok !== true || proxyIps.has(address.value)) return undefined;
    if (left[ipFamily(address.value)]-- === 0) return undefined;
    proxyIps.add(address.value);
  }
  return Array.from(proxyIps);
}

function readGoodbye(members: Members): PeeringMessage | undefined {
  const reason = GOODBYE_REASONS.find((known) => known === members.reason);
  return reason === undefined ? undefined : { type: 'goodbye', reason };
}

function readPathReport({ kind: kindName, rttMs }: Members): PeeringMessage | undefined {
  const kind = PATH_KINDS.find((known) => known === kindName);
  if (kind === undefined) return undefined;
  if (rttMs === undefined) return { type: 'path-report', kind };
  const isTime = typeof rttMs === 'number' && rttMs >= 0 && rttMs < Infinity;
  return isTime ? { type: 'path-report', kind, rttMs } : undefined;
}
