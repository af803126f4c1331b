/**
 * The agent of one device in a fleet: takes desired states (`DesiredInbox`) over a broker that it does
 * not trust, and tells what became of them, whether the device is there, and how its tunnels are. All it
 * says is signed. The last desired state taken is given out again at the start, so a device without a
 * broker runs on it for ever.
 *
 * - `reported` goes out on each change, at most once a second.
 * - `state` goes out within 5 s when a path changed, within 60 s when only counters did, and not at all
 *   when nothing did; jitter spreads a fleet that starts at once.
 * - `presence` is `ready`, `draining` or `stopped`, and `lost` as the will of each connection. The device
 *   watches the topic: where the will of an earlier connection, or anything else that it did not say,
 *   came last, it publishes again, at most every 5 s.
 *
 * While disconnected nothing is queued: the three messages are made afresh for each connection.
 */
import type { ControlEvent, Publication } from '../plugin/control-channel.ts';
import { earliest, type Deadline, type SansIo } from '../sansio/agent.ts';
import { encodeHex } from '../sansio/hex.ts';
import { after, type Instant, type Millis } from '../sansio/instant.ts';
import { randomBytes, randomFraction, type Random } from '../sansio/random.ts';
import { TimerTable } from '../sansio/timer-table.ts';
import {
  DesiredInbox,
  type Applied,
  type DesiredEvent,
  type DesiredInboxOptions,
} from './desired-inbox.ts';
import { openPublication, signPublication } from './device-signature.ts';
import {
  differenceOf,
  significanceOf,
  type DeviceState,
  type Presence,
  type Reported,
} from './report.ts';
import { formatTopic, type TopicKind } from './topics.ts';

export interface FleetDeviceOptions extends DesiredInboxOptions {
  /** Ed25519 seed of the device. Secret. */
  readonly signingKey: Uint8Array;
  /** Counts the starts of the daemon; kept on flash and raised before each start. */
  readonly bootId: number;
  /** Version of the daemon. */
  readonly software: string;
  readonly random: Random;
}

export type FleetDeviceInput =
  | { readonly type: 'control'; readonly event: ControlEvent }
  /** The calendar, after it was set or stepped. */
  | { readonly type: 'wall-clock'; readonly unixMs: number }
  /** How making a desired state run went. */
  | ({ readonly type: 'applied' } & Applied)
  | { readonly type: 'state'; readonly state: DeviceState }
  /** The device is about to go and sheds its load. */
  | { readonly type: 'drain' }
  /** It stays after all. */
  | { readonly type: 'resume' }
  /** The daemon ends: the goodbye is the last that goes out. */
  | { readonly type: 'stop' };

const REPORT_INTERVAL: Millis = 1_000;
const PRESENCE_REPAIR_INTERVAL: Millis = 5_000;
const STATE_CHANGE_INTERVAL: Millis = 5_000;
const STATE_COUNTER_INTERVAL: Millis = 60_000;
/** Share of an interval by which it is shortened at random. */
const STATE_JITTER = 0.2;

const TIMERS = ['presence', 'reported', 'state'] as const;
type Published = (typeof TIMERS)[number];

export class FleetDevice implements SansIo<FleetDeviceInput, DesiredEvent, Publication> {
  readonly #options: FleetDeviceOptions;
  readonly #inbox: DesiredInbox;
  readonly #timers = new TimerTable<Published>(TIMERS);
  /** At most one publication per topic waits: a newer one replaces it. */
  readonly #outgoing = new Map<Published, Publication>();
  #now: Instant;
  #link: 'connected' | 'disconnected' | 'stopped' = 'disconnected';
  #seq = 0;
  #session = '';
  #presence: Presence['state'] = 'ready';
  #lastPresence: { readonly at: Instant; readonly message: Uint8Array } | undefined;
  #lastReported: { readonly at: Instant; readonly text: string } | undefined;
  #state: DeviceState | undefined;
  #lastState: { readonly at: Instant; readonly state: DeviceState } | undefined;

  constructor(options: FleetDeviceOptions, now: Instant) {
    this.#options = options;
    this.#now = now;
    this.#inbox = new DesiredInbox(options, now);
  }

