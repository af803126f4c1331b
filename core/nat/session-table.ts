import type { Rewrite } from '../fastpath/flow.ts';
import { PROTOCOL_TCP } from '../packet/ip-packet.ts';
import type { Deadline } from '../sansio/agent.ts';
import { after, instantAt, type Instant, type Millis } from '../sansio/instant.ts';
import { BugError, failed, ok, type Outcome } from '../sansio/outcome.ts';
import { randomBytes, type Random } from '../sansio/random.ts';
import { RowChains } from './row-chains.ts';
import { RowQueues } from './row-queues.ts';
import {
  ANY_PROTOCOL,
  INSIDE,
  OUTSIDE,
  REPLIES,
  REQUESTS,
  SessionRows,
  type Side,
} from './session-rows.ts';
import type {
  NoSession,
  Session,
  SessionFacts,
  SessionSide,
  SessionState,
  Traffic,
} from './session.ts';
import { isIcmpProtocol, type NatTuple } from './tuple.ts';

export const MOST_SESSIONS = 100_000;
export const MOST_SESSIONS_PER_OWNER = 16_384;
/** Sessions that ended and are still known, so that what comes late for them is dropped. */
export const MOST_ENDED = 4096;

/** TCP as RFC 5382 §5 has it, which is 2 h for the keepalives of the hosts and 4 min to spare. */
export const TCP_LIFETIME: Millis = (2 * 60 + 4) * 60_000;
/** RFC 4787 §4.3, RFC 5508 §3.2. */
export const DATAGRAM_LIFETIME: Millis = 2 * 60_000;
/** While no reply ever came. */
export const UNCONFIRMED_LIFETIME: Millis = 60_000;
/** After both sides of a TCP connection have said FIN. */
export const CLOSING_LIFETIME: Millis = 5000;

/** How the requests of a session leave. */
export interface Outside {
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
  /** Which port it had before. */
  readonly port?: number;
}

/**
 * The sessions of address translation. Requests come with their *inside* tuple and leave with the
 * *outside* one; replies go the other way. Towards a resource the destination differs (a proxy becomes a
 * real address), from a LAN into the tunnel the source does; the port differs where another session has it.
 *
 * A session is a row index. Its owner is a peer, for whom there is a limit; what it is for is the tag. It
 * ends by lifetime, RST, or `end`; then it stays in its row as *ended* while there are not too many of
 * those, so that late replies are known for what they are. A full table ends the session that waits for
 * its first reply for longest.
 *
 * All operations take the same time however many sessions there are, but for the search of a free port.
 */
export class SessionTable<Tag> {
  readonly #mostSessions: number;
  readonly #mostPerOwner: number;
  readonly #mostEnded: number;
  readonly #onEnd: (session: number) => void;
  readonly #rows: SessionRows;
  readonly #tags: (Tag | undefined)[] = [];
  readonly #queues: RowQueues;
  readonly #insideTuples: RowChains;
  readonly #outsideTuples: RowChains;
  readonly #insidePairs: RowChains;
  readonly #outsidePairs: RowChains;
  readonly #perOwner = new Map<number, number>();
  /** Rows from here on were never used. */
  #used = 0;
  #size = 0;

  constructor(options: {
    readonly random: Random;
    /** Told of each session that ends, which can still be read. Must not call the table otherwise. */
    readonly onEnd?: (session: number) => void;
    readonly mostSessions?: number;
    readonly mostPerOwner?: number;
    readonly mostEnded?: number;
  }) {
    this.#mostSessions = options.mostSessions ?? MOST_SESSIONS;
    this.#mostPerOwner = options.mostPerOwner ?? MOST_SESSIONS_PER_OWNER;
    this.#mostEnded = options.mostEnded ?? MOST_ENDED;
    this.#onEnd = options.onEnd ?? (() => {});
    const rows = this.#mostSessions + this.#mostEnded + 1;
    const buckets = 2 ** Math.ceil(Math.log2(rows));
    const seed = new DataView(randomBytes(options.random, 4).buffer).getInt32(0);
    this.#rows = new SessionRows(rows, seed);
    this.#queues = new RowQueues(rows, QUEUES);
    this.#insideTuples = new RowChains(rows, buckets);
    this.#outsideTuples = new RowChains(rows, buckets);
    // Many sessions are between the same two addresses.
    this.#insidePairs = new RowChains(rows, Math.ceil(buckets / 2));
    this.#outsidePairs = new RowChains(rows, Math.ceil(buckets / 2));
  }

  /** How many sessions there are, ended ones not counted. */
  get size(): number {
    return this.#size;
  }

  sizeOf(owner: number): number {
    return this.#perOwner.get(owner) ?? 0;
  }

