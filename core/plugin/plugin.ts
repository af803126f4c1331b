import type { Log } from '../sansio/log.ts';
import type { Capability } from './capability.ts';
import type { Clock } from './clock.ts';

/**
 * A plugin touches the world so that the core need not. It offers one capability and may need others,
 * which it gets from the host; it never imports another plugin.
 *
 * A plugin's index.ts exports one factory `(options) => PluginDefinition`. Nothing happens at import.
 */
export interface PluginDefinition<Api> {
  /** kebab-case and unique: used in logs and in `culvert status`. */
  readonly name: string;
  readonly provides: Capability<Api>;
  readonly needs: readonly Capability<unknown>[];
  /** Makes the plugin, or says why this machine cannot have it. Must not block. */
  create(host: PluginHost): Plugin<Api> | Skip;
}

export interface Plugin<Api> {
  readonly api: Api;
  /** Gives everything back; also aborts what is still starting. Safe to call twice. */
  stop(): void | Promise<void>;
}

/** This platform lacks what the plugin needs. Not an error unless something depends on it. */
export interface Skip {
  readonly skip: string;
}

export interface PluginHost {
  /** Carries the plugin's name in each line. */
  readonly log: Log;
  readonly clock: Clock;
  /** Returns a capability named in `needs`. */
  use<Api>(capability: Capability<Api>): Api;
}
