import type { SetElement } from '../../core/netlink/nftables/element.ts';
import { nextGeneration } from '../../core/netlink/nftables/generation.ts';
import type { ObjectDefinition } from '../../core/netlink/nftables/object.ts';
import { readExpressions } from '../../core/netlink/nftables/expression-decoder.ts';
import { AttributeReader } from '../../core/netlink/attribute.ts';
import type { PreparedRule } from '../../core/netlink/nftables/rule.ts';
import {
  observedBase,
  type ElementsChange,
  type ObservedTable,
  type RulesetChange,
} from '../../core/netlink/nftables/ruleset-plan.ts';
import { shapeOf, type SetShape } from '../../core/netlink/nftables/set.ts';
import type { TableKey } from '../../core/netlink/nftables/table.ts';
import type { ObservedBase } from '../../core/netlink/nftables/chain.ts';
import type { PluginDefinition } from '../../core/plugin/plugin.ts';
import { ruleset, type Ruleset } from '../../core/plugin/ruleset.ts';
import { unreachable } from '../../core/sansio/outcome.ts';
import { RulesetState, type CommitResult, type RulesetKernel } from './apply-ruleset.ts';
import { ownRefusal, type Answer, type Refusal } from './refusal.ts';
import { Subscribers } from './subscribers.ts';

/**
 * Tables in memory, with transactions and with the references that a kernel insists on: a rule names
 * chains, sets and objects that are there. Its methods act as another program would.
 */
export class MemoryTables implements RulesetKernel {
  readonly #listeners = new Set<() => void>();
  #tables = new Map<string, MemoryTable>();
  #generation = 1;

  flush(): void {
    this.#act(() => this.#tables.clear());
  }

  addTable(table: TableKey): void {
    this.#act(() => this.#tables.set(nameOf(table), emptyTable(false, false)));
  }

