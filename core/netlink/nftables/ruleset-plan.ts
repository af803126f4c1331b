import type { MessageWriter } from '../message-writer.ts';
import type { ObservedBase, ChainDefinition, BaseChain } from './chain.ts';
import { HOOKS } from './constants.ts';
import { chunkElements, type ElementRequest, type SetElement } from './element.ts';
import { diffElements } from './element-diff.ts';
import type { ObjectDefinition } from './object.ts';
import { prepareRule, type PreparedRule } from './rule.ts';
import { shapeOf, type SetDefinition, type SetShape } from './set.ts';
import type { TableDefinition, TableKey } from './table.ts';
import type { WantedChain, WantedSet, WantedTable } from './wanted-ruleset.ts';

/** What is there of a table that we want: read from the kernel, or known from what was applied last. */
export interface ObservedTable {
  readonly isDormant: boolean;
  readonly isOwned: boolean;
  readonly objects: readonly ObjectDefinition[];
  readonly sets: readonly ObservedSet[];
  readonly chains: readonly ObservedChain[];
}

export interface ObservedSet {
  readonly name: string;
  readonly shape: SetShape;
  /** `undefined` where they are not known: they expire, others add them, or nobody asked. */
  readonly elements: readonly SetElement[] | undefined;
}

export interface ObservedChain {
  readonly name: string;
  readonly base: ObservedBase | undefined;
  /** Of its rules in order; `undefined` for one that is not of our making. */
  readonly fingerprints: readonly (string | undefined)[];
}

/** A step towards the wanted state: one message of a batch. */
export type RulesetChange =
  | { readonly type: 'add-table'; readonly table: TableDefinition }
  | { readonly type: 'set-flags'; readonly table: TableDefinition }
  | { readonly type: 'remove-table'; readonly table: TableKey }
  | { readonly type: 'add-object'; readonly table: TableKey; readonly object: ObjectDefinition }
  | {
      readonly type: 'remove-object';
      readonly table: TableKey;
      readonly object: Pick<ObjectDefinition, 'kind' | 'name'>;
    }
  | { readonly type: 'add-chain'; readonly table: TableKey; readonly chain: ChainDefinition }
  | { readonly type: 'set-policy'; readonly table: TableKey; readonly chain: ChainDefinition }
  | { readonly type: 'flush-chain'; readonly table: TableKey; readonly chain: string }
  | { readonly type: 'remove-chain'; readonly table: TableKey; readonly chain: string }
  | {
      readonly type: 'add-rule';
      readonly table: TableKey;
      readonly chain: string;
      /** From 1. */
      readonly position: number;
      readonly rule: PreparedRule;
    }
  | { readonly type: 'add-set'; readonly table: TableKey; readonly set: SetDefinition }
  | { readonly type: 'remove-set'; readonly table: TableKey; readonly set: string }
  | ElementsChange;

/** Elements of one message. */
export interface ElementsChange {
  readonly type: 'change-elements';
  readonly request: ElementRequest;
  readonly table: TableKey;
  readonly set: SetDefinition;
  readonly elements: readonly SetElement[];
}

/** A wanted table with its rules encoded. */
export interface PreparedTable extends Omit<WantedTable, 'chains'> {
  readonly chains: readonly PreparedChain[];
}

export interface PreparedChain extends Omit<WantedChain, 'rules'> {
  readonly rules: readonly PreparedRule[];
}

export function prepareTable(wanted: WantedTable, scratch: MessageWriter): PreparedTable {
  const chains = wanted.chains.map((chain) => ({
    ...chain,
    rules: chain.rules.map((rule) => prepareRule(rule, scratch)),
  }));
  return { ...wanted, chains };
}

