import type {
  ControlChannel,
  ControlEvent,
  ControlOptions,
  Publication,
} from '../../core/plugin/control-channel.ts';
import { after, type Instant, type Millis } from '../../core/sansio/instant.ts';
import { ok, type Outcome } from '../../core/sansio/outcome.ts';
import type { SeededRandom } from './seeded-random.ts';
import type { Timeline } from './timeline.ts';

/** One way between a device and the broker. */
const LATENCY: Millis = 25;
/** A silent connection is given up after one and a half keepalives. */
const NOTICE: Millis = 90_000;
/** A device tries again at the latest this long after the broker is there again. */
const LONGEST_RETRY: Millis = 10_000;
const WILL_DELAY: Millis = 10_000;
const CHECK: Millis = 2_000;
/** What waits for a device that is away; the oldest is dropped. */
const MOST_QUEUED = 1_000;

/**
 * An MQTT 5 broker with the clients of its devices: QoS 1, retained messages, wills, sessions that
 * outlast connections. A partition holds back what is under way, as TCP does; when it lasts, both ends
 * give the connection up, and what the device sent in the meantime is lost with it.
 */
export class Broker {
  readonly retained = new Map<string, Retained>();
  readonly timeline: Timeline;
  readonly random: SeededRandom;
  readonly #sessions = new Map<string, Session>();
  readonly #partitioned = new Map<string, object>();
  #isStopped = false;

  constructor(timeline: Timeline, random: SeededRandom) {
    this.timeline = timeline;
    this.random = random;
  }

  /** Makes the channel of one run of a daemon. */
  channel(): Channel {
    return new Channel(this);
  }

