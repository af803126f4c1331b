import type { Refusal } from './flow.ts';
import {
  DROPS,
  DROP_ARENA_FULL,
  DROP_CONGESTION_MARK_LOST,
  DROP_MALFORMED,
  DROP_NOT_AUTHENTIC,
  DROP_OVERSIZED,
  DROP_POLICY,
  DROP_QUEUE_FULL,
  DROP_REPLAYED,
  DROP_STAGE_FULL,
  DROP_UNDELIVERED,
  DROP_UNKNOWN_SESSION,
  MOST_DROP_REASONS,
} from './layout.ts';

/** Counts what went nowhere, by reason. The numbers lie in the arena, where the kernel counts too. */
export class DropCounters {
  readonly #view: DataView;
  readonly #entries: { readonly index: number; readonly reason: string; readonly icmp?: Refusal }[];

  constructor(arena: ArrayBuffer) {
    this.#view = new DataView(arena);
    this.#entries = [...KERNEL_REASONS];
  }

  count(index: number): void {
    const at = DROPS + index * 8;
    this.#view.setBigUint64(at, this.#view.getBigUint64(at, true) + 1n, true);
  }

  /**
   * Returns the counter of a reason of the policy, one for each answer that its packets get. Reasons
   * that find no free counter share the last.
   */
  indexOf(reason: string, icmp: Refusal | undefined): number {
    const known = this.#entries.find((entry) => entry.reason === reason && entry.icmp === icmp);
    if (known !== undefined) return known.index;
    const free = DROP_POLICY + this.#entries.length - KERNEL_REASONS.length;
    const index = Math.min(free, MOST_DROP_REASONS - 1);
    if (free === index) this.#entries.push({ index, reason, ...(icmp && { icmp }) });
    return index;
  }

  /** Returns what the sender of a refused packet is told. */
  refusalAt(index: number): Refusal | undefined {
    return this.#entries.find((entry) => entry.index === index)?.icmp;
  }

  /** Returns all that is not zero. */
  read(): Readonly<Record<string, number>> {
    const counts: Record<string, number> = {};
    for (const { index, reason } of this.#entries) {
      const count = Number(this.#view.getBigUint64(DROPS + index * 8, true));
      if (count > 0) counts[reason] = (counts[reason] ?? 0) + count;
    }
    return counts;
  }
}

const KERNEL_REASONS: readonly { readonly index: number; readonly reason: string }[] = [
  { index: DROP_MALFORMED, reason: 'malformed-packet' },
  { index: DROP_OVERSIZED, reason: 'oversized' },
  { index: DROP_ARENA_FULL, reason: 'arena-full' },
  { index: DROP_UNKNOWN_SESSION, reason: 'unknown-session' },
  { index: DROP_NOT_AUTHENTIC, reason: 'not-authentic' },
  { index: DROP_REPLAYED, reason: 'replayed' },
  { index: DROP_CONGESTION_MARK_LOST, reason: 'congestion-mark-lost' },
  { index: DROP_STAGE_FULL, reason: 'stage-full' },
  { index: DROP_UNDELIVERED, reason: 'undelivered' },
  { index: DROP_QUEUE_FULL, reason: 'queue-full' },
];