/** Returns what is there after the wanted state was applied. */
export function observedAfter(wanted: PreparedTable): ObservedTable {
  return {
    isDormant: wanted.isDormant === true,
    isOwned: wanted.isOwned === true,
    objects: wanted.objects ?? [],
    sets: (wanted.sets ?? []).map((set) => ({
      name: set.name,
      shape: shapeOf(set),
      elements: isLasting(set) ? set.elements : undefined,
    })),
    chains: wanted.chains.map(({ name, base, rules }) => ({
      name,
      base: base && observedBase(base),
      fingerprints: rules.map(({ fingerprint }) => fingerprint),
    })),
  };
}

/** Whether the elements stay as they were applied while nobody starts a transaction. */
function isLasting({ hasTimeouts, timeoutMs, isDynamic }: SetDefinition): boolean {
  return hasTimeouts !== true && timeoutMs === undefined && isDynamic !== true;
}

/**
 * Returns what leads from the observed to the wanted state of one table, for one batch; empty when
 * nothing differs. What is not changed is not touched, so counters go on. A chain with a changed rule is
 * flushed and refilled. What the kernel cannot change in place (the hook of a chain, the types of a set,
 * an object, the owner) replaces the whole table.
 */
export function planTable(
  wanted: PreparedTable,
  observed: ObservedTable | undefined,
): readonly RulesetChange[] {
  if (wanted.isAbsent === true) {
    return observed === undefined ? [] : [{ type: 'remove-table', table: wanted }];
  }
  if (observed === undefined) return creation(wanted);
  if (!isChangeable(wanted, observed)) {
    return [{ type: 'remove-table', table: wanted }, ...creation(wanted)];
  }
  const table: TableKey = keyOf(wanted);
  const has = named(observed.chains);
  const sets = named(observed.sets);
  const objects = named(observed.objects);
  const unwanted = {
    chains: without(observed.chains, wanted.chains),
    sets: without(observed.sets, wanted.sets ?? []),
    objects: without(observed.objects, wanted.objects ?? []),
  };
  const changed = wanted.chains.filter((chain) => !isFilled(chain, has.get(chain.name)));
  const elements = (wanted.sets ?? []).map((set) => planElements(table, set, sets.get(set.name)));

  // What is referred to comes before what refers to it, and goes after it.
  return [
    ...(observed.isDormant === (wanted.isDormant === true)
      ? []
      : [{ type: 'set-flags', table: wanted } as const]),
    ...without(wanted.objects ?? [], [...objects.values()]).map((object): RulesetChange => ({
      type: 'add-object',
      table,
      object,
    })),
    ...wanted.chains.flatMap((chain) => planChain(table, chain, has.get(chain.name))),
    ...[...changed.filter(({ name }) => has.has(name)), ...unwanted.chains].map(
      ({ name }): RulesetChange => ({ type: 'flush-chain', table, chain: name }),
    ),
    ...elements.flatMap(({ removals }) => removals),
    ...unwanted.sets.map(({ name }): RulesetChange => ({ type: 'remove-set', table, set: name })),
    ...without(wanted.sets ?? [], observed.sets).map((set): RulesetChange => ({
      type: 'add-set',
      table,
      set,
    })),
    ...elements.flatMap(({ additions }) => additions),
    ...changed.flatMap((chain) => addRules(table, chain)),
    ...unwanted.chains.map(({ name }): RulesetChange => ({
      type: 'remove-chain',
      table,
      chain: name,
    })),
    ...unwanted.objects.map(({ kind, name }): RulesetChange => ({
      type: 'remove-object',
      table,
      object: { kind, name },
    })),
  ];
}

/** Everything of a table that is not there. */
function creation(wanted: PreparedTable): readonly RulesetChange[] {
  const empty = { isDormant: wanted.isDormant === true, isOwned: wanted.isOwned === true };
  const nothing: ObservedTable = { ...empty, objects: [], sets: [], chains: [] };
  return [{ type: 'add-table', table: wanted }, ...planTable(wanted, nothing)];
}

