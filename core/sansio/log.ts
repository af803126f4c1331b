/**
 * Values that may stand in a log line beside its constant message. Never a secret; names and
 * addresses only at `debug` and below.
 */
export type LogFields = Readonly<
  Record<string, string | number | boolean | readonly string[] | undefined>
>;

export type Severity = 'trace' | 'debug' | 'info' | 'warn' | 'error';

/** The injected log. Messages are constant strings, so that they can be found with grep. */
export interface Log {
  trace(message: string, fields?: LogFields): void;
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  /** Returns a log that adds `fields` to each line. */
  with(fields: LogFields): Log;
  /** Whether a line of this severity would be written: guards expensive fields. */
  enabled(severity: Severity): boolean;
}

/** A log that writes nothing. */
export const nullLog: Log = {
  trace: () => undefined,
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  with: () => nullLog,
  enabled: () => false,
};
