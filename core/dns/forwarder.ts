/**
 * Asks servers what clients ask us, and brings each answer to who waits for it (RFC 5625).
 *
 * A query is an *exchange*: the same question, byte for byte, of several clients is asked once. It is sent
 * to the first server of its group that is alive, with an id and a port of our own; each sending is a *try*.
 *
 * - No answer in 1.5 s: the next server, or the same again where there is one alone. An answer to an
 *   earlier try still counts.
 * - SERVFAIL, REFUSED or a broken transport: the next server at once. When none is left, the client gets
 *   what the last one said, or SERVFAIL.
 * - Truncated over UDP: to a client that came over UDP as it is, for one that came over TCP again by TCP.
 * - After 5 s: SERVFAIL.
 *
 * An answer counts if it comes from the server, over the transport and port, with the id and the question
 * of a try; all others change nothing. To the client it goes as it came but for the id and the case of the
 * question, which are the client's, and cut off where its UDP does not take it.
 */
import { readUint16, writeUint16 } from '../packet/big-endian.ts';
import { earliest, type Deadline } from '../sansio/agent.ts';
import { BoundedQueue } from '../sansio/bounded-queue.ts';
import { ExpiringMap } from '../sansio/expiring-map.ts';
import { elapsed, type Instant, type Millis } from '../sansio/instant.ts';
import type { Random } from '../sansio/random.ts';
import { encodeFailure, encodeQuery, encodeRefusal, fitIntoUdp } from './answer.ts';
import { DnsCache } from './cache.ts';
import { decodeResponse, FLAG, HEADER_LENGTH, type Query, type Question } from './message.ts';
import { ROOT } from './name.ts';
import { CLASS, RCODE, TYPE } from './numbers.ts';
import { TryTable, type Try } from './try-table.ts';
import {
  ANSWER_PATIENCE,
  UpstreamHealth,
  type Upstream,
  type UpstreamStatus,
  type UpstreamTransport,
} from './upstream.ts';

/** Who asks, and where the answer goes. */
export interface DnsClient {
  /** The socket address, or the connection: opaque here. */
  readonly source: string;
  readonly transport: 'udp' | 'tcp';
}

export interface DnsTransmit {
  readonly upstream: Upstream;
  readonly transport: UpstreamTransport;
  /**
   * Which local port it leaves from where the transport is UDP, 0 to 63: each stands for a socket with a
   * port that the kernel chose at random. 0 for streams.
   */
  readonly port: number;
  readonly bytes: Uint8Array;
}

/** Over streams, each message without the length before it. */
export interface DnsDatagram {
  readonly upstream: string;
  readonly transport: UpstreamTransport;
  readonly port: number;
  readonly bytes: Uint8Array;
}

/**
 * The transport to a server cannot be used: refused, unreachable, closed with a query open. With an `id`
 * only the request with this message id failed.
 */
export interface TransportFailure {
  readonly upstream: string;
  readonly transport: UpstreamTransport;
  readonly id?: number;
}

export type ForwarderEvent =
  | { readonly type: 'response'; readonly client: DnsClient; readonly bytes: Uint8Array }
  | { readonly type: 'upstream-dead' | 'upstream-alive'; readonly upstream: Upstream };

export interface UpstreamGroup {
  readonly upstreams: readonly Upstream[];
  /** Whether answers are kept: not those about names of resources. */
  readonly isCached: boolean;
}

export interface ForwarderStats {
  queries: number;
  /** Asked together with another client's same question. */
  joined: number;
  /** Refused because too many wait, or too large. */
  refused: number;
  /** SERVFAIL of ours. */
  failed: number;
  /** Messages of no try: late, forged, of another question, or no answers at all. */
  unsolicited: number;
}

/** From the first sending to SERVFAIL. */
export const EXCHANGE_PATIENCE: Millis = 5_000;
/** Clients that wait for an answer. One more is answered SERVFAIL: who waits already goes first. */
export const MOST_WAITING = 1_000;
/** A question fits into 300 bytes; the rest are EDNS options. */
export const MOST_QUERY_BYTES = 4_096;
/** Of servers in a group; more are not asked. */
export const MOST_UPSTREAMS = 8;
/** Tries of an exchange: four by time, one of each server, each once more by TCP. */
const MOST_TRIES = 4 + 2 * MOST_UPSTREAMS;
/** Messages and events that wait for the driver: more than one call can cause. Newer ones are dropped. */
const MOST_QUEUED = 8 * MOST_WAITING;

