import { parseDomainName, type DomainName } from '../dns/name.ts';
import type { ProxyPool } from '../dns/proxy-pool.ts';
import { parseJson } from '../fleet/json.ts';
import { encodeUtf8 } from '../sansio/utf8.ts';
import type { Command } from './command.ts';

/** Name of the document that holds which proxies names have: connections outlive the daemon. */
export const KEPT_PROXIES = 'proxies.json';

export function keepProxies(pool: ProxyPool): Command {
  const names = Object.fromEntries(pool.entries());
  return { type: 'store', name: KEPT_PROXIES, bytes: encodeUtf8(`${JSON.stringify(names)}\n`) };
}

/** Reads what `keepProxies` stored; what is damaged is left out. */
export function readKeptProxies(bytes: Uint8Array): readonly (readonly [DomainName, number])[] {
  const names = parseJson(bytes);
  if (typeof names !== 'object' || names === null) return [];
  return Object.entries(names).flatMap(([text, number]: [string, unknown]) => {
    const name = parseDomainName(text);
    return name.ok && typeof number === 'number' ? [[name.value, number] as const] : [];
  });
}
