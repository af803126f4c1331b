import type { ControlEvent, ControlOptions } from '../../core/plugin/control-channel.ts';
import type { Log, LogFields } from '../../core/sansio/log.ts';
import { MqttControlChannel, type MqttOptions } from '../../plugins/fleet-mqtt/index.ts';

/** A control channel with ears: waits for events instead of sleeping. */
export class ListeningChannel {
  readonly channel: MqttControlChannel;
  readonly events: ControlEvent[] = [];
  readonly log: RecordingLog;
  /** Each of them asks for a will. */
  attempts = 0;
  readonly #waiters = new Set<() => void>();

  constructor(options: MqttOptions = {}) {
    this.log = recordingLog(() => this.#wake());
    this.channel = new MqttControlChannel(this.log, {
      firstRetry: 20,
      longestRetry: 200,
      willDelay: 0,
      ...options,
    });
  }

  connect(options: Partial<ControlOptions> & Pick<ControlOptions, 'brokers'>): this {
    const connected = this.channel.connect({
      clientId: 'c1',
      ca: undefined,
      certificate: undefined,
      privateKey: undefined,
      username: undefined,
      password: undefined,
      subscriptions: [],
      ...options,
      will: () => {
        this.attempts++;
        this.#wake();
        return options.will?.() ?? { topic: 'will', payload: bytes('gone'), retain: true, qos: 1 };
      },
      onEvent: (event) => {
        // The payload is borrowed for the call.
        this.events.push('payload' in event ? { ...event, payload: event.payload.slice() } : event);
        this.#wake();
        options.onEvent?.(event);
      },
    });
    if (!connected.ok) throw new Error(connected.why);
    return this;
  }

  publish(topic: string, text: string): void {
    this.channel.publish({ topic, payload: bytes(text), retain: true, qos: 1 });
  }

  /** Resolves once `found` returns something; fails after 10 s with all that happened. */
  until<T>(what: string, found: () => T | undefined): Promise<T> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        const seen = JSON.stringify([this.events, this.log.lines]);
        reject(new Error(`waited in vain for ${what}: ${seen}`));
      }, 10_000);
      const look = (): void => {
        const value = found();
        if (value === undefined) return;
        clearTimeout(timer);
        this.#waiters.delete(look);
        resolve(value);
      };
      this.#waiters.add(look);
      look();
    });
  }

  event<Type extends ControlEvent['type']>(type: Type, from = 0) {
    const isIt = (event: ControlEvent): event is Extract<ControlEvent, { type: Type }> =>
      event.type === type;
    return this.until(type, () => this.events.slice(from).find(isIt));
  }

  /** The message on this topic with this text. */
  message(topic: string, text: string) {
    return this.until(`${text} on ${topic}`, () =>
      this.events.find(
        (event) =>
          event.type === 'message' && event.topic === topic && textOf(event.payload) === text,
      ),
    );
  }

  problem(pattern: RegExp) {
    return this.until(`a line ${pattern.source}`, () =>
      this.log.lines.find((line) => pattern.test(line)),
    );
  }

  #wake(): void {
    for (const look of this.#waiters) look();
  }
}

export interface RecordingLog extends Log {
  readonly lines: string[];
}

function recordingLog(onLine: () => void): RecordingLog {
  const lines: string[] = [];
  const write =
    (severity: string) =>
    (message: string, fields?: LogFields): void => {
      lines.push(`${severity} ${message} ${JSON.stringify(fields ?? {})}`);
      onLine();
    };
  const log: RecordingLog = {
    lines,
    trace: write('trace'),
    debug: () => undefined,
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
    with: () => log,
    enabled: () => true,
  };
  return log;
}

export function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

export function textOf(payload: Uint8Array): string {
  return new TextDecoder().decode(payload);
}
