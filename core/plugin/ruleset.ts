import type { TableKey } from '../netlink/nftables/table.ts';
import type { WantedRuleset } from '../netlink/nftables/wanted-ruleset.ts';
import type { Outcome } from '../sansio/outcome.ts';
import { capability, type Capability } from './capability.ts';

/** One thing the kernel refused: which object, and the errno and text it gave. */
export interface RulesetFailure {
  /** As in `rule 3 (stun) of chain inet culvert raw`, `element 10.0.0.1 of map inet culvert names`. */
  readonly object: string;
  readonly code: string;
  readonly message: string;
}

/** Tables of nf_tables that are ours by name. */
export interface Ruleset {
  /**
   * Makes the tables what is wanted, in one transaction: all of it or, when something is refused,
   * nothing. It changes only the difference to what is there, and is idempotent; tables that `wanted`
   * does not name are not touched. `changes` counts the messages that it took.
   *
   * Tables with `isOwned` belong to the socket of this plugin and vanish with it, whatever ends the
   * process.
   */
  apply(wanted: WantedRuleset): Outcome<
    { readonly changes: number },
    'not-permitted' | 'refused'
  > & {
    readonly failures: readonly RulesetFailure[];
  };
  /** Removes the tables, as far as they are there. */
  clear(tables: readonly TableKey[]): void;
  /**
   * Calls `onForeignChange` after another program changed any table of this network namespace, at most
   * once per turn of the event loop. Returns the function that ends it.
   */
  monitor(onForeignChange: () => void): () => void;
}

export const ruleset: Capability<Ruleset> = capability('ruleset');
