import { readFileSync } from 'node:fs';
import { parseName, type Name } from '../../core/config/name.ts';
import { decodeBase64 } from '../../core/sansio/base64.ts';
import { decodeUtf8 } from '../../core/sansio/utf8.ts';
import type { Values } from './command.ts';
import { OperatorError, UsageError } from './world.ts';

export function textOption(values: Values, option: string): string | undefined {
  const value = values[option];
  return typeof value === 'string' ? value : undefined;
}

export function listOption(values: Values, option: string): readonly string[] {
  const value = values[option];
  return Array.isArray(value) ? value.filter((item) => typeof item === 'string') : [];
}

export function requiredOption(values: Values, option: string): string {
  const value = textOption(values, option);
  if (value === undefined) throw new UsageError(`--${option} is missing`);
  return value;
}

export function nameOption(values: Values, option: string): Name {
  return nameOf(requiredOption(values, option), `--${option}`);
}

export function nameOf(text: string, where: string): Name {
  const name = parseName(text);
  if (name !== undefined) return name;
  throw new UsageError(`${where}: a name is 1 to 64 letters, digits, ".", "_" or "-"`);
}

/** Whole and from 1 on. */
export function countOption(values: Values, option: string): number | undefined {
  const text = textOption(values, option);
  if (text === undefined) return undefined;
  const count = /^[1-9]\d{0,15}$/.test(text) ? Number(text) : NaN;
  if (Number.isSafeInteger(count)) return count;
  throw new UsageError(`--${option} must be a whole number from 1 on`);
}

/** Returns seconds since 1970-01-01 UTC of `2026-10-01T12:00:00Z` or `+2h`. */
export function timeOption(values: Values, option: string, nowMs: number): number | undefined {
  const text = textOption(values, option);
  if (text === undefined) return undefined;
  const [, amount, unit = ''] = /^\+(\d{1,9})([smhd])$/.exec(text) ?? [];
  if (amount !== undefined) {
    return Math.floor(nowMs / 1000) + Number(amount) * (SECONDS[unit] ?? 0);
  }
  // Without a zone the time would mean something else on each laptop.
  const time = /^\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)$/.test(text) ? Date.parse(text) : NaN;
  if (Number.isFinite(time)) return Math.floor(time / 1000);
  throw new UsageError(`--${option} must be a time such as 2026-10-01T12:00:00Z or +2h`);
}

const SECONDS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 };

/** Reads `--device-key DEVICE=KEY` options. */
export function deviceKeys(values: Values): ReadonlyMap<string, Uint8Array> {
  const keys = new Map<string, Uint8Array>();
  for (const text of listOption(values, 'device-key')) {
    const split = text.indexOf('=');
    const device = nameOf(text.slice(0, Math.max(split, 0)), '--device-key DEVICE=KEY');
    const key = decodeBase64(text.slice(split + 1));
    if (key?.length !== 32) {
      throw new UsageError(
        `--device-key ${device}: the key is 32 bytes in base64, as culvert keygen prints`,
      );
    }
    keys.set(device, key);
  }
  return keys;
}

export function readFile(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw new OperatorError(`cannot read ${path}: ${code}`, { cause: error });
  }
}

export function readTextFile(path: string): string {
  const text = decodeUtf8(readFile(path));
  if (text === undefined) throw new OperatorError(`${path} is not text in UTF-8`);
  return text;
}
