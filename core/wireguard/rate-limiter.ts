import { ipAddressBytes, type IpAddress } from '../net/ip-address.ts';
import { encodeHex } from '../sansio/hex.ts';
import type { Instant } from '../sansio/instant.ts';
import { TokenBucket } from '../sansio/token-bucket.ts';
import {
  HANDSHAKES_PER_SECOND_UNDER_LOAD,
  MOST_SOURCES,
  SOURCE_HANDSHAKES_BURST,
  SOURCE_HANDSHAKES_PER_SECOND,
  UNDER_LOAD_TIME,
} from './constants.ts';

/**
 * Tells whether we are under load, which is when cookies are asked for (whitepaper §5.3). The queue of
 * the socket cannot be seen from here, so the handshake messages with a valid mac1 are counted.
 */
export class LoadMeter {
  readonly #bucket: TokenBucket;
  #underLoadUntil: Instant | undefined;

  constructor(now: Instant) {
    const perSecond = HANDSHAKES_PER_SECOND_UNDER_LOAD;
    this.#bucket = new TokenBucket(perSecond, perSecond, now);
  }

  /** Counts one handshake message and returns whether it came under load. */
  count(now: Instant): boolean {
    if (!this.#bucket.take(now)) this.#underLoadUntil = (now + UNDER_LOAD_TIME) as Instant;
    return this.#underLoadUntil !== undefined && now < this.#underLoadUntil;
  }
}

/** Limits the handshake messages of each source, an IPv4 address or an IPv6 /64 (§5.3). */
export class SourceRateLimiter {
  readonly #buckets = new Map<string, TokenBucket>();

  /** Counts one message and returns whether it may pass. */
  allows(source: IpAddress, now: Instant): boolean {
    const key = sourceKey(source);
    let bucket = this.#buckets.get(key);
    if (bucket === undefined) {
      if (this.#buckets.size >= MOST_SOURCES) this.#forgetIdle(now);
      if (this.#buckets.size >= MOST_SOURCES) return false;
      bucket = new TokenBucket(SOURCE_HANDSHAKES_PER_SECOND, SOURCE_HANDSHAKES_BURST, now);
      this.#buckets.set(key, bucket);
    }
    return bucket.take(now);
  }

  get size(): number {
    return this.#buckets.size;
  }

  /** A full bucket is as good as none. */
  #forgetIdle(now: Instant): void {
    for (const [key, bucket] of this.#buckets) {
      if (bucket.isFull(now)) this.#buckets.delete(key);
    }
  }
}

const IPV6_SOURCE_BYTES = 8;

function sourceKey(source: IpAddress): string {
  const bytes = ipAddressBytes(source);
  return bytes.length === 4 ? source : encodeHex(bytes.subarray(0, IPV6_SOURCE_BYTES));
}
