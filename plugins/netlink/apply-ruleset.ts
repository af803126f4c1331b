import { MessageWriter } from '../../core/netlink/message-writer.ts';
import { nextGeneration } from '../../core/netlink/nftables/generation.ts';
import { changedRulesetObject } from '../../core/netlink/nftables/ruleset-batch.ts';
import {
  observedAfter,
  planTable,
  prepareTable,
  type ObservedSet,
  type ObservedTable,
  type PreparedTable,
  type RulesetChange,
} from '../../core/netlink/nftables/ruleset-plan.ts';
import type { SetElement } from '../../core/netlink/nftables/element.ts';
import type { TableKey } from '../../core/netlink/nftables/table.ts';
import type { WantedRuleset } from '../../core/netlink/nftables/wanted-ruleset.ts';
import type { Ruleset, RulesetFailure } from '../../core/plugin/ruleset.ts';
import { failed, ok } from '../../core/sansio/outcome.ts';
import { ownRefusal, type Answer, type Refusal } from './refusal.ts';

/** What `RulesetState` needs of a kernel. */
export interface RulesetKernel {
  /** The number of the last transaction of any program. */
  generation(): Answer<number>;
  /** `undefined` where there is no such table. The elements of its sets are left out. */
  observe(table: TableKey): Answer<ObservedTable | undefined>;
  readElements(
    table: TableKey,
    set: Pick<ObservedSet, 'name' | 'shape'>,
  ): Answer<readonly SetElement[]>;
  /** Carries out all changes, or none; `outdated` when the generation is another one. */
  commit(changes: readonly RulesetChange[], generation: number): CommitResult;
}

export type CommitResult =
  | { readonly type: 'committed' }
  | { readonly type: 'outdated' }
  | { readonly type: 'refused'; readonly refused: readonly RefusedChange[] }
  /** For a reason that is not about one of the changes. */
  | { readonly type: 'failed'; readonly refusal: Refusal };

export interface RefusedChange {
  readonly change: RulesetChange;
  readonly refusal: Refusal;
}

/**
 * Brings tables to their wanted state. What was applied is remembered, and need not be read again as long
 * as the generation is the one that we made: then a changed element costs one small transaction. Any
 * other generation is a foreign change, and all is read anew.
 */
export class RulesetState {
  readonly #kernel: RulesetKernel;
  readonly #onForeignChange: () => void;
  readonly #scratch = new MessageWriter();
  /** `undefined` for a table that is known to be absent. */
  readonly #known = new Map<string, ObservedTable | undefined>();
  #generation: number | undefined;

  constructor(kernel: RulesetKernel, onForeignChange: () => void) {
    this.#kernel = kernel;
    this.#onForeignChange = onForeignChange;
  }

