import { ipFamily, isLinkLocal, isUnicast, type IpAddress } from '../net/ip-address.ts';
import type { Deadline } from '../sansio/agent.ts';
import { BoundedQueue } from '../sansio/bounded-queue.ts';
import { ExpiringMap } from '../sansio/expiring-map.ts';
import { instantAt, type Instant, type Millis } from '../sansio/instant.ts';
import { failed, ok, type Outcome } from '../sansio/outcome.ts';
import { encodeQuery } from './answer.ts';
import { MOST_WAITING, type DnsClient } from './forwarder.ts';
import type { Hosts } from './hosts.ts';
import { decodeResponse, FLAG } from './message.ts';
import type { DomainName } from './name.ts';
import { RCODE, TYPE } from './numbers.ts';
import { readAddresses } from './record.ts';

/** Names that are looked up at once; one more fails. */
export const MOST_LOOKUPS = 1000;
/** From the first request to the event. The forwarder gives up after half of it. */
export const LOOKUP_PATIENCE: Millis = 10_000;
/** Of each family; the rest is left out. Clients have four proxies of each for a name. */
export const MOST_ADDRESSES = 64;
/** Questions under way. The others wait: half of the forwarder's places are left to the LAN. */
export const MOST_OPEN_QUESTIONS: number = MOST_WAITING / 2;

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
 *
 * A name of a hosts file is not asked for, in neither family, as glibc does. If one family fails, the
 * addresses of the other are the result; without such, nothing is known of the name.
 */
export class SiteLookup {
  #hosts: Hosts = new Map();
  readonly #lookups = new ExpiringMap<DomainName, Lookup>(MOST_LOOKUPS, 'site lookup is over');
  /** Both by source: two of each lookup at most. */
  readonly #waiting = new Map<string, Question>();
  readonly #open = new Map<string, Question>();
  /** One for each call of `lookUp` at most; a driver that drains loses none. */
  readonly #events = new BoundedQueue<SiteLookupEvent>(4 * MOST_LOOKUPS, 'newest');
  #count = 0;
  #now: Instant = instantAt(0);

  setHosts(hosts: Hosts): void {
    this.#hosts = hosts;
  }