/** Whether the wanted state can be reached without replacing the table. */
function isChangeable(wanted: PreparedTable, observed: ObservedTable): boolean {
  const chains = named(observed.chains);
  const sets = named(observed.sets);
  const objects = named(observed.objects);
  return (
    observed.isOwned === (wanted.isOwned === true) &&
    wanted.chains.every(({ name, base }) => hasBase(base, chains.get(name))) &&
    (wanted.sets ?? []).every((set) => hasShape(shapeOf(set), sets.get(set.name))) &&
    (wanted.objects ?? []).every((object) => isSameObject(object, objects.get(object.name)))
  );
}

function hasBase(base: BaseChain | undefined, observed: ObservedChain | undefined): boolean {
  if (observed === undefined) return true;
  if (base === undefined || observed.base === undefined) return base === observed.base;
  const { type, hook, priority } = observedBase(base);
  const there = observed.base;
  return there.type === type && there.hook === hook && there.priority === priority;
}

/** Returns what the kernel tells of a base chain. */
export function observedBase({ type, hook, priority, policy }: BaseChain): ObservedBase {
  return { type, hook: HOOKS.indexOf(hook), priority, policy: policy ?? 'accept' };
}

function hasShape(shape: SetShape, observed: ObservedSet | undefined): boolean {
  if (observed === undefined) return true;
  const keys = Object.keys(shape) as (keyof SetShape)[];
  return keys.every((key) => shape[key] === observed.shape[key]);
}

function isSameObject(wanted: ObjectDefinition, observed: ObjectDefinition | undefined): boolean {
  if (observed === undefined) return true;
  if (wanted.kind !== 'timeout' || observed.kind !== 'timeout')
    return wanted.kind === observed.kind;
  const states = Object.keys(wanted.seconds) as (keyof typeof wanted.seconds)[];
  return (
    wanted.family === observed.family &&
    wanted.protocol === observed.protocol &&
    states.every((state) => wanted.seconds[state] === observed.seconds[state])
  );
}

/** Whether all rules are there and in order. */
function isFilled({ rules }: PreparedChain, observed: ObservedChain | undefined): boolean {
  const there = observed?.fingerprints ?? [];
  return there.length === rules.length && rules.every((rule, i) => rule.fingerprint === there[i]);
}

function planChain(
  table: TableKey,
  chain: PreparedChain,
  observed: ObservedChain | undefined,
): readonly RulesetChange[] {
  if (observed === undefined) return [{ type: 'add-chain', table, chain }];
  const policy = chain.base && observedBase(chain.base).policy;
  return policy === observed.base?.policy ? [] : [{ type: 'set-policy', table, chain }];
}

function addRules(table: TableKey, { name, rules }: PreparedChain): readonly RulesetChange[] {
  return rules.map((rule, i) => ({
    type: 'add-rule',
    table,
    chain: name,
    position: i + 1,
    rule,
  }));
}

function planElements(
  table: TableKey,
  set: WantedSet,
  observed: ObservedSet | undefined,
): { readonly removals: readonly RulesetChange[]; readonly additions: readonly RulesetChange[] } {
  if (set.elements === undefined) return { removals: [], additions: [] };
  const { removed, added } = diffElements(set.elements, observed?.elements ?? [], set.timeoutMs);
  const change =
    (request: ElementRequest) =>
    (elements: readonly SetElement[]): RulesetChange => ({
      type: 'change-elements',
      request,
      table,
      set,
      elements,
    });
  return {
    removals: chunkElements(removed, shapeOf(set)).map(change('remove')),
    additions: chunkElements(added, shapeOf(set)).map(change('add')),
  };
}

function keyOf({ family, name }: TableKey): TableKey {
  return { family, name };
}

function named<Item extends { readonly name: string }>(
  items: readonly Item[],
): ReadonlyMap<string, Item> {
  return new Map(items.map((item) => [item.name, item]));
}

/** The items whose names are not among the others. */
function without<Item extends { readonly name: string }>(
  items: readonly Item[],
  others: readonly { readonly name: string }[],
): readonly Item[] {
  const names = new Set(others.map(({ name }) => name));
  return items.filter(({ name }) => !names.has(name));
}
