import type { KeptDesiredState } from '../fleet/desired-inbox.ts';
import { decodeBase64, encodeBase64 } from '../sansio/base64.ts';
import { decodeUtf8, encodeUtf8 } from '../sansio/utf8.ts';
import type { Command } from './command.ts';

/** Name of the document that holds the last desired state taken. */
export const KEPT_DESIRED = 'desired.json';

/** The version stands beside the envelope: it forbids older documents even where that is damaged. */
export function keepDesired({ version, envelope }: KeptDesiredState): Command {
  const text = JSON.stringify({ version, envelope: encodeBase64(envelope) });
  return { type: 'store', name: KEPT_DESIRED, bytes: encodeUtf8(`${text}\n`) };
}

/** Reads what `keepDesired` stored; `undefined` where it is not that. */
export function readKeptDesired(bytes: Uint8Array): KeptDesiredState | undefined {
  const text = decodeUtf8(bytes);
  const kept = text === undefined ? undefined : parseObject(text);
  const { version, envelope } = kept ?? {};
  if (!Number.isSafeInteger(version) || typeof envelope !== 'string') return undefined;
  const decoded = decodeBase64(envelope);
  return decoded === undefined ? undefined : { version: version as number, envelope: decoded };
}

function parseObject(text: string): { version?: unknown; envelope?: unknown } | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? value : undefined;
  } catch {
    // A damaged file reads as none.
    return undefined;
  }
}