interface Exchange {
  readonly key: string;
  readonly query: Query;
  readonly group: string;
  readonly startedAt: Instant;
  /** How often the cache had been flushed then. */
  readonly flushes: number;
  /** All with the same transport. */
  readonly waiting: { readonly client: DnsClient; readonly query: Query }[];
  readonly tries: Try<Exchange>[];
  /** Since an answer was truncated. */
  needsTcp: boolean;
  /** What the last server said that had no good answer. */
  complaint: Uint8Array | undefined;
}

export class Forwarder {
  readonly #groups = new Map<string, UpstreamGroup>();
  /** By the id of the server, which may be in several groups. */
  readonly #healths = new Map<string, UpstreamHealth>();
  readonly #cache: DnsCache;
  /** By key; each wakes when its last try has waited long enough. */
  readonly #exchanges = new ExpiringMap<string, Exchange>(MOST_WAITING, 'dns server is silent');
  readonly #tries: TryTable<Exchange>;
  readonly #probes = new Map<UpstreamHealth, Try<Exchange>>();
  readonly #transmits = new BoundedQueue<DnsTransmit>(MOST_QUEUED, 'newest');
  readonly #events = new BoundedQueue<ForwarderEvent>(MOST_QUEUED, 'newest');
  readonly #stats: ForwarderStats = {
    queries: 0,
    joined: 0,
    refused: 0,
    failed: 0,
    unsolicited: 0,
  };
  #waiting = 0;
  #flushes = 0;
  #now: Instant;

  constructor(options: { readonly random: Random; readonly cache?: DnsCache }, now: Instant) {
    this.#tries = new TryTable(options.random);
    this.#cache = options.cache ?? new DnsCache();
    this.#now = now;
  }

  /**
   * Sets the servers of a group, in the order of preference. What is known of those that stay is kept;
   * answers are forgotten, as other servers may give others.
   */
  setGroup(name: string, group: UpstreamGroup): void {
    this.#groups.set(name, { ...group, upstreams: group.upstreams.slice(0, MOST_UPSTREAMS) });
    this.#keepHealths();
    this.flush();
  }

  removeGroup(name: string): void {
    this.#groups.delete(name);
    this.#keepHealths();
  }

  /** Forgets the answers kept, and keeps none of those that are still under way. */
  flush(): void {
    this.#cache.flush();
    this.#flushes++;
  }

  /** The query is borrowed for the call. Asks the servers of the group. */
  handleQuery(client: DnsClient, query: Query, group: string, now: Instant): void {
    this.#now = now;
    this.#stats.queries++;
    if (query.bytes.length > MOST_QUERY_BYTES) {
      this.#stats.refused++;
      return this.#respond(client, query, encodeRefusal(query.bytes, RCODE.REFUSED));
    }
    const isCached = this.#groups.get(group)?.isCached === true;
    const cached = isCached ? this.#cache.answer(query, now) : undefined;
    if (cached !== undefined) return this.#respond(client, query, cached);

    const key = keyOf(client, query, group);
    const existing = this.#exchanges.get(key);
    if (existing !== undefined && isWaiting(existing, client, query)) return;
    if (this.#waiting >= MOST_WAITING) {
      this.#stats.refused++;
      return this.#respond(client, query, encodeFailure(query, RCODE.SERVFAIL));
    }
    this.#waiting++;
    if (existing !== undefined) {
      this.#stats.joined++;
      existing.waiting.push({ client, query: { ...query, bytes: existing.query.bytes } });
      return;
    }
    const kept = { ...query, bytes: query.bytes.slice() };
    const exchange: Exchange = {
      key,
      query: kept,
      group,
      startedAt: now,
      flushes: this.#flushes,
      waiting: [{ client, query: kept }],
      tries: [],
      needsTcp: false,
      complaint: undefined,
    };
    this.#ask(exchange, this.#nextUpstream(exchange), now);
  }

  /** Whatever comes from a server's address. The bytes are borrowed for the call. */
  handleAnswer(datagram: DnsDatagram, now: Instant): void {
    this.#now = now;
    const { bytes } = datagram;
    const found = this.#tries.find(datagram, readUint16(bytes, 0));
    const response = found === undefined ? undefined : decodeResponse(bytes);
    const asked = found?.owner?.query.question ?? PROBE;
    if (found === undefined || response === undefined || !isSame(asked, response.question)) {
      this.#stats.unsolicited++;
      return;
    }
    this.#tries.delete(found);
    const { health, owner: exchange } = found;
    if (this.#probes.get(health) === found) this.#probes.delete(health);
    if (health.onAnswer(found.sentAt, now)) this.#tell('upstream-alive', health);
    if (exchange === undefined) return;

    const { rcode } = response;
    if (rcode === RCODE.SERVFAIL || rcode === RCODE.REFUSED) {
      exchange.complaint = bytes.slice();
      return this.#onUseless(found, exchange, now);
    }
    const isTruncated = (response.flags & FLAG.TRUNCATED) !== 0;
    if (isTruncated && found.transport === 'udp' && transportOf(exchange) === 'tcp') {
      exchange.needsTcp = true;
      return this.#ask(exchange, health, now);
    }
    const isCached = this.#groups.get(exchange.group)?.isCached === true;
    if (isCached && exchange.flushes === this.#flushes) {
      this.#cache.store(exchange.query, bytes, now);
    }
    this.#finish(exchange, bytes);
  }

  handleFailure({ upstream, transport, id }: TransportFailure, now: Instant): void {
    this.#now = now;
    const health = this.#healths.get(upstream);
    if (health === undefined) return;
    // A server may do without TCP, or refuse one request, and be well.
    const isDead = id === undefined && transport !== 'tcp' && health.onFailure(now);
    if (isDead) this.#tell('upstream-dead', health);
    for (const failed of this.#tries.of(health, transport, id)) {
      this.#tries.delete(failed);
      if (this.#probes.get(health) === failed) this.#probes.delete(health);
      if (failed.owner !== undefined) this.#onUseless(failed, failed.owner, now);
    }
  }

  handleTimeout(now: Instant): void {
    this.#now = now;
    for (const [, exchange] of this.#exchanges.handleTimeout(now)) this.#onSilence(exchange, now);
    for (const health of this.#healths.values()) {
      const at = health.nextProbe;
      if (at !== undefined && at <= now) this.#probe(health, now);
    }
  }

  pollTransmit(): DnsTransmit | undefined {
    return this.#transmits.shift();
  }

  pollEvent(): ForwarderEvent | undefined {
    return this.#events.shift();
  }

  pollTimeout(): Deadline | undefined {
    const isQueued = this.#transmits.length > 0 || this.#events.length > 0;
    let first = isQueued ? { at: this.#now, reason: 'queued' } : this.#exchanges.pollTimeout();
    for (const { nextProbe: at } of this.#healths.values()) {
      if (at !== undefined) first = earliest(first, { at, reason: 'dns server is probed' });
    }
    return first;
  }

  get stats(): Readonly<ForwarderStats> {
    return this.#stats;
  }

  /** Clients that wait for an answer. */
  get waiting(): number {
    return this.#waiting;
  }

  get cache(): Pick<DnsCache, 'size' | 'bytes' | 'hits' | 'misses'> {
    return this.#cache;
  }

  /** The servers of all groups, each once. */
  upstreams(): readonly UpstreamStatus[] {
    return Array.from(this.#healths.values(), (health) => health.status());
  }

  #onSilence(exchange: Exchange, now: Instant): void {
    for (const silent of exchange.tries) {
      if (silent.state !== 'open' || elapsed(silent.sentAt, now) < ANSWER_PATIENCE) continue;
      silent.state = 'silent';
      if (silent.health.onTimeout(silent.sentAt, now)) this.#tell('upstream-dead', silent.health);
    }
    if (elapsed(exchange.startedAt, now) >= EXCHANGE_PATIENCE) return this.#fail(exchange);
    this.#ask(exchange, this.#nextUpstream(exchange), now);
  }

  /** A server cannot tell, or is out of reach: one that was not asked yet may know more. */
  #onUseless(one: Try<Exchange>, exchange: Exchange, now: Instant): void {
    one.state = 'useless';
    if (this.#exchanges.get(exchange.key) !== exchange) return;
    const next = this.#nextUpstream(exchange);
    // One that was asked already may still answer; if not, the next timeout asks again.
    if (next !== undefined && latestTry(exchange, next)?.state === 'open') return;
    this.#ask(exchange, next, now);
  }

  #ask(exchange: Exchange, health: UpstreamHealth | undefined, now: Instant): void {
    if (health === undefined || exchange.tries.length >= MOST_TRIES) return this.#fail(exchange);
    const { protocol } = health.upstream;
    const plain = exchange.needsTcp ? 'tcp' : 'udp';
    const transport = protocol === 'plain' ? plain : protocol;
    const sent = this.#tries.add(health, transport, exchange, now);
    exchange.tries.push(sent);
    const left = EXCHANGE_PATIENCE - elapsed(exchange.startedAt, now);
    this.#exchanges.set(exchange.key, exchange, now, Math.max(0, Math.min(ANSWER_PATIENCE, left)));
    this.#transmit(sent, exchange.query.bytes.slice());
  }

  /** The server that was asked the least, of those that may still have an answer. */
  #nextUpstream(exchange: Exchange): UpstreamHealth | undefined {
    let next: UpstreamHealth | undefined;
    let fewest = Infinity;
    for (const health of this.#candidates(exchange)) {
      const asked = exchange.tries.filter((one) => one.health === health).length;
      if (asked >= fewest || latestTry(exchange, health)?.state === 'useless') continue;
      next = health;
      fewest = asked;
    }
    return next;
  }

  /** The servers of the exchange's group, those alive first. */
  #candidates({ group }: Exchange): readonly UpstreamHealth[] {
    const all = this.#groups.get(group)?.upstreams ?? [];
    const healths = all.flatMap(({ id }) => this.#healths.get(id) ?? []);
    return healths.every(({ isAlive }) => isAlive)
      ? healths
      : [...healths.filter((h) => h.isAlive), ...healths.filter((h) => !h.isAlive)];
  }

  #finish(exchange: Exchange, answer: Uint8Array): void {
    this.#exchanges.delete(exchange.key);
    for (const open of exchange.tries) this.#tries.delete(open);
    this.#waiting -= exchange.waiting.length;
    for (const { client, query } of exchange.waiting) {
      const bytes = answer.slice();
      bytes.set(query.bytes.subarray(HEADER_LENGTH, query.questionEnd), HEADER_LENGTH);
      this.#respond(client, query, bytes);
    }
  }

  #fail(exchange: Exchange): void {
    if (exchange.complaint === undefined) this.#stats.failed++;
    this.#finish(exchange, exchange.complaint ?? encodeFailure(exchange.query, RCODE.SERVFAIL));
  }

  #respond(client: DnsClient, query: Query, answer: Uint8Array): void {
    const bytes = client.transport === 'udp' ? fitIntoUdp(query, answer) : answer;
    writeUint16(bytes, 0, query.id);
    this.#events.push({ type: 'response', client, bytes });
  }

  #probe(health: UpstreamHealth, now: Instant): void {
    const unanswered = this.#probes.get(health);
    if (unanswered !== undefined) this.#tries.delete(unanswered);
    health.onProbeSent(now);
    const { protocol } = health.upstream;
    const transport = protocol === 'plain' ? 'udp' : protocol;
    const sent = this.#tries.add(health, transport, undefined, now);
    this.#probes.set(health, sent);
    this.#transmit(sent, encodeQuery(PROBE, sent.id));
  }

  #transmit(sent: Try<Exchange>, bytes: Uint8Array): void {
    writeUint16(bytes, 0, sent.id);
    const { health, transport, port } = sent;
    this.#transmits.push({ upstream: health.upstream, transport, port, bytes });
  }

  #tell(type: 'upstream-dead' | 'upstream-alive', health: UpstreamHealth): void {
    this.#events.push({ type, upstream: health.upstream });
  }

  /** Makes the healths those of the servers in the groups. */
  #keepHealths(): void {
    const named = new Map<string, Upstream>();
    for (const { upstreams } of this.#groups.values()) {
      for (const upstream of upstreams) named.set(upstream.id, upstream);
    }
    for (const [id, health] of this.#healths) {
      if (named.get(id)?.protocol === health.upstream.protocol) continue;
      this.#healths.delete(id);
      const probe = this.#probes.get(health);
      if (probe !== undefined) this.#tries.delete(probe);
      this.#probes.delete(health);
    }
    for (const upstream of named.values()) {
      if (!this.#healths.has(upstream.id)) {
        this.#healths.set(upstream.id, new UpstreamHealth(upstream));
      }
    }
  }
}

/** Every server has an answer to this. */
const PROBE: Question = { name: ROOT, type: TYPE.NS, class: CLASS.IN };

/** Equal for the same bytes but the id, from clients with the same transport. */
function keyOf({ transport }: DnsClient, { bytes }: Query, group: string): string {
  return `${group} ${transport} ${String.fromCharCode(...bytes.subarray(2))}`;
}

function isWaiting(exchange: Exchange, client: DnsClient, query: Query): boolean {
  return exchange.waiting.some(
    (other) => other.client.source === client.source && other.query.id === query.id,
  );
}

function latestTry(exchange: Exchange, health: UpstreamHealth): Try<Exchange> | undefined {
  return exchange.tries.filter((one) => one.health === health).at(-1);
}

function transportOf(exchange: Exchange): 'udp' | 'tcp' {
  return exchange.waiting[0]?.client.transport ?? 'udp';
}

/** Names are canonical: a server may change the case. */
function isSame(a: Question, b: Question): boolean {
  return a.name === b.name && a.type === b.type && a.class === b.class;
}
