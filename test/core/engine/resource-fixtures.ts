import type dnsPacket from 'dns-packet';
import { RCODE } from '../../../core/dns/numbers.ts';
import type { Zone } from '../../sim/memory-names.ts';

export const CRM = { id: 'crm', type: 'dns', patterns: ['crm.corp.example'] };
export const CRM_NAME = 'crm.corp.example';
export const MAY_USE_CRM = { peer: 'client', resource: 'crm' };

/** A zone of names with their addresses of both families. */
export function zoneOf(names: Readonly<Record<string, readonly string[]>>): Zone {
  return ({ name, type }) =>
    (names[name] ?? []).flatMap((data) => {
      const isOfType = data.includes(':') ? type === 'AAAA' : type === 'A';
      return isOfType ? [{ type: type as 'A', name, ttl: 1, data }] : [];
    });
}

/** Returns the first of what must not be empty. */
export function first<Item>(items: readonly Item[]): Item {
  const [item] = items;
  if (item === undefined) throw new Error('there is none');
  return item;
}

export function present<Item>(item: Item | undefined): Item {
  if (item === undefined) throw new Error('it is absent');
  return item;
}

/** The name of the response code of an answer. */
export function rcodeOf(answer: dnsPacket.DecodedPacket | undefined): string | undefined {
  const code = answer && (answer.flags ?? 0) & 0xf;
  return Object.entries(RCODE).find(([, it]) => it === code)?.[0];
}
