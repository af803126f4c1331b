/**
 * Answers for the names of DNS resources, which exist on no server that a client may ask:
 *
 * | question                                   | answer                                            |
 * |--------------------------------------------|---------------------------------------------------|
 * | too short, or a response                   | none                                              |
 * | another opcode than QUERY                  | NOTIMP                                            |
 * | no question, several, or an unreadable one | FORMERR                                           |
 * | `use-application-dns.net`                  | NXDOMAIN: browsers shall not go around us         |
 * | reverse name of a proxy: PTR, ANY          | its name, TTL 1; all other types NODATA           |
 * | resource's name: class not IN or ANY       | REFUSED                                           |
 * | EDNS version not 0                         | BADVERS                                           |
 * | A, AAAA, ANY                               | the proxies that the ip-stack has, TTL 1          |
 * | SRV, TXT, also below `_service._proto`     | the resource's site is asked                      |
 * | every other type                           | NODATA, HTTPS and SVCB among them                 |
 * | any other name                             | its servers are asked                             |
 *
 * A resource's name is never NXDOMAIN, which resolvers take to be true of all types, and never goes to
 * another server. Names below it that start with underscores speak about it (RFC 8552), so they stay too.
 */
import type { IpFamily } from '../net/ip-address.ts';
import { unreachable } from '../sansio/outcome.ts';
import {
  addressRecord,
  encodeAnswer,
  encodeFailure,
  encodeNegative,
  encodeRefusal,
  pointerRecord,
} from './answer.ts';
import { decodeQuery, type Query } from './message.ts';
import { withoutUnderscoredLabels, type DomainName } from './name.ts';
import { CLASS, RCODE, TYPE } from './numbers.ts';
import type { PatternTable } from './pattern.ts';
import type { ProxyPool } from './proxy-pool.ts';
import { addressOfReverseName } from './reverse-name.ts';

export type IpStack = 'dual' | 'ipv4-only' | 'ipv6-only';

/** What the stub resolver must know of a resource. */
export interface DnsResource {
  readonly ipStack: IpStack;
}

/** Why an answer is what it is, for counters. */
export type AnswerReason =
  | 'proxies'
  | 'proxy-name'
  | 'no-data'
  | 'application-dns'
  | 'not-implemented'
  | 'format-error'
  | 'refused'
  | 'bad-version'
  | 'proxies-exhausted';

export type StubDecision<Resource extends DnsResource> =
  | {
      readonly type: 'answer';
      readonly bytes: Uint8Array;
      readonly reason: AnswerReason;
      /** For questions about addresses: the client is about to use the name's proxies. */
      readonly lookup?: ResourceLookup<Resource>;
    }
  /** The query goes to the site of the most specific resource, and nowhere else. */
  | { readonly type: 'ask-site'; readonly resource: Resource; readonly query: Query }
  /** It is no name of ours. */
  | { readonly type: 'forward'; readonly query: Query }
  | { readonly type: 'drop' };

export interface ResourceLookup<Resource extends DnsResource> {
  readonly name: DomainName;
  /** All resources that have this name, the most specific first. */
  readonly resources: readonly Resource[];
  /** Which of its proxies clients are told. */
  readonly families: readonly IpFamily[];
}

/** In seconds: an answer holds as long as its name is asked for, and resources may change at any time. */
const RESOURCE_TTL = 1;
const APPLICATION_DNS_TTL = 60;

/** Mozilla's canary domain: NXDOMAIN keeps Firefox from choosing a resolver by itself. */
export const APPLICATION_DNS = 'use-application-dns.net' as DomainName;

export class StubResolver<Resource extends DnsResource> {
  readonly #resources: PatternTable<Resource>;
  readonly #pool: ProxyPool;

  constructor(resources: PatternTable<Resource>, pool: ProxyPool) {
    this.#resources = resources;
    this.#pool = pool;
  }