  /** Topic filters that the control channel subscribes to. */
  get subscriptions(): readonly string[] {
    return [this.#topic('desired'), this.#topic('presence')];
  }

  get identity(): Pick<FleetDeviceOptions, 'fleet' | 'device'> {
    return this.#options;
  }

  /** What `reported` says, for `culvert status`. */
  get report(): Reported {
    return this.#inbox.report;
  }

  /** Makes the will for the connection that is about to be made, and with it a new session. */
  will(): Publication {
    this.#session = encodeHex(randomBytes(this.#options.random, 8));
    return this.#publication('presence', this.#presenceAs('lost'));
  }

  handleInput(input: FleetDeviceInput, now: Instant): void {
    this.#now = now;
    if (this.#link === 'stopped') return;
    switch (input.type) {
      case 'control':
        this.#handleControl(input.event, now);
        break;
      case 'wall-clock':
        this.#inbox.handleWallClock(input.unixMs, now);
        break;
      case 'applied':
        this.#inbox.handleApplied(input);
        break;
      case 'state':
        this.#state = input.state;
        this.#scheduleState();
        break;
      case 'drain':
      case 'resume':
        this.#presence = input.type === 'drain' ? 'draining' : 'ready';
        this.#publishPresence(now);
        break;
      case 'stop':
        return this.#stop(now);
    }
    this.#scheduleReported(now);
  }

  handleTimeout(now: Instant): void {
    this.#now = now;
    if (this.#link === 'stopped') return;
    this.#inbox.handleTimeout(now);
    if (this.#timers.isDue('presence', now)) this.#publishPresence(now);
    if (this.#timers.isDue('state', now)) this.#publishState(now);
    this.#scheduleReported(now);
  }

  pollTransmit(): Publication | undefined {
    const next = this.#outgoing.entries().next();
    if (next.done === true) return undefined;
    this.#outgoing.delete(next.value[0]);
    return next.value[1];
  }

  pollEvent(): DesiredEvent | undefined {
    return this.#inbox.pollEvent();
  }

  pollTimeout(): Deadline | undefined {
    const isQueued = this.#outgoing.size > 0 || this.#inbox.hasEvents;
    return earliest(
      isQueued ? { at: this.#now, reason: 'queued' } : undefined,
      this.#timers.next(),
      this.#link === 'stopped' ? undefined : this.#inbox.pollTimeout(),
    );
  }

  #handleControl(event: ControlEvent, now: Instant): void {
    switch (event.type) {
      case 'connected':
        this.#link = 'connected';
        this.#lastReported = undefined;
        this.#lastState = undefined;
        this.#publishPresence(now);
        return this.#scheduleState();
      case 'disconnected':
        this.#link = 'disconnected';
        this.#outgoing.clear();
        for (const timer of TIMERS) this.#timers.clear(timer);
        return;
      case 'message':
        if (event.topic === this.#topic('desired')) this.#inbox.handleDesired(event.payload, now);
        else if (event.topic === this.#topic('presence')) this.#watchPresence(event.payload, now);
        return;
    }
  }

  #stop(now: Instant): void {
    this.#presence = 'stopped';
    this.#publishPresence(now);
    this.#link = 'stopped';
    for (const timer of TIMERS) this.#timers.clear(timer);
  }

  /** The last message seen on the topic is the one that the broker shows to others. */
  #watchPresence(message: Uint8Array, now: Instant): void {
    if (this.#link !== 'connected') return;
    if (isEqual(message, this.#lastPresence?.message)) this.#timers.clear('presence');
    else if (!this.#isEcho(message) && this.#timers.at('presence') === undefined) {
      const earlier = this.#lastPresence?.at ?? now;
      this.#timers.set('presence', after(earlier, PRESENCE_REPAIR_INTERVAL));
    }
  }

  /** Whether this connection said it, before what it said last. */
  #isEcho(message: Uint8Array): boolean {
    const { signingKey, bootId, crypto } = this.#options;
    const publicKey = crypto.ed25519.publicKey(signingKey);
    const opened = openPublication(this.#topic('presence'), message, publicKey, crypto);
    if (!opened.ok || opened.value.boot !== bootId) return false;
    const { session, state } = opened.value.payload;
    return session === this.#session && state !== 'lost';
  }

  #publishPresence(now: Instant): void {
    this.#timers.clear('presence');
    if (this.#link !== 'connected') return;
    const publication = this.#publication('presence', this.#presenceAs(this.#presence));
    this.#lastPresence = { at: now, message: publication.payload };
    this.#outgoing.set('presence', publication);
  }

  #scheduleReported(now: Instant): void {
    if (this.#link !== 'connected') return;
    const text = JSON.stringify(this.#inbox.report);
    if (text === this.#lastReported?.text) return this.#timers.clear('reported');
    const at =
      this.#lastReported === undefined ? now : after(this.#lastReported.at, REPORT_INTERVAL);
    if (at > now) return this.#timers.set('reported', at);
    this.#timers.clear('reported');
    this.#lastReported = { at: now, text };
    this.#outgoing.set('reported', this.#publication('reported', this.#inbox.report));
  }

  #scheduleState(): void {
    if (this.#link !== 'connected' || this.#state === undefined) return;
    const last = this.#lastState;
    if (last !== undefined && differenceOf(last.state) === differenceOf(this.#state)) {
      return this.#timers.clear('state');
    }
    const isSignificant =
      last === undefined || significanceOf(last.state) !== significanceOf(this.#state);
    const interval = isSignificant ? STATE_CHANGE_INTERVAL : STATE_COUNTER_INTERVAL;
    const latest = last === undefined ? after(this.#now, interval) : after(last.at, interval);
    const planned = this.#timers.at('state');
    if (planned !== undefined && planned <= latest) return;
    // The first after a connect is spread the most: a broker that comes back meets a whole fleet.
    const share = last === undefined ? 1 : STATE_JITTER;
    const jitter = interval * share * randomFraction(this.#options.random);
    this.#timers.set('state', after(latest, -jitter));
  }

  #publishState(now: Instant): void {
    this.#timers.clear('state');
    if (this.#link !== 'connected' || this.#state === undefined) return;
    this.#lastState = { at: now, state: this.#state };
    this.#outgoing.set('state', this.#publication('state', this.#state));
  }

  #presenceAs(state: Presence['state']): Presence {
    return { state, session: this.#session, software: this.#options.software };
  }

  #publication(kind: Published, payload: Presence | Reported | DeviceState): Publication {
    const { bootId, signingKey, crypto } = this.#options;
    const topic = this.#topic(kind);
    const place = { topic, boot: bootId, seq: ++this.#seq };
    const message = signPublication(payload, place, signingKey, crypto);
    return { topic, payload: message, retain: true, qos: 1 };
  }

  #topic(kind: TopicKind): string {
    return formatTopic({ fleet: this.#options.fleet, device: this.#options.device, kind });
  }
}

function isEqual(a: Uint8Array, b: Uint8Array | undefined): boolean {
  return a.length === b?.length && a.every((byte, i) => byte === b[i]);
}
