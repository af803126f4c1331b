import type { Log } from '../sansio/log.ts';
import { BugError } from '../sansio/outcome.ts';
import type { Capability } from './capability.ts';
import type { Clock } from './clock.ts';
import type { Plugin, PluginDefinition, PluginHost } from './plugin.ts';

/** A plugin that this machine cannot have, and why. */
export interface Skipped {
  readonly name: string;
  readonly why: string;
}

/**
 * Makes plugins in the order of their needs, hands each the capabilities it named, and stops them in
 * reverse. Which plugins exist is decided by the composition root alone; nothing is discovered.
 */
export class Plugins {
  readonly skipped: Skipped[] = [];

  readonly #log: Log;
  readonly #clock: Clock;
  readonly #running: Plugin<unknown>[] = [];
  readonly #provided = new Map<Capability<unknown>, unknown>();

  constructor(log: Log, clock: Clock) {
    this.#log = log;
    this.#clock = clock;
  }

  /** Makes the plugins; one whose needs were skipped is skipped too, naming what it lacks. */
  start(definitions: readonly PluginDefinition<unknown>[]): void {
    for (const definition of inOrderOfNeeds(definitions)) this.#create(definition);
  }

  /** Offers an interface that no plugin makes. */
  provide<Api>(capability: Capability<Api>, api: Api): void {
    if (this.#provided.has(capability)) {
      throw new BugError(`two providers of the capability '${capability.name}'`);
    }
    this.#provided.set(capability, api);
  }

  /** Returns what provides the capability, or `undefined` where its plugin was skipped. */
  find<Api>(capability: Capability<Api>): Api | undefined {
    return this.#provided.get(capability) as Api | undefined;
  }

  async stop(): Promise<void> {
    for (const plugin of this.#running.splice(0).reverse()) {
      try {
        await plugin.stop();
      } catch (error) {
        this.#log.warn('plugin did not stop cleanly', { error: String(error) });
      }
    }
    this.#provided.clear();
  }

  #create(definition: PluginDefinition<unknown>): void {
    const missing = definition.needs.find((need) => !this.#provided.has(need));
    if (missing !== undefined) {
      this.skipped.push({ name: definition.name, why: `needs '${missing.name}'` });
      return;
    }
    const made = definition.create(this.#hostOf(definition));
    if ('skip' in made) {
      this.skipped.push({ name: definition.name, why: made.skip });
      return;
    }
    this.#running.push(made);
    this.provide(definition.provides, made.api);
  }

  #hostOf(definition: PluginDefinition<unknown>): PluginHost {
    return {
      log: this.#log.with({ plugin: definition.name }),
      clock: this.#clock,
      use: <Api>(capability: Capability<Api>): Api => {
        if (!definition.needs.includes(capability)) {
          throw new BugError(`'${definition.name}' uses '${capability.name}' without naming it`);
        }
        return this.#provided.get(capability) as Api;
      },
    };
  }
}

/** Sorts providers before those who need them; keeps the given order otherwise. */
function inOrderOfNeeds(
  definitions: readonly PluginDefinition<unknown>[],
): readonly PluginDefinition<unknown>[] {
  const ordered: PluginDefinition<unknown>[] = [];
  const entered = new Set<PluginDefinition<unknown>>();
  const enter = (definition: PluginDefinition<unknown>, path: readonly string[]): void => {
    if (path.includes(definition.name)) {
      throw new BugError(`plugins need each other: ${[...path, definition.name].join(' → ')}`);
    }
    if (entered.has(definition)) return;
    for (const need of definition.needs) {
      const provider = definitions.find((candidate) => candidate.provides === need);
      if (provider !== undefined) enter(provider, [...path, definition.name]);
    }
    entered.add(definition);
    ordered.push(definition);
  };
  for (const definition of definitions) enter(definition, []);
  return ordered;
}
