import { isLinkLocal, parseIpAddress } from '../net/ip-address.ts';
import { socketAddress, type SocketAddress } from '../net/socket-address.ts';

/** Name servers of a file; the rest is left out. libc asks three. */
export const MOST_NAMESERVERS = 16;
/** Lines that are looked at. */
const MOST_LINES = 1024;
const DNS_PORT = 53;

/**
 * Reads the name servers of a resolv.conf(5), with port 53; lines that are none are left out. So are
 * link-local servers, as socket addresses here have no zone to find them by.
 */
export function parseResolvConf(text: string): readonly SocketAddress[] {
  const servers = new Set<SocketAddress>();
  for (const line of text.split('\n', MOST_LINES)) {
    // The keyword starts the line, or the line is not taken (resolv.conf(5)).
    const [keyword, word = ''] = line.split(/\s+/, 2);
    const address = keyword === 'nameserver' ? parseIpAddress(word) : undefined;
    if (address?.ok !== true || isLinkLocal(address.value)) continue;
    if (servers.size < MOST_NAMESERVERS) servers.add(socketAddress(address.value, DNS_PORT));
  }
  return [...servers];
}
