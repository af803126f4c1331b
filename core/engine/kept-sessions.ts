import type { Assignment } from '../nat/resource-nat.ts';
import { parseJson } from '../fleet/json.ts';
import { parseIpAddress, type IpAddress } from '../net/ip-address.ts';
import type { Millis } from '../sansio/instant.ts';
import { encodeUtf8 } from '../sansio/utf8.ts';
import type { Command } from './command.ts';

/** Name of the document that carries open flows over a restart that was announced, such as an upgrade. */
export const KEPT_SESSIONS = 'sessions.json';

/** The latest ones: it is written to flash. */
export const MOST_KEPT_SESSIONS = 4096;

/** Who comes back later than this finds that the other ends have given up. */
const KEPT_LIFETIME: Millis = 5 * 60_000;

/** A session without what is counted: it begins anew, with the addresses and ports that it had. */
export interface KeptSession {
  readonly role: 'client' | 'gateway';
  readonly peerId: string;
  readonly resource: string | undefined;
  readonly domain: string | undefined;
  readonly protocol: number;
  readonly inside: KeptSide;
  readonly outside: KeptSide;
  readonly destinationPort: number;
}

export interface KeptSide {
  readonly source: IpAddress;
  readonly port: number;
  readonly destination: IpAddress;
}

export interface KeptFlows {
  readonly sessions: readonly KeptSession[];
  /** What proxies of peers stand for. */
  readonly assignments: readonly Assignment[];
}

export const NO_FLOWS: KeptFlows = { sessions: [], assignments: [] };

export function keepFlows(flows: KeptFlows, unixMs: number): Command {
  const bytes = encodeUtf8(`${JSON.stringify({ unixMs: Math.round(unixMs), ...flows })}\n`);
  return { type: 'store', name: KEPT_SESSIONS, bytes };
}

/** Reads what `keepFlows` stored lately; what is older or damaged is left out. */
export function readKeptFlows(bytes: Uint8Array, unixMs: number): KeptFlows {
  const document = parseJson(bytes);
  if (!isRecord(document)) return NO_FLOWS;
  const age = unixMs - numberOf(document['unixMs']);
  if (!(age >= 0 && age <= KEPT_LIFETIME)) return NO_FLOWS;
  return {
    sessions: listOf(document['sessions']).flatMap(sessionsOf).slice(0, MOST_KEPT_SESSIONS),
    assignments: listOf(document['assignments']).flatMap(assignmentsOf),
  };
}

function sessionsOf(value: unknown): readonly KeptSession[] {
  if (!isRecord(value)) return [];
  const { role, peerId, resource, domain, protocol, destinationPort } = value;
  const inside = sideOf(value['inside']);
  const outside = sideOf(value['outside']);
  const isRole = role === 'client' || role === 'gateway';
  const isWhole = isRole && typeof peerId === 'string' && numberOf(protocol) > 0;
  if (!isWhole || inside === undefined || outside === undefined) return [];
  return [
    {
      role,
      peerId,
      resource: textOf(resource),
      domain: textOf(domain),
      protocol: numberOf(protocol) & 0xff,
      inside,
      outside,
      destinationPort: portOf(destinationPort),
    },
  ];
}

function sideOf(value: unknown): KeptSide | undefined {
  if (!isRecord(value)) return undefined;
  const [source] = addressesOf([value['source']]);
  const [destination] = addressesOf([value['destination']]);
  if (source === undefined || destination === undefined) return undefined;
  return { source, port: portOf(value['port']), destination };
}

function assignmentsOf(value: unknown): readonly Assignment[] {
  if (!isRecord(value)) return [];
  const { peer, resource, domain } = value;
  const isNamed =
    typeof peer === 'string' && typeof resource === 'string' && typeof domain === 'string';
  if (!isNamed) return [];
  const proxies = addressesOf(listOf(value['proxies']));
  return [{ peer, resource, domain, proxies, addresses: addressesOf(listOf(value['addresses'])) }];
}

function addressesOf(values: readonly unknown[]): readonly IpAddress[] {
  return values.flatMap((value) => {
    const parsed = parseIpAddress(textOf(value) ?? '');
    return parsed.ok ? [parsed.value] : [];
  });
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

function numberOf(value: unknown): number {
  return typeof value === 'number' ? value : Number.NaN;
}

function portOf(value: unknown): number {
  return numberOf(value) & 0xffff;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null;
}
