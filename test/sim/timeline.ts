import { after, instantAt, type Instant, type Millis } from '../../core/sansio/instant.ts';
import { EventQueue, type Happening } from './event-queue.ts';

/** The time of a world and all that is to happen in it. Time passes only in `run` and `runUntil`. */
export class Timeline {
  #now: Instant = instantAt(0);
  readonly #queue = new EventQueue();
  /** All that happened so far. */
  #happened = 0;
  #happenedNow = 0;

  get now(): Instant {
    return this.#now;
  }

  get happened(): number {
    return this.#happened;
  }

  /** What is in the past happens next. */
  schedule(at: Instant, what: Happening): void {
    this.#queue.push(at > this.#now ? at : this.#now, what);
  }

  at(at: Instant, action: () => void): void {
    this.schedule(at, { happen: action });
  }

  in(ms: Millis, action: () => void): void {
    this.schedule(after(this.#now, ms), { happen: action });
  }

  run(ms: Millis): void {
    const end = after(this.#now, ms);
    while (this.#queue.next <= end) this.#step();
    this.#now = end;
  }

  /** Lets time pass until the condition holds, asked after all that happens; returns whether it came to hold. */
  runUntil(isMet: () => boolean, most: Millis): boolean {
    const end = after(this.#now, most);
    for (;;) {
      if (isMet()) return true;
      if (this.#queue.next > end) break;
      this.#step();
    }
    this.#now = end;
    return false;
  }

  #step(): void {
    const { next } = this.#queue;
    if (next > this.#now) this.#happenedNow = 0;
    if (++this.#happenedNow > MOST_AT_ONCE) throw new Error(`no end of what happens at ${next} ms`);
    this.#now = next;
    this.#happened++;
    this.#queue.pop().happen();
  }
}

const MOST_AT_ONCE = 1_000;
