import type { Deadline } from '../sansio/agent.ts';
import { BoundedQueue } from '../sansio/bounded-queue.ts';
import { instantAt, type Instant } from '../sansio/instant.ts';
import type { RelayEvent, RelayTransmit } from './relay.ts';

/** Of all relays: requests for the channels of a few, each with 1,024. They are repeated where lost. */
const MOST_TRANSMITS = 8_192;
/** Of all relays: one for each channel of a few. */
const MOST_EVENTS = 8_192;

/**
 * What all relays have for their owner, in order. The owner drains it after each call, so that no call but
 * one that makes thousands of them fills it: then the oldest give way.
 */
export class RelayOutputs {
  readonly #events = new BoundedQueue<RelayEvent>(MOST_EVENTS, 'oldest');
  readonly #transmits = new BoundedQueue<RelayTransmit>(MOST_TRANSMITS, 'oldest');
  #lastNow: Instant = instantAt(0);

  tell(event: RelayEvent, now: Instant): void {
    this.#lastNow = now;
    this.#events.push(event);
  }

  send(transmit: RelayTransmit, now: Instant): void {
    this.#lastNow = now;
    this.#transmits.push(transmit);
  }

  pollTransmit(): RelayTransmit | undefined {
    return this.#transmits.shift();
  }

  pollEvent(): RelayEvent | undefined {
    return this.#events.shift();
  }

  pollTimeout(): Deadline | undefined {
    const isQueued = this.#events.length > 0 || this.#transmits.length > 0;
    return isQueued ? { at: this.#lastNow, reason: 'queued' } : undefined;
  }
}
