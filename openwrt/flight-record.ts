import { writeFileSync } from 'node:fs';
import type { Input } from '../core/engine/input.ts';
import type { Recorded } from '../core/plugin/flight-recorder.ts';

const SECRETS: ReadonlySet<string> = new Set(['privateKey', 'presharedKey', 'password', 'token']);

/**
 * Writes the inputs that led to an error beside the socket of the daemon, which is no flash, with mode
 * 0600 and without secrets. Returns the path, or `undefined` where it cannot be written.
 */
export function writeFlightRecord(
  socket: string,
  inputs: readonly Recorded<Input>[],
  error: unknown,
): string | undefined {
  const path = `${socket}.flight-record.json`;
  const stack = error instanceof Error ? error.stack : String(error);
  try {
    writeFileSync(path, `${JSON.stringify({ error: stack, inputs }, withoutSecrets)}\n`, {
      mode: 0o600,
    });
    return path;
  } catch {
    // The process is about to end anyway; the log line says that there is none.
    return undefined;
  }
}

function withoutSecrets(key: string, value: unknown): unknown {
  if (SECRETS.has(key) && value !== undefined) return '[secret]';
  return value instanceof Uint8Array ? Buffer.from(value).toString('base64') : value;
}
