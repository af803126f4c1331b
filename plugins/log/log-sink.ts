import type { Clock } from '../../core/plugin/clock.ts';
import type { Log, LogFields, Severity } from '../../core/sansio/log.ts';
import { formatLine } from './line.ts';
import { MessageLimiter } from './message-limiter.ts';
import { DescriptorOutput, type LogOutput } from './output.ts';
import { RotatingFile } from './rotating-file.ts';

export interface LogOptions {
  /** The least severe lines that are written. */
  readonly level: Severity;
  readonly clock: Pick<Clock, 'now' | 'unixMs'>;
  readonly version: string;
  readonly commit: string;
  /** A descriptor to write to, 1 for standard output. */
  readonly descriptor?: number | undefined;
  readonly file?: { readonly path: string; readonly maxBytes: number; readonly keep: number };
}

/** A log and what its owner may do with it. */
export interface LogSink {
  readonly log: Log;
  setLevel(level: Severity): void;
  /** Writes what waits at once. */
  flush(): void;
  /** Writes what waits and what was suppressed; lines that come later are lost. */
  close(): void;
}

/**
 * Writes JSON lines to a descriptor, a file, or both; the first line tells version and commit. Lines are
 * collected for a turn of the event loop, an error is written at once, and the rest when the process
 * exits. Lines of one message are limited in rate, but for `debug` and `trace`: who asks for these wants
 * all of them, and the file has its size.
 */
export function createLog(options: LogOptions): LogSink {
  const { clock, version, commit } = options;
  const limiter = new MessageLimiter();
  const outputs: LogOutput[] = [];
  let rank = SEVERITIES.indexOf(options.level);
  let waiting = '';
  let isScheduled = false;
  let isClosed = false;

  const line = (severity: Severity, message: string, fields: LogFields): string =>
    formatLine(clock.unixMs(), severity, message, fields);
  const firstLine = (): string => line('info', 'culvert log', { version, commit });
  const lostLine = (lost: number): string => line('warn', 'log lines lost', { lost });

  function flush(): void {
    const lines = waiting;
    waiting = '';
    if (lines !== '') for (const output of outputs) output.write(lines);
  }

  function flushSoon(): void {
    if (isScheduled) return;
    isScheduled = true;
    setImmediate(() => {
      isScheduled = false;
      flush();
    });
  }

  function write(severity: Severity, message: string, fields: LogFields): void {
    if (isClosed || SEVERITIES.indexOf(severity) < rank) return;
    const isLimited = severity !== 'trace' && severity !== 'debug';
    const suppressed = isLimited ? limiter.admit(message, clock.now()) : 0;
    if (suppressed === undefined) return;
    waiting += line(severity, message, suppressed > 0 ? { ...fields, suppressed } : fields);
    if (severity === 'error' || waiting.length > LARGEST_BATCH) flush();
    else flushSoon();
  }

  function close(): void {
    if (isClosed) return;
    for (const [of, suppressed] of limiter.takeSuppressed()) {
      waiting += line('info', 'log lines suppressed', { of, suppressed });
    }
    flush();
    isClosed = true;
    for (const output of outputs) output.finish();
    process.off('exit', close);
  }

  function logWith(own: LogFields): Log {
    const at =
      (severity: Severity) =>
      (message: string, fields?: LogFields): void =>
        write(severity, message, fields === undefined ? own : { ...own, ...fields });
    return {
      trace: at('trace'),
      debug: at('debug'),
      info: at('info'),
      warn: at('warn'),
      error: at('error'),
      with: (fields) => logWith({ ...own, ...fields }),
      enabled: (severity) => !isClosed && SEVERITIES.indexOf(severity) >= rank,
    };
  }

  if (options.descriptor !== undefined) {
    const output = new DescriptorOutput(options.descriptor, lostLine);
    output.write(firstLine());
    outputs.push(output);
  }
  if (options.file !== undefined) {
    const [descriptor] = outputs;
    const onFailure = (code: string): void =>
      descriptor?.write(line('warn', 'log file not writable', { code }));
    outputs.push(new RotatingFile({ ...options.file, firstLine, lostLine, onFailure }));
  }
  process.on('exit', close);
  return {
    log: logWith({}),
    setLevel: (level) => (rank = SEVERITIES.indexOf(level)),
    flush,
    close,
  };
}

const SEVERITIES: readonly Severity[] = ['trace', 'debug', 'info', 'warn', 'error'];

/** Lines that wait are written when they are more than this, in characters. */
const LARGEST_BATCH = 64 * 1024;
