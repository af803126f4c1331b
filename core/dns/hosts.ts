import { parseIpAddress, type IpAddress } from '../net/ip-address.ts';
import { parseDomainName, type DomainName } from './name.ts';

/** Names and their addresses, in the order of the lines (hosts(5)). */
export type Hosts = ReadonlyMap<DomainName, readonly IpAddress[]>;

/** Lines of a file that are read; the rest is left out. */
export const MOST_HOSTS_LINES = 65_536;
/** Names of all files together, and addresses of one name; the rest is left out. */
export const MOST_HOSTS_NAMES = 65_536;
export const MOST_HOSTS_ADDRESSES = 64;

/**
 * Reads hosts files, one after the other; lines that are none are left out, and so are addresses with a
 * zone (`fe80::1%eth0`) and words that are no names.
 */
export function parseHosts(texts: readonly string[]): Hosts {
  const hosts = new Map<DomainName, IpAddress[]>();
  for (const text of texts) {
    for (const line of text.split('\n', MOST_HOSTS_LINES)) {
      const [first = '', ...words] = wordsOf(line);
      const address = parseIpAddress(first);
      if (!address.ok) continue;
      for (const word of words) {
        const name = parseDomainName(word);
        if (name.ok) add(hosts, name.value, address.value);
      }
    }
  }
  return hosts;
}

function wordsOf(line: string): readonly string[] {
  const comment = line.indexOf('#');
  return (comment < 0 ? line : line.slice(0, comment)).split(/\s+/).filter((word) => word !== '');
}

function add(hosts: Map<DomainName, IpAddress[]>, name: DomainName, address: IpAddress): void {
  const known = hosts.get(name);
  if (known === undefined) {
    if (hosts.size < MOST_HOSTS_NAMES) hosts.set(name, [address]);
  } else if (known.length < MOST_HOSTS_ADDRESSES && !known.includes(address)) {
    known.push(address);
  }
}
