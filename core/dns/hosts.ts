import type { IpAddress } from '../net/ip-address.ts';
import { BugError } from '../sansio/outcome.ts';
import type { DomainName } from './name.ts';

/** Names and their addresses, in the order of the lines (hosts(5)). */
export type Hosts = ReadonlyMap<DomainName, readonly IpAddress[]>;

/** Lines of a file that are read; the rest is left out. */
export const MOST_HOSTS_LINES = 65_536;

/** Reads hosts files, one after the other; lines that are none are left out. */
export function parseHosts(texts: readonly string[]): Hosts {
  throw new BugError(`not written ${texts.length}`);
}