  apply(wanted: WantedRuleset): ReturnType<Ruleset['apply']> {
    const tables = wanted.map((table) => prepareTable(table, this.#scratch));
    for (let round = 1; round <= MOST_ROUNDS; round++) {
      const generation = this.compare();
      if (!generation.ok) return notDone(generation.refusal);
      const plan: RulesetChange[] = [];
      for (const table of tables) {
        const observed = this.#observe(table);
        if (!observed.ok) return notDone(observed.refusal);
        for (const change of planTable(table, observed.value)) plan.push(change);
      }
      const result = this.#commit(plan, generation.value);
      if (result.type === 'refused') return refused(result.refused);
      if (result.type === 'failed') return notDone(result.refusal);
      if (result.type === 'committed') {
        for (const table of tables) {
          const isAbsent = table.isAbsent === true;
          this.#known.set(nameOf(table), isAbsent ? undefined : observedAfter(table));
        }
        return { ...ok({ changes: plan.length }), failures: [] };
      }
    }
    return notDone(ownRefusal('UNDONE', 'other programs change the tables all the time'));
  }

  clear(tables: readonly TableKey[]): void {
    for (let round = 1; round <= MOST_ROUNDS; round++) {
      const generation = this.compare();
      if (!generation.ok) return;
      const there = tables.filter((table) => {
        const observed = this.#kernel.observe(table);
        return observed.ok && observed.value !== undefined;
      });
      const removals = there.map((table): RulesetChange => ({ type: 'remove-table', table }));
      const result = this.#commit(removals, generation.value);
      if (result.type === 'outdated') continue;
      for (const table of tables) this.#known.delete(nameOf(table));
      return;
    }
  }

  /** Reads the generation, and tells when another program made it. */
  compare(): Answer<number> {
    const read = this.#kernel.generation();
    if (!read.ok || read.value === this.#generation) return read;
    const isForeign = this.#generation !== undefined;
    this.#generation = read.value;
    this.#known.clear();
    if (isForeign) this.#onForeignChange();
    return read;
  }

  #observe(wanted: PreparedTable): Answer<ObservedTable | undefined> {
    const name = nameOf(wanted);
    const observed: Answer<ObservedTable | undefined> = this.#known.has(name)
      ? { ok: true, value: this.#known.get(name) }
      : this.#kernel.observe(wanted);
    if (!observed.ok || observed.value === undefined) return observed;

    const sets: ObservedSet[] = [];
    for (const set of observed.value.sets) {
      const isManaged = wanted.sets?.some(
        ({ name, elements }) => name === set.name && elements !== undefined,
      );
      if (isManaged !== true || set.elements !== undefined) {
        sets.push(set);
        continue;
      }
      const elements = this.#kernel.readElements(wanted, set);
      if (!elements.ok) return elements;
      sets.push({ ...set, elements: elements.value });
    }
    return { ok: true, value: { ...observed.value, sets } };
  }

  #commit(plan: readonly RulesetChange[], generation: number): CommitResult {
    if (plan.length === 0) {
      // What was read is whole if nothing changed meanwhile.
      const now = this.#kernel.generation();
      if (!now.ok) return { type: 'failed', refusal: now.refusal };
      return { type: now.value === generation ? 'committed' : 'outdated' };
    }
    const result = this.#kernel.commit(plan, generation);
    if (result.type === 'committed') this.#generation = nextGeneration(generation);
    // Otherwise it is not sure what is there.
    else this.#known.clear();
    return result;
  }
}

/** Others commit between our reading and our writing now and then, not for ever. */
const MOST_ROUNDS = 8;

/** Of thousands of refused changes nobody reads more. */
const MOST_FAILURES = 64;

function notDone({ code, message }: Refusal): ReturnType<Ruleset['apply']> {
  const why = code === 'EPERM' ? 'not-permitted' : 'refused';
  return { ...failed(why), failures: [{ object: 'ruleset', code, message }] };
}

function refused(changes: readonly RefusedChange[]): ReturnType<Ruleset['apply']> {
  const failures = changes.slice(0, MOST_FAILURES).map(({ change, refusal }): RulesetFailure => ({
    object: changedRulesetObject(change),
    code: refusal.code,
    message: explain(change, refusal.code) ?? refusal.message,
  }));
  return { ...failed('refused'), failures };
}

/** Says in the words of the field what the kernel's errno leaves to guess: it rarely says more. */
function explain({ type }: RulesetChange, code: string): string | undefined {
  if (code === 'EPERM') return 'the table belongs to another program';
  if (type === 'add-rule') {
    if (code === 'ENOENT') {
      return 'it names something that the table does not have, or the kernel lacks a module';
    }
    if (code === 'EOPNOTSUPP') return 'the hook of the chain does not allow it';
  }
  if (type === 'change-elements' && (code === 'EEXIST' || code === 'ENOTEMPTY')) {
    return 'it overlaps another element';
  }
  if (type === 'add-chain' && code === 'ENOENT') return 'the kernel lacks chains of this type';
  return undefined;
}

function nameOf({ family, name }: TableKey): string {
  return `${family} ${name}`;
}
