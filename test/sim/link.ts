import type { Millis } from '../../core/sansio/instant.ts';
import type { SeededRandom } from './seeded-random.ts';

/** What one direction of a link does to packets, in the terms of netem. All shares are 0 to 1. */
export interface Quality {
  readonly latency: Millis;
  /** Each packet takes up to this much longer; it does not overtake others by that. */
  readonly jitter: Millis;
  readonly loss: number;
  /** Loss in bursts, besides `loss`. */
  readonly bursts: Bursts | undefined;
  /** Share of packets that are held back by `REORDER_DELAY` and overtaken meanwhile. */
  readonly reordering: number;
  readonly duplication: number;
  /** Largest IP packet. A larger one is dropped: neither fragments nor ICMP errors are modelled. */
  readonly mtu: number;
  /** Bytes per millisecond; what would wait longer than `LONGEST_QUEUE` is dropped. */
  readonly rate: number | undefined;
}

/** The Gilbert-Elliott model: a link is good or bad, and may change with each packet. */
export interface Bursts {
  readonly goodToBad: number;
  readonly badToGood: number;
  readonly lossWhenBad: number;
}

export const PERFECT: Quality = {
  latency: 0,
  jitter: 0,
  loss: 0,
  bursts: undefined,
  reordering: 0,
  duplication: 0,
  mtu: 1500,
  rate: undefined,
};

const REORDER_DELAY: Millis = 10;
const LONGEST_QUEUE: Millis = 500;

/** One direction of a link. */
export class Direction {
  quality: Quality;
  /** A link that is down loses everything and keeps its quality. */
  isDown = false;
  /** After `carry`: how long each copy takes. */
  readonly delays: [Millis, Millis] = [0, 0];
  lost = 0;
  readonly #random: SeededRandom;
  #isBad = false;
  #lastArrival = 0;
  #busyUntil = 0;

  constructor(quality: Quality, random: SeededRandom) {
    this.quality = quality;
    this.#random = random;
  }

  /** Takes an IP packet of `size` bytes; returns how many copies of it arrive, 0 to 2, after `delays`. */
  carry(size: number, now: Millis): number {
    const { duplication, mtu } = this.quality;
    if (this.isDown || size > mtu || this.#isLost() || !this.#queue(size, now)) {
      this.lost++;
      return 0;
    }
    this.delays[0] = this.#delay(now);
    if (duplication === 0 || this.#random.fraction() >= duplication) return 1;
    this.delays[1] = this.#delay(now);
    return 2;
  }

  #isLost(): boolean {
    const { loss, bursts } = this.quality;
    if (loss > 0 && this.#random.fraction() < loss) return true;
    if (bursts === undefined) return false;
    const change = this.#isBad ? bursts.badToGood : bursts.goodToBad;
    if (this.#random.fraction() < change) this.#isBad = !this.#isBad;
    return this.#isBad && this.#random.fraction() < bursts.lossWhenBad;
  }

  #queue(size: number, now: Millis): boolean {
    const { rate } = this.quality;
    const start = Math.max(now, this.#busyUntil);
    if (rate === undefined) return true;
    if (start - now > LONGEST_QUEUE) return false;
    this.#busyUntil = start + size / rate;
    return true;
  }

  #delay(now: Millis): Millis {
    const { latency, jitter, reordering, rate } = this.quality;
    let arrival = (rate === undefined ? now : this.#busyUntil) + latency;
    if (jitter > 0) arrival += this.#random.fraction() * jitter;
    if (reordering > 0 && this.#random.fraction() < reordering) {
      return arrival + REORDER_DELAY - now;
    }
    this.#lastArrival = Math.max(this.#lastArrival, arrival);
    return this.#lastArrival - now;
  }
}

/** The line by which a host or a gateway hangs on a network. */
export class Link {
  readonly up: Direction;
  readonly down: Direction;

  constructor(quality: Partial<Quality>, random: SeededRandom) {
    this.up = new Direction({ ...PERFECT, ...quality }, random);
    this.down = new Direction({ ...PERFECT, ...quality }, random);
  }

  /** Changes both directions. */
  set quality(quality: Partial<Quality>) {
    for (const direction of [this.up, this.down]) {
      direction.quality = { ...direction.quality, ...quality };
    }
  }

  set isDown(isDown: boolean) {
    this.up.isDown = isDown;
    this.down.isDown = isDown;
  }
}
