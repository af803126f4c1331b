import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import mqttClient from 'mqtt/lib/client';
import type {
  ControlChannel,
  ControlOptions,
  Publication,
} from '../../core/plugin/control-channel.ts';
import type { Log } from '../../core/sansio/log.ts';
import { failed, ok, type Outcome } from '../../core/sansio/outcome.ts';
import { Outbox } from './outbox.ts';
import { CLOSED_BY_BROKER, describeProblem, mayBeOlderProtocol } from './problem.ts';

const MqttClient = mqttClient.default;
type MqttClient = InstanceType<typeof MqttClient>;

export interface MqttOptions {
  /** What to begin with at a broker that is not known yet; 5 falls back to 3.1.1 by itself. */
  readonly protocol?: '5' | '3.1.1';
  /** Milliseconds; the wait before attempt n is random between 0 and first × 2^n, at most the longest. */
  readonly firstRetry?: number;
  readonly longestRetry?: number;
  /** Seconds from the loss of a connection to its will (MQTT 5): a short break is no news. */
  readonly willDelay?: number;
  /**
   * Seconds for which the broker keeps what comes while we are away. MQTT 3.1.1 knows only "for ever",
   * and in both 0 leaves nothing behind.
   */
  readonly sessionExpiry?: number;
  /** Seconds; a connection is found dead after one and a half times this. */
  readonly keepalive?: number;
  /** Milliseconds from the first packet to the broker's answer. */
  readonly connectTimeout?: number;
  /** Uniform in [0, 1). */
  readonly random?: () => number;
}

const DEFAULTS: Required<MqttOptions> = {
  protocol: '5',
  firstRetry: 1_000,
  longestRetry: 60_000,
  willDelay: 10,
  sessionExpiry: 3_600,
  keepalive: 60,
  connectTimeout: 20_000,
  random: Math.random,
};

/** A connection that held this long shows that the broker is well: the next wait is short again. */
const STABLE_AFTER = 30_000;
/** After a change of the network the broker has this long to show that it is still there. */
const CHECK_PATIENCE = 2_000;
/** Bytes. The broker is not trusted, and the library would buffer whatever length it announces. */
const MAX_PACKET = 1024 * 1024;

type Protocol = '5' | '3.1.1';

interface Broker {
  readonly url: string;
  readonly host: string;
  readonly port: number;
  readonly isTls: boolean;
  /** What the broker is known to speak. */
  protocol: Protocol | undefined;
  /** What was logged about it last: a broker that stays away is mentioned once. */
  problem: string | undefined;
}

/** One attempt at one broker, and the connection that came of it. */
interface Attempt {
  readonly broker: Broker;
  readonly protocol: Protocol;
  readonly client: MqttClient;
  /** Milliseconds of the process clock; `undefined` until the broker accepted. */
  connectedAt: number | undefined;
  /** Whether the network connection stood, so that a close is the broker's. */
  isReached: boolean;
  /** Whether it was given up after the network changed. */
  isLeft: boolean;
  error: unknown;
}

/** See `ControlChannel`. Each attempt has a client of its own: nothing of an old one is left behind. */
export class MqttControlChannel implements ControlChannel {
  readonly #log: Log;
  readonly #settings: Required<MqttOptions>;
  readonly #outbox = new Outbox();
  #options: ControlOptions | undefined;
  #brokers: readonly Broker[] = [];
  #attempt: Attempt | undefined;
  #retry: NodeJS.Timeout | undefined;
  /** Runs while the broker is to show that it is there. */
  #check: NodeJS.Timeout | undefined;
  #failures = 0;
  #onDrained: (() => void) | undefined;

  constructor(log: Log, options: MqttOptions = {}) {
    this.#log = log;
    this.#settings = { ...DEFAULTS, ...options };
  }

  connect(options: ControlOptions): Outcome<void, 'bad-options'> {
    const brokers = options.brokers.map(parseBroker);
    const usable = brokers.filter((broker) => broker !== undefined);
    if (this.#options !== undefined || usable.length === 0 || usable.length < brokers.length) {
      return failed('bad-options');
    }
    this.#options = options;
    this.#brokers = usable;
    this.#failures = 0;
    this.#schedule(0);
    return ok(undefined);
  }

  publish(publication: Publication): void {
    const isConnected = this.#attempt?.connectedAt !== undefined;
    const next = this.#outbox.push(publication, isConnected);
    if (next !== undefined) this.#send(next);
  }

