import { parseIpPrefix } from '../net/ip-prefix.ts';
import { PrefixTable } from '../net/prefix-table.ts';
import { BugError } from '../sansio/outcome.ts';

/** Whether the address (4 or 16 bytes) is one of the Internet: a global unicast address. */
export function isInternetAddress(address: Uint8Array): boolean {
  return ranges.lookupBytes(address, 0, address.length === 4 ? 4 : 6) === true;
}

/*
 * The special-purpose registries of IANA (RFC 6890) where they say "not globally reachable", multicast, and
 * what leads to IPv4 addresses hidden in IPv6 ones. Longer prefixes go before shorter ones.
 */
const INTERNET = ['0.0.0.0/0', '2000::/3'];
const SPECIAL = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.0.2.0/24',
  '192.88.99.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
  '198.51.100.0/24',
  '203.0.113.0/24',
  '224.0.0.0/4',
  '240.0.0.0/4',
  '2001::/23',
  '2001:db8::/32',
  '2002::/16',
  '3fff::/20',
];

const ranges = new PrefixTable<boolean>();
for (const [texts, isInternet] of [
  [INTERNET, true],
  [SPECIAL, false],
] as const) {
  for (const text of texts) {
    const prefix = parseIpPrefix(text);
    if (!prefix.ok) throw new BugError(text);
    ranges.insert(prefix.value, isInternet);
  }
}