  /** Bytes of all columns and indices, used or not. */
  get byteLength(): number {
    const parts = [
      this.#rows,
      this.#queues,
      this.#insideTuples,
      this.#outsideTuples,
      this.#insidePairs,
      this.#outsidePairs,
    ];
    return parts.reduce((bytes, part) => bytes + part.byteLength, 0);
  }

  /** Returns the session to which the request belongs. */
  findRequest(inside: NatTuple): number | undefined {
    this.#rows.load(inside);
    return sessionOf(this.#findTuple(this.#insideTuples, INSIDE));
  }

  /** Returns the session to which the reply belongs, `replyTuple` of its flow being this; also an ended one. */
  findReply(outside: NatTuple): number | undefined {
    this.#rows.load(outside);
    return sessionOf(this.#findTuple(this.#outsideTuples, OUTSIDE));
  }

  /**
   * The same for fragments, whose ports cannot be seen: the newest session of the protocol between the
   * two addresses. The port of the tuple does not count.
   */
  findRequestFragment(inside: NatTuple): number | undefined {
    this.#rows.load(inside);
    return sessionOf(this.#findPair(this.#insidePairs, INSIDE));
  }

  findReplyFragment(outside: NatTuple): number | undefined {
    this.#rows.load(outside);
    return sessionOf(this.#findPair(this.#outsidePairs, OUTSIDE));
  }

  /** Whether a session of any protocol is open from the source to the destination, as they are inside. */
  hasBetween(source: Uint8Array, destination: Uint8Array): boolean {
    this.#rows.load({ protocol: ANY_PROTOCOL, source, port: 0, destination });
    return this.#findPair(this.#insidePairs, INSIDE) >= 0;
  }

  hasEnded(session: number): boolean {
    return this.#rows.state[session] === ENDED;
  }

  /**
   * Opens a session for a request that has none. The port is kept if no other session has it from that
   * source to that destination, else it is the next one free; 65535 is followed by 1. Where there is no
   * port (0), there is none to choose. `outside.port` is tried in place of the port inside.
   */
  open(
    inside: NatTuple,
    outside: Outside,
    owner: number,
    tag: Tag,
    now: Instant,
  ): Outcome<number, NoSession> {
    if (this.findRequest(inside) !== undefined) throw new BugError('the flow has a session');
    if (this.sizeOf(owner) >= this.#mostPerOwner) return failed('too-many-of-owner');
    this.#rows.load({ port: inside.port, ...outside, protocol: inside.protocol });
    if (!this.#choosePort()) return failed('exhausted');
    if (this.#size >= this.#mostSessions) {
      const oldest = this.#queues.first(UNCONFIRMED);
      if (oldest < 0) return failed('too-many');
      const port = this.#rows.keyPort;
      this.end(oldest);
      this.#rows.load({ ...outside, protocol: inside.protocol, port });
    }

    // Who remembers the tuple as ended would not see the new session.
    const ended = this.#findTuple(this.#outsideTuples, OUTSIDE);
    const outsidePort = this.#rows.keyPort;
    if (ended >= 0) this.#forget(ended);
    const row = this.#newRow();
    this.#rows.load({ ...outside, protocol: inside.protocol, port: outsidePort });
    this.#rows.store(row, OUTSIDE);
    this.#outsideTuples.add(row, this.#rows.tupleHash());
    this.#outsidePairs.add(row, this.#rows.pairHash());
    this.#rows.load(inside);
    this.#rows.store(row, INSIDE);
    this.#insideTuples.add(row, this.#rows.tupleHash());
    this.#insidePairs.add(row, this.#rows.pairHash());
    this.#rows.reset(row, now);
    this.#rows.owner[row] = owner;
    this.#tags[row] = tag;
    this.#perOwner.set(owner, this.sizeOf(owner) + 1);
    this.#size++;
    this.#queue(row, UNCONFIRMED, now);
    return ok(row);
  }

  /**
   * Takes what packets of the session did. A reply confirms a session, and keeps none alive that is not.
   * To be followed by `handleTimeout`, when the facts of a batch are through.
   */
  handleFacts(session: number, facts: SessionFacts, now: Instant): void {
    const rows = this.#rows;
    const state = rows.state[session];
    if (state === undefined || state >= ENDED) return;
    rows.count(session, facts.isReply ? REPLIES : REQUESTS, facts.packets, facts.bytes);
    const opensAgain = facts.syn && !facts.isReply;
    const before = opensAgain ? 0 : (rows.fins[session] ?? 0);
    const fins = before | (facts.fin ? (facts.isReply ? 2 : 1) : 0);
    rows.fins[session] = fins;
    let next = state;
    if (state === CLOSING && opensAgain) next = UNCONFIRMED;
    if (next === UNCONFIRMED && facts.isReply) next = this.#confirmedState(session);
    if (next !== UNCONFIRMED && fins === 3) next = CLOSING;
    if (state === RESET || facts.rst) next = RESET;
    this.#queues.remove(session, state);
    this.#queue(session, next, now);
  }

  /** Ends a session; one that has ended is left as it is. */
  end(session: number): void {
    const rows = this.#rows;
    const state = rows.state[session];
    if (state === undefined || state >= ENDED) return;
    const owner = rows.owner[session] ?? 0;
    rows.loadSide(session, INSIDE);
    this.#insideTuples.remove(session, rows.tupleHash());
    this.#insidePairs.remove(session, rows.pairHash());
    rows.loadSide(session, OUTSIDE);
    this.#outsidePairs.remove(session, rows.pairHash());
    this.#queues.remove(session, state);
    const left = this.sizeOf(owner) - 1;
    if (left > 0) this.#perOwner.set(owner, left);
    else this.#perOwner.delete(owner);
    this.#size--;
    this.#queue(session, ENDED, instantAt(rows.queuedAt[session] ?? 0));
    this.#onEnd(session);
    this.#tags[session] = undefined;
    if (this.#queues.length(ENDED) > this.#mostEnded) this.#forget(this.#queues.first(ENDED));
  }

  /** Ends all sessions that the predicate names. Takes as long as there are sessions. */
  endWhere(predicate: (session: number) => boolean): void {
    for (const session of Array.from(this.sessions())) if (predicate(session)) this.end(session);
  }

  /** Ends all sessions of an owner that is gone. Takes as long as there are sessions. */
  endAllOf(owner: number): void {
    if (this.sizeOf(owner) > 0) this.endWhere((session) => this.owner(session) === owner);
  }

  /** Ends the sessions whose lifetimes are over. */
  handleTimeout(now: Instant): void {
    for (const state of LIVE) {
      for (;;) {
        const row = this.#queues.first(state);
        if (row < 0 || after(this.#queuedAt(row), LIFETIMES[state]) > now) break;
        this.end(row);
      }
    }
  }

  pollTimeout(): Deadline | undefined {
    let at: Instant | undefined;
    for (const state of LIVE) {
      const row = this.#queues.first(state);
      if (row < 0) continue;
      const end = after(this.#queuedAt(row), LIFETIMES[state]);
      if (at === undefined || end < at) at = end;
    }
    return at === undefined ? undefined : { at, reason: 'NAT session ends' };
  }

  owner(session: number): number {
    return this.#rows.owner[session] ?? 0;
  }

  /** What the session is for; `undefined` once it has ended and that was told. */
  tag(session: number): Tag | undefined {
    return this.#tags[session];
  }

  /** Returns how the packets of one direction are rewritten; of portless flows (`isPortless`) only the addresses. */
  rewrite(session: number, isReply: boolean, isWithoutPorts: boolean): Rewrite {
    const inside = this.tuple(session, 'inside');
    const outside = this.tuple(session, 'outside');
    const [from, to] = isReply ? [outside, inside] : [inside, outside];
    // What a tuple calls source is the destination of replies.
    const sender = changed(from.source, to.source);
    const receiver = changed(from.destination, to.destination);
    const [source, destination] = isReply ? [receiver, sender] : [sender, receiver];
    const isPortNew = !isWithoutPorts && from.port !== to.port;
    const isSourcePort = !isReply || isIcmpProtocol(from.protocol);
    return {
      session,
      isReply,
      ...(source && { source }),
      ...(destination && { destination }),
      ...(isPortNew && (isSourcePort ? { sourcePort: to.port } : { destinationPort: to.port })),
    };
  }

  /** Returns one side of the session: how its requests come, or how they leave. */
  tuple(session: number, side: 'inside' | 'outside'): NatTuple {
    const at = side === 'inside' ? INSIDE : OUTSIDE;
    return {
      protocol: this.#rows.protocol(session),
      source: this.#rows.source(session, at),
      port: this.#rows.port(session, at),
      destination: this.#rows.destination(session, at),
    };
  }

  read(session: number): Session {
    const rows = this.#rows;
    const side = (at: Side): SessionSide => ({
      source: rows.sourceText(session, at),
      port: rows.port(session, at),
      destination: rows.destinationText(session, at),
    });
    const traffic = (direction: number): Traffic => ({
      packets: rows.packets[session * 2 + direction] ?? 0,
      bytes: rows.bytes[session * 2 + direction] ?? 0,
    });
    return {
      protocol: rows.protocol(session),
      inside: side(INSIDE),
      outside: side(OUTSIDE),
      owner: this.owner(session),
      state: STATE_NAMES[rows.state[session] ?? 0] ?? 'ended',
      openedAt: instantAt(rows.openedAt[session] ?? 0),
      touchedAt: this.#queuedAt(session),
      requests: traffic(REQUESTS),
      replies: traffic(REPLIES),
    };
  }

  /** All sessions that have not ended. The table must not change meanwhile. */
  *sessions(): IterableIterator<number> {
    for (const state of LIVE) yield* this.#sessionsIn(state);
  }

  /** TCP connections that were answered and that nobody has closed. The table must not change meanwhile. */
  connections(): IterableIterator<number> {
    return this.#sessionsIn(CONNECTED);
  }

  /** The same, those whose last packet is the latest first. */
  *latest(): IterableIterator<number> {
    const rows = LIVE.map((state) => this.#queues.last(state));
    for (;;) {
      let latest = -1;
      for (const [i, row] of rows.entries()) {
        if (row < 0) continue;
        const best = rows[latest];
        if (best === undefined || this.#queuedAt(row) > this.#queuedAt(best)) latest = i;
      }
      const row = rows[latest];
      if (row === undefined) return;
      yield row;
      rows[latest] = this.#queues.previous(row);
    }
  }

  *#sessionsIn(state: State): IterableIterator<number> {
    for (let row = this.#queues.first(state); row >= 0; row = this.#queues.next(row)) yield row;
  }

  /** Leaves a port in the key with which no open session has that tuple outside. */
  #choosePort(): boolean {
    const wanted = this.#rows.keyPort;
    for (let port = wanted; ;) {
      this.#rows.keyPort = port;
      const row = this.#findTuple(this.#outsideTuples, OUTSIDE);
      if (row < 0 || this.hasEnded(row)) return true;
      if (wanted === 0) return false;
      port = port === LAST_PORT ? 1 : port + 1;
      if (port === wanted) return false;
    }
  }

  /** Returns the row with the key, or a negative number. */
  #findTuple(index: RowChains, side: Side): number {
    let row = index.first(this.#rows.tupleHash());
    while (row >= 0 && !this.#rows.hasTuple(row, side)) row = index.next(row);
    return row;
  }

  /** Returns the newest row with protocol and addresses of the key, or a negative number. */
  #findPair(index: RowChains, side: Side): number {
    const rows = this.#rows;
    let row = index.first(rows.pairHash());
    while (row >= 0 && !(rows.hasPair(row, side) && rows.hasProtocol(row))) row = index.next(row);
    return row;
  }

  /** Returns a row to use: one that is free, or else one that never was used. There always is one. */
  #newRow(): number {
    const free = this.#queues.first(FREE);
    if (free < 0) return this.#used++;
    this.#queues.remove(free, FREE);
    return free;
  }

  /** Makes the row of an ended session free. */
  #forget(row: number): void {
    this.#rows.loadSide(row, OUTSIDE);
    this.#outsideTuples.remove(row, this.#rows.tupleHash());
    this.#queues.remove(row, ENDED);
    this.#queue(row, FREE, this.#queuedAt(row));
  }

  #queue(row: number, state: State, at: Instant): void {
    this.#rows.state[row] = state;
    this.#rows.queuedAt[row] = at;
    this.#queues.append(row, state);
  }

  #queuedAt(row: number): Instant {
    return instantAt(this.#rows.queuedAt[row] ?? 0);
  }

  #confirmedState(row: number): State {
    return this.#rows.protocol(row) === PROTOCOL_TCP ? CONNECTED : ANSWERED;
  }
}

/*
 * States of rows, which are the queues in which they stand. In each the lifetime is the same, so that who
 * stands first ends first.
 */
const UNCONFIRMED = 0;
/** TCP with a reply. */
const CONNECTED = 1;
/** Anything else with a reply. */
const ANSWERED = 2;
const CLOSING = 3;
/** A RST was seen: it ends with the next timeout, when what else came with the RST has been told. */
const RESET = 4;
const ENDED = 5;
const FREE = 6;
const QUEUES = 7;
type State = number;

const LIVE = [UNCONFIRMED, CONNECTED, ANSWERED, CLOSING, RESET] as const;
const LIFETIMES = [
  UNCONFIRMED_LIFETIME,
  TCP_LIFETIME,
  DATAGRAM_LIFETIME,
  CLOSING_LIFETIME,
  0,
] as const;
const STATE_NAMES: readonly SessionState[] = [
  'unconfirmed',
  'confirmed',
  'confirmed',
  'closing',
  'closing',
  'ended',
  'ended',
];

const LAST_PORT = 65_535;

function sessionOf(row: number): number | undefined {
  return row < 0 ? undefined : row;
}

/** Returns the address after, if it is another one than before. */
function changed(before: Uint8Array, after: Uint8Array): Uint8Array | undefined {
  return before.some((byte, i) => byte !== after[i]) ? after : undefined;
}
