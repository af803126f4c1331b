import type { IpAddress } from '../net/ip-address.ts';
import type { Deadline } from '../sansio/agent.ts';
import type { Instant } from '../sansio/instant.ts';
import { BugError, type Outcome } from '../sansio/outcome.ts';
import type { DnsClient } from './forwarder.ts';
import type { Hosts } from './hosts.ts';
import type { DomainName } from './name.ts';

/** Names that are looked up at once; one more fails. */
export const MOST_LOOKUPS = 1000;

export type LookupFailure =
  /** No server answered, or none sensibly. */
  'no-answer' | 'too-many-lookups';

export type SiteLookupEvent = {
  readonly type: 'resolved';
  readonly name: DomainName;
  /** IPv4 first, each family in the order of its answer; none where the name has none or does not exist. */
  readonly outcome: Outcome<readonly IpAddress[], LookupFailure>;
};

/** A question for the servers of the site, to be asked as one of a client of this name. */
export interface SiteQuestion {
  readonly client: DnsClient;
  readonly bytes: Uint8Array;
}

/**
 * Finds the addresses of names in the site of a gateway: from the hosts files, else from the servers, A and
 * AAAA at once. Several requests for one name are one. The forwarder that carries the questions keeps
 * answers for their time to live.
 */
export class SiteLookup {
  setHosts(hosts: Hosts): void {
    throw new BugError(`not written ${hosts.size}`);
  }

  /** There is one event for all who ask before it comes. */
  lookUp(name: DomainName, now: Instant): void {
    throw new BugError(`not written ${name} ${now}`);
  }

  /** Whether the client of an answer is one of `pollQuestion`. */
  isOurs(client: DnsClient): boolean {
    throw new BugError(`not written ${client.source}`);
  }

  /** Takes the answer to a question, or SERVFAIL. The bytes are borrowed for the call. */
  handleAnswer(client: DnsClient, bytes: Uint8Array, now: Instant): void {
    throw new BugError(`not written ${client.source} ${bytes.length} ${now}`);
  }

  handleTimeout(now: Instant): void {
    throw new BugError(`not written ${now}`);
  }

  pollQuestion(): SiteQuestion | undefined {
    throw new BugError('not written');
  }

  pollEvent(): SiteLookupEvent | undefined {
    throw new BugError('not written');
  }

  pollTimeout(): Deadline | undefined {
    throw new BugError('not written');
  }
}
