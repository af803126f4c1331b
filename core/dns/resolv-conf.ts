import type { SocketAddress } from '../net/socket-address.ts';
import { BugError } from '../sansio/outcome.ts';

/** Reads the name servers of a resolv.conf(5), with port 53; lines that are none are left out. */
export function parseResolvConf(text: string): readonly SocketAddress[] {
  throw new BugError(`not written ${text}`);
}