  addChain(table: TableKey, name: string): void {
    this.#act(() => {
      this.#tables.get(nameOf(table))?.chains.set(name, { base: undefined, rules: [] });
    });
  }

  addRule(table: TableKey, chain: string): void {
    this.#act(() => this.#tables.get(nameOf(table))?.chains.get(chain)?.rules.push(undefined));
  }

  addElement(table: TableKey, set: string, element: SetElement): void {
    this.#act(() => {
      this.#tables.get(nameOf(table))?.sets.get(set)?.elements.set(keyOf(element), element);
    });
  }

  /** The rules of each chain, and the elements of each set; `undefined` where there is no such table. */
  read(table: TableKey):
    | {
        readonly chains: ReadonlyMap<string, readonly (PreparedRule | undefined)[]>;
        readonly sets: ReadonlyMap<string, readonly SetElement[]>;
      }
    | undefined {
    const there = this.#tables.get(nameOf(table));
    if (there === undefined) return undefined;
    return {
      chains: new Map(Array.from(there.chains, ([name, { rules }]) => [name, rules])),
      sets: new Map(
        Array.from(there.sets, ([name, { elements }]) => [name, Array.from(elements.values())]),
      ),
    };
  }

  subscribe(onChange: () => void): () => void {
    const listener = () => onChange();
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  generation(): Answer<number> {
    return { ok: true, value: this.#generation };
  }

  observe(key: TableKey): Answer<ObservedTable | undefined> {
    const table = this.#tables.get(nameOf(key));
    if (table === undefined) return { ok: true, value: undefined };
    const value: ObservedTable = {
      isDormant: table.isDormant,
      isOwned: table.isOwned,
      objects: Array.from(table.objects.values()),
      sets: Array.from(table.sets, ([name, { shape }]) => ({ name, shape, elements: undefined })),
      chains: Array.from(table.chains, ([name, { base, rules }]) => ({
        name,
        base,
        fingerprints: rules.map((rule) => rule?.fingerprint),
      })),
    };
    return { ok: true, value };
  }

  readElements(
    table: TableKey,
    { name }: { readonly name: string },
  ): Answer<readonly SetElement[]> {
    const set = this.#tables.get(nameOf(table))?.sets.get(name);
    return { ok: true, value: Array.from(set?.elements.values() ?? []) };
  }

  commit(changes: readonly RulesetChange[], generation: number): CommitResult {
    if (generation !== this.#generation) return { type: 'outdated' };
    const before = this.#tables;
    this.#tables = copyOf(before);
    const refused = changes.flatMap((change) => {
      const refusal = carryOut(this.#tables, change);
      return refusal === undefined ? [] : [{ change, refusal }];
    });
    if (refused.length === 0) {
      this.#bump();
      return { type: 'committed' };
    }
    this.#tables = before;
    return { type: 'refused', refused };
  }

  #act(change: () => void): void {
    change();
    this.#bump();
  }

  #bump(): void {
    this.#generation = nextGeneration(this.#generation);
    for (const listener of Array.from(this.#listeners)) listener();
  }
}

/** Returns the plugin that keeps tables in memory. */
export function createMemoryRuleset(kernel: MemoryTables): PluginDefinition<Ruleset> {
  return {
    name: 'ruleset-memory',
    provides: ruleset,
    needs: [],
    create({ clock }) {
      const subscribers = new Subscribers(clock);
      const state = new RulesetState(kernel, () => subscribers.tell());
      let unsubscribe: (() => void) | undefined;
      const stop = () => {
        unsubscribe?.();
        unsubscribe = undefined;
      };
      const api: Ruleset = {
        apply: (wanted) => state.apply(wanted),
        clear: (tables) => state.clear(tables),
        monitor(onForeignChange) {
          const end = subscribers.add(onForeignChange);
          state.compare();
          // Told on a later turn, as by a socket, when a transaction of ours is through.
          unsubscribe ??= kernel.subscribe(() => clock.soon(() => void state.compare()));
          return () => {
            end();
            if (subscribers.isEmpty) stop();
          };
        },
      };
      return { api, stop };
    },
  };
}

interface MemoryTable {
  readonly isDormant: boolean;
  readonly isOwned: boolean;
  readonly objects: Map<string, ObjectDefinition>;
  readonly sets: Map<string, { shape: SetShape; elements: Map<string, SetElement> }>;
  readonly chains: Map<string, MemoryChain>;
}

interface MemoryChain {
  base: ObservedBase | undefined;
  /** `undefined`: of another program. */
  readonly rules: (PreparedRule | undefined)[];
}

type Tables = Map<string, MemoryTable>;

function carryOut(tables: Tables, change: RulesetChange): Refusal | undefined {
  const name = nameOf(change.table);
  if (change.type === 'add-table') {
    const { isDormant, isOwned } = change.table;
    tables.set(name, emptyTable(isDormant === true, isOwned === true));
    return undefined;
  }
  const table = tables.get(name);
  if (table === undefined) return ABSENT;
  switch (change.type) {
    case 'set-flags':
      tables.set(name, { ...table, isDormant: change.table.isDormant === true });
      return undefined;
    case 'remove-table':
      tables.delete(name);
      return undefined;
    case 'add-object':
      table.objects.set(change.object.name, change.object);
      return undefined;
    case 'remove-object':
      return table.objects.delete(change.object.name) ? undefined : ABSENT;
    case 'add-set':
      table.sets.set(change.set.name, { shape: shapeOf(change.set), elements: new Map() });
      return undefined;
    case 'remove-set':
      return table.sets.delete(change.set) ? undefined : ABSENT;
    case 'change-elements':
      return changeElements(table, change);
    case 'add-chain':
    case 'set-policy':
    case 'flush-chain':
    case 'remove-chain':
    case 'add-rule':
      return changeChain(table, change);
    default:
      return unreachable(change);
  }
}

type ChainChange = Extract<
  RulesetChange,
  {
    readonly type: 'add-chain' | 'set-policy' | 'flush-chain' | 'remove-chain' | 'add-rule';
  }
>;

function changeChain(table: MemoryTable, change: ChainChange): Refusal | undefined {
  if (change.type === 'add-chain' || change.type === 'set-policy') {
    const { name, base } = change.chain;
    const rules = table.chains.get(name)?.rules ?? [];
    table.chains.set(name, { base: base && observedBase(base), rules });
    return undefined;
  }
  const chain = table.chains.get(change.chain);
  if (chain === undefined) return ABSENT;
  if (change.type === 'remove-chain') table.chains.delete(change.chain);
  else if (change.type === 'flush-chain') chain.rules.length = 0;
  else {
    if (!hasReferences(table, change.rule)) return ABSENT;
    chain.rules.push(change.rule);
  }
  return undefined;
}

/** Whether all that a rule names is there. */
function hasReferences(table: MemoryTable, rule: PreparedRule): boolean {
  return readExpressions(new AttributeReader(rule.expressions)).every((expression) => {
    if (expression.type === 'lookup') return table.sets.has(expression.set);
    if (expression.type === 'object') return table.objects.has(expression.name);
    if (expression.type !== 'verdict' || !('chain' in expression.verdict)) return true;
    return table.chains.has(expression.verdict.chain);
  });
}

function changeElements(table: MemoryTable, change: ElementsChange): Refusal | undefined {
  const set = table.sets.get(change.set.name);
  if (set === undefined) return ABSENT;
  for (const element of change.elements) {
    const key = keyOf(element);
    if (change.request === 'remove') {
      if (!set.elements.delete(key)) return ABSENT;
    } else if (set.elements.has(key)) return ownRefusal('EEXIST', 'file exists');
    else set.elements.set(key, element);
  }
  return undefined;
}

const ABSENT = ownRefusal('ENOENT', 'no such file or directory');

function emptyTable(isDormant: boolean, isOwned: boolean): MemoryTable {
  return { isDormant, isOwned, objects: new Map(), sets: new Map(), chains: new Map() };
}

function copyOf(tables: Tables): Tables {
  return new Map(
    Array.from(tables, ([name, table]) => [
      name,
      {
        ...table,
        objects: new Map(table.objects),
        sets: new Map(
          Array.from(table.sets, ([set, { shape, elements }]) => [
            set,
            { shape, elements: new Map(elements) },
          ]),
        ),
        chains: new Map(
          Array.from(table.chains, ([chain, { base, rules }]) => [
            chain,
            { base, rules: [...rules] },
          ]),
        ),
      },
    ]),
  );
}

function nameOf({ family, name }: TableKey): string {
  return `${family} ${name}`;
}

function keyOf({ key, lastKey }: SetElement): string {
  return [key, lastKey ?? key].map((bytes) => Array.from(bytes).join('.')).join('-');
}
