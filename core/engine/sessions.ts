import type { Flow, Rewrite } from '../fastpath/flow.ts';
import type { FlowFacts } from '../fastpath/packet-path.ts';
import { translateErrorOfSession } from '../nat/icmp-translation.ts';
import type { NoSession, Session } from '../nat/session.ts';
import { MOST_ENDED, MOST_SESSIONS, SessionTable, type Outside } from '../nat/session-table.ts';
import { isIcmpProtocol, isPortless, natTuple, replyTuple, requestTuple } from '../nat/tuple.ts';
import type { PathKind } from '../peering/message.ts';
import type { Deadline } from '../sansio/agent.ts';
import type { Instant } from '../sansio/instant.ts';
import { ok, type Outcome } from '../sansio/outcome.ts';
import type { Random } from '../sansio/random.ts';
import { FlowRecords, nameOfProtocol, type FlowRecord } from './flow-records.ts';
import { MOST_KEPT_SESSIONS, type KeptSession } from './kept-sessions.ts';
import { SessionTags } from './session-tags.ts';

/**
 * What a session is for. On the side of the `client` its inside is the LAN and its outside the tunnel; on that
 * of the `gateway` its inside is the tunnel and its outside the site.
 */
export interface SessionTag {
  readonly role: 'client' | 'gateway';
  /** Index of the peer at the other end of the tunnel. */
  readonly peer: number;
  readonly peerId: string;
  /** None for a flow to what simply lies behind the peer. */
  readonly resource: string | undefined;
  readonly domain: string | undefined;
}

/** A session for people to read. */
export interface SessionStatus {
  readonly role: SessionTag['role'];
  readonly peer: string;
  readonly resource: string | undefined;
  readonly domain: string | undefined;
  readonly protocol: string;
  readonly state: Session['state'];
  readonly source: Endpoint;
  readonly destination: Endpoint;
  readonly translatedSource: Endpoint;
  readonly translatedDestination: Endpoint;
  readonly idleMs: number;
  readonly sentBytes: number;
  readonly receivedBytes: number;
}

interface Endpoint {
  readonly address: string;
  readonly port: number;
}

/** A session that is over and translated; whether its stragglers go nowhere, the caller knows. */
export interface EndedSession {
  readonly type: 'ended';
  /** What its requests were sent to. */
  readonly destination: Uint8Array;
}

/** A session that belongs to a packet, and how that packet is rewritten. */
export interface FoundSession {
  readonly type: 'open';
  readonly session: number;
  readonly tag: SessionTag;
  readonly rewrite: Rewrite;
}

interface TableLimits {
  readonly mostSessions?: number;
  readonly mostEnded?: number;
}

/**
 * The flows of resources, in both directions and on both sides of the tunnel, with their translation. One
 * table holds them all, as the packet path has one set of numbers for sessions.
 */
export class Sessions {
  /** One without room, until the first session: the columns of the other are 18 MB of addresses. */
  #table: SessionTable<SessionTag>;
  readonly #createTable: (limits: TableLimits) => SessionTable<SessionTag>;
  readonly #tags = new SessionTags();
  /** Of the first packet of each; what one socket sends to several ports of one address shares a session. */
  #destinationPorts = new Uint16Array(0);
  readonly #records: FlowRecords;
  readonly #pathOf: (peer: number) => PathKind | undefined;
  #now: Instant;

  constructor(
    options: {
      readonly random: Random;
      readonly unixMs: number;
      /** Told of each session that ends: its verdicts are to be forgotten. */
      readonly onEnd: (session: number) => void;
      readonly pathOf: (peer: number) => PathKind | undefined;
    },
    now: Instant,
  ) {
    this.#records = new FlowRecords(options.unixMs, now);
    this.#pathOf = options.pathOf;
    this.#now = now;
    this.#createTable = (limits) =>
      new SessionTable({
        ...limits,
        random: options.random,
        onEnd: (session) => {
          this.#record('close', session);
          const tag = this.#table.tag(session);
          if (tag !== undefined) this.#tags.release(tag);
          options.onEnd(session);
        },
      });
    this.#table = this.#createTable({ mostSessions: 1, mostEnded: 1 });
  }

  get size(): number {
    return this.#table.size;
  }

  /** Returns the session of a request, which the role sends. */
  findRequest(role: SessionTag['role'], flow: Flow): FoundSession | undefined {
    const tuple = requestTuple(flow);
    const isWithoutPorts = isPortless(flow);
    const session = isWithoutPorts
      ? this.#table.findRequestFragment(tuple)
      : this.#table.findRequest(tuple);
    return this.#found(session, role, false, isWithoutPorts);
  }