  /** There is one event for all who ask before it comes. */
  lookUp(name: DomainName, now: Instant): void {
    this.#now = now;
    if (this.#lookups.has(name)) return;
    const known = this.#hosts.get(name);
    if (known !== undefined) {
      const addresses = ([4, 6] as const).flatMap((family) =>
        targetsOf(known.filter((address) => ipFamily(address) === family)),
      );
      return this.#tell(name, ok(addresses));
    }
    if (this.#lookups.size >= MOST_LOOKUPS) return this.#tell(name, failed('too-many-lookups'));
    const lookup: Lookup = { name, number: this.#count++, answers: new Map() };
    this.#lookups.set(name, lookup, now, LOOKUP_PATIENCE);
    for (const type of TYPES) this.#waiting.set(sourceOf(lookup, type), { lookup, type });
  }

  /** Whether the client of an answer is one of `pollQuestion`. */
  isOurs(client: DnsClient): boolean {
    return client.source.startsWith(SOURCE_PREFIX);
  }

  /** Takes the answer to a question, or SERVFAIL. The bytes are borrowed for the call. */
  handleAnswer(client: DnsClient, bytes: Uint8Array, now: Instant): void {
    this.#now = now;
    const question = this.#open.get(client.source);
    if (question === undefined) return;
    this.#open.delete(client.source);
    const { lookup, type } = question;
    lookup.answers.set(type, readAnswer(bytes, lookup.name, type));
    if (lookup.answers.size === TYPES.length) this.#finish(lookup);
  }

  handleTimeout(now: Instant): void {
    this.#now = now;
    for (const [, lookup] of this.#lookups.handleTimeout(now)) this.#finish(lookup);
  }

  pollQuestion(): SiteQuestion | undefined {
    if (this.#open.size >= MOST_OPEN_QUESTIONS) return undefined;
    for (const [source, question] of this.#waiting) {
      this.#waiting.delete(source);
      this.#open.set(source, question);
      const { lookup, type } = question;
      // A client by TCP gets whole answers: what UDP cuts off is asked for again over TCP.
      const client: DnsClient = { source, transport: 'tcp' };
      return { client, bytes: encodeQuery({ name: lookup.name, type }, 0) };
    }
    return undefined;
  }

  pollEvent(): SiteLookupEvent | undefined {
    return this.#events.shift();
  }

  pollTimeout(): Deadline | undefined {
    const canAsk = this.#waiting.size > 0 && this.#open.size < MOST_OPEN_QUESTIONS;
    return canAsk || this.#events.length > 0
      ? { at: this.#now, reason: 'queued' }
      : this.#lookups.pollTimeout();
  }

  /** Names that are looked up. */
  get size(): number {
    return this.#lookups.size;
  }

  #finish(lookup: Lookup): void {
    this.#lookups.delete(lookup.name);
    for (const type of TYPES) {
      const source = sourceOf(lookup, type);
      this.#waiting.delete(source);
      this.#open.delete(source);
    }
    this.#tell(lookup.name, outcomeOf(lookup));
  }

  #tell(name: DomainName, outcome: SiteLookupEvent['outcome']): void {
    this.#events.push({ type: 'resolved', name, outcome });
  }
}

const TYPES = [TYPE.A, TYPE.AAAA] as const;
const SOURCE_PREFIX = 'site-lookup:';

interface Lookup {
  readonly name: DomainName;
  readonly number: number;
  /** By the type of the question; `undefined` for one that helps nobody. */
  readonly answers: Map<number, readonly IpAddress[] | undefined>;
}

interface Question {
  readonly lookup: Lookup;
  readonly type: (typeof TYPES)[number];
}

/** Of an earlier lookup of the same name it is another, so that late answers change nothing. */
function sourceOf({ number }: Lookup, type: number): string {
  return `${SOURCE_PREFIX}${number}:${type === TYPE.A ? 'a' : 'aaaa'}`;
}

function outcomeOf({ answers }: Lookup): SiteLookupEvent['outcome'] {
  const families = TYPES.map((type) => answers.get(type));
  const addresses = families.flatMap((family) => family ?? []);
  const isKnown = addresses.length > 0 || families.every((family) => family !== undefined);
  return isKnown ? ok(addresses) : failed('no-answer');
}

/** The targets of one family; none where the name has no such records or does not exist (RFC 2308 §2). */
function readAnswer(
  bytes: Uint8Array,
  name: DomainName,
  type: number,
): readonly IpAddress[] | undefined {
  const response = decodeResponse(bytes);
  if (response?.question.name !== name || response.question.type !== type) return undefined;
  // What is truncated over TCP too is no answer (RFC 2181 §9).
  if ((response.flags & FLAG.TRUNCATED) !== 0) return undefined;
  if (response.rcode === RCODE.NXDOMAIN) return [];
  if (response.rcode !== RCODE.NOERROR) return undefined;
  const addresses = readAddresses(bytes, response);
  return addresses && targetsOf(addresses);
}

function targetsOf(addresses: readonly IpAddress[]): readonly IpAddress[] {
  return [...new Set(addresses.filter(isTarget))].slice(0, MOST_ADDRESSES);
}

/**
 * Whether packets of peers may be sent there. Who writes the zone must not be able to give them what the
 * gateway offers to itself alone: loopback, and `0.0.0.0`, which Linux takes for it. Multicast and broadcast
 * are no one's address, a link-local one means nothing without its link, and addresses that begin with 16
 * zero bits carry IPv4 ones in IPv6 (RFC 4291 §2.5.5). A block list says `0.0.0.0` in place of an address.
 * The gateway's address in its LAN is a host of the site like others.
 */
function isTarget(address: IpAddress): boolean {
  return isUnicast(address) && !isLinkLocal(address) && !/^(169\.254\.|::|0:)/.test(address);
}
