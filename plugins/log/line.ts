import type { LogFields, Severity } from '../../core/sansio/log.ts';

/** Returns one line of JSON, with `time`, `severity` and `message` first. Never throws. */
export function formatLine(
  unixMs: number,
  severity: Severity,
  message: string,
  fields: LogFields,
): string {
  let line = `{"time":"${formatTime(unixMs)}","severity":"${severity}","message":${quote(message)}`;
  for (const [key, value] of Object.entries(fields)) {
    const json = stringify(value);
    if (json !== undefined) line += `,${quote(RESERVED.has(key) ? `${key}_` : key)}:${json}`;
  }
  return `${line}}\n`;
}

const RESERVED: ReadonlySet<string> = new Set(['time', 'severity', 'message']);

/** Longer text is cut: what others send us must not fill the log. In characters. */
const LONGEST_TEXT = 2048;

/** ISO 8601 with milliseconds; the epoch for what is no time. */
function formatTime(unixMs: number): string {
  const date = new Date(unixMs);
  return Number.isNaN(date.getTime()) ? '1970-01-01T00:00:00.000Z' : date.toISOString();
}

function stringify(value: LogFields[string]): string | undefined {
  if (typeof value === 'string') return quote(value);
  try {
    const json = JSON.stringify(value);
    return json === undefined || json.length <= LONGEST_TEXT ? json : quote(json);
  } catch {
    // A value that its type forbids, such as a bigint. A log line is no place to fail.
    return quote(String(value));
  }
}

function quote(text: string): string {
  return JSON.stringify(text.length > LONGEST_TEXT ? `${text.slice(0, LONGEST_TEXT)}…` : text);
}
