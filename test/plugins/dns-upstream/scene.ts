import { setImmediate as turn } from 'node:timers/promises';
import type { Test } from 'tap';
import type { DnsDatagram, TransportFailure } from '../../../core/dns/forwarder.ts';
import type { Upstream, UpstreamTransport } from '../../../core/dns/upstream.ts';
import { parseUpstream } from '../../../core/dns/upstream-url.ts';
import { readUint16 } from '../../../core/packet/big-endian.ts';
import type { Clock } from '../../../core/plugin/clock.ts';
import type { DnsUpstreams } from '../../../core/plugin/dns-upstreams.ts';
import { instantAt } from '../../../core/sansio/instant.ts';
import type { LogFields } from '../../../core/sansio/log.ts';
import { nullLog, type Log } from '../../../core/sansio/log.ts';
import {
  createDnsUpstreams,
  type DnsUpstreamsOptions,
} from '../../../plugins/dns-upstream/index.ts';
import { question } from '../../core/dns/messages.ts';

export interface Answered extends DnsDatagram {
  readonly id: number;
}

export interface SceneOptions extends DnsUpstreamsOptions {
  /** Whether time passes by `pass` alone. */
  readonly isManual?: boolean;
}

/** The plugin on the loopback interface, and what it tells. */
export class Scene {
  readonly api: DnsUpstreams;
  readonly answers: Answered[] = [];
  readonly failures: TransportFailure[] = [];
  /** Lines above debug. */
  readonly lines: { readonly message: string; readonly fields: LogFields | undefined }[] = [];
  readonly stop: () => void;
  readonly #time: ManualTime | undefined;
  #isSending = false;

  constructor(t: Test, { isManual = false, ...options }: SceneOptions = {}) {
    if (isManual) {
      this.#time = new ManualTime();
      t.teardown(this.#time.replaceGlobals());
    }
    const time = this.#time;
    const now = (): ReturnType<Clock['now']> => instantAt(time?.now ?? performance.now());
    const clock = { now } as Clock;
    const note = (message: string, fields?: LogFields): void => {
      this.lines.push({ message, fields });
    };
    const log: Log = { ...nullLog, info: note, warn: note, error: note };
    const use = (): never => {
      throw new Error('needs nothing');
    };
    const made = createDnsUpstreams(options).create({ log, clock, use });
    if ('skip' in made) throw new Error(made.skip);
    this.api = made.api;
    this.stop = () => void made.stop();
    t.teardown(this.stop);
    this.api.listenTo({
      onAnswer: (datagram) => {
        if (this.#isSending) t.fail('told within send');
        const bytes = datagram.bytes.slice();
        this.answers.push({ ...datagram, bytes, id: readUint16(bytes, 0) });
      },
      onFailure: (failure) => {
        if (this.#isSending) t.fail('told within send');
        this.failures.push(failure);
      },
    });
  }

  send(server: string, transport: UpstreamTransport, bytes: Uint8Array, port = 0): void {
    this.#isSending = true;
    this.api.send({ upstream: upstream(server), transport, port, bytes });
    this.#isSending = false;
  }

  ask(server: string, transport: UpstreamTransport, id: number, port = 0): void {
    this.send(server, transport, question('a.test', 'A', { id }), port);
  }

  get answeredIds(): readonly number[] {
    return this.answers.map(({ id }) => id).sort((a, b) => a - b);
  }

  async until(condition: () => boolean): Promise<void> {
    for (const end = performance.now() + PATIENCE; !condition(); await turn()) {
      if (performance.now() > end) throw new Error(`waited in vain for ${String(condition)}`);
    }
  }

  /** What is on its way over the loopback interface arrives. */
  async settle(): Promise<void> {
    for (let i = 0; i < 100; i++) await turn();
  }

  async pass(ms: number): Promise<void> {
    await this.settle();
    this.#time?.advance(ms);
    await this.settle();
  }
}

export function upstream(text: string): Upstream {
  const parsed = parseUpstream(text);
  if (!parsed.ok) throw new Error(`${text}: ${parsed.why}`);
  return parsed.value;
}

/** Timers of the plugin that run only when told; those within Node.js go on. */
class ManualTime {
  now = 0;
  readonly #timers = new Set<ManualTimer>();

  /** Returns what restores them. */
  replaceGlobals(): () => void {
    const { setTimeout, clearTimeout } = globalThis;
    const replace = (functions: object): void => void Object.assign(globalThis, functions);
    replace({
      setTimeout: (run: () => void, ms: number) => {
        const timer: ManualTimer = {
          at: this.now + ms,
          run,
          refresh: () => (timer.at = this.now + ms),
        };
        this.#timers.add(timer);
        return timer;
      },
      clearTimeout: (timer: ManualTimer) => void this.#timers.delete(timer),
    });
    return () => replace({ setTimeout, clearTimeout });
  }

  advance(ms: number): void {
    const end = this.now + ms;
    for (;;) {
      const [next] = [...this.#timers].sort((a, b) => a.at - b.at);
      if (next === undefined || next.at > end) break;
      this.#timers.delete(next);
      this.now = Math.max(this.now, next.at);
      next.run();
    }
    this.now = end;
  }
}

interface ManualTimer {
  at: number;
  readonly run: () => void;
  readonly refresh: () => void;
}

/** Real milliseconds. */
const PATIENCE = 20_000;