  checkConnection(): void {
    const attempt = this.#attempt;
    if (this.#options === undefined) return;
    if (attempt === undefined) {
      // What failed, failed on another network.
      this.#failures = 0;
      return this.#schedule(0);
    }
    if (attempt.connectedAt !== undefined) attempt.client.sendPing();
    this.#check ??= setTimeout(() => leave(attempt), CHECK_PATIENCE);
  }

  async close(graceMs: number): Promise<void> {
    clearTimeout(this.#retry);
    this.#endCheck();
    this.#options = undefined;
    const attempt = this.#attempt;
    if (attempt === undefined) return;
    const deadline = performance.now() + graceMs;
    if (attempt.connectedAt !== undefined && graceMs > 0) {
      await this.#drained(graceMs);
      if (this.#outbox.isEmpty && attempt === this.#attempt) {
        await disconnect(attempt.client, Math.max(deadline - performance.now(), 50));
      }
    }
    this.#attempt = undefined;
    this.#outbox.clear();
    this.#outbox.onDisconnected();
    attempt.client.end(true);
  }

  /** Publications that found no room, or were of no use later. */
  get dropped(): number {
    return this.#outbox.dropped;
  }

  #schedule(wait: number): void {
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.#begin(), wait);
  }

  #begin(): void {
    const broker = this.#brokers[this.#failures % this.#brokers.length];
    if (broker !== undefined) this.#beginWith(broker, broker.protocol ?? this.#settings.protocol);
  }

