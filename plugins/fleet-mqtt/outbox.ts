import type { Publication } from '../../core/plugin/control-channel.ts';

/** Topics that may wait. A device has four, an operator one per device that is written to. */
const MAX_WAITING = 4096;
/** Publications that the broker has not confirmed. More would only wait in a buffer of the library. */
const MAX_UNCONFIRMED = 64;

/**
 * What waits for the broker: the newest retained publication of each topic. One that is not retained is
 * of use only at once, and is dropped where it cannot go out.
 */
export class Outbox {
  readonly #waiting = new Map<string, Publication>();
  #unconfirmed = 0;
  #dropped = 0;

  /** Returns the publication if it may go out at once; otherwise it waits or is dropped. */
  push(publication: Publication, isConnected: boolean): Publication | undefined {
    const { topic, retain } = publication;
    const isFree = isConnected && this.#unconfirmed < MAX_UNCONFIRMED;
    if (isFree && !this.#waiting.has(topic)) return this.#out(publication);
    const isFull = this.#waiting.size >= MAX_WAITING && !this.#waiting.has(topic);
    if (!retain || isFull) this.#dropped++;
    else {
      // To the end of the line, so that a topic that is written often lets the others go first.
      this.#waiting.delete(topic);
      this.#waiting.set(topic, publication);
    }
    return undefined;
  }

  /** Returns the next that may go out. */
  shift(): Publication | undefined {
    const next = this.#waiting.values().next();
    if (next.done === true || this.#unconfirmed >= MAX_UNCONFIRMED) return undefined;
    this.#waiting.delete(next.value.topic);
    return this.#out(next.value);
  }

  /** One that went out was confirmed, or its connection ended. */
  onConfirmed(): void {
    this.#unconfirmed--;
  }

  onDisconnected(): void {
    this.#unconfirmed = 0;
  }

  clear(): void {
    this.#waiting.clear();
  }

  get isEmpty(): boolean {
    return this.#waiting.size === 0 && this.#unconfirmed === 0;
  }

  get dropped(): number {
    return this.#dropped;
  }

  #out(publication: Publication): Publication {
    this.#unconfirmed++;
    return publication;
  }
}
