/**
 * What a DNS listener talks to: the stub resolver answers for resources, all else goes to the servers that
 * the rules name for it. `Forwarder` has the timers.
 */
import type { Deadline } from '../sansio/agent.ts';
import { BoundedQueue } from '../sansio/bounded-queue.ts';
import type { Instant } from '../sansio/instant.ts';
import { BugError } from '../sansio/outcome.ts';
import type { Random } from '../sansio/random.ts';
import {
  Forwarder,
  MOST_WAITING,
  type DnsClient,
  type DnsDatagram,
  type DnsTransmit,
  type ForwarderEvent,
  type ForwarderStats,
  type TransportFailure,
  type UpstreamGroup,
} from './forwarder.ts';
import { decodeQuery } from './message.ts';
import type { PatternTable } from './pattern.ts';
import type { ProxyPool } from './proxy-pool.ts';
import {
  StubResolver,
  type AnswerReason,
  type DnsResource,
  type ResourceLookup,
} from './stub-resolver.ts';
import type { UpstreamStatus } from './upstream.ts';
import type { UpstreamRules } from './upstream-rules.ts';

/** A resource with the group of the resolvers at its site. */
export interface SiteResource extends DnsResource {
  readonly siteGroup: string;
}

export type ResolverEvent<Resource extends SiteResource> =
  | ForwarderEvent
  /** A client is about to use the proxies: the set-up of its resource NAT is due again. */
  | ({ readonly type: 'resource-lookup' } & ResourceLookup<Resource>)
  /** A name got proxies: they are to be kept on disk. */
  | { readonly type: 'proxies-assigned' }
  /** A name got none: all are taken. */
  | { readonly type: 'proxies-exhausted' };

/** How many queries ended in what way; those that were forwarded are counted by the forwarder. */
export type ResolverStats = Record<AnswerReason | 'ask-site' | 'forward' | 'drop', number>;

export interface ResolverTables<Resource extends SiteResource> {
  readonly resources: PatternTable<Resource>;
  readonly rules: UpstreamRules;
  /** For names of our own site that we ask for ourselves, or for peers. */
  readonly siteRules: UpstreamRules;
}

export class Resolver<Resource extends SiteResource> {
  readonly #pool: ProxyPool;
  readonly #forwarder: Forwarder;
  readonly #events = new BoundedQueue<ResolverEvent<Resource>>(4 * MOST_WAITING, 'newest');
  readonly #stats: ResolverStats = {
    proxies: 0,
    'proxy-name': 0,
    'no-data': 0,
    'application-dns': 0,
    'not-implemented': 0,
    'format-error': 0,
    refused: 0,
    'bad-version': 0,
    'proxies-exhausted': 0,
    'ask-site': 0,
    forward: 0,
    drop: 0,
  };
  #stub: StubResolver<Resource>;
  #rules: UpstreamRules;
  #siteRules: UpstreamRules;
  #now: Instant;

  constructor(
    tables: ResolverTables<Resource>,
    options: { readonly pool: ProxyPool; readonly random: Random },
    now: Instant,
  ) {
    this.#pool = options.pool;
    this.#stub = new StubResolver(tables.resources, options.pool);
    this.#rules = tables.rules;
    this.#siteRules = tables.siteRules;
    this.#forwarder = new Forwarder(options, now);
    this.#now = now;
  }

  /** Names may belong to others now, so answers that were kept are forgotten. */
  setTables({ resources, rules, siteRules }: ResolverTables<Resource>): void {
    this.#stub = new StubResolver(resources, this.#pool);
    this.#rules = rules;
    this.#siteRules = siteRules;
    this.#forwarder.flush();
  }

  setGroup(name: string, group: UpstreamGroup): void {
    this.#forwarder.setGroup(name, group);
  }

  removeGroup(name: string): void {
    this.#forwarder.removeGroup(name);
  }

  /** The message is borrowed for the call. */
  handleQuery(client: DnsClient, message: Uint8Array, now: Instant): void {
    this.#now = now;
    const revision = this.#pool.revision;
    const decision = this.#stub.decide(message);
    this.#stats[decision.type === 'answer' ? decision.reason : decision.type]++;
    switch (decision.type) {
      case 'answer': {
        const { bytes, reason, lookup } = decision;
        this.#events.push({ type: 'response', client, bytes });
        if (lookup !== undefined) this.#events.push({ type: 'resource-lookup', ...lookup });
        if (this.#pool.revision !== revision) this.#events.push({ type: 'proxies-assigned' });
        if (reason === 'proxies-exhausted') this.#events.push({ type: 'proxies-exhausted' });
        return;
      }
      case 'ask-site': {
        const { query, resource } = decision;
        return this.#forwarder.handleQuery(client, query, resource.siteGroup, now);
      }
      case 'forward': {
        const { query } = decision;
        const group = this.#rules.groupOf(query.question.name);
        return this.#forwarder.handleQuery(client, query, group, now);
      }
      case 'drop':
        return;
    }
  }

  /**
   * Forwards a question of our own; the response comes out with this client. Resources are not looked at:
   * a gateway that asked for the address of one would be told its proxies.
   */
  ask(client: DnsClient, message: Uint8Array, now: Instant): void {
    this.#now = now;
    const query = decodeQuery(message);
    if (!query.ok) throw new BugError(`question of ours: ${query.why}`);
    const group = this.#siteRules.groupOf(query.value.question.name);
    this.#forwarder.handleQuery(client, query.value, group, now);
  }

  handleAnswer(datagram: DnsDatagram, now: Instant): void {
    this.#forwarder.handleAnswer(datagram, now);
  }

  handleFailure(failure: TransportFailure, now: Instant): void {
    this.#forwarder.handleFailure(failure, now);
  }

  handleTimeout(now: Instant): void {
    this.#forwarder.handleTimeout(now);
  }

  pollTransmit(): DnsTransmit | undefined {
    return this.#forwarder.pollTransmit();
  }

  pollEvent(): ResolverEvent<Resource> | undefined {
    return this.#events.shift() ?? this.#forwarder.pollEvent();
  }

  pollTimeout(): Deadline | undefined {
    return this.#events.length > 0
      ? { at: this.#now, reason: 'queued' }
      : this.#forwarder.pollTimeout();
  }

  get stats(): Readonly<ResolverStats> {
    return this.#stats;
  }

  get forwarding(): Readonly<ForwarderStats> {
    return this.#forwarder.stats;
  }

  get cache(): Forwarder['cache'] {
    return this.#forwarder.cache;
  }

  upstreams(): readonly UpstreamStatus[] {
    return this.#forwarder.upstreams();
  }
}