  /**
   * Returns the session that a reply answers; `ended` for one that is over, whose stragglers go nowhere. Where
   * nothing was translated they are as good as a new flow, which is decided as such.
   */
  findReply(role: SessionTag['role'], flow: Flow): FoundSession | EndedSession | undefined {
    const tuple = replyTuple(flow);
    const isWithoutPorts = isPortless(flow);
    const session = isWithoutPorts
      ? this.#table.findReplyFragment(tuple)
      : this.#table.findReply(tuple);
    if (session !== undefined && this.#table.hasEnded(session)) {
      return this.#isTranslated(session)
        ? { type: 'ended', destination: this.#table.tuple(session, 'inside').destination }
        : undefined;
    }
    return this.#found(session, role, true, isWithoutPorts);
  }

  /** Opens a session for a request that has none. */
  open(flow: Flow, outside: Outside, tag: SessionTag, now: Instant): Outcome<Rewrite, NoSession> {
    this.#now = now;
    const destinationPort = isIcmpProtocol(flow.protocol) ? 0 : flow.destinationPort;
    const owner = ownerOf(tag.role, tag.peer);
    const shared = this.#tags.share(tag);
    this.#makeRoom();
    const opened = this.#table.open(requestTuple(flow), outside, owner, shared, now);
    if (!opened.ok) {
      this.#tags.release(shared);
      return opened;
    }
    this.#destinationPorts[opened.value] = destinationPort;
    this.#record('open', opened.value);
    return ok(this.#table.rewrite(opened.value, false, isPortless(flow)));
  }

  /** The sessions with the latest packets, answered ones alone, to be restored after a restart. */
  kept(): readonly KeptSession[] {
    const kept: KeptSession[] = [];
    for (const session of this.#table.latest()) {
      const tag = this.#table.tag(session);
      const { protocol, inside, outside, state } = this.#table.read(session);
      if (tag === undefined || state !== 'confirmed') continue;
      const { role, peerId, resource, domain } = tag;
      const destinationPort = this.#destinationPorts[session] ?? 0;
      const about = { role, peerId, resource, domain, protocol, destinationPort };
      kept.push({ ...about, inside, outside });
      if (kept.length >= MOST_KEPT_SESSIONS) break;
    }
    return kept;
  }

  /** Opens a session of the last run anew. One whose place is taken is left out. */
  restore(kept: KeptSession, peer: number, now: Instant): void {
    const { role, peerId, resource, domain, protocol, inside, outside } = kept;
    const tuple = natTuple(protocol, inside.source, inside.port, inside.destination);
    const to = natTuple(protocol, outside.source, outside.port, outside.destination);
    const addresses = [tuple.source, tuple.destination, to.source, to.destination];
    const isOneFamily = addresses.every(({ length }) => length === tuple.source.length);
    if (!isOneFamily || this.#table.findRequest(tuple) !== undefined) return;
    this.#now = now;
    const tag = this.#tags.share({ role, peer, peerId, resource, domain });
    this.#makeRoom();
    const opened = this.#table.open(tuple, to, ownerOf(role, peer), tag, now);
    if (!opened.ok) return this.#tags.release(tag);
    this.#destinationPorts[opened.value] = kept.destinationPort;
    this.#record('open', opened.value);
  }

  /** The reply as who asked will see it: filters are about the port that was asked for. */
  insideOf({ session }: FoundSession, flow: Flow): Flow {
    const { source, destination } = this.#table.tuple(session, 'inside');
    return { ...flow, source: destination, destination: source };
  }

  /** Returns where the requests of a session come from, and go to. */
  read(session: number): Session {
    return this.#table.read(session);
  }

  /** Whether any session of a request from the source to the destination is open. */
  hasBetween(source: Uint8Array, destination: Uint8Array): boolean {
    return this.#table.hasBetween(source, destination);
  }

  /** Translates an ICMP error about a request; returns whose session it is about. */
  translateError(
    packet: Uint8Array,
  ): { readonly tag: SessionTag; readonly packet: Uint8Array } | undefined {
    const translated = translateErrorOfSession(packet, this.#table);
    const tag = translated.ok ? this.#table.tag(translated.value.session) : undefined;
    return translated.ok && tag !== undefined
      ? { tag, packet: translated.value.packet }
      : undefined;
  }

  handleFacts(facts: FlowFacts, now: Instant): void {
    this.#now = now;
    this.#table.handleFacts(facts.session, facts, now);
  }

  handleWallClock(unixMs: number, now: Instant): void {
    this.#records.handleWallClock(unixMs, now);
  }

  handleTimeout(now: Instant): void {
    this.#now = now;
    this.#table.handleTimeout(now);
  }

  end(session: number, now: Instant): void {
    this.#now = now;
    this.#table.end(session);
  }

  /** Ends what the peer and we have open with each other. */
  endAllOf(peer: number, now: Instant): void {
    this.#now = now;
    this.#table.endAllOf(ownerOf('client', peer));
    this.#table.endAllOf(ownerOf('gateway', peer));
  }

  endWhere(predicate: (tag: SessionTag, session: number) => boolean, now: Instant): void {
    this.#now = now;
    this.#table.endWhere((session) => {
      const tag = this.#table.tag(session);
      return tag !== undefined && predicate(tag, session);
    });
  }

  pollTimeout(): Deadline | undefined {
    return this.#table.pollTimeout();
  }

  recordsAfter(sequence: number, most: number): readonly FlowRecord[] {
    return this.#records.after(sequence, most);
  }

  /** Names of which hosts of our LAN use proxies. */
  domains(): ReadonlySet<string> {
    const domains = new Set<string>();
    for (const session of this.#table.sessions()) {
      const tag = this.#table.tag(session);
      if (tag?.role === 'client' && tag.domain !== undefined) domains.add(tag.domain);
    }
    return domains;
  }

  /** How many sessions peers have open with resources of ours. */
  countOf(role: SessionTag['role'], peer: number): number {
    return this.#table.sizeOf(ownerOf(role, peer));
  }

  /** Names of the peers through which TCP connections are open. */
  connectedPeers(): ReadonlySet<string> {
    const peers = new Set<string>();
    for (const session of this.#table.connections()) {
      const tag = this.#table.tag(session);
      if (tag !== undefined) peers.add(tag.peerId);
    }
    return peers;
  }

  /** The sessions for people to read, at most `most` of them: those with the latest packets. */
  statuses(most: number, now: Instant): readonly SessionStatus[] {
    const statuses: SessionStatus[] = [];
    for (const session of this.#table.latest()) {
      if (statuses.length >= most) break;
      const tag = this.#table.tag(session);
      if (tag === undefined) continue;
      const port = this.#destinationPorts[session] ?? 0;
      statuses.push(statusOf(this.#table.read(session), tag, port, now));
    }
    return statuses;
  }

  #found(
    session: number | undefined,
    role: SessionTag['role'],
    isReply: boolean,
    isWithoutPorts: boolean,
  ): FoundSession | undefined {
    const tag = session === undefined ? undefined : this.#table.tag(session);
    if (session === undefined || tag?.role !== role) return undefined;
    return {
      type: 'open',
      session,
      tag,
      rewrite: this.#table.rewrite(session, isReply, isWithoutPorts),
    };
  }

  #isTranslated(session: number): boolean {
    const { inside, outside } = this.#table.read(session);
    return (
      inside.source !== outside.source ||
      inside.port !== outside.port ||
      inside.destination !== outside.destination
    );
  }

  #makeRoom(): void {
    if (this.#destinationPorts.length > 0) return;
    this.#destinationPorts = new Uint16Array(MOST_SESSIONS + MOST_ENDED + 1);
    this.#table = this.#createTable({});
  }

  #record(event: FlowRecord['event'], session: number): void {
    const tag = this.#table.tag(session);
    if (tag === undefined) return;
    const destinationPort = this.#destinationPorts[session] ?? 0;
    const about = { ...tag, destinationPort, path: this.#pathOf(tag.peer) };
    this.#records.add(event, this.#table.read(session), about, this.#now);
  }
}

/** Both sides have limits of their own for each peer. */
function ownerOf(role: SessionTag['role'], peer: number): number {
  return 2 * peer + (role === 'client' ? 1 : 0);
}

function statusOf(session: Session, tag: SessionTag, port: number, now: Instant): SessionStatus {
  const { inside, outside } = session;
  return {
    role: tag.role,
    peer: tag.peerId,
    resource: tag.resource,
    domain: tag.domain,
    protocol: nameOfProtocol(session.protocol),
    state: session.state,
    source: { address: inside.source, port: inside.port },
    destination: { address: inside.destination, port },
    translatedSource: { address: outside.source, port: outside.port },
    translatedDestination: { address: outside.destination, port },
    idleMs: Math.max(0, Math.round(now - session.touchedAt)),
    sentBytes: session.requests.bytes,
    receivedBytes: session.replies.bytes,
  };
}
