import type { NoSession, SessionFacts } from '../../../core/nat/session.ts';
import type { NatTuple } from '../../../core/nat/tuple.ts';

/** What the session table should do, in the order in which the design says it. */

export interface NaiveSession {
  readonly inside: NatTuple;
  readonly outside: NatTuple;
  readonly owner: number;
  lastPacket: number;
  lastRequest: number;
  wasAnswered: boolean;
  fins: Set<'request' | 'reply'>;
}

export class NaiveSessions {
  live: NaiveSession[] = [];
  ended: NaiveSession[] = [];
  readonly #limits;

  constructor(limits: {
    readonly mostSessions: number;
    readonly mostPerOwner: number;
    readonly mostEnded: number;
  }) {
    this.#limits = limits;
  }

  findRequest(inside: NatTuple): NaiveSession | undefined {
    return this.live.find((session) => isSame(session.inside, inside));
  }

  findReply(outside: NatTuple): NaiveSession | undefined {
    return [...this.live, ...this.ended].find((session) => isSame(session.outside, outside));
  }

  newestRequest(inside: NatTuple): NaiveSession | undefined {
    return this.live.findLast((session) =>
      isSame({ ...session.inside, port: inside.port }, inside),
    );
  }

  newestReply(outside: NatTuple): NaiveSession | undefined {
    return this.live.findLast((session) =>
      isSame({ ...session.outside, port: outside.port }, outside),
    );
  }

  open(inside: NatTuple, wanted: NatTuple, owner: number, now: number): NaiveSession | NoSession {
    if (
      this.live.filter((session) => session.owner === owner).length >= this.#limits.mostPerOwner
    ) {
      return 'too-many-of-owner';
    }
    const ports = wanted.port === 0 ? [0] : [wanted.port, ...portsAfter(wanted.port)];
    const port = ports.find((port) =>
      this.live.every((session) => !isSame(session.outside, { ...wanted, port })),
    );
    if (port === undefined) return 'exhausted';
    if (this.live.length >= this.#limits.mostSessions) {
      const waiting = this.live.filter((session) => !session.wasAnswered);
      const oldest = waiting.sort((a, b) => a.lastRequest - b.lastRequest)[0];
      if (oldest === undefined) return 'too-many';
      this.end(oldest);
    }
    const outside = { ...wanted, port };
    this.ended = this.ended.filter((session) => !isSame(session.outside, outside));
    const session: NaiveSession = {
      inside,
      outside,
      owner,
      lastPacket: now,
      lastRequest: now,
      wasAnswered: false,
      fins: new Set(),
    };
    this.live.push(session);
    return session;
  }

  handleFacts(session: NaiveSession, facts: SessionFacts, now: number): void {
    if (facts.rst) return this.end(session);
    if (facts.syn && !facts.isReply) {
      if (session.fins.size === 2 && session.wasAnswered) session.wasAnswered = false;
      session.fins.clear();
    }
    session.lastPacket = now;
    if (facts.isReply) session.wasAnswered = true;
    else session.lastRequest = now;
    if (facts.fin) session.fins.add(facts.isReply ? 'reply' : 'request');
  }

  end(session: NaiveSession): void {
    this.live = this.live.filter((other) => other !== session);
    this.ended.push(session);
    if (this.ended.length > this.#limits.mostEnded) this.ended.shift();
  }

  endOf(session: NaiveSession): number {
    if (!session.wasAnswered) return session.lastRequest + 60_000;
    if (session.fins.size === 2) return session.lastPacket + 5000;
    const lifetime = session.inside.protocol === 6 ? 7_440_000 : 120_000;
    return session.lastPacket + lifetime;
  }

  nextEnd(): number | undefined {
    const ends = this.live.map((session) => this.endOf(session));
    return ends.length === 0 ? undefined : Math.min(...ends);
  }

  handleTimeout(now: number): void {
    const due = this.live
      .filter((session) => this.endOf(session) <= now)
      .sort((a, b) => this.#kind(a) - this.#kind(b) || this.endOf(a) - this.endOf(b));
    for (const session of due) this.end(session);
  }

  /** In one call those of one lifetime end before those of another. */
  #kind(session: NaiveSession): number {
    if (!session.wasAnswered) return 0;
    if (session.fins.size === 2) return 3;
    return session.inside.protocol === 6 ? 1 : 2;
  }
}

function* portsAfter(port: number): Iterable<number> {
  for (let next = port + 1; next <= 65_535; next++) yield next;
  for (let next = 1; next < port; next++) yield next;
}

function isSame(a: NatTuple, b: NatTuple): boolean {
  return (
    a.protocol === b.protocol &&
    a.port === b.port &&
    String(a.source) === String(b.source) &&
    String(a.destination) === String(b.destination)
  );
}
