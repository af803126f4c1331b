import type { Configuration } from '../config/configuration.ts';
import type { Listening } from '../plugin/datagrams.ts';
import type { WantedLink } from '../plugin/links.ts';
import type { DeviceOffloads } from '../plugin/packet-device.ts';
import type { Command } from './command.ts';
import type { Failure } from './event.ts';
import type { CommandResult } from './input.ts';
import { tunnelNetworks } from './tunnel-networks.ts';

/** A configuration to bring about. `version` is that of a desired state; a local one has none. */
export interface Target {
  readonly configuration: Configuration;
  readonly version: number | undefined;
}

export type ApplicationEvent =
  | { readonly type: 'device-opened'; readonly offloads: DeviceOffloads }
  | { readonly type: 'listening'; readonly listening: Listening }
  /** Device and port are there: peers may change to the target. */
  | { readonly type: 'peers-due'; readonly target: Target }
  | {
      readonly type: 'finished';
      readonly target: Target;
      /** Whether the target runs. It does in spite of failures at single addresses or routes. */
      readonly running: boolean;
      readonly failures: readonly Failure[];
    };

type State =
  | { readonly type: 'idle' }
  | { readonly type: 'opening'; readonly target: Target }
  | { readonly type: 'binding'; readonly target: Target }
  | { readonly type: 'linking'; readonly target: Target };

/**
 * Brings the running state to a configuration, in the order in which things can fail: the device, the
 * port, the peers, the link. What fails before the peers are touched leaves everything as it was. A
 * target that arrives meanwhile waits; only the newest one does.
 */
export class Application {
  readonly #events: ApplicationEvent[] = [];
  readonly #commands: Command[] = [];
  #state: State = { type: 'idle' };
  #next: Target | undefined;
  /** The target that ran last. */
  #running: Target | undefined;
  #deviceName: string | undefined;
  #listening: { readonly wanted: number; readonly mark: number | undefined } | undefined;
  #mark: number | undefined;

  apply(target: Target): void {
    if (this.#state.type === 'idle') this.#open(target);
    else this.#next = target;
  }

  /** Makes sure of what runs; a target that is being applied does that anyway. */
  assert(): void {
    if (this.#state.type === 'idle' && this.#running !== undefined) this.#open(this.#running);
  }

  /** Sets the firewall mark of the sockets; they are bound anew with the next target. */
  setMark(mark: number | undefined): void {
    this.#mark = mark;
  }

  handleResult(result: CommandResult): void {
    switch (result.type) {
      case 'device-opened':
        return this.#onDeviceOpened(result.outcome);
      case 'listening':
        return this.#onListening(result.outcome);
      case 'link-applied':
        return this.#onLinkApplied(result.failures);
      case 'stored':
      case 'resolved':
      case 'local-addresses':
      case 'relay-resolved':
      case 'streams-listening':
      case 'dns-listening':
      case 'dns-intercepted':
      case 'system-names':
      case 'ruleset-applied':
        return;
    }
  }

  pollEvent(): ApplicationEvent | undefined {
    return this.#events.shift();
  }

  pollCommand(): Command | undefined {
    return this.#commands.shift();
  }

  #open(target: Target): void {
    const { name, mtu } = target.configuration.interface;
    if (name === this.#deviceName) return this.#bind(target);
    this.#state = { type: 'opening', target };
    this.#commands.push({ type: 'open-device', name, mtu });
  }

  #onDeviceOpened(outcome: Extract<CommandResult, { type: 'device-opened' }>['outcome']): void {
    if (this.#state.type !== 'opening') return;
    const { target } = this.#state;
    if (!outcome.ok) return this.#fail(target, { path: 'interface.name', why: outcome.why });
    this.#deviceName = outcome.value.name;
    this.#events.push({ type: 'device-opened', offloads: outcome.value.offloads });
    this.#bind(target);
  }

  #bind(target: Target): void {
    const wanted = target.configuration.interface.listenPort;
    if (this.#listening?.wanted === wanted && this.#listening.mark === this.#mark) {
      return this.#link(target);
    }
    this.#state = { type: 'binding', target };
    this.#commands.push({ type: 'listen', port: wanted, mark: this.#mark });
  }

  #onListening(outcome: Extract<CommandResult, { type: 'listening' }>['outcome']): void {
    if (this.#state.type !== 'binding') return;
    const { target } = this.#state;
    if (!outcome.ok) return this.#fail(target, { path: 'interface.listenPort', why: outcome.why });
    this.#listening = { wanted: target.configuration.interface.listenPort, mark: this.#mark };
    this.#events.push({ type: 'listening', listening: outcome.value });
    this.#link(target);
  }

  #link(target: Target): void {
    this.#events.push({ type: 'peers-due', target });
    this.#state = { type: 'linking', target };
    this.#commands.push({ type: 'apply-link', link: wantedLink(target.configuration) });
  }

  #onLinkApplied(failures: Extract<CommandResult, { type: 'link-applied' }>['failures']): void {
    if (this.#state.type !== 'linking') return;
    const { target } = this.#state;
    this.#running = target;
    this.#finish({
      type: 'finished',
      target,
      running: true,
      failures: failures.map(({ object, message }) => ({ path: object, why: message })),
    });
  }

  /** A device that moved before its port failed moves back. */
  #fail(target: Target, failure: Failure): void {
    const running = this.#running;
    if (running !== undefined && running.configuration.interface.name !== this.#deviceName) {
      this.#next ??= running;
    }
    this.#finish({ type: 'finished', target, running: false, failures: [failure] });
  }

  #finish(event: ApplicationEvent): void {
    this.#events.push(event);
    this.#state = { type: 'idle' };
    const next = this.#next;
    this.#next = undefined;
    if (next !== undefined) this.#open(next);
  }
}

/** Returns the link that a configuration asks the kernel for. */
export function wantedLink(configuration: Configuration): WantedLink {
  const { interface: own, resources, site } = configuration;
  const usesInternet = resources.some((it) => it.type === 'internet' && it.gateways.length > 0);
  return {
    name: own.name,
    mtu: own.mtu,
    addresses: own.addresses,
    routes: tunnelNetworks(configuration),
    defaultFor: usesInternet ? site.lans : [],
  };
}