  #beginWith(broker: Broker, protocol: Protocol): void {
    const options = this.#options;
    if (options === undefined) return;
    this.#log.debug('connecting to a broker', { url: broker.url, protocol });
    const will = options.will && this.#will(options.will(), protocol);
    let stream: Socket;
    try {
      stream = dial(broker, options);
    } catch (error) {
      // Certificates that do not read; the next attempt reads them again.
      this.#failures++;
      this.#explain(broker, describeProblem(error));
      return this.#schedule(this.#wait());
    }
    const client = new MqttClient(() => stream, {
      ...this.#clientOptions(options, protocol),
      ...(will && { will }),
    });
    const attempt: Attempt = {
      broker,
      protocol,
      client,
      connectedAt: undefined,
      isReached: false,
      isLeft: false,
      error: undefined,
    };
    this.#attempt = attempt;
    stream.once(broker.isTls ? 'secureConnect' : 'connect', () => (attempt.isReached = true));
    limitPackets(stream, client, attempt);
    client.on('packetreceive', () => {
      if (attempt === this.#attempt) this.#endCheck();
    });
    client.on('error', (error) => (attempt.error ??= error));
    client.on('disconnect', ({ reasonCode }) => {
      attempt.error ??= Object.assign(new Error('disconnected'), { code: reasonCode });
    });
    client.on('connect', () => this.#onConnect(attempt));
    client.on('message', (topic, payload) => {
      if (attempt === this.#attempt) this.#options?.onEvent({ type: 'message', topic, payload });
    });
    client.once('close', () => this.#onClose(attempt));
  }

  #onConnect(attempt: Attempt): void {
    const options = this.#options;
    if (attempt !== this.#attempt || options === undefined) return;
    const { broker, protocol, client } = attempt;
    attempt.connectedAt = performance.now();
    broker.protocol = protocol;
    broker.problem = undefined;
    this.#log.info('connected to a broker', { broker: this.#numberOf(broker), protocol });
    if (options.subscriptions.length > 0) {
      client.subscribe([...options.subscriptions], { qos: 1 }, (error, _topics, answer) => {
        const refusal = answer?.granted.find((code) => Number(code) >= 128);
        if (error === null && refusal === undefined) return;
        attempt.error ??= Object.assign(new Error('subscription refused'), {
          code: refusal ?? 128,
        });
        // Without its subscriptions the channel is deaf: another broker may be better.
        client.end(true);
      });
    }
    options.onEvent({ type: 'connected', broker: broker.url, protocol });
    this.#flush();
  }

  #onClose(attempt: Attempt): void {
    if (attempt !== this.#attempt) return;
    this.#attempt = undefined;
    this.#endCheck();
    this.#outbox.onDisconnected();
    this.#onDrained?.();
    const { broker, protocol, connectedAt, isReached, isLeft, error } = attempt;
    if (this.#options === undefined) return;
    const isUnknown = broker.protocol === undefined && protocol === '5';
    if (isUnknown && isReached && connectedAt === undefined && mayBeOlderProtocol(error)) {
      return this.#beginWith(broker, '3.1.1');
    }
    const why = error === undefined ? CLOSED_BY_BROKER : describeProblem(error);
    const hasHeld = connectedAt !== undefined && performance.now() - connectedAt > STABLE_AFTER;
    // After a connection that held, the first broker of the list has its turn again.
    this.#failures = hasHeld || isLeft ? 0 : this.#failures + 1;
    this.#explain(broker, why);
    if (connectedAt !== undefined) this.#options.onEvent({ type: 'disconnected', why });
    this.#schedule(isLeft ? 0 : this.#wait());
  }

  #endCheck(): void {
    clearTimeout(this.#check);
    this.#check = undefined;
  }

  #explain(broker: Broker, why: string): void {
    if (broker.problem === why) return;
    broker.problem = why;
    this.#log.warn('no connection to a broker', { broker: this.#numberOf(broker), why });
  }

  /** Full jitter: a fleet that lost its broker does not come back all at once. */
  #wait(): number {
    const round = Math.floor(this.#failures / this.#brokers.length);
    const { firstRetry, longestRetry, random } = this.#settings;
    return random() * Math.min(firstRetry * 2 ** Math.min(round, 30), longestRetry);
  }

  #send(publication: Publication): void {
    const { topic, payload, qos, retain, expiry } = publication;
    const attempt = this.#attempt;
    if (attempt === undefined) return;
    const isExpiring = attempt.protocol === '5' && expiry !== undefined;
    const properties = isExpiring ? { messageExpiryInterval: expiry } : {};
    const bytes = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength);
    attempt.client.publish(topic, bytes, { qos, retain, properties }, (error) => {
      if (attempt !== this.#attempt) return;
      this.#outbox.onConfirmed();
      if (error !== undefined && error !== null) {
        this.#log.warn('the broker refuses a publication', { why: describeProblem(error) });
      }
      this.#flush();
    });
  }

  #flush(): void {
    for (let next = this.#outbox.shift(); next; next = this.#outbox.shift()) this.#send(next);
    if (this.#outbox.isEmpty) this.#onDrained?.();
  }

  #drained(graceMs: number): Promise<void> {
    if (this.#outbox.isEmpty) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, graceMs);
      this.#onDrained = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #clientOptions(options: ControlOptions, protocol: Protocol) {
    const { connectTimeout, keepalive, sessionExpiry } = this.#settings;
    return {
      clientId: options.clientId,
      ...(options.username === undefined ? {} : { username: options.username }),
      ...(options.password === undefined ? {} : { password: options.password }),
      clean: sessionExpiry === 0,
      keepalive,
      connectTimeout,
      reconnectPeriod: 0,
      resubscribe: false,
      timerVariant: 'native' as const,
      // The cache holds all 65536 numbers of two bytes: 18 MB.
      writeCache: false,
      protocolVersion: protocol === '5' ? (5 as const) : (4 as const),
      ...(protocol === '5' && {
        properties: { sessionExpiryInterval: sessionExpiry, maximumPacketSize: MAX_PACKET },
      }),
    };
  }

  #will({ topic, payload, qos, retain }: Publication, protocol: Protocol) {
    const will = { topic, payload: Buffer.from(payload), qos, retain };
    if (protocol !== '5') return will;
    return { ...will, properties: { willDelayInterval: this.#settings.willDelay } };
  }

  #numberOf(broker: Broker): number {
    return this.#brokers.indexOf(broker) + 1;
  }
}

function parseBroker(url: string): Broker | undefined {
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  const isTls = parsed?.protocol === 'mqtts:';
  if (parsed === undefined || (!isTls && parsed.protocol !== 'mqtt:')) return undefined;
  const host = parsed.hostname.replace(/^\[(.*)\]$/, '$1');
  const port = parsed.port === '' ? (isTls ? 8883 : 1883) : Number(parsed.port);
  return host === ''
    ? undefined
    : { url, host, port, isTls, protocol: undefined, problem: undefined };
}

function dial({ host, port, isTls }: Broker, options: ControlOptions): Socket {
  if (!isTls) return connectTcp({ host, port, noDelay: true });
  return connectTls({
    host,
    port,
    ...(isIP(host) === 0 && { servername: host }),
    ...(options.ca !== undefined && { ca: options.ca }),
    ...(options.certificate !== undefined && { cert: options.certificate }),
    ...(options.privateKey !== undefined && { key: options.privateKey }),
  });
}

/** Gives up a connection whose broker fell silent. */
function leave(attempt: Attempt): void {
  attempt.isLeft = true;
  attempt.error ??= new Error('Keepalive timeout');
  attempt.client.end(true);
}

/** Ends a connection on which more bytes came than a packet may have, and no packet. */
function limitPackets(stream: Socket, client: MqttClient, attempt: Attempt): void {
  let received = 0;
  client.on('packetreceive', () => (received = 0));
  stream.on('data', (chunk: Uint8Array) => {
    received += chunk.length;
    if (received <= 2 * MAX_PACKET) return;
    attempt.error ??= Object.assign(new Error('packet too large'), { code: 'EMSGSIZE' });
    stream.destroy();
  });
}

function disconnect(client: MqttClient, graceMs: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, graceMs);
    client.end(false, () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