  /** Cuts a device, named by its client id, off from the broker. */
  partition(device: string): void {
    const partition = {};
    this.#partitioned.set(device, partition);
    const cut = this.#sessions.get(device)?.connection;
    this.timeline.in(NOTICE, () => {
      if (this.#partitioned.get(device) === partition) cut?.fail('the broker fell silent');
    });
  }

  heal(device: string): void {
    this.#partitioned.delete(device);
    const session = this.#sessions.get(device);
    session?.connection?.resume();
    session?.channel?.retry();
  }

  /** The broker goes down; what it retains outlasts that. */
  stop(): void {
    this.#isStopped = true;
    for (const { connection } of this.#sessions.values()) connection?.fail('connection closed');
  }

  start(): void {
    this.#isStopped = false;
    for (const { channel } of this.#sessions.values()) channel?.retry();
  }

  get isStopped(): boolean {
    return this.#isStopped;
  }

  isPartitioned(device: string): boolean {
    return this.#partitioned.has(device);
  }

  isReachable(device: string): boolean {
    return !this.#isStopped && !this.isPartitioned(device);
  }

  session(device: string): Session {
    let session = this.#sessions.get(device);
    if (session === undefined) {
      session = { connection: undefined, channel: undefined, subscriptions: [], queue: [] };
      this.#sessions.set(device, session);
    }
    return session;
  }

  /** A publication arrived: it goes to all that subscribed to its topic, now or when they are back. */
  accept({ topic, payload, retain, expiry }: Publication): void {
    const expiresAt = expiry === undefined ? undefined : after(this.timeline.now, expiry * SECOND);
    const message = { topic, payload, expiresAt };
    if (retain && payload.length === 0) this.retained.delete(topic);
    else if (retain) this.retained.set(topic, message);
    for (const session of this.#sessions.values()) {
      if (!session.subscriptions.some((filter) => matches(filter, topic))) continue;
      if (session.connection !== undefined) session.connection.deliver(message);
      else if (session.queue.push(message) > MOST_QUEUED) session.queue.shift();
    }
  }
}

const SECOND: Millis = 1_000;

export interface Retained {
  readonly topic: string;
  readonly payload: Uint8Array;
  readonly expiresAt: Instant | undefined;
}

/** What the broker knows of one device. */
interface Session {
  connection: Connection | undefined;
  channel: Channel | undefined;
  subscriptions: readonly string[];
  readonly queue: Retained[];
}

/** A connection from both ends. */
class Connection {
  readonly #broker: Broker;
  readonly #options: ControlOptions;
  readonly #session: Session;
  readonly #will: Publication | undefined;
  readonly #onFailed: () => void;
  #isOpen = true;
  /** What a partition keeps from arriving. */
  #held: (() => void)[] = [];
  #undelivered: Retained[] = [];

  constructor(broker: Broker, options: ControlOptions, session: Session, onFailed: () => void) {
    this.#broker = broker;
    this.#options = options;
    this.#session = session;
    this.#will = options.will?.();
    this.#onFailed = onFailed;
    session.connection?.end('lost');
    session.connection = this;
    session.subscriptions = options.subscriptions;
  }

  /** The broker took the connection; it sends what waited and what it retains. */
  open(): void {
    this.#tell({ type: 'connected', broker: 'mqtt://broker', protocol: '5' });
    for (const message of this.#session.queue.splice(0)) this.deliver(message);
    for (const message of this.#broker.retained.values()) {
      const isWanted = this.#options.subscriptions.some((filter) => matches(filter, message.topic));
      if (isWanted) this.deliver(message);
    }
  }

  publish(publication: Publication): void {
    const copy = { ...publication, payload: publication.payload.slice() };
    this.#carry(() => this.#broker.accept(copy));
  }

  deliver(message: Retained): void {
    const { topic, payload, expiresAt } = message;
    if (expiresAt !== undefined && expiresAt <= this.#broker.timeline.now) return;
    this.#undelivered.push(message);
    this.#carry(() => {
      this.#undelivered.splice(this.#undelivered.indexOf(message), 1);
      this.#tell({ type: 'message', topic, payload });
    });
  }

  /** A partition ended in time: TCP brings what it held. */
  resume(): void {
    for (const action of this.#held.splice(0)) this.#carry(action);
  }

  /** Both ends notice that the other is gone. */
  fail(why: string): void {
    if (!this.#isOpen) return;
    this.end('lost');
    this.#tell({ type: 'disconnected', why });
    this.#onFailed();
  }

  /** The connection is no more; one that was not said goodbye to leaves its will. */
  end(how: 'closed' | 'lost'): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#held = [];
    if (this.#session.connection === this) this.#session.connection = undefined;
    this.#session.queue.push(...this.#undelivered);
    const will = this.#will;
    // A broker that goes down takes the wills along.
    if (how === 'closed' || will === undefined || this.#broker.isStopped) return;
    this.#broker.timeline.in(WILL_DELAY, () => {
      if (this.#session.connection === undefined) this.#broker.accept(will);
    });
  }

  #tell(event: ControlEvent): void {
    this.#options.onEvent(event);
  }

  #carry(action: () => void): void {
    if (!this.#isOpen) return;
    if (this.#broker.isPartitioned(this.#options.clientId)) {
      this.#held.push(action);
      return;
    }
    this.#broker.timeline.in(LATENCY, () => {
      if (this.#isOpen) action();
    });
  }
}

/** The memory twin of the MQTT channel. */
export class Channel implements ControlChannel {
  readonly #broker: Broker;
  #options: ControlOptions | undefined;
  #connection: Connection | undefined;
  #isRetrying = false;
  /** The newest retained publication of each topic, while there is no connection. */
  readonly #waiting = new Map<string, Publication>();

  constructor(broker: Broker) {
    this.#broker = broker;
  }

  connect(options: ControlOptions): Outcome<void, 'bad-options'> {
    this.#options = options;
    this.#broker.session(options.clientId).channel = this;
    this.#tryAfter(2 * LATENCY);
    return ok(undefined);
  }

  publish(publication: Publication): void {
    if (this.#connection !== undefined) this.#connection.publish(publication);
    else if (publication.retain) this.#waiting.set(publication.topic, publication);
  }

  /** Finds out within 2 s whether a partition is in between. */
  checkConnection(): void {
    const checked = this.#connection;
    this.#broker.timeline.in(CHECK, () => {
      const options = this.#options;
      if (options === undefined || this.#broker.isReachable(options.clientId)) return;
      checked?.fail('no answer');
    });
  }

  async close(): Promise<void> {
    this.#leave('closed');
  }

  /** The daemon dies without a word. */
  kill(): void {
    this.#leave('lost');
  }

  /** The broker may be there again. */
  retry(): void {
    this.#tryAfter(this.#broker.random.fraction() * LONGEST_RETRY);
  }

  #tryAfter(ms: Millis): void {
    if (this.#isRetrying || this.#connection !== undefined) return;
    this.#isRetrying = true;
    this.#broker.timeline.in(ms, () => {
      this.#isRetrying = false;
      this.#try();
    });
  }

  #try(): void {
    const options = this.#options;
    // A broker that is away says so when it is back, by `retry`.
    if (options === undefined || !this.#broker.isReachable(options.clientId)) return;
    const session = this.#broker.session(options.clientId);
    const onFailed = (): void => {
      this.#connection = undefined;
      this.retry();
    };
    this.#connection = new Connection(this.#broker, options, session, onFailed);
    this.#connection.open();
    for (const publication of this.#waiting.values()) this.#connection.publish(publication);
    this.#waiting.clear();
  }

  #leave(how: 'closed' | 'lost'): void {
    const options = this.#options;
    if (options === undefined) return;
    this.#options = undefined;
    this.#connection?.end(how);
    this.#connection = undefined;
    const session = this.#broker.session(options.clientId);
    if (session.channel === this) session.channel = undefined;
  }
}

/** MQTT 5 §4.7: `+` stands for one level, `#` for all that follow. */
function matches(filter: string, topic: string): boolean {
  const levels = topic.split('/');
  const wanted = filter.split('/');
  for (const [i, level] of wanted.entries()) {
    if (level === '#') return true;
    if (i >= levels.length || (level !== '+' && level !== levels[i])) return false;
  }
  return wanted.length === levels.length;
}