  decide(message: Uint8Array): StubDecision<Resource> {
    const decoded = decodeQuery(message);
    if (!decoded.ok) {
      switch (decoded.why) {
        case 'not-a-query':
          return { type: 'drop' };
        case 'unsupported-opcode':
          return answer(encodeRefusal(message, RCODE.NOTIMP), 'not-implemented');
        case 'malformed':
          return answer(encodeRefusal(message, RCODE.FORMERR), 'format-error');
        default:
          return unreachable(decoded.why);
      }
    }
    const query = decoded.value;
    const { name } = query.question;
    if (name === APPLICATION_DNS) {
      return answer(encodeNegative(query, RCODE.NXDOMAIN, APPLICATION_DNS_TTL), 'application-dns');
    }
    const address = addressOfReverseName(name);
    const proxyName = address && this.#pool.nameOf(address);
    if (proxyName !== undefined) return checked(query) ?? answerProxyName(query, proxyName);

    const resources = this.#resources.matches(name);
    if (resources.length > 0) return checked(query) ?? this.#answerName(query, resources);
    const host = withoutUnderscoredLabels(name);
    const [resource] = host === name ? [] : this.#resources.matches(host);
    if (resource === undefined) return { type: 'forward', query };
    return checked(query) ?? answerOtherType(query, resource);
  }

  #answerName(query: Query, resources: readonly Resource[]): StubDecision<Resource> {
    const { name, type } = query.question;
    if (type !== TYPE.A && type !== TYPE.AAAA && type !== TYPE.ANY) {
      return answerOtherType(query, resources[0] as Resource);
    }
    const assigned = this.#pool.assign(name);
    if (!assigned.ok) return answer(encodeFailure(query, RCODE.SERVFAIL), assigned.why);
    const lookup = { name, resources, families: familiesOf(resources) };
    // ANY gets what there is of these two types (RFC 8482 §4.1).
    const records = lookup.families
      .filter((family) => type === TYPE.ANY || type === (family === 4 ? TYPE.A : TYPE.AAAA))
      .flatMap((family) => this.#pool.addressBytes(assigned.value, family))
      .map((address) => addressRecord(address, RESOURCE_TTL));
    if (records.length === 0) return { ...noData(query), lookup };
    return { ...answer(encodeAnswer(query, records), 'proxies'), lookup };
  }
}

/** Refuses what no name of ours is asked like. */
function checked(query: Query): StubAnswer | undefined {
  if ((query.edns?.version ?? 0) !== 0) {
    return answer(encodeFailure(query, RCODE.BADVERS), 'bad-version');
  }
  const isInternet = query.question.class === CLASS.IN || query.question.class === CLASS.ANY;
  return isInternet ? undefined : answer(encodeFailure(query, RCODE.REFUSED), 'refused');
}

function answerProxyName(query: Query, name: DomainName): StubAnswer {
  const { type } = query.question;
  if (type !== TYPE.PTR && type !== TYPE.ANY) return noData(query);
  return answer(encodeAnswer(query, [pointerRecord(name, RESOURCE_TTL)]), 'proxy-name');
}

function answerOtherType<Resource extends DnsResource>(
  query: Query,
  resource: Resource,
): StubDecision<Resource> {
  const { type } = query.question;
  if (type === TYPE.SRV || type === TYPE.TXT) return { type: 'ask-site', resource, query };
  return noData(query);
}

type StubAnswer = {
  readonly type: 'answer';
  readonly bytes: Uint8Array;
  readonly reason: AnswerReason;
};

function answer(bytes: Uint8Array, reason: AnswerReason): StubAnswer {
  return { type: 'answer', bytes, reason };
}

function noData(query: Query): StubAnswer {
  return answer(encodeNegative(query, RCODE.NOERROR, RESOURCE_TTL), 'no-data');
}

/** A family is there if any of the resources has it. */
function familiesOf(resources: readonly DnsResource[]): readonly IpFamily[] {
  const families: IpFamily[] = [];
  if (resources.some(({ ipStack }) => ipStack !== 'ipv6-only')) families.push(4);
  if (resources.some(({ ipStack }) => ipStack !== 'ipv4-only')) families.push(6);
  return families;
}
