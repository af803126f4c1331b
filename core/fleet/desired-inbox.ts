/**
 * Judges the desired states that come to one device, and remembers what became of them.
 *
 * A document is taken when `verifyEnvelope` says so. Everything else changes nothing: it is refused, or
 * held where only its time is wrong. Routers boot with a wrong clock: a time before `clockFloorMs` is no
 * time, and until a later one comes a document with a time limit is held and one without is taken. Of
 * the documents that came too early or too late the newest is kept and judged again when its time comes
 * or the clock is set. Sent again, the document that runs ends whatever was held or refused after it.
 */
import { onThisDevice, type LocalInterface } from '../config/bootstrap.ts';
import type { Configuration } from '../config/configuration.ts';
import type { ConfigurationError } from '../config/error.ts';
import type { Name } from '../config/name.ts';
import type { Deadline } from '../sansio/agent.ts';
import { BoundedQueue } from '../sansio/bounded-queue.ts';
import type { Crypto } from '../sansio/crypto.ts';
import { after, elapsed, type Instant, type Millis } from '../sansio/instant.ts';
import type { Log } from '../sansio/log.ts';
import {
  envelopeHash,
  readKeptEnvelope,
  verifyEnvelope,
  type DesiredState,
  type Refusal,
  type RefusalReason,
} from './envelope.ts';
import type { Reported } from './report.ts';

export interface DesiredInboxOptions {
  readonly fleet: Name;
  readonly device: Name;
  /** Ed25519 public keys of those who may configure this device. */
  readonly operatorKeys: readonly Uint8Array[];
  /** What this device decides itself in each configuration that it takes. */
  readonly local?: LocalInterface;
  /** What the last `desired` event asked to keep. */
  readonly kept: KeptDesiredState | undefined;
  /** The calendar at the start. */
  readonly unixMs: number;
  /** When the software was built: a clock that shows less is not set. */
  readonly clockFloorMs: number;
  readonly crypto: Crypto;
  readonly log: Log;
}

export interface KeptDesiredState {
  /** Holds also where the envelope does not read: no older document is taken. */
  readonly version: number;
  readonly envelope: Uint8Array;
}

export type DesiredEvent =
  /** Keep `version` and `envelope` durably, then make the configuration run and say how that went. */
  | {
      readonly type: 'desired';
      readonly version: number;
      readonly configuration: Configuration;
      readonly envelope: Uint8Array;
    }
  | {
      readonly type: 'refused';
      readonly why: RefusalReason;
      readonly version: number | undefined;
      readonly errors: readonly ConfigurationError[];
    };

export interface Applied {
  readonly version: number;
  /** Whether it runs. It may do so with errors: all but what they name. */
  readonly running: boolean;
  readonly errors: readonly ConfigurationError[];
}

/** A held document is looked at again no sooner: the two clocks differ by rounding. */
const HOLD_RESOLUTION: Millis = 1_000;
/** The host drains events after each call, so only a fault fills this; newer documents matter more. */
const MAX_EVENTS = 16;

interface Running {
  readonly version: number;
  readonly document: string;
  readonly configuration: Configuration;
}

interface Held {
  readonly version: number;
  readonly document: string;
  readonly envelope: Uint8Array;
  readonly why: RefusalReason;
  readonly lookAgain: Instant | undefined;
}

export class DesiredInbox {
  readonly #options: DesiredInboxOptions;
  readonly #log: Log;
  readonly #events = new BoundedQueue<DesiredEvent>(MAX_EVENTS, 'oldest');
  #clock: { readonly unixMs: number; readonly at: Instant };
  /** The highest version taken. */
  #version: number;
  #running: Running | undefined;
  #progress: Pick<Reported, 'phase' | 'errors'> = { phase: 'none' };
  #applied: Pick<Reported, 'appliedVersion' | 'appliedDocument'> = {};
  /** Of the newest document that was not taken. */
  #verdict: Pick<Reported, 'phase' | 'document' | 'seenVersion' | 'why' | 'errors'> | undefined;
  #held: Held | undefined;

  constructor(options: DesiredInboxOptions, now: Instant) {
    this.#options = options;
    this.#log = options.log;
    this.#clock = { unixMs: options.unixMs, at: now };
    this.#version = options.kept?.version ?? 0;
    if (options.kept !== undefined) this.#resume(options.kept);
  }

