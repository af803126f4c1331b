import type { DesiredEvent } from '../fleet/desired-inbox.ts';
import {
  FleetDevice,
  type FleetDeviceInput,
  type FleetDeviceOptions,
} from '../fleet/fleet-device.ts';
import type { Publication } from '../plugin/control-channel.ts';
import { earliest, type Deadline } from '../sansio/agent.ts';
import { after, elapsed, type Instant, type Millis } from '../sansio/instant.ts';
import { deviceStateOf, type FleetStatus, type Status } from './status.ts';

/** How often the fleet's copy of the state is compared with ours; `FleetDevice` sends what differs. */
const STATE_INTERVAL: Millis = 5_000;

/** The engine's end of the fleet: the agent of the device, through which broker it is reached, and when. */
export class FleetLink {
  readonly #device: FleetDevice;
  #broker: { readonly broker: string; readonly protocol: '5' | '3.1.1' } | undefined;
  #stateDue: Instant;
  #unix: { readonly ms: number; readonly at: Instant };

  constructor(options: FleetDeviceOptions, now: Instant) {
    this.#device = new FleetDevice(options, now);
    this.#unix = { ms: options.unixMs, at: now };
    this.#stateDue = after(now, STATE_INTERVAL);
  }

  get subscriptions(): readonly string[] {
    return this.#device.subscriptions;
  }

  will(): Publication {
    return this.#device.will();
  }

  handleInput(input: FleetDeviceInput, now: Instant): void {
    if (input.type === 'wall-clock') this.#unix = { ms: input.unixMs, at: now };
    if (input.type === 'control') {
      if (input.event.type === 'connected') this.#broker = input.event;
      if (input.event.type === 'disconnected') this.#broker = undefined;
    }
    this.#device.handleInput(input, now);
  }

  handleTimeout(now: Instant): void {
    this.#device.handleTimeout(now);
  }

  isStateDue(now: Instant): boolean {
    return this.#stateDue <= now;
  }

  /** Tells the fleet how the device is, if there is a broker to tell it. */
  handleStatus(status: Status, now: Instant): void {
    this.#stateDue = after(now, STATE_INTERVAL);
    if (this.#broker === undefined) return;
    const unixMs = this.#unix.ms + elapsed(this.#unix.at, now);
    const state = deviceStateOf(status, unixMs);
    this.#device.handleInput({ type: 'state', state }, now);
  }

  pollEvent(): DesiredEvent | undefined {
    return this.#device.pollEvent();
  }

  pollTransmit(): Publication | undefined {
    return this.#device.pollTransmit();
  }

  pollTimeout(): Deadline | undefined {
    return earliest(this.#device.pollTimeout(), { at: this.#stateDue, reason: 'fleet state' });
  }

  status(): FleetStatus {
    const { fleet, device } = this.#device.identity;
    return {
      fleet,
      device,
      broker: this.#broker?.broker,
      protocol: this.#broker?.protocol,
      version: this.#device.report.appliedVersion,
    };
  }
}
