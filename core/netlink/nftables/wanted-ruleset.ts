import type { ChainDefinition } from './chain.ts';
import type { SetElement } from './element.ts';
import type { ObjectDefinition } from './object.ts';
import type { RuleDefinition } from './rule.ts';
import type { SetDefinition } from './set.ts';
import type { TableDefinition } from './table.ts';

/**
 * The whole wanted state of tables that are ours by name: what is in them and not wanted gets removed, a
 * table that is not named here is not touched.
 */
export type WantedRuleset = readonly WantedTable[];

export interface WantedTable extends TableDefinition {
  /** There is to be no such table; whatever else is said of it does not count. */
  readonly isAbsent?: boolean | undefined;
  readonly objects?: readonly ObjectDefinition[] | undefined;
  readonly sets?: readonly WantedSet[] | undefined;
  readonly chains: readonly WantedChain[];
}

export interface WantedChain extends ChainDefinition {
  readonly rules: readonly RuleDefinition[];
}

export interface WantedSet extends SetDefinition {
  /**
   * Absent where rules or others fill the set: its elements are left alone then. A list that differs
   * little from the one applied before is compared fastest when the unchanged elements are the same
   * objects.
   */
  readonly elements?: readonly SetElement[] | undefined;
}