  /** Takes, holds or refuses what came on the topic `desired`. The payload is borrowed. */
  handleDesired(payload: Uint8Array, now: Instant): void {
    if (payload.length === 0) {
      // A retained message is deleted this way. It never means a device without configuration.
      this.#log.info('empty desired state ignored');
      return;
    }
    const document = envelopeHash(payload, this.#options.crypto);
    // The broker sends the retained document with each connection.
    if (document === this.#verdict?.document) return;
    if (document === this.#running?.document) {
      this.#held = undefined;
      this.#verdict = undefined;
      return;
    }
    this.#judge(payload.slice(), document, now);
  }

  /** The calendar, after it was set or stepped. */
  handleWallClock(unixMs: number, now: Instant): void {
    this.#clock = { unixMs, at: now };
    this.#judgeHeld(now);
  }

  /** How making a desired state run went. */
  handleApplied({ version, running, errors }: Applied): void {
    if (version !== this.#running?.version) return;
    this.#progress = errors.length > 0 ? { phase: 'failed', errors } : { phase: 'applied' };
    if (!running) return;
    this.#applied = { appliedVersion: version, appliedDocument: this.#running.document };
  }

  handleTimeout(now: Instant): void {
    if (this.#held?.lookAgain !== undefined && this.#held.lookAgain <= now) this.#judgeHeld(now);
  }

  pollEvent(): DesiredEvent | undefined {
    return this.#events.shift();
  }

  pollTimeout(): Deadline | undefined {
    const at = this.#held?.lookAgain;
    return at === undefined ? undefined : { at, reason: 'held' };
  }

  get hasEvents(): boolean {
    return this.#events.length > 0;
  }

  /** What to tell the operator. */
  get report(): Reported {
    const { local } = this.#options;
    const always = { ...this.#applied, ...(local === undefined ? {} : { local }) };
    if (this.#verdict !== undefined) return { ...this.#verdict, ...always };
    if (this.#running === undefined) return { ...this.#progress, ...always };
    const { document, version } = this.#running;
    return { ...this.#progress, document, seenVersion: version, ...always };
  }

  #resume(kept: KeptDesiredState): void {
    const { fleet, device, operatorKeys, crypto } = this.#options;
    const document = envelopeHash(kept.envelope, crypto);
    const read = readKeptEnvelope(kept.envelope);
    if (!read.ok) {
      this.#log.error('kept desired state does not read', { why: read.why });
      return this.#refuse(read, document);
    }
    if (read.value.fleet !== fleet || read.value.device !== device) {
      // The device got another name or fleet: neither the document nor its version is ours.
      this.#log.warn('kept desired state of another device ignored');
      this.#version = 0;
      return;
    }
    const expected = { fleet, device, operatorKeys, version: 0, current: undefined };
    const verified = verifyEnvelope(kept.envelope, { ...expected, unixMs: undefined }, crypto);
    if (!verified.ok && !isUntimely(verified.why)) {
      // A rotated operator key must not stop a router.
      this.#log.warn('kept desired state runs unverified', { why: verified.why });
    }
    this.#take(read.value, kept.envelope, document);
  }

  #judge(envelope: Uint8Array, document: string, now: Instant): void {
    const { fleet, device, operatorKeys, crypto } = this.#options;
    const isHeldOne = this.#held?.document === document;
    const expected = {
      fleet,
      device,
      operatorKeys,
      version: isHeldOne ? this.#version : Math.max(this.#version, this.#heldVersion()),
      current: this.#running?.configuration,
      unixMs: this.#unixMs(now),
    };
    const verified = verifyEnvelope(envelope, expected, crypto);
    if (verified.ok) {
      this.#held = undefined;
      this.#verdict = undefined;
      this.#take(verified.value, envelope, document);
      this.#log.info('desired state taken', { version: verified.value.version });
      return;
    }
    const { why, version = 0, notBefore } = verified;
    if (isUntimely(why)) {
      const isNews = this.#held?.document !== document || this.#held.why !== why;
      const lookAgain = why === 'not-yet-valid' ? this.#instantOf(notBefore, now) : undefined;
      this.#held = { version, document, envelope, why, lookAgain };
      if (!isNews && document === this.#verdict?.document) return;
    } else if (isHeldOne) this.#held = undefined;
    this.#refuse(verified, document);
  }

  #judgeHeld(now: Instant): void {
    if (this.#held !== undefined) this.#judge(this.#held.envelope, this.#held.document, now);
  }

  /** An expired document is kept for a clock that is wrong, but stands in no newer one's way. */
  #heldVersion(): number {
    return this.#held === undefined || this.#held.why === 'expired' ? 0 : this.#held.version;
  }

  #take(state: DesiredState, envelope: Uint8Array, document: string): void {
    const { version } = state;
    const configuration = onThisDevice(state.configuration, this.#options.local ?? {});
    this.#version = Math.max(this.#version, version);
    this.#running = { version, document, configuration };
    this.#progress = { phase: 'applying' };
    this.#events.push({ type: 'desired', version, configuration, envelope });
  }

  #refuse({ why, version, errors }: Refusal, document: string): void {
    const isHeld = why === 'not-yet-valid' || why === 'clock-unknown';
    this.#verdict = {
      phase: isHeld ? 'held' : 'refused',
      document,
      why,
      ...(version === undefined ? {} : { seenVersion: version }),
      ...(errors.length === 0 ? {} : { errors }),
    };
    if (isHeld) {
      this.#log.info('desired state held', { why, version });
      return;
    }
    this.#events.push({ type: 'refused', why, version, errors });
  }

  #unixMs(now: Instant): number | undefined {
    const unixMs = this.#clock.unixMs + elapsed(this.#clock.at, now);
    return unixMs < this.#options.clockFloorMs ? undefined : unixMs;
  }

  #instantOf(unixSeconds: number | undefined, now: Instant): Instant {
    const wait = (unixSeconds ?? 0) * 1000 - (this.#clock.unixMs + elapsed(this.#clock.at, now));
    return after(now, Math.max(wait, HOLD_RESOLUTION));
  }
}

function isUntimely(why: RefusalReason): boolean {
  return why === 'not-yet-valid' || why === 'expired' || why === 'clock-unknown';
}
